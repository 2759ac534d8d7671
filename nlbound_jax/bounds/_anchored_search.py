"""The search for the best cell of the anchored bound, and the bound there, term by term."""

import itertools
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.stats import norm
from jaxtyping import Array, Float, PRNGKeyArray

from .._results import RESULTS, where
from .._types import Weights
from ._anchored_grid import AnchoredGrid, log_pattern_cost
from ._anchored_nearby import Nearby
from ._anchored_noise import (
    FORMS,
    Sample,
    disagreement,
    lipschitz,
    log_probability,
    shift,
    threshold,
)
from ._anchored_problem import Cell, Problem, divergence_of, noise_of, problem_of
from ._binomial import binomial_limit
from ._kl import invert

_Scalar = Float[Array, ""]

# Samples that a cell is ranked by: those nearest to an error, and some of the others.
_NEAR, _FAR = 2048, 512
FINALISTS = 6


class AnchoredBound(eqx.Module):
    """The anchored bound of one network in its best cell, term by term.

    **Attributes:**

    - `anchor_risk`: $k_U/n$, the share of S2 on which the anchor errs or has a margin of at most
        $\\tau q$.
    - `anchor_bound`: $\\text{Bin}^{-1}(k_U; n, \\delta_1/n_U)$, what S2 says of that.
    - `disagreement`: the mean over S2 (by Monte Carlo) of
        $[y f_U > \\tau q]\\, P_\\theta(y h_\\theta \\le c q)$, not yet over $p_c$.
    - `monte_carlo`: what is added to it for having been estimated.
    - `divergence`: KL, or what it could be at most before the network was trained.
    - `exponent`: $(\\text{KL} + \\ln(2\\sqrt n K/\\delta_2))/n$.
    - `distance_bound`: $p_c^{-1} \\text{kl}^{-1}(\\text{disagreement} + \\text{monte carlo},
        \\text{exponent})$.
    - `value`: `anchor_bound + distance_bound`, the bound on P(y f_W <= 0).
    - `threshold`: c for y = -1 and y = +1, `(2,)`; `probability`: $p_c$.
    - `noise`: $S_0$; `noise_nonlinear`: $S_N$; in units of the anchor's outputs over
        $\\|\\hat x\\|$.
    - `factor`: what the certified network is multiplied by, in these units.
    - `margin`: $\\tau$, in these units.
    - `kappa`, `kappa_nonlinear`, `level`, `form`, `bump`, `shape`: of the cell.
    - `metric`: which metric the cell has.
    - `differences`: in how many units the sign differs from the anchor's, or could at most.
    - `log_cells`: $\\ln K$ with the pattern of signs.
    - `result`: `successful`, or `blow_up` where a weight is not finite.
    """

    anchor_risk: _Scalar
    anchor_bound: _Scalar
    disagreement: _Scalar
    monte_carlo: _Scalar
    divergence: _Scalar
    exponent: _Scalar
    distance_bound: _Scalar
    value: _Scalar
    threshold: Float[Array, "2"]
    probability: _Scalar
    noise: _Scalar
    noise_nonlinear: _Scalar
    factor: _Scalar
    margin: _Scalar
    kappa: _Scalar
    kappa_nonlinear: _Scalar
    level: _Scalar
    form: Array
    bump: _Scalar
    shape: Array
    metric: Array
    differences: Array
    log_cells: _Scalar
    result: RESULTS


