"""Theorem 5.2 with guaranteed digits: outward-rounded doubles around the true real numbers."""

import math
import operator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from jax.typing import ArrayLike

from .. import _validate
from .._types import Reading
from ._arguments import check_arguments

try:
    import flint as _flint
except ImportError:  # the optional extra "certified"
    _flint = None
flint: Any = _flint

_MAX_BITS = 16384
# e^1000 is past the largest double, e^-1000 below the smallest.
_BEYOND = 1000


class Enclosure(NamedTuple):
    """Two doubles with a true real number between them, both ends included; `upper` is `inf` where
    the number exceeds the doubles."""

    lower: float
    upper: float


@dataclass(frozen=True)
class CertifiedTheorem52:
    """Enclosures of the terms of Theorem 5.2; the ends are at most two doubles apart.

    **Attributes:**

    - `u`: bound on every $\\|W_l(t)\\|$ (Eq. 9).
    - `v`, `log_v`: bound on the dependence on the slope (Eq. 10), and its logarithm, which is
        finite where `v` exceeds the doubles.
    - `capacity`: $\\Upsilon_\\kappa$ (Eq. 7).
    - `deviation`: $\\Delta_\\kappa(t)\\, \\epsilon^\\kappa / \\gamma$.
    - `penalty`: `capacity + deviation`, the bound on the gap $R - \\hat R_\\gamma$.
    - `value`: `train_risk + penalty`, the bound on R; `None` without a train risk.
    - `result`: `"successful"`, or `"blow_up"` where t is certainly at or past the blow-up of u;
        all but `capacity` is `[inf, inf]` there.
    """

    u: Enclosure
    v: Enclosure
    log_v: Enclosure
    capacity: Enclosure
    deviation: Enclosure
    penalty: Enclosure
    value: Enclosure | None
    result: Literal["successful", "blow_up"]


class _Constants(NamedTuple):
    """Balls around $\\bar 1$, $\\bar s_\\rho$, $\\bar s$, $\\hat s$ and $\\bar\\beta/\\beta - 1$
    (exactly 0 if $\\bar\\beta = \\beta$)."""

    one: Any
    sbar_rho: Any
    sbar: Any
    shat: Any
    excess: Any


def _constants(n, depth: int, reading: Reading, assumption_5_1: bool) -> _Constants:
    rho, start = n["stable_rank_root"], n["stable_rank_root"] * n["beta"] ** depth
    one = 1 + start
    linear = (1 - n["epsilon"]) * (n["alignment"] + start if assumption_5_1 else one)
    nonlinear = n["epsilon"] * (depth - 1) * one
    factor = rho if reading == "repaired" else rho.sqrt()
    sbar = linear + nonlinear
    return _Constants(
        one=one,
        sbar_rho=linear + factor * nonlinear,
        sbar=sbar,
        shat=depth * sbar / (1 + (depth - 1) * rho),
        excess=nonlinear * (factor - 1) / sbar,
    )


def _log_growth(n, depth: int, c: _Constants):
    """$\\ln(u(t)/\\bar\\beta)$ (Eq. 9); `inf` if u has certainly blown up, `None` if the balls
    do not tell."""
    t = n["t"]
    if depth == 2 or t == 0:
        return c.sbar * t
    # 1 - (L-2) sbar t betabar^{L-2} times sbar^{L-3}: no quotient, so that enough bits make it
    # exact and equality is decided as well.
    full = c.sbar ** (depth - 3)
    rest = full - (depth - 2) * t * (n["beta"] * c.sbar_rho) ** (depth - 2)
    if rest <= 0:
        return flint.arb.pos_inf()
    return -(rest / full).log() / (depth - 2) if rest > 0 else None


