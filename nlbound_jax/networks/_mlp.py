"""The bias-free leaky-ReLU network."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from .._types import AnyArray, Weights


def leaky_relu(z: Float[Array, "..."], epsilon: Float[Array, ""]) -> Float[Array, "..."]:
    """$\\phi(z) = z - \\epsilon \\min(0, z)$ (Eq. 3); the derivative at 0 is taken to be 1."""
    return jnp.where(z < 0, (1 - epsilon) * z, z)


class LeakyMLP(eqx.Module):
    """A fully connected network without biases and with a scalar output (Eq. 2-3):

    $f(x) = W_L\\,\\phi(W_{L-1} \\cdots \\phi(W_1 x))$ with
    $\\phi(z) = z - \\epsilon \\min(0, z)$: linear at $\\epsilon = 0$, ReLU at $\\epsilon = 1$.

    **Attributes:**

    - `weights`: a tuple of L >= 2 arrays $W_l$, `(out in)` each, the last one `(1 in)`.
    - `epsilon`: one minus the negative slope, a scalar array in [0, 1]; an array, so that it can
        be differentiated. Only the weights are trained.
    """

    weights: Weights
    epsilon: Float[Array, ""]

    def __check_init__(self):
        shapes = [w.shape for w in self.weights]
        chained = all(a[0] == b[1] for a, b in zip(shapes[:-1], shapes[1:], strict=True))
        if len(shapes) < 2 or not chained or shapes[-1][0] != 1:
            raise ValueError(
                "`weights` must be at least two matrices (out, in) that fit together and end in "
                f"one output, got shapes {shapes}."
            )

    @property
    def depth(self) -> int:
        """L, the number of weight matrices."""
        return len(self.weights)

    def __call__(self, x: Shaped[AnyArray, "*samples d"]) -> Float[Array, "*samples"]:
        """The output $f(x)$.

        **Arguments:**

        - `x`: whitened inputs, `(d,)` or `(samples d)`.

        **Returns:**

        The outputs, a scalar or `(samples,)`, in the dtype of the weights.
        """
        x = jnp.asarray(x, dtype=self.weights[0].dtype)
        return self.features_first(x.T)

    def features_first(self, x: Float[Array, "d ..."]) -> Float[Array, "..."]:
        """The output for inputs in the paper's layout, samples in columns.

        **Arguments:**

        - `x`: whitened inputs, `(d,)` or `(d samples)`, in the dtype of the weights.

        **Returns:**

        The outputs, a scalar or `(samples,)`.
        """
        epsilon = self.epsilon.astype(x.dtype)
        h = x
        for w in self.weights[:-1]:
            h = leaky_relu(w @ h, epsilon)
        return (self.weights[-1] @ h)[0]

    def predict(self, x: Shaped[AnyArray, "*samples d"]) -> Float[Array, "*samples"]:
        """The predicted label, the sign of $f(x)$, in {-1, +1}.

        **Arguments:**

        - `x`: whitened inputs; for raw ones `network.predict(task.transform(x_raw))`.

        **Returns:**

        The labels, a scalar or `(samples,)`.
        """
        out = self(x)
        return jnp.where(out < 0, -jnp.ones_like(out), jnp.ones_like(out))