def _table(problem: Problem, grid: AnchoredGrid, key, confidence, delta):
    """The bound in every cell, roughly: on some of the samples, with one draw
    of the nonlinear noise for all. Any choice of a cell is covered by the union."""
    sample, count = problem.sample, len(problem.sample.y)
    straight = jnp.sum(problem.net.linear * problem.anchor.linear)
    own = jnp.sum(problem.net.linear**2)
    factor = jnp.where((own > 0) & (straight > 0), straight / jnp.where(own > 0, own, 1.0), 1.0)
    if count > _NEAR + _FAR:
        order = jnp.argsort(jnp.where(sample.anchor > 0, sample.output, jnp.inf))
        far = np.linspace(_NEAR, count - 1, _FAR).astype(int)
        chosen = jnp.concatenate([order[:_NEAR], order[far]])
        weight = jnp.concatenate([jnp.ones(_NEAR), jnp.full(_FAR, (count - _NEAR) / _FAR)])
    else:
        chosen, weight = jnp.arange(count), jnp.ones(count)
    margins = jnp.asarray(grid.margins)
    right = sample.anchor[chosen, None] > margins[None]
    weight = jnp.where(right, weight[:, None], 0.0).astype("float32") / count
    first = jax.vmap(lambda m: _anchor_term(sample, m, delta)[1])(margins)
    y, bends = sample.y[chosen], factor * sample.bends[chosen]
    output = factor * sample.output[chosen]
    draws = jax.random.normal(key, bends.shape, "float32")
    linear = jnp.asarray(grid.values("linear"))
    pairs = itertools.product(grid.kappas, grid.kappas_nonlinear)
    kappas = jnp.asarray(list(pairs))
    level = jnp.repeat(jnp.asarray(grid.levels), FORMS)
    form = jnp.tile(jnp.arange(FORMS), len(grid.levels))
    probability = jnp.exp(log_probability(level, form, jnp.asarray(grid.tail)))

    def one(args):
        shape, spread, bump = args
        units = spread * problem.nonlinear * problem.shapes[shape]
        moved = output + shift(bends, y, sample.signs, units, bump, draws)
        by_sign = lipschitz(units, sample.signs, bump)
        limits = threshold(
            linear[:, None], by_sign, level[None], form[None], jnp.asarray(grid.tail)
        )

        def at(limits, linear):
            limit = jnp.where(y[None] > 0, limits[:, 1:], limits[:, :1]) / linear
            found = norm.cdf((limit - moved[None] / linear).astype("float32"))
            return (found @ weight).astype(float)

        means = jax.lax.map(lambda a: at(*a), (limits, linear))

        def divergence(linear, kappa):
            rest = (level[0], form[0], bump, shape, margins[0])
            cell = Cell(linear, spread, kappa[0], kappa[1], *rest)
            return divergence_of(problem, cell, noise_of(problem, cell, grid.tail))

        costs = jax.vmap(jax.vmap(divergence, (None, 0)), (0, None))(linear, kappas)
        exponent = (costs + confidence) / count
        means = jnp.clip(means, 0, 1)[:, None]
        distance = invert(means, exponent[:, :, None, None])
        return distance / probability[None, None, :, None] + first[None, None, None]

    return one, (linear, kappas, level, form, margins)


def _rank(problem, grid, key, confidence, delta, finalists):
    """The cells that look best, `finalists` of them."""
    one, axes = _table(problem, grid, key, confidence, delta)
    outer = (
        jnp.arange(problem.shapes.shape[0]),
        jnp.asarray(grid.values("nonlinear")),
        jnp.asarray(grid.bumps),
    )
    grids = [a.ravel() for a in jnp.meshgrid(*outer, indexing="ij")]
    table = jax.lax.map(one, tuple(grids))
    flat = jnp.where(jnp.isnan(table), jnp.inf, table).ravel()
    best = jax.lax.top_k(-flat, min(finalists, flat.size))[1]
    c, i, j, k, t = jnp.unravel_index(best, table.shape)
    linear, kappas, level, form, margins = axes
    shape, spread, bump = (g[c] for g in grids)
    rest = (level[k], form[k], bump, shape, margins[t])
    return Cell(linear[i], spread, kappas[j, 0], kappas[j, 1], *rest)


def _anchor_term(sample: Sample, margin, delta):
    """How often the anchor errs or has a small margin on S2, and the limit of that."""
    count = len(sample.y)
    errors = count - jnp.sum(sample.anchor > margin)
    limit = binomial_limit(errors.astype(float), jnp.asarray(float(count)), delta)
    return errors / count, limit


def _distance(problem: Problem, cell: Cell, tail: float, mean, confidence):
    """The second term of the bound in a cell, behind what it is made of."""
    noise = noise_of(problem, cell, tail)
    divergence = divergence_of(problem, cell, noise)
    exponent = (divergence + confidence) / len(problem.sample.y)
    probability = jnp.exp(log_probability(cell.level, cell.form, noise.tail))
    # The inverse of what is not a number would be the mean, that of infinity 1.
    distance = jnp.where(jnp.isfinite(exponent), invert(mean, exponent), jnp.inf)
    return noise, divergence, exponent, probability, distance / probability


def _best_of(problem: Problem, cells: Cell, tail: float, key, confidence, delta) -> Cell:
    """The best of the cells, by a pair of draws for each sample."""
    sample = problem.sample

    def closer(cell):
        mean, _ = disagreement(sample, noise_of(problem, cell, tail), key, 1)
        distance = _distance(problem, cell, tail, mean, confidence)[-1]
        return distance + _anchor_term(sample, cell.margin, delta)[1]

    best = 0
    if len(cells.linear) > 1:
        values = jax.lax.map(closer, cells)
        best = jnp.argmin(jnp.where(jnp.isnan(values), jnp.inf, values))
    return jax.tree.map(lambda a: a[best], cells)


