"""The ramp loss averaged over noise in the weights of a linear classifier, uniform in a ball.

With $u$ uniform in the unit ball of $\\mathbb{R}^d$, $(\\nu u) \\cdot x$ is $b u_1$ with
$b = \\nu \\|x\\|$: one coordinate is all that is needed."""

import functools
import math
from fractions import Fraction
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.polynomial import chebyshev

from .. import _validate
from .._quadrature import gauss_legendre
from .._types import Numeric

_Values = Float[Array, "..."]

# Gamma(w + 3/4) / Gamma(w + 1/4) = sqrt(w) sum_k _RATIO[k] / w^2k (DLMF 5.11.14), to 1e-15
# once w has been raised by _RAISED.
_RATIO = (
    1.0,
    0.015625,
    -0.0023193359375,
    0.0012035369873046875,
    -0.0012987628579139709,
    0.0023855575127527118,
)
_RAISED = 12

_SAMPLES = 96
_ORDER = 80
# An even dimension below this leaves an odd power of sqrt(1 - a^2) that a polynomial in a^2
# follows too slowly.
_SMOOTH_FROM = 16
# Coefficients below this are rounding errors of the fit in float64.
_NOISE = 5e-16


class _Fit(NamedTuple):
    """A polynomial over the range |u_1| <= `edge`, in $a^2$ or, if `rooted`, in $\\sqrt{1-a^2}$
    (see `_fit`); the variable is mapped to [-1, 1]. Coefficients of the powers, rising."""

    edge: float
    rooted: bool
    coefficients: tuple[float, ...]


def _density_at_zero(dim):
    """$C = \\Gamma(d/2+1) / (\\sqrt\\pi\\,\\Gamma((d+1)/2))$, the density of $u_1$ at 0; d may be
    an array, of NumPy or JAX. A difference of two $\\ln\\Gamma$ would lose digits at large d."""
    x = (dim + 1) / 2
    product = 1.0
    for k in range(_RAISED):
        product = product * ((x + k) / (x + (k + 0.5)))
    w = x + (_RAISED - 0.25)
    series = 0.0
    for coefficient in reversed(_RATIO):
        series = series / (w * w) + coefficient
    return product * series * (w / math.pi) ** 0.5


def _slope(dim: int, square: np.ndarray) -> np.ndarray:
    """The derivative of $E|u_1 - a|/2$ with respect to $a^2$, in float64: with $a = \\sin\\phi$,

    $r(a^2) = P(0 < u_1 < a) / (2a)
    = \\frac{C \\phi}{2a} \\int_0^1 \\cos^d(\\theta\\phi)\\,d\\theta$."""
    a = np.sqrt(square)
    phi = np.arcsin(a)
    nodes, weights = gauss_legendre(_ORDER)
    sines = np.sin(phi[..., None] * nodes)
    # The power of a rounded cosine would multiply its error by d.
    integral = np.exp(dim / 2 * np.log1p(-sines * sines)) @ weights
    return _density_at_zero(dim) * phi / (2 * a) * integral


def _interpolate(values: Any, tolerance: float) -> np.ndarray:
    """The power series of a function on [-1, 1], made from its Chebyshev series up to the last
    coefficient above the tolerance.

    Powers take half the arithmetic of Clenshaw's recurrence, and XLA fuses them better. They lose
    no digits here, as their coefficients are small: in
    $r(t) = \\frac{C}{2} \\int_0^1 (1 - \\theta^2 t)^{(d-1)/2} d\\theta$ no base exceeds 1 in
    modulus on the disk over the range of t, so that r is at most C/2 there (Cauchy)."""
    # Angles are reduced in integers, for errors that do not grow with the degree.
    turns = np.outer(np.arange(_SAMPLES), 2 * np.arange(_SAMPLES) + 1) % (4 * _SAMPLES)
    cosines = np.cos(np.pi / (2 * _SAMPLES) * turns)
    series = 2 / _SAMPLES * (cosines @ values(cosines[1]))
    series[0] /= 2
    series = series[: 1 + np.max(np.nonzero(np.abs(series) > tolerance))]
    # In fractions: the powers of a Chebyshev polynomial are large and cancel.
    powers = chebyshev.cheb2poly([Fraction(c) for c in series.tolist()])
    return powers.astype(float)


