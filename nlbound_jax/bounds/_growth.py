"""How fast weights and their dependence on the slope can grow: u and v of Theorem 5.2."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .. import _double_double as dd
from .._quadrature import gauss_legendre
from .._types import Reading

_Values = Float[Array, "..."]

# With w = z^L / shat, v integrates e^{-w} times powers of w: by series up to w = 1, by quadrature
# from there on, and nothing beyond w = lower + 42 counts.
_CUTOFF = 42.0
_TERMS = 19
_ORDER = 20
# A growth below it is its first term to all digits.
_SMALL = 1e-20


def _log(x) -> _Values:
    """$\\ln x$, $-\\infty$ at 0, where no derivative comes of it."""
    return jnp.where(x > 0, jnp.log(jnp.where(x > 0, x, 1.0)), -jnp.inf)


class Rates(NamedTuple):
    """The constants of Theorem 5.2: $\\bar 1$, $\\ln \\bar s$ (also where $\\bar s$ is below the
    doubles), $\\hat s/\\bar s$, $\\ln \\bar\\beta$, $\\bar\\beta/\\beta - 1$ without cancellation,
    and $\\bar s$ and $\\bar\\beta$ to 106 bits."""

    one: _Values
    log_sbar: _Values
    shat_ratio: _Values
    log_beta_bar: _Values
    excess: _Values
    exact_sbar: dd.DoubleDouble
    exact_beta_bar: dd.DoubleDouble


def rates(depth: int, epsilon, beta, rho, s, reading: Reading, assumption_5_1: bool) -> Rates:
    """$\\bar 1 = 1 + \\rho\\beta^L$,
    $\\bar s_r = (1-\\epsilon)(s + \\rho\\beta^L) + \\epsilon \\sqrt r (L-1) \\bar 1$,
    $\\bar s = \\bar s_1$, $\\hat s = L \\bar s / (1 + (L-1)\\rho)$,
    $\\bar\\beta = \\beta \\bar s_\\rho / \\bar s_1$.

    The repaired reading has $\\rho$ for $\\sqrt\\rho$ in $\\bar s_\\rho$, as Eq. 34-35 need.
    Without Assumption 5.1, $\\bar 1$ takes the place of $s + \\rho\\beta^L$.
    """
    unit = dd.exact(jnp.ones_like(beta))
    small = dd.multiply(dd.exact(rho), dd.power(dd.exact(beta), depth))
    one = dd.add(unit, small)
    linear = dd.add(dd.exact(s), small) if assumption_5_1 else one
    nonlinear = dd.multiply(
        dd.multiply(dd.exact(epsilon), dd.exact((depth - 1.0) * unit.high)), one
    )
    slope = dd.add(unit, dd.exact(-epsilon))
    sbar = dd.add(dd.multiply(slope, linear), nonlinear)
    factor = dd.exact(rho) if reading == "repaired" else dd.square_root(rho)
    more = dd.multiply(nonlinear, dd.add(factor, dd.exact(-unit.high)))
    # epsilon = s = 0 and a beta^L below the doubles: the logarithm is known all the same.
    gone = ~(sbar.high > 0)
    excess = dd.divide(more, dd.DoubleDouble(jnp.where(gone, 1.0, sbar.high), sbar.low))
    log_sbar = jnp.where(gone, jnp.log(rho) + depth * jnp.log(beta), _log(sbar.high))
    beta_bar = dd.multiply(dd.exact(beta), dd.add(unit, excess))
    shat_ratio = depth / (1 + (depth - 1) * rho)
    log_beta_bar = jnp.log(beta) + jnp.log1p(excess.high)
    return Rates(one.high, log_sbar, shat_ratio, log_beta_bar, excess.high, sbar, beta_bar)


class Growth(NamedTuple):
    """$g = \\ln(u(t)/\\bar\\beta)$ (Eq. 9), its logarithm, also where g is below the doubles, and
    whether u has blown up by t (g is `+inf` there)."""

    value: _Values
    log: _Values
    blown: Bool[Array, "..."]


def log_growth(t, depth: int, rate: Rates) -> Growth:
    """$\\ln(u(t)/\\bar\\beta)$.

    $u = \\bar\\beta e^{\\bar s t}$ for L = 2, else
    $u = (\\bar\\beta^{2-L} - (L-2) \\bar s t)^{1/(2-L)}$, finite for
    $t < \\bar\\beta^{2-L} / ((L-2) \\bar s)$.
    """
    log_first = rate.log_sbar + _log(t) + (depth - 2) * rate.log_beta_bar
    if depth == 2:
        value = dd.multiply(rate.exact_sbar, dd.exact(t)).high
        value = jnp.where(jnp.isnan(value), jnp.inf, value)  # beyond the doubles
        return Growth(value, _log_of(value, log_first), jnp.zeros(jnp.shape(t), bool))
    # Near the blow-up the difference from 1 magnifies rounding errors a thousandfold and v's
    # exponential once more, hence the double doubles. In this order nothing on the way is farther
    # from 1 than t and the result.
    elapsed = dd.multiply(dd.multiply(dd.exact(t), rate.exact_beta_bar), rate.exact_sbar)
    elapsed = dd.multiply(dd.exact(jnp.full_like(t, depth - 2)), elapsed)
    for _ in range(depth - 3):
        elapsed = dd.multiply(elapsed, rate.exact_beta_bar)
    left = dd.add(dd.exact(jnp.ones_like(t)), dd.DoubleDouble(-elapsed.high, -elapsed.low)).high
    blown = ~(left > 0)
    early = elapsed.high < 0.5
    late_log = jnp.log(jnp.where(blown | early, 1.0, left))
    early_log = jnp.log1p(-jnp.where(early, elapsed.high, 0.0))
    value = -jnp.where(early, early_log, late_log) / (depth - 2)
    value = jnp.where(blown, jnp.inf, value)
    return Growth(value, _log_of(value, log_first), blown)


def _log_of(value, log_first) -> _Values:
    """$\\ln$ of a growth; `log_first` is that of its first term, which is all of it where it is
    small."""
    small = value < _SMALL
    return jnp.where(small, log_first, jnp.log(jnp.where(small, 1.0, value)))


def _series(a, b, slope, depth: int, log_lower, end) -> _Values:
    """$\\int_0^m e^{-w_0 (e^{Lx} - 1)} (a + k\\, w_0 e^{Lx}) e^{bx} dx$ with $w_0 e^{Lm} \\le 1$
    and k = `slope`, by the series of the exponential, scaled by $e^{-\\max(b, 0) m}$.

    Its terms are $w_0^j \\int_0^m e^{(b+jL)x} dx = w_m^j e^{bm} q_j / (b+jL)$ with
    $q_j = 1 - e^{-(b+jL)m}$; $q_{j+1} = q_j + (1 - q_j)\\, q$ with $q = 1 - e^{-Lm}$ does not
    cancel, since $b > -L$.
    """
    size = jnp.abs(b)
    safe = jnp.where(size > 0, size, 1.0)
    first = jnp.where(size > 0, -jnp.expm1(-safe * end) / safe, end)
    step, q = -jnp.expm1(-depth * end), -jnp.expm1(-(b + depth) * end)
    at_end = jnp.exp(log_lower + depth * end)
    total, power = a * first, jnp.exp(jnp.minimum(b, 0.0) * end)
    # The coefficient of w^j is a (-1)^j / j! + k (-1)^{j-1} / (j-1)!.
    for j in range(1, _TERMS):
        power = power * at_end / j
        sign = -1.0 if j % 2 else 1.0
        total = total + sign * power * (a - slope * j) * q / (b + j * depth)
        q = q + (1 - q) * step
    # Beyond 1 the interval is empty.
    return total * jnp.exp(jnp.exp(jnp.minimum(log_lower, 0.0)))


def _log_integral(a, b, slope, depth: int, log_lower, top, log_top) -> _Values:
    """$\\ln \\int_0^{X} e^{-w_0 (e^{Lx} - 1)} (a + k\\, w_0 e^{Lx}) e^{bx} dx$ with
    $\\ln w_0$ = `log_lower`, k = `slope` and X = `top`: a series up to $w_0 e^{Lx} = 1$,
    Gauss-Legendre in x from there on."""
    a, b, slope, log_lower, top = jnp.broadcast_arrays(a, b, slope, log_lower, top)
    lower = jnp.exp(log_lower)
    end = jnp.minimum(top, jnp.logaddexp(0.0, jnp.log(_CUTOFF) - log_lower) / depth)
    middle = jnp.clip(-log_lower / depth, 0.0, end)
    # e^{bx} may span many orders of magnitude: take out its largest value.
    rise = jnp.maximum(b, 0.0)
    total = _series(a, b, slope, depth, log_lower, middle) * jnp.exp(rise * (middle - end))
    width = end - middle
    start = jnp.where(middle > 0, jnp.exp(log_lower + depth * middle) - lower, 0.0)
    panel = jnp.zeros_like(top)
    nodes, weights = gauss_legendre(_ORDER)
    # Unrolled: one fused loop over the points, twice as fast as a reduction over nodes.
    for node, weight in zip(nodes.tolist(), weights.tolist(), strict=True):
        x = middle + node * width
        grown = jnp.expm1(depth * node * width)
        # w - w_0, and w = lower + start + ...
        rise_in_w = start + (lower + start) * grown
        value = a + slope * (lower + rise_in_w)
        panel = panel + weight * value * jnp.exp(b * x - rise * end - rise_in_w)
    # Where X is tiny the integrand is what it is at 0.
    tiny = top < _SMALL
    whole = jnp.where(tiny, a + slope * lower, total + width * panel)
    return jnp.log(whole) + jnp.where(tiny, log_top, rise * end)


def log_v(growth: Growth, depth: int, beta, rho, s, rate: Rates, reading: Reading) -> _Values:
    """$\\ln v$, finite where u is (and $-\\infty$ where v = 0).

    Printed (Eq. 10-11): with $\\hat s$ in the exponential and the lower limit $\\beta$,
    $v = (L-1) u^{L-1} \\int_\\beta^u e^{(u^L - z^L)/\\hat s} (\\bar 1 + \\rho z^L) z^{1-L} dz
    / \\bar s$, which is Eq. 10 without its cancelling incomplete gamma functions.

    Repaired: $v = (L-1) \\frac{\\rho}{\\bar s} \\int_{\\bar\\beta}^u e^{(u^L - z^L)/\\bar s}
    (u/z)^\\eta (\\bar 1 + z^L) dz$ with $\\eta = (L-1)(s + \\beta^L)/\\bar s$.
    """
    finite = jnp.where(jnp.isfinite(growth.value), growth.value, 0.0)
    if reading == "printed":
        log_ratio = jnp.log1p(rate.excess)
        log_start, top = jnp.log(beta), finite + log_ratio
        log_top = jnp.logaddexp(growth.log, _log(log_ratio))
        log_scale = rate.log_sbar + jnp.log(rate.shat_ratio)
        power, slope, factor = depth - 1.0, rho, jnp.zeros_like(rho)
    else:
        log_start, top, log_top = rate.log_beta_bar, finite, growth.log
        log_scale = rate.log_sbar
        sbar = rate.exact_sbar.high
        # Where it is below the doubles (epsilon = s = 0) it is rho beta^L.
        share = (s + beta**depth) / jnp.where(sbar > 0, sbar, 1.0)
        power = (depth - 1) * jnp.where(sbar > 0, share, 1 / rho)
        slope, factor = jnp.ones_like(rho), jnp.log(rho)
    # In w = z^L / scale, the variable of the integral.
    log_lower = depth * log_start - log_scale
    slope = slope * jnp.exp(log_scale)
    integral = _log_integral(rate.one, 1 - power, slope, depth, log_lower, top, log_top)
    # u^power z^{1-power}, relative to the lower limit: e^{power top} lower e^{(1-power) x}.
    head = jnp.log(depth - 1.0) - rate.log_sbar + factor + power * top + log_start
    # Where w_0 is below the doubles, e^{L top} may be above them.
    exponent = jnp.where(
        depth * top < 1,
        jnp.exp(log_lower) * jnp.expm1(depth * top),
        jnp.exp(log_lower + depth * top) - jnp.exp(log_lower),
    )
    found = head + exponent + integral
    return jnp.where(jnp.isfinite(growth.value) & ~jnp.isnan(found), found, jnp.inf)