def monte_carlo_cost(variance, mean_count, delta):
    """What the true mean exceeds that of N independent draws in [0, 1] by, at most, from half the
    squared differences of N/2 pairs: their mean is bounded by Chernoff, then Bernstein's inequality
    is used with it; half of delta each."""
    log = jnp.log(2 / delta)
    limit = invert(jnp.clip(2 * variance, 0, 1), log / (mean_count / 2)) / 2
    return jnp.sqrt(2 * limit * log / mean_count) + log / (3 * mean_count)


@eqx.filter_jit
def anchored_search(
    x: Float[Array, "n d"],
    y: Float[Array, " n"],
    x_first: Float[Array, "m1 d"],
    weights: Weights,
    anchor: Weights,
    shapes: Float[Array, "shapes width"] | None,
    *,
    epsilon: _Scalar,
    delta: _Scalar,
    key: PRNGKeyArray,
    pairs: int = 4,
    metrics: int = 1,
    anchors: int = 1,
    grid: AnchoredGrid,
    near: Nearby | None = None,
    finalists: int = FINALISTS,
) -> AnchoredBound:
    """The engine of [`anchored_bound`][] in one metric, for arrays in float64 that were checked.

    **Arguments:**

    - `x`, `y`, `x_first`, `weights`, `anchor`, `epsilon`, `delta`, `anchors`, `grid`: as for
        [`anchored_bound`][], in coordinates in which the metric is the identity.
    - `shapes`: r, `(shapes width)`, or `None` for the sizes of the anchor's units.
    - `key`: a JAX random key that nothing else has used.
    - `pairs`: half the number of draws a sample.
    - `metrics`: how many metrics are tried; the union over them is paid for here.
    - `near`: as for [`anchored_bound`][], in float64.
    - `finalists`: how many of the cells that look best are looked at more closely.

    **Returns:**

    An [`AnchoredBound`][].
    """
    problem, differences = problem_of(x, y, x_first, weights, anchor, shapes, epsilon, near)
    families = metrics * problem.shapes.shape[0]
    sample = problem.sample
    count = len(sample.y)
    shares = jnp.asarray(grid.shares) * delta
    width = sample.bends.shape[1]
    patterns = log_pattern_cost(width)
    # Any number of differences up to that may turn out.
    patterns = patterns if near is None else np.maximum.accumulate(patterns)
    pattern = jnp.asarray(patterns)[differences]
    log_cells = grid.log_cells(families, anchors) + pattern
    confidence = math.log(2 * math.sqrt(count)) + log_cells - jnp.log(shares[1])
    # Independent of each other: the last draws must not depend on what chose the cell.
    ranking, second, last = jax.random.split(key, 3)
    share = shares[0] / (anchors * len(grid.margins) * metrics)
    cells = _rank(problem, grid, ranking, confidence, share, finalists)
    cell = _best_of(problem, cells, grid.tail, second, confidence, share)
    mean, variance = disagreement(sample, noise_of(problem, cell, grid.tail), last, pairs)
    cost = monte_carlo_cost(variance, 2.0 * pairs * count, shares[2] / (metrics * anchors))
    cost = jnp.where(problem.nonlinear > 0, cost, 0.0)  # without it nothing is drawn
    raised = jnp.minimum(mean + cost, 1.0)
    terms = _distance(problem, cell, grid.tail, raised, confidence)
    noise, divergence, exponent, probability, distance = terms
    risk, anchor_bound = _anchor_term(sample, cell.margin, share)
    value = anchor_bound + distance
    failed = ~jnp.isfinite(value)
    by_sign = lipschitz(noise.units, sample.signs, noise.bump)
    return AnchoredBound(
        anchor_risk=risk,
        anchor_bound=anchor_bound,
        disagreement=mean,
        monte_carlo=cost,
        divergence=divergence,
        exponent=exponent,
        distance_bound=distance,
        value=jnp.where(failed, jnp.inf, value),
        threshold=threshold(noise.linear, by_sign, noise.level, noise.form, noise.tail),
        probability=probability,
        noise=cell.linear,
        noise_nonlinear=cell.nonlinear * problem.nonlinear,
        factor=noise.factor,
        margin=cell.margin,
        kappa=cell.kappa,
        kappa_nonlinear=cell.kappa_nonlinear,
        level=cell.level,
        form=cell.form,
        bump=cell.bump,
        shape=cell.shape,
        metric=jnp.asarray(0),
        differences=differences,
        log_cells=log_cells,
        result=where(failed, RESULTS.blow_up, RESULTS.successful),
    )