def _gamma_between(a, low, high):
    """$\\Gamma(a, low) - \\Gamma(a, high) = \\int_{low}^{high} x^{a-1} e^{-x} dx$, a > -1."""
    if not a.contains(0):
        return low.gamma_upper(a) - high.gamma_upper(a)
    # gamma_upper gives NaN for a ball around the pole of Gamma. The integrand is positive and
    # x^a lies between its values at the ends, so a = 0 and that factor enclose the integral.
    between = low.gamma_upper(0) - high.gamma_upper(0)
    return between * (a * low.log().union(high.log())).exp()


def _log_v(n, depth: int, c: _Constants, log_u, reading: Reading):
    """$\\ln v$, for u above the lower limit of the integral.

    With $w = z^L/\\sigma$ and a = (1 - k)/L both readings are
    $v = \\frac{(L-1)f}{L \\bar s} u^k \\sigma^a e^{u^L/\\sigma} [\\bar 1\\, G(a) + r \\sigma
    G(a+1)]$, $G(a) = \\Gamma(a, w_{lower}) - \\Gamma(a, w_u)$: the printed one (Eq. 10-11) with
    $\\sigma = \\hat s$, k = L - 1, f = 1, r = $\\rho$ and the lower limit $\\beta$; the repaired
    one with $\\sigma = \\bar s$, k = $\\eta = (L-1)(s + \\beta^L)/\\bar s$, f = $\\rho$, r = 1
    and the lower limit $\\bar\\beta$.
    """
    beta, rho = n["beta"], n["stable_rank_root"]
    if reading == "printed":
        lower, scale, power, factor, slope = beta, c.shat, flint.arb(depth - 1), 1, rho
    else:
        power = (depth - 1) * (n["alignment"] + beta**depth) / c.sbar
        lower, scale, factor, slope = beta * (1 + c.excess), c.sbar, rho, 1
    # v grows with u, so where ln v exceeds the doubles a smaller u shows it, without huge balls.
    most = (scale.log() + _BEYOND) / depth
    reduced, log_u = not log_u < most, log_u.min(most)
    order, low, high = (1 - power) / depth, lower**depth / scale, (depth * log_u).exp() / scale
    total = c.one * _gamma_between(order, low, high)
    total += slope * scale * _gamma_between(order + 1, low, high)
    head = (factor * total * (depth - 1) / (depth * c.sbar)).log()
    log_v = head + power * log_u + order * scale.log() + high
    return log_v if not reduced or log_v > 2**1024 else flint.arb.nan()


def _log_phi(n, depth: int, kappa: int):
    """$\\ln \\Phi_\\kappa$ (Eq. 8)."""
    root, inner = n["dim"].sqrt(), 1 + (depth - 1) * n["stable_rank_root"]
    if kappa == 1:
        return (depth * root + inner).log()
    return ((depth - 1) * ((depth + inner) * root + 2 * inner)).log()


def _exp(log):
    """A ball around exp(`log`), or one beyond the doubles if exp(`log`) is."""
    if log == flint.arb.neg_inf():
        return flint.arb(0)
    if log < -_BEYOND:
        return flint.arb(0).union(flint.arb(-_BEYOND).exp())
    return log.min(_BEYOND).exp()


def _enclosure(ball, least: float = 0.0) -> Enclosure:
    """The doubles around the ball, rounded outward; the number is known to be at least `least`."""
    low, high = ball.lower(), ball.upper()
    lower, upper = float(low), float(high)
    while flint.arb(lower) > low:
        lower = math.nextafter(lower, -math.inf)
    while flint.arb(upper) < high:
        upper = math.nextafter(upper, math.inf)
    return Enclosure(max(lower, least), upper)


def _is_tight(e: Enclosure) -> bool:
    return e.upper <= math.nextafter(math.nextafter(e.lower, math.inf), math.inf)


