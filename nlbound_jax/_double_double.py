"""Arithmetic on unevaluated sums of two doubles (Dekker 1971, Knuth TAOCP 4.2.2), some 106 bits:
for the one place where a bound's rounding errors are magnified, 1 - t / (blow-up time)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

_Values = Float[Array, "..."]

# The low part of a smaller product would be below the doubles, and with it all that is known of it.
_LEAST = 1e-270


class DoubleDouble(NamedTuple):
    """The number `high + low`, with `low` at most half a unit in the last place of `high`."""

    high: _Values
    low: _Values


def exact(value: _Values) -> DoubleDouble:
    """A double as it is."""
    return DoubleDouble(value, jnp.zeros_like(value))


def _two_sum(a, b) -> DoubleDouble:
    # The barriers keep XLA from simplifying (a + b) - a to b.
    total = jax.lax.optimization_barrier(a + b)
    part = jax.lax.optimization_barrier(total - a)
    return DoubleDouble(total, (a - (total - part)) + (b - part))


def _split(a) -> tuple[_Values, _Values]:
    # By masking bits: Veltkamp's product could be contracted into a fused multiply-add.
    bits = jax.lax.bitcast_convert_type(a, jnp.int64)
    head = jax.lax.bitcast_convert_type(bits & jnp.int64(-(1 << 27)), a.dtype)
    return head, a - head


def _two_product(a, b) -> DoubleDouble:
    (a1, a2), (b1, b2) = _split(a), _split(b)
    # Rounded here and now: contracted into a later sum, its error would be counted twice.
    product = jax.lax.optimization_barrier(a * b)
    low = ((a1 * b1 - product) + a1 * b2 + a2 * b1) + a2 * b2
    return DoubleDouble(product, jnp.where(jnp.abs(product) > _LEAST, low, 0.0))


def add(x: DoubleDouble, y: DoubleDouble) -> DoubleDouble:
    """x + y."""
    total = _two_sum(x.high, y.high)
    return _two_sum(total.high, total.low + (x.low + y.low))


def multiply(x: DoubleDouble, y: DoubleDouble) -> DoubleDouble:
    """x y."""
    product = _two_product(x.high, y.high)
    return _two_sum(product.high, product.low + (x.high * y.low + x.low * y.high))


def divide(x: DoubleDouble, y: DoubleDouble) -> DoubleDouble:
    """x / y, by one correction of the quotient of the leading parts."""
    quotient = x.high / y.high
    rest = add(x, multiply(exact(-quotient), y))
    return _two_sum(quotient, rest.high / y.high)


def square_root(x: _Values) -> DoubleDouble:
    """The square root of a double, by one Newton step."""
    root = jnp.sqrt(x)
    rest = add(exact(x), multiply(exact(-root), exact(root)))
    return _two_sum(root, rest.high / (2 * root))


def power(x: DoubleDouble, exponent: int) -> DoubleDouble:
    """x to a positive integer power."""
    result = x
    for _ in range(exponent - 1):
        result = multiply(result, x)
    return result