@functools.lru_cache(maxsize=64)
def _fit(dim: int, eps: float) -> _Fit:
    """What `_inner_mean` evaluates, made once in float64 for numbers of precision `eps`.

    Beyond the edge A, $P(u_1 > A) \\le (1 - A^2)^{d/2}/2$, which is eps/2: the cap lies in half a
    ball of radius $\\sqrt{1-A^2}$. Within it, $E|u_1 - a|/2 = h(a) + |a|/2$ is a smooth function
    of $t = a^2$, whose derivative r is interpolated, so that probabilities rather than integrals
    of them are accurate. For small even d it has a term $(1-t)^{(d+3)/2}$ and is smooth in
    $s = \\sqrt{1-t}$ only; there the series is that of
    $K(s) = s^{-2} \\int_t^1 r = \\int_0^1 2 \\theta\\, r(1 - \\theta^2 s^2)\\,d\\theta$."""
    if dim % 2 == 0 and dim < _SMOOTH_FROM:
        nodes, weights = gauss_legendre(_ORDER)

        def rooted(v):
            s = (v[:, None] + 1) / 2 * nodes
            return _slope(dim, 1 - s * s) @ (2 * nodes * weights)

        # Smaller: the derivative of K is used.
        return _Fit(1.0, True, tuple(_interpolate(rooted, max(eps / 8, _NOISE)).tolist()))
    square = -math.expm1(2 / dim * math.log(eps))
    edge = math.sqrt(square)
    powers = _interpolate(lambda v: edge * _slope(dim, square * (v + 1) / 2), max(eps, _NOISE))
    integral = powers / np.arange(1, len(powers) + 1)
    return _Fit(edge, False, (0.0, *integral.tolist()))


def _horner(coefficients: tuple[float, ...], u: _Values, v: _Values) -> tuple[_Values, _Values]:
    """$p(u)$ and $(p(u) - p(v))/(u - v)$ of a power series, the quotient by a recurrence of its
    own rather than a division."""
    value, quotient = jnp.full_like(u, coefficients[-1]), jnp.zeros_like(u)
    for c in reversed(coefficients[:-1]):
        quotient = quotient * v + value
        value = value * u + c
    return value, quotient


def _inner_mean(fit: _Fit, x: _Values, y: _Values) -> _Values:
    """$P(u_1 < -a)$ averaged over a between x and y, both in [-1, 1] and in units of the edge:
    $1/2 - (x + y) \\frac{g(x^2) - g(y^2)}{x^2 - y^2}$ with $g(a^2) = E|u_1 - a|/2$."""
    if not fit.rooted:
        _, quotient = _horner(fit.coefficients, 2 * x * x - 1, 2 * y * y - 1)
        return 0.5 - (x + y) * quotient
    # Never 0, as their sum divides.
    tiny = float(jnp.finfo(x.dtype).tiny)
    s, r = (jnp.sqrt(jnp.maximum((1 - n) * (1 + n), tiny)) for n in (x, y))
    value, quotient = _horner(fit.coefficients, 2 * s - 1, 2 * r - 1)
    # (s^2 K(s) - r^2 K(r)) / (s^2 - r^2); the quotient is one in 2s - 1.
    return 0.5 - (x + y) * (value + r * (r / (s + r)) * (2 * quotient))


