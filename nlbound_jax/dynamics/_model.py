"""Any Equinox module as something to train: what is trained of it, and what it must be."""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree, Shaped

from .. import _validate
from .._modules import in_training
from .._types import Parameters
from ..networks import LeakyMLP, partition

_STATE = (eqx.nn.StateIndex, eqx.nn.State)


def squared_loss(
    predictions: Float[Array, "*outputs"], targets: Float[Array, "*outputs"]
) -> Float[Array, ""]:
    """$\\frac12 \\|f(x) - y\\|^2$; its mean is the paper's loss $\\frac{1}{2m} \\|Y - f\\|^2$.

    **Arguments:**

    - `predictions`: the outputs for one sample.
    - `targets`: what they should be, of the same shape.

    **Returns:**

    The loss, a scalar.
    """
    return jnp.sum((predictions - targets) ** 2) / 2


class Model(eqx.Module):
    """A module without its parameters, and the loss of a sample: what gradient flow takes beside
    the parameters.

    **Attributes:**

    - `rest`: the module with `None` for each parameter.
    - `loss`: a function `loss(predictions, targets)` of one sample.
    """

    rest: PyTree
    loss: Callable[..., Any]

    def gradient(
        self,
        parameters: Parameters,
        x: Float[Array, "block ..."],
        y: Shaped[Array, "block ..."],
        counts: Bool[Array, " block"],
    ) -> Parameters:
        """The gradient of the sum of the losses of the samples that count.

        **Arguments:**

        - `parameters`: where to take it.
        - `x`, `y`: inputs and targets.
        - `counts`: which samples count.

        **Returns:**

        A tree like `parameters`.
        """

        def total(parameters):
            net = eqx.combine(parameters, self.rest)
            losses = jax.vmap(lambda x, y: self.loss(net(x), y))(x, y)
            return jnp.sum(jnp.where(counts, losses, jnp.zeros_like(losses)))

        return jax.grad(total)(parameters)


def check_module(net: Any, held: Sequence[Array] = ()) -> tuple[PyTree, PyTree]:
    """`net` in two parts, as [`partition`][] has them, if it is a module that can be trained as it
    is: a function of one sample and of nothing else."""
    if not isinstance(net, eqx.Module) or not callable(net):
        raise ValueError(
            "`net` must be an Equinox module that can be called, net(x) -> outputs, "
            f"got {_validate.shown(net)}."
        )
    nodes = jax.tree.leaves(net, is_leaf=lambda node: isinstance(node, _STATE))
    if any(isinstance(node, _STATE) for node in nodes):
        raise ValueError(
            "`net` must be stateless, net(x) -> outputs, got one that keeps a state (an "
            "eqx.nn.StateIndex or State), as BatchNorm does."
        )
    undecided = next(in_training(net), None)
    if undecided is not None:
        raise ValueError(
            "`net` must be in inference mode, `eqx.nn.inference_mode(net)`, got a "
            f"{type(undecided).__name__} that is not."
        )
    parameters, rest = partition(net, held)
    leaves = jax.tree.leaves(parameters)
    if not leaves:
        beside = ", beside what `where` names" if held else ""
        raise ValueError(f"`net` must have parameters, floating arrays of JAX{beside}, got none.")
    dtypes = {str(leaf.dtype) for leaf in leaves}
    if len(dtypes) > 1 or not jnp.issubdtype(leaves[0].dtype, jnp.floating):
        raise ValueError(
            f"`net` must have parameters of one floating dtype, got {' and '.join(sorted(dtypes))}."
        )
    if not isinstance(net, LeakyMLP) and len({id(leaf) for leaf in leaves}) < len(leaves):
        raise ValueError(
            "`net` must have each parameter in one place, got one array in two: training would "
            "part them; eqx.nn.Shared ties them."
        )
    _validate.finite("net", leaves)
    return parameters, rest


def check_outputs(net: Any, loss: Callable[..., Any], squared: bool, x: Any, y: Any) -> None:
    """Raise unless the module takes a sample of the data, and the loss its outputs; `x` and `y` are
    the shapes and dtypes of a sample."""
    try:
        outputs = jax.eval_shape(lambda x: net(x), x)
    except Exception as error:
        raise ValueError(
            f"`net` must take one sample of `task`, of shape {x.shape} and dtype {x.dtype}, got "
            f"{first_line(error)}"
        ) from error
    if not isinstance(outputs, jax.ShapeDtypeStruct):
        raise ValueError(f"`net` must return one array, got {_validate.shown(outputs)}.")
    if squared and outputs.shape != y.shape:
        hint = ' (`out_size="scalar"` of eqx.nn.MLP)' if y.shape == () else ""
        raise ValueError(
            f"`net` must return outputs of the shape of the targets, {y.shape}{hint}, got "
            f"{outputs.shape}."
        )
    try:
        value = jax.eval_shape(lambda f, y: loss(f, y), outputs, y)
    except Exception as error:
        raise ValueError(
            f"`loss` must take outputs {outputs.shape} and targets {y.shape} of one sample, got "
            f"{first_line(error)}"
        ) from error
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", bool)
    if shape != () or not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(
            "`loss` must return one floating number for a sample (the sum or mean over its "
            f"outputs), got shape {shape} and dtype {dtype}."
        )


def first_line(error: Exception) -> str:
    """What an exception of the caller's code says, on one short line."""
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {text[:160]}"
