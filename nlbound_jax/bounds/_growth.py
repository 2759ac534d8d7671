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


class Rates(NamedTuple):
    """The constants of Theorem 5.2: $\\bar 1$, $\\bar s$, $\\hat s$, $\\bar\\beta$,
    $\\ln(\\bar\\beta/\\beta)$ without cancellation, and $\\bar s$ and $\\bar\\beta$ to 106 bits."""

    one: _Values
    sbar: _Values
    shat: _Values
    beta_bar: _Values
    log_ratio: _Values
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
    excess = dd.divide(more, sbar)
    beta_bar = dd.multiply(dd.exact(beta), dd.add(unit, excess))
    shat = depth * sbar.high / (1 + (depth - 1) * rho)
    log_ratio = jnp.log1p(excess.high)
    return Rates(one.high, sbar.high, shat, beta_bar.high, log_ratio, sbar, beta_bar)


def log_growth(t, depth: int, rate: Rates) -> tuple[_Values, Bool[Array, "..."]]:
    """$\\ln(u(t)/\\bar\\beta)$ (Eq. 9), and whether u has blown up by t.

    $u = \\bar\\beta e^{\\bar s t}$ for L = 2, else
    $u = (\\bar\\beta^{2-L} - (L-2) \\bar s t)^{1/(2-L)}$, finite for
    $t < \\bar\\beta^{2-L} / ((L-2) \\bar s)$.
    """
    clock = dd.multiply(rate.exact_sbar, dd.exact(t))
    if depth == 2:
        return clock.high, jnp.zeros(jnp.shape(t), bool)
    # Near the blow-up the difference from 1 magnifies rounding errors a thousandfold and v's
    # exponential once more, hence the double doubles.
    scale = dd.multiply(
        dd.exact(jnp.full_like(t, depth - 2)), dd.power(rate.exact_beta_bar, depth - 2)
    )
    elapsed = dd.multiply(scale, clock)
    left = dd.add(dd.exact(jnp.ones_like(t)), dd.DoubleDouble(-elapsed.high, -elapsed.low)).high
    blown = ~(left > 0)
    early = elapsed.high < 0.5
    late_log = jnp.log(jnp.where(blown | early, 1.0, left))
    early_log = jnp.log1p(-jnp.where(early, elapsed.high, 0.0))
    growth = -jnp.where(early, early_log, late_log) / (depth - 2)
    return jnp.where(blown, jnp.inf, growth), blown


def _series(a, b, c, depth: int, lower, end) -> _Values:
    """$\\int_0^m e^{-w_0 (e^{Lx} - 1)} (a + c\\, e^{Lx}) e^{bx} dx$ with $w_0 e^{Lm} \\le 1$,
    by the series of the exponential, scaled by $e^{-\\max(b, 0) m}$.

    Its terms are $w_0^k \\int_0^m e^{(b+kL)x} dx = w_m^k e^{bm} q_k / (b+kL)$ with
    $q_k = 1 - e^{-(b+kL)m}$; $q_{k+1} = q_k + (1 - q_k)\\, q$ with $q = 1 - e^{-Lm}$ does not
    cancel, since $b > -L$.
    """
    size = jnp.abs(b)
    safe = jnp.where(size > 0, size, 1.0)
    first = jnp.where(size > 0, -jnp.expm1(-safe * end) / safe, end)
    step, q = -jnp.expm1(-depth * end), -jnp.expm1(-(b + depth) * end)
    at_end = lower * jnp.exp(depth * end)
    total, power = a * first, jnp.exp(jnp.minimum(b, 0.0) * end)
    # The coefficient of e^{kLx} is a (-w_0)^k / k! + c (-w_0)^{k-1} / (k-1)!.
    for k in range(1, _TERMS):
        power = power * at_end / k
        sign = -1.0 if k % 2 else 1.0
        total = total + sign * power * (a - c / lower * k) * q / (b + k * depth)
        q = q + (1 - q) * step
    return total * jnp.exp(jnp.minimum(lower, 1.0))  # beyond 1 the interval is empty


def _log_integral(a, b, c, depth: int, lower, top) -> _Values:
    """$\\ln \\int_0^{X} e^{-w_0 (e^{Lx} - 1)} (a + c\\, e^{Lx}) e^{bx} dx$ with $w_0$ = `lower`
    and X = `top`: a series up to $w_0 e^{Lx} = 1$, Gauss-Legendre in x from there on."""
    a, b, c, lower, top = jnp.broadcast_arrays(a, b, c, lower, top)
    end = jnp.minimum(top, jnp.log1p(_CUTOFF / lower) / depth)
    middle = jnp.clip(-jnp.log(lower) / depth, 0.0, end)
    # e^{bx} may span many orders of magnitude: take out its largest value.
    rise = jnp.maximum(b, 0.0)
    total = _series(a, b, c, depth, lower, middle) * jnp.exp(rise * (middle - end))
    width = end - middle
    start = lower * jnp.expm1(depth * middle)
    panel = jnp.zeros_like(top)
    nodes, weights = gauss_legendre(_ORDER)
    # Unrolled: one fused loop over the points, twice as fast as a reduction over nodes.
    for node, weight in zip(nodes.tolist(), weights.tolist(), strict=True):
        x = middle + node * width
        grown = jnp.expm1(depth * node * width)
        # w - w_0, and e^{Lx} as w / w_0, where w = lower + start + ...
        rise_in_w = start + (lower + start) * grown
        value = a + c / lower * (lower + rise_in_w)
        panel = panel + weight * value * jnp.exp(b * x - rise * end - rise_in_w)
    return jnp.log(total + width * panel) + rise * end


def log_v(growth, depth: int, beta, rho, s, rate: Rates, reading: Reading) -> _Values:
    """$\\ln v$, given $\\ln(u/\\bar\\beta)$, finite where u is (and $-\\infty$ where v = 0).

    Printed (Eq. 10-11): with $\\hat s$ in the exponential and the lower limit $\\beta$,
    $v = (L-1) u^{L-1} \\int_\\beta^u e^{(u^L - z^L)/\\hat s} (\\bar 1 + \\rho z^L) z^{1-L} dz
    / \\bar s$, which is Eq. 10 without its cancelling incomplete gamma functions.

    Repaired: $v = (L-1) \\frac{\\rho}{\\bar s} \\int_{\\bar\\beta}^u e^{(u^L - z^L)/\\bar s}
    (u/z)^\\eta (\\bar 1 + z^L) dz$ with $\\eta = (L-1)(s + \\beta^L)/\\bar s$.
    """
    finite = jnp.where(jnp.isfinite(growth), growth, 0.0)
    if reading == "printed":
        log_lower, top, scale = jnp.log(beta), finite + rate.log_ratio, rate.shat
        power, slope, factor = depth - 1.0, rho, jnp.zeros_like(rho)
    else:
        log_lower, top, scale = jnp.log(rate.beta_bar), finite, rate.sbar
        power = (depth - 1) * (s + beta**depth) / rate.sbar
        slope, factor = jnp.ones_like(rho), jnp.log(rho)
    lower = jnp.exp(depth * log_lower)
    integral = _log_integral(rate.one, 1 - power, slope * lower, depth, lower / scale, top)
    # u^power z^{1-power}, relative to the lower limit: e^{power top} lower e^{(1-power) x}.
    head = jnp.log((depth - 1) / rate.sbar) + factor + power * top + log_lower
    exponent = lower / scale * jnp.expm1(depth * top)
    return jnp.where(jnp.isfinite(growth), head + exponent + integral, jnp.inf)
