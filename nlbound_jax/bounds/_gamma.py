"""The upper incomplete gamma function of a possibly negative order, as in Eq. 10-11."""

import math

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from .. import _validate
from .._types import Numeric

_Values = Float[Array, "..."]

# At or below: the power series; above: the continued fraction. The series loses digits as x
# grows (a factor of 50 here), the fraction needs more levels as x falls.
_THRESHOLD = 1.5
_LEVELS = 60
_TERMS = 22
# Below this |a ln x|, (x^a - 1) / a would cancel.
_SMALL = 0.5
_SMALL_TERMS = 14

# 1 / Gamma(1 + a) = 1 + a sum_k _RECIPROCAL[k] a^k (DLMF 5.7.1), to 1e-17 for |a| <= 1.
_RECIPROCAL = (
    0.5772156649015329,
    -0.6558780715202539,
    -0.04200263503409524,
    0.16653861138229148,
    -0.04219773455554433,
    -0.009621971527876973,
    0.0072189432466631,
    -0.0011651675918590652,
    -0.00021524167411495098,
    0.0001280502823881162,
    -2.013485478078824e-05,
    -1.2504934821426706e-06,
    1.133027231981696e-06,
    -2.056338416977607e-07,
    6.116095104481416e-09,
    5.002007644469223e-09,
    -1.18127457048702e-09,
    1.0434267116911005e-10,
    7.782263439905071e-12,
    -3.696805618642206e-12,
    5.100370287454476e-13,
    -2.0583260535665066e-14,
    -5.348122539423018e-15,
    1.2267786282382608e-15,
    -1.1812593016974588e-16,
)


def _horner(coefficients, x: _Values) -> _Values:
    """$\\sum_k c_k x^k$."""
    total = jnp.zeros_like(x)
    for coefficient in reversed(coefficients):
        total = total * x + coefficient
    return total


def _power_quotient(b: _Values, x: _Values, power: _Values) -> _Values:
    """$(x^b - 1)/b$, and $\\ln x$ for b = 0; `power` is $x^b$."""
    log = jnp.log(x)
    small = jnp.abs(b * log) < _SMALL
    series = _horner([1 / math.factorial(k + 1) for k in range(_SMALL_TERMS)], b * log)
    return jnp.where(small, log * series, (power - 1) / jnp.where(small, 1.0, b))


def _near(a: _Values, x: _Values) -> _Values:
    """$\\Gamma(a, x)$ for small x, from its power series (DLMF 8.7.3) arranged as

    $\\Gamma(b, x) = \\frac{\\Gamma(1+b) - 1}{b} - \\frac{x^b - 1}{b}
    - x^b \\sum_{k \\ge 1} \\frac{(-x)^k}{k!\\,(b+k)}$,

    where no term is singular at b = 0. Orders below -1/2 would meet the poles at b = -1; they
    come from b = a + 1 by $a\\,\\Gamma(a, x) = \\Gamma(b, x) - x^a e^{-x}$ (DLMF 8.8.2).
    """
    lowered = a < -0.5
    b = jnp.where(lowered, a + 1, a)
    power = jnp.power(x, b)
    reciprocal = _horner(_RECIPROCAL, b)
    gamma_quotient = -reciprocal / (1 + b * reciprocal)
    series = jnp.zeros_like(x)
    for k in range(_TERMS, 0, -1):
        series = (series + (-1) ** k / math.factorial(k) / (b + k)) * x
    direct = gamma_quotient - _power_quotient(b, x, power) - power * series
    raised = (direct - jnp.power(x, a) * jnp.exp(-x)) / jnp.where(lowered, a, 1.0)
    return jnp.where(lowered, raised, direct)


def _far(a: _Values, x: _Values) -> _Values:
    """$\\Gamma(a, x) = x^a e^{-x} / (x + 1 - a - \\frac{1 (1-a)}{x + 3 - a -}
    \\frac{2 (2-a)}{x + 5 - a -} \\cdots)$: the even part of DLMF 8.9.2, from the bottom up."""
    denominator = x + (2 * _LEVELS + 1 - a)
    for k in range(_LEVELS, 0, -1):
        denominator = x + (2 * k - 1 - a) - k * (k - a) / denominator
    # x^a first: the exponential alone underflows no earlier than the result.
    return jnp.power(x, a) / denominator * jnp.exp(-x)


@eqx.filter_jit
def _evaluate(a: _Values, x: _Values) -> _Values:
    a, x = jnp.broadcast_arrays(a, x)
    near = x <= _THRESHOLD
    # Each branch sees only arguments of its own: the other would overflow, and inf * 0 in the
    # derivative is NaN.
    return jnp.where(
        near,
        _near(a, jnp.where(near, x, 1.0)),
        _far(a, jnp.where(near, 2.0, x)),
    )


def upper_incomplete_gamma(a: Numeric, x: Numeric) -> _Values:
    """The upper incomplete gamma function (DLMF 8.2.2), for orders down to -1:

    $\\Gamma(a, x) = \\int_x^\\infty z^{a-1} e^{-z} dz$,

    with $\\Gamma(0, x) = E_1(x)$. Its relative error is below 1e-12 in float64 and about 1e-5
    in float32; a result below the smallest normal number may be flushed to 0.

    Both arguments are scalars or arrays that broadcast against each other.

    **Arguments:**

    - `a`: the order, in (-1, 1].
    - `x`: the lower limit, positive (a normal number of the dtype) and at most 700.

    **Returns:**

    $\\Gamma(a, x)$, of the broadcast shape of the arguments. Differentiable in both; derivatives
    in reverse mode lose digits towards the smallest numbers (below 1e-293 in float64).

    **Raises:**

    `ValueError` naming the argument.
    """
    # XLA flushes subnormal numbers to 0, where Gamma(a, 0) is no substitute.
    tiny = float(jnp.finfo(_validate.float_dtype()).tiny)
    numbers = {
        "a": _validate.real("a", a, -1, 1, open_low=True),
        "x": _validate.real("x", x, tiny, 700),
    }
    _validate.broadcastable(numbers)
    return _evaluate(numbers["a"], numbers["x"])
