"""The binary relative entropy and its inverse."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .. import _validate
from .._types import Numeric

_STEPS = 60


def binary_kl(p: Float[Array, "..."], q: Float[Array, "..."]) -> Float[Array, "..."]:
    """$\\text{kl}(p \\| q) = p \\ln(p/q) + (1-p) \\ln((1-p)/(1-q))$ for q in (0, 1)."""
    # By differences: the logarithm of a quotient near 1 would have an error of its own.
    one = jnp.where(p > 0, p * jnp.log1p((p - q) / q), 0.0)
    other = jnp.where(p < 1, (1 - p) * jnp.log1p((q - p) / (1 - q)), 0.0)
    return one + other


@eqx.filter_jit
def invert(p: Float[Array, "..."], c: Float[Array, "..."]) -> Float[Array, "..."]:
    """The inverse by bisection; the upper end and some roundings more are returned, so that it is
    never too small."""

    def halve(_, ends):
        low, high = ends
        middle = 0.5 * (low + high)
        inside = binary_kl(p, jnp.minimum(middle, 1 - jnp.finfo(p.dtype).epsneg)) <= c
        return jnp.where(inside, middle, low), jnp.where(inside, high, middle)

    p, c = jnp.broadcast_arrays(p, c)
    _, high = jax.lax.fori_loop(0, _STEPS, halve, (p, jnp.ones_like(p)))
    return jnp.minimum(high * (1 + 96 * jnp.finfo(p.dtype).eps), 1.0)


def kl_inverse(p: Numeric, c: Numeric) -> Float[Array, "..."]:
    """$\\text{kl}^{-1}(p, c) = \\sup\\{p' \\in [p, 1]: \\text{kl}(p \\| p') \\le c\\}$: if an
    empirical risk is p, the risk is at most this, with an exponent of $c m$.

    **Arguments:**

    - `p`: the empirical risk, in [0, 1].
    - `c`: the exponent over the number of samples, at least 0.

    The numbers broadcast against each other.

    **Returns:**

    The inverse, of the broadcast shape: rounded upwards in float64, within 2e-5 in float32.

    **Raises:**

    `ValueError` naming the argument.
    """
    numbers = {"p": _validate.real("p", p, 0, 1), "c": _validate.real("c", c, 0)}
    _validate.broadcastable(numbers)
    return invert(numbers["p"], numbers["c"])