def _evaluate(
    n, depth: int, kappa: int, reading: Reading, assumption_5_1: bool
) -> CertifiedTheorem52 | None:
    """The enclosures at the precision in force; `None` if that does not tell whether t is past
    the blow-up."""
    c = _constants(n, depth, reading, assumption_5_1)
    growth = _log_growth(n, depth, c)
    if growth is None:
        return None
    size = kappa * n["precision_bits"] * n["dim"] * flint.arb.const_log2()
    capacity = ((size + (n["cells"] / n["delta"]).log()) / (2 * n["num_samples"])).sqrt()
    blown = growth == flint.arb.pos_inf()
    if blown:
        u = v = log_v = deviation = growth
    else:
        log_u = (n["beta"] * (1 + c.excess)).log() + growth
        empty = n["t"] == 0 and (reading == "repaired" or c.excess.is_zero())
        log_v = flint.arb.neg_inf() if empty else _log_v(n, depth, c, log_u, reading)
        epsilon = n["epsilon"]
        log_epsilon = epsilon.log() if epsilon > 0 else flint.arb.neg_inf()
        log_delta = _log_phi(n, depth, kappa) + log_v + (depth - 1) * log_u
        u, v = _exp(log_u), _exp(log_v)
        deviation = _exp(log_delta + kappa * log_epsilon - n["gamma"].log())
    penalty = capacity + deviation
    return CertifiedTheorem52(
        u=_enclosure(u),
        v=_enclosure(v),
        log_v=_enclosure(log_v, -math.inf),
        capacity=_enclosure(capacity),
        deviation=_enclosure(deviation),
        penalty=_enclosure(penalty),
        value=_enclosure(n["train_risk"] + penalty) if "train_risk" in n else None,
        result="blow_up" if blown else "successful",
    )


def _exact(name: str, value: Any, **limits: Any):
    """The argument as a ball of radius 0: integers of any size, else doubles."""
    number = _validate.scalar(name, value, **limits)
    try:
        return flint.arb(operator.index(value))
    except TypeError:
        return flint.arb(number)


def certified_theorem_5_2(
    t: ArrayLike,
    *,
    depth: int,
    epsilon: ArrayLike,
    beta: ArrayLike,
    gamma: ArrayLike,
    stable_rank_root: ArrayLike,
    alignment: ArrayLike,
    dim: ArrayLike,
    num_samples: ArrayLike,
    kappa: int = 2,
    precision_bits: ArrayLike = 32,
    delta: ArrayLike = 0.01,
    cells: ArrayLike = 1,
    train_risk: ArrayLike | None = None,
    reading: Reading = "repaired",
    assumption_5_1: bool = True,
    bits: int = 128,
) -> CertifiedTheorem52:
    """[`theorem_5_2`][] in ball arithmetic, by the incomplete gamma functions of Eq. 10-11: the
    true value of every term lies within the doubles returned.

    Every argument is a single number, taken as the exact binary number it is.

    **Arguments:**

    - `t`, `depth`, `epsilon`, `beta`, `gamma`, `stable_rank_root`, `alignment`, `dim`,
        `num_samples`, `kappa`, `precision_bits`, `delta`, `cells`, `train_risk`, `reading`,
        `assumption_5_1`: as for [`theorem_5_2`][].
    - `bits`: the precision to begin with; it is doubled until the ends of every enclosure are
        at most two doubles apart.

    **Returns:**

    A [`CertifiedTheorem52`][].

    **Raises:**

    `ValueError` naming the argument, `t` where 16384 bits are not enough; `ImportError` without
    python-flint.
    """
    given = locals()
    if flint is None:
        raise ImportError(
            "certified_theorem_5_2 needs python-flint; install nlbound_jax[certified]."
        )
    bits = _validate.integer("bits", bits, 64, _MAX_BITS)
    numbers, choices = check_arguments(given, _exact)
    while True:
        with flint.ctx.workprec(bits):
            found = _evaluate(numbers, **choices)
        if found and all(_is_tight(e) for e in vars(found).values() if isinstance(e, Enclosure)):
            return found
        if bits == _MAX_BITS:
            what = "how large the bound is" if found else "whether u has blown up by then"
            raise ValueError(
                f"`t` must not need more than {bits} bits, got {t!r}; they leave open {what}."
            )
        bits = min(2 * bits, _MAX_BITS)
