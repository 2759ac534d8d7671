"""The network as a function of its weights, for the rooms that know of numbers only."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from ._types import Weights


def leaky_relu(z: Float[Array, "..."], epsilon: Float[Array, ""]) -> Float[Array, "..."]:
    """$\\phi(z) = z - \\epsilon \\min(0, z)$ (Eq. 3); the derivative at 0 is taken to be 1."""
    return jnp.where(z < 0, (1 - epsilon) * z, z)


def outputs(
    weights: Weights, x: Float[Array, "d ..."], epsilon: Float[Array, ""]
) -> Float[Array, "..."]:
    """$f(x) = W_L \\phi(W_{L-1} \\cdots \\phi(W_1 x))$ (Eq. 2), samples in columns; an axis of
    outputs comes first if there are several."""
    h = x
    for w in weights[:-1]:
        h = leaky_relu(w @ h, epsilon)
    h = weights[-1] @ h
    return h[0] if len(h) == 1 else h


def end_to_end(weights: Weights) -> Float[Array, " d"]:
    """$W_L \\cdots W_1$ as a vector, from the left: a row stays a row."""
    row = weights[-1]
    for w in weights[-2::-1]:
        row = row @ w
    return row[0]
