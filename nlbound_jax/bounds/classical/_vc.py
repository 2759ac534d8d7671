"""The VC dimension of piecewise linear networks."""

import math

import jax.numpy as jnp

from ... import _validate
from ..._types import Numeric
from ._bound import SAMPLES, ClassicalBound
from ._network import check_delta, check_widths


def counts(widths: tuple[int, ...]) -> list[int]:
    """$W_i$: the number of weights of the first i layers."""
    totals, total = [], 0
    for fan_in, fan_out in zip(widths[:-1], widths[1:], strict=True):
        total += fan_in * fan_out
        totals.append(total)
    return totals


def vc_dimension(widths: tuple[int, ...]) -> float:
    """$L + \\bar W \\log_2(4 e R \\log_2(2 e R))$ with $\\bar W = \\sum_i W_i$ and
    $R = \\sum_i i k_i$, which bounds the VC dimension of the signs."""
    spread = 2 * math.e * sum(i * k for i, k in enumerate(widths[1:], 1))
    return len(widths) - 1 + sum(counts(widths)) * math.log2(2 * spread * math.log2(spread))


def log_growth(widths: tuple[int, ...], num_samples: int) -> float:
    """A bound on the logarithm of the number of sign patterns on m samples: the smaller of

    $\\sum_i (\\ln 2 + W_i \\ln(2 e m k_i i / W_i))$ where $m k_i \\ge W_i$ for all i, and
    $V \\ln(e m / V)$ where $m \\ge V$; $m \\ln 2$ where neither is proven."""
    bounds = []
    layers = list(enumerate(zip(widths[1:], counts(widths), strict=True), 1))
    if all(num_samples * k >= w for _, (k, w) in layers):
        terms = (
            math.log(2) + w * math.log(2 * math.e * num_samples * k * i / w) for i, (k, w) in layers
        )
        bounds.append(sum(terms))
    dimension = vc_dimension(widths)
    if num_samples >= dimension:
        bounds.append(dimension * math.log(math.e * num_samples / dimension))
    return min(bounds, default=num_samples * math.log(2))


def vc(
    widths: tuple[int, ...], *, train_risk: Numeric, num_samples: int, delta: Numeric = 0.01
) -> ClassicalBound:
    """The bound by the VC dimension or the growth function, for all networks of an architecture
    and any fixed slope: with $\\Pi$ the number of sign patterns on m samples,

    $P(y f \\le 0) \\le \\hat R + \\sqrt{\\frac{2 \\ln \\Pi(m)}m}
    + \\sqrt{\\frac{\\ln(1/\\delta)}{2m}}$.

    $\\ln \\Pi$ is bounded by the smaller of
    $\\sum_i (\\ln 2 + W_i \\ln(2 e m k_i i/W_i))$, if $m k_i \\ge W_i$ for all i, and
    $V \\ln(em/V)$, $V = L + \\bar W \\log_2(4 e R \\log_2(2 e R))$, if $m \\ge V$; by $m \\ln 2$
    if neither is proven. $W_i$: the weights of the first i layers; $\\bar W = \\sum_i W_i$;
    $R = \\sum_i i k_i$ (Bartlett, Harvey, Liaw, Mehrabian 2019, Theorem 7, with one breakpoint).

    **Arguments:**

    - `widths`: $(d, k_1, \\dots, k_L)$, $k_L = 1$.

    **Other arguments:**

    - `train_risk`: the share of the sample with $y f \\le 0$.
    - `num_samples`: m.
    - `delta`: one minus the confidence.

    **Returns:**

    A [`ClassicalBound`][].

    **Raises:**

    `ValueError` naming the argument.
    """
    widths = check_widths(widths)
    num_samples = _validate.integer("num_samples", num_samples, 1)
    risk = _validate.number("train_risk", train_risk, low=0, high=1)
    complexity = jnp.asarray(math.sqrt(2 * log_growth(widths, num_samples) / num_samples))
    confidence = jnp.sqrt(-jnp.log(check_delta(delta)) / (2 * num_samples))
    return ClassicalBound(
        value=risk + complexity + confidence,
        train_risk=risk,
        complexity=complexity,
        confidence=confidence,
        gamma=None,
        name="vc",
        a_priori=True,
        deterministic=True,
        assumes=(SAMPLES,),
        source="Bartlett, Harvey, Liaw, Mehrabian 2019, Theorem 7",
    )
