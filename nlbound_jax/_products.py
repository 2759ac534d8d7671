"""A difference of products, without cancellation."""

import jax.numpy as jnp
from jaxtyping import Array, Float

_Values = Float[Array, "..."]


def product_gap(norms: list[_Values], distances: list[_Values]) -> _Values:
    """$\\prod_j (a_j + x_j) - \\prod_j a_j$ as a telescoping sum of non-negative terms."""
    total = jnp.zeros(())
    for j in range(len(norms)):
        term = distances[j]
        for i in range(len(norms)):
            if i != j:
                term = term * (norms[i] if i < j else norms[i] + distances[i])
        total = total + term
    return total
