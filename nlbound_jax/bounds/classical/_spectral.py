"""Spectral norms and the distance from reference matrices."""

import math

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from ... import _validate
from ..._types import AnyArray, Numeric, Weights
from ._bound import SAMPLES, START, ClassicalBound
from ._network import check_delta, check_margins, check_reference, check_weights
from ._ramp import ramp_terms
from ._strata import grid_value, index_above, log_cost

_Scalar = Float[Array, ""]

_SMALLEST_RATIO = 2.0**-20
_SCALES = 60


def chaining(covering: _Scalar, num_samples: int) -> _Scalar:
    """$\\min_{K \\ge 0} (e^{-K} \\sqrt m + \\sqrt2\\, e K \\Lambda)$: m times the Rademacher
    complexity of a set of radius 1 in $R^m$ with $\\ln N(r) \\le \\Lambda^2/r^2$."""
    k = jnp.arange(_SCALES, dtype=covering.dtype)
    # K = 0 stands by itself, as the covering may be infinite.
    chain = jnp.exp(-k[1:]) * math.sqrt(num_samples) + math.sqrt(2) * math.e * k[1:] * covering
    return jnp.minimum(math.sqrt(num_samples), jnp.min(chain))


class Cell(eqx.Module):
    """A cell of the union: $\\prod_l s_l$, the covering constant $\\Lambda/\\|X\\|_F \\prod s_l$,
    and $\\ln 1/p$."""

    norm: _Scalar
    covering: _Scalar
    log_cost: _Scalar


def cell(weights: Weights, reference: Weights | None) -> Cell:
    """The norms, rounded up to the grid of the union."""
    spectral = jnp.stack([jnp.linalg.norm(w, 2) for w in weights])
    if reference is None:
        moved, cost = weights, jnp.zeros(())
    else:
        # In units of the reference, so that both can be scaled together.
        moved = [w - r for w, r in zip(weights, reference, strict=True)]
        units = jnp.stack([jnp.linalg.norm(r, 2) for r in reference])
        units = jnp.where(units > 0, units, 1.0)
        index = index_above(spectral / units)
        spectral, cost = units * grid_value(index), jnp.sum(log_cost(index))
    rows = jnp.stack([jnp.sum(jnp.linalg.norm(w, axis=1)) for w in moved])
    ratios = rows / jnp.where(spectral > 0, spectral, 1.0)
    index = index_above(jnp.maximum(ratios, _SMALLEST_RATIO))
    logs = jnp.asarray([math.log(2 * w.shape[0] * w.shape[1]) for w in weights])
    parts = (grid_value(index) * jnp.sqrt(logs)) ** (2 / 3)
    return Cell(
        norm=jnp.prod(spectral),
        covering=jnp.sum(parts) ** 1.5,
        log_cost=cost + jnp.sum(log_cost(index)),
    )


def spectral(
    weights: Weights,
    margins: Float[AnyArray, " m"],
    *,
    input_norm: Numeric,
    reference: Weights | None = None,
    delta: Numeric = 0.01,
    gamma: Numeric | None = None,
) -> ClassicalBound:
    """The bound by spectral norms. Let $s_l \\ge \\|W_l\\|$, $N = \\prod_l s_l$ and
    $b_l \\ge \\sum_k \\|\\text{row}_k(W_l - M_l)\\|$, rounded up to a grid. For all
    networks and $\\gamma = N 2^{-k/8}$, k an integer,

    $P(y f \\le 0) \\le \\frac1m \\sum_i \\text{ramp}_\\gamma(y_i f(x_i))
    + \\frac{2 N \\|X\\|_F}{\\gamma m} \\min_{K \\ge 0} (e^{-K} \\sqrt m + \\sqrt2\\, e K T)
    + 2 \\sqrt{\\frac{\\ln(1/\\delta p)}{2m}}$,

    $T = (\\sum_l (\\frac{b_l}{s_l} \\sqrt{\\ln(2 k_{l-1} k_l)})^{2/3})^{3/2}$; p is the product
    of $p_j = \\frac{2/3}{(|j|+1)(|j|+2)}$ over the indices j of k, of each
    $b_l/s_l = 2^{j/8}$ and, with a reference, of each $s_l/\\|M_l\\| = 2^{j/8}$ (without one
    $s_l = \\|W_l\\|$). Bartlett, Foster, Telgarsky 2017, Theorem 3.3 and Lemma A.8; the covering
    and chaining constants are derived in the README of `bounds` and smaller than theirs.

    **Arguments:**

    - `weights`: $W_1, \\dots, W_L$, `(out in)` each.
    - `margins`: $y_i f(x_i)$ on the sample, `(m,)`.

    **Other arguments:**

    - `input_norm`: the root mean square of $\\|x_i\\|$ over the sample, $\\|X\\|_F/\\sqrt m$.
    - `reference`: $M_1, \\dots, M_L$, fixed before the sample, such as the initial weights; by
        default zero.
    - `delta`: one minus the confidence.
    - `gamma`: the margin, rounded down to one of the union; by default the best.

    **Returns:**

    A [`ClassicalBound`][].

    **Raises:**

    `ValueError` naming the argument.
    """
    weights, margins = check_weights("weights", weights), check_margins(margins)
    reference = check_reference("reference", reference, weights)
    size = _validate.number("input_norm", input_norm, low=0)
    gamma = None if gamma is None else _validate.number("gamma", gamma, low=0, open_low=True)
    num_samples = margins.shape[0]
    at = cell(weights, reference)
    unit = 2 * size / math.sqrt(num_samples) * chaining(at.covering, num_samples)
    return ClassicalBound(
        **ramp_terms(margins, at.norm, unit, check_delta(delta), gamma, at.log_cost),
        name="spectral",
        a_priori=False,
        deterministic=True,
        assumes=(SAMPLES,) if reference is None else (SAMPLES, START),
        source="Bartlett, Foster, Telgarsky 2017, Theorem 3.3 and Lemma A.8",
    )