@eqx.filter_jit
def smooth(margins: _Values, spread: _Values, gamma: _Values, dim: int) -> _Values:
    """`smoothed_ramp` without its checks, for arrays of one dtype.

    The mean of $P(b u_1 < -w)$ over w in $[z - \\gamma, z]$: it is 1 below $-Ab$, 0 above $Ab$,
    and `_inner_mean` is its mean over what is between. No term cancels another, however small
    b is against z and $\\gamma$, or $\\gamma$ against b."""
    z, b, gamma = jnp.broadcast_arrays(margins, spread, gamma)
    info = jnp.finfo(z.dtype)
    fit = _fit(dim, float(info.eps))
    edge = fit.edge * b
    below = jnp.clip(gamma - z - edge, 0, gamma)
    above = jnp.clip(z - edge, 0, gamma)
    unit = jnp.maximum(edge, float(info.tiny))
    x, y = (jnp.clip(w, -edge, edge) / unit for w in (z, z - gamma))
    mean = (below + (gamma - below - above) * _inner_mean(fit, x, y)) / gamma
    # Rounding must not make a loss that those who check their input would refuse.
    return jnp.clip(mean, 0, 1)


def _common_dtype(*values: Any) -> Any:
    """float32 if every floating array is, else the default."""
    dtypes = [v.dtype for v in values if hasattr(v, "dtype")]
    dtypes = [d for d in dtypes if jnp.issubdtype(d, jnp.floating)]
    single = dtypes and all(d == jnp.float32 for d in dtypes)
    return np.dtype(np.float32) if single else _validate.float_dtype()


def mean_absolute_noise(dim: Numeric) -> _Values:
    """The mean absolute value of one coordinate of $u$, uniform in the unit ball:

    $E|u_1| = \\frac{2}{d+1} \\frac{\\Gamma(d/2+1)}{\\sqrt\\pi\\,\\Gamma((d+1)/2)}$,

    so that $E|\\nu u \\cdot x| = \\nu \\|x\\| E|u_1|$. It is about $\\sqrt{2/(\\pi d)}$.

    **Arguments:**

    - `dim`: the dimension d, at least 1; a number or an array.

    **Returns:**

    $E|u_1|$, of the shape of `dim`.

    **Raises:**

    `ValueError` naming the argument.
    """
    dim = _validate.real("dim", dim, 1)
    return 2 / (dim + 1) * _density_at_zero(dim)


def smoothed_ramp(margins: Numeric, spread: Numeric, gamma: Numeric, dim: int) -> _Values:
    """The ramp loss averaged over noise that is uniform in a ball:

    $E\\,\\text{ramp}_\\gamma(z + b u_1), \\quad
    \\text{ramp}_\\gamma(z) = \\min(\\max(1 - z/\\gamma, 0), 1)$,

    with $u$ uniform in the unit ball of $\\mathbb{R}^d$. In terms of
    $h(a) = E(u_1 - a)_+$ it is
    $\\text{ramp}_\\gamma(z) - \\frac{b}{\\gamma} (h(|z|/b) - h(|z-\\gamma|/b))$, computed without
    that difference. The absolute error is below 5e-14 in float64 and 1e-6 in float32, at every
    scale of z, b and $\\gamma$.

    The first three are numbers or arrays that broadcast against each other. If every array
    among them is float32, so are the computation and the result.

    **Arguments:**

    - `margins`: the margins z without noise, $y\\, w \\cdot x$.
    - `spread`: $b = \\nu \\|x\\|$, at least 0; 0 gives the ramp itself.
    - `gamma`: the width $\\gamma$ of the ramp, positive (a normal number of the dtype).
    - `dim`: the dimension d, an integer of at least 1. It picks code: each compiles anew.

    **Returns:**

    The averages, in [0, 1], of the broadcast shape. They are not made to be differentiated: a
    derivative is wrong, or NaN, where b = 0 or where z or $z - \\gamma$ is at an end of the range
    of the noise.

    **Raises:**

    `ValueError` naming the argument.
    """
    dim = _validate.integer("dim", dim, 1)
    dtype = _common_dtype(margins, spread, gamma)
    # XLA flushes subnormal numbers to 0, and the ramp of width 0 is no average.
    tiny = float(jnp.finfo(dtype).tiny)
    numbers = {
        "margins": _validate.real("margins", margins),
        "spread": _validate.real("spread", spread, 0),
        "gamma": _validate.real("gamma", gamma, tiny),
    }
    _validate.broadcastable(numbers)
    return smooth(*(n.astype(dtype) for n in numbers.values()), dim=dim)
