"""Capacity of a class of finitely many functions."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def log_class_size(kappa: int, dim, precision_bits) -> Float[Array, "..."]:
    """$\\kappa p d \\ln 2$: at most $\\kappa d$ numbers of p bits describe a proxy (Lemma 7.2)."""
    return kappa * precision_bits * dim * jnp.log(2.0)


def counting(kappa: int, dim, num_samples, precision_bits, delta, cells) -> Float[Array, "..."]:
    """$\\Upsilon_\\kappa = \\sqrt{(\\kappa p d \\ln 2 + \\ln(\\text{cells}/\\delta)) / 2m}$
    (Eq. 7, and a union over the cells that were tried)."""
    size = log_class_size(kappa, dim, precision_bits)
    return jnp.sqrt((size + jnp.log(cells) - jnp.log(delta)) / (2 * num_samples))
