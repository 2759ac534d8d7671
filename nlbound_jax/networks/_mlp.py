"""The bias-free leaky-ReLU network."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Real, Shaped

from .. import _validate
from .._forward import outputs
from .._types import AnyArray, Weights


class LeakyMLP(eqx.Module):
    """A fully connected network without biases (Eq. 2-3):

    $f(x) = W_L\\,\\phi(W_{L-1} \\cdots \\phi(W_1 x))$ with
    $\\phi(z) = z - \\epsilon \\min(0, z)$: linear at $\\epsilon = 0$, ReLU at $\\epsilon = 1$.
    With one output, a scalar, it is the network of the paper's bounds; with K > 1 it trains on a
    [`ClassTask`][].

    **Attributes:**

    - `weights`: a tuple of L >= 2 arrays $W_l$, `(out in)` each, the last one `(K in)`.
    - `epsilon`: one minus the negative slope, a scalar array in [0, 1]; an array, so that it can
        be differentiated. Only the weights are trained.
    """

    weights: Weights
    epsilon: Float[Array, ""]

    def __check_init__(self):
        _validate.matrices("weights", self.weights, one_output=False)
        if getattr(self.epsilon, "shape", None) != ():
            raise ValueError(
                f"`epsilon` must be a scalar array, got {_validate.shown(self.epsilon)}."
            )

    @property
    def depth(self) -> int:
        """L, the number of weight matrices."""
        return len(self.weights)

    @property
    def num_outputs(self) -> int:
        """K, the number of outputs."""
        return self.weights[-1].shape[0]

    def __call__(self, x: Shaped[AnyArray, "*samples d"]) -> Float[Array, "..."]:
        """The output $f(x)$.

        **Arguments:**

        - `x`: whitened inputs, `(d,)` or `(samples d)`.

        **Returns:**

        The outputs, a scalar or `(samples,)`, in the dtype of the weights; `(K,)` or
        `(samples K)` if there are several.

        **Raises:**

        `ValueError` if the shape does not fit or an entry is not finite.
        """
        return self.features_first(whitened(x, self.weights[0]).T).T

    def features_first(self, x: Float[Array, "d ..."]) -> Float[Array, "..."]:
        """The output for inputs in the paper's layout, samples in columns.

        **Arguments:**

        - `x`: whitened inputs, `(d,)` or `(d samples)`, in the dtype of the weights.

        **Returns:**

        The outputs, a scalar or `(samples,)`; `(K,)` or `(K samples)` if there are several.
        """
        return outputs(self.weights, x, self.epsilon.astype(x.dtype))

    def predict(self, x: Shaped[AnyArray, "*samples d"]) -> Real[Array, "*samples"]:
        """The predicted label: the sign of $f(x)$, in {-1, +1}, or the place of the largest of
        several outputs, from 0.

        **Arguments:**

        - `x`: whitened inputs; for raw ones `network.predict(task.transform(x_raw))`.

        **Returns:**

        The labels, a scalar or `(samples,)`.

        **Raises:**

        `ValueError` if the shape does not fit or an entry is not finite.
        """
        out = in_units(self)[0](x)
        if self.num_outputs > 1:
            return jnp.argmax(out, axis=-1)
        return jnp.where(out < 0, -jnp.ones_like(out), jnp.ones_like(out))


def in_units(net: LeakyMLP) -> tuple[LeakyMLP, Float[Array, ""]]:
    """The network over a unit of its outputs. Networks without biases are homogeneous: with every
    layer over a power of two near its largest entry, which rounds nothing, the outputs are of the
    size of the inputs, and their signs survive where a small start would underflow.

    **Arguments:**

    - `net`: any network.

    **Returns:**

    The network in units, and the unit: the product of the powers of two, in float64 if that is
    enabled. `net(x)` is the product of the two, but for underflow.
    """

    def power(w: Float[Array, "out in"]) -> Float[Array, ""]:
        largest = jnp.max(jnp.abs(w))
        # What is zero or not finite stays what it is.
        largest = jnp.where(jnp.isfinite(largest) & (largest > 0), largest, jnp.ones_like(largest))
        return largest / jnp.frexp(largest)[0]

    powers = [power(w) for w in net.weights]
    scaled = tuple(w / p for w, p in zip(net.weights, powers, strict=True))
    unit = jnp.prod(jnp.stack([p.astype(_validate.float_dtype()) for p in powers]))
    return LeakyMLP(scaled, net.epsilon), unit


def whitened(x: Any, first: Float[Array, "out d"]) -> Float[Array, "*samples d"]:
    """`x` in the dtype of the first layer, if that layer can take it."""
    if not _validate.is_traced(x):  # a check at run time would be paid at every call
        x = _validate.real("x", x)
    if x.ndim not in (1, 2) or x.shape[-1] != first.shape[1]:
        raise ValueError(
            f"`x` must have {first.shape[1]} features in its last axis, got shape {x.shape}."
        )
    return x.astype(first.dtype)


def check_network(
    name: str, net: Any, inputs: int | None = None, *, one_output: bool = True
) -> LeakyMLP:
    """A network that an argument may be: of finite numbers, with a slope in range. What JAX traces
    is taken as it is.

    **Arguments:**

    - `name`: what the argument is called, for the message.
    - `net`: its value.
    - `inputs`: how many inputs it must take, `task.rank`; any number if `None`.
    - `one_output`: whether it must have one output only.

    **Returns:**

    `net`, a [`LeakyMLP`][].

    **Raises:**

    `ValueError` naming the argument.
    """
    net = _validate.instance(name, net, LeakyMLP)
    _validate.finite(name, net.weights)
    if not _validate.is_traced(net.epsilon):
        _validate.real(f"{name}.epsilon", net.epsilon, 0, 1)
    width = net.weights[0].shape[1]
    if inputs is not None and width != inputs:
        raise ValueError(f"`{name}` must take the task's {inputs} inputs, got {width}.")
    if one_output and net.num_outputs > 1:
        raise ValueError(f"`{name}` must have one output, got {net.num_outputs}.")
    return net
