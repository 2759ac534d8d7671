"""The union over what is learned: a geometric grid, and what each of its points costs."""

import jax.numpy as jnp
from jaxtyping import Array, Float

_Values = Float[Array, "..."]

PER_OCTAVE = 8
# Covers the rounding of the logarithm in float32, so that a number is never rounded down.
_SLACK = 1e-4
_LIMIT = 800.0


def grid_value(index: _Values) -> _Values:
    """$2^{k/8}$."""
    return jnp.exp2(index / PER_OCTAVE)


def index_above(ratio: _Values) -> _Values:
    """The smallest k >= -800 with $2^{k/8} \\ge$ `ratio`; `+inf` where that is beyond 800."""
    return index_above_log(jnp.log2(ratio))


def index_above_log(log2: _Values) -> _Values:
    """`index_above` of $2^x$."""
    index = jnp.maximum(jnp.ceil(PER_OCTAVE * log2 + _SLACK), -_LIMIT)
    return jnp.where(index <= _LIMIT, index, jnp.inf)


def log_cost(index: _Values) -> _Values:
    """$\\ln(1/p_k)$ with $p_k = \\frac{2/3}{(|k|+1)(|k|+2)}$, which sums to 1 over all integers."""
    k = jnp.abs(index)
    return jnp.log(1.5 * (k + 1) * (k + 2))
