"""The search for the best cell of the bounds for several classes, term by term."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from .._results import RESULTS, where
from ._class_grid import ClassGrid
from ._class_ramp import rivals, smooth_classes
from ._split_prior import smallest_cell
from ._split_search import _smoothing, symmetrization_factor

_Scalar = Float[Array, ""]

# How many margins get their noise chosen by the smoothed risk, and on how many samples.
FINALISTS, _GLIMPSE = 4, 1000
# Samples whose smoothed risk is computed at once: it bounds the memory.
_BLOCK = 8192


class ClassBound(eqx.Module):
    """A bound for several classes in its best cell, term by term.

    **Attributes:**

    - `train_risk`: the ramp risk smoothed by the noise, [`class_smoothed_ramp`][].
    - `nonlinear`: D, the Gaussian complexity of the nonlinear part.
    - `capacity`: $\\sqrt{(\\mathcal K + \\ln(K/\\delta))/2m}$, for the linear part.
    - `smoothing`: the cost of the noise, $c \\sqrt{\\min(V, 1)}$ with
        $c = \\sigma \\sqrt{E\\|x\\|^2/\\pi}/\\gamma$ and V the value.
    - `penalty`: the sum of the last three.
    - `value`: V, `train_risk + penalty`, the bound on the error probability.
    - `gamma`: the margin; `noise`: $\\sigma$; `linear`: B; `path`: P, all in the units of the
        network's outputs; `move`: T, 0 without an anchor.
    - `family`: the place of the metric of the nonlinear part; `metric`: that of the coordinates of
        the linear part; `prior`: which of `grid.priors`.
    - `divergence`: $\\mathcal K$; `log_cells`: $\\ln K$.
    - `result`: `successful`, or `blow_up` where a norm is `+inf` or beyond the declared range.
    """

    train_risk: _Scalar
    nonlinear: _Scalar
    capacity: _Scalar
    smoothing: _Scalar
    penalty: _Scalar
    value: _Scalar
    gamma: _Scalar
    noise: _Scalar
    linear: _Scalar
    path: _Scalar
    move: _Scalar
    family: Array
    metric: Array
    prior: Array
    divergence: _Scalar
    log_cells: _Scalar
    result: RESULTS


class ClassSizes(eqx.Module):
    """The norms of a network with K outputs, and what the inputs contribute; `(t)` coordinates of
    the linear part, `(f)` metrics of the nonlinear part.

    **Attributes:**

    - `squares`: $\\|\\text{column}_i(\\Pi l)\\|^2/(K-1)$, of $\\Pi(l - l_0)$ with an anchor,
        `(t d)`.
    - `shapes`: q of each prior, with mean 1, `(t priors d)`.
    - `noise_roots`: the root of $E\\|x\\|^2$ in each of the coordinates, `(t,)`.
    - `paths`: P, `(f,)`; `roots`: $\\sqrt V$, `(f,)`.
    - `move`: T, and `anchor_paths`: the root mean square path of the anchor, $Q_0$, `(f,)`, or
        `None`.
    """

    squares: Float[Array, "t d"]
    shapes: Float[Array, "t priors d"]
    noise_roots: Float[Array, " t"]
    paths: Float[Array, " f"]
    roots: Float[Array, " f"]
    move: Float[Array, " f"] | None = None
    anchor_paths: Float[Array, " f"] | None = None


def _linear_cells(sizes: ClassSizes, gammas, classes, grid: ClassGrid):
    """The divergence in the best prior, and that cell, `(g t n)`: with $\\sigma^2$ and $B^2$ over
    K - 1 the sum over the outputs is K - 1 times that of one output."""
    noise, values = jnp.asarray(grid.values("noise")), jnp.asarray(grid.values("linear"))
    dim = sizes.squares.shape[1]
    # `smallest_cell` is about a ball of radius nu, whose deviation is nu / sqrt(d + 2).
    ball = math.sqrt(dim + 2)

    def one(gamma, squares, shapes, deviation):
        def prior(shape):
            linear = smallest_cell(
                squares, ball * deviation * gamma, ball * deviation, shape, values
            )
            ratio = (linear / deviation) ** 2 / dim
            return jnp.sum(jnp.log1p(ratio * shape)) * ((classes - 1) / 2), linear

        costs, linear = jax.vmap(prior)(shapes)
        costs = jnp.where(jnp.isfinite(linear), costs, jnp.inf)
        best = jnp.argmin(costs)
        return costs[best], linear[best], best

    over_noise = jax.vmap(one, (None, None, None, 0))
    over_metrics = jax.vmap(over_noise, (None, 0, 0, None))
    return jax.lax.map(lambda g: over_metrics(g, sizes.squares, sizes.shapes, noise), gammas)


def _nonlinear_cells(sizes: ClassSizes, gammas, epsilon, num_samples, grid: ClassGrid):
    """D in the best metric, P and T of the cell, and the metric, `(g,)`."""
    paths = grid.round_up("path", sizes.paths[None] / gammas[:, None])
    inside = paths * sizes.roots[None]
    move = jnp.zeros_like(paths)
    if sizes.move is not None and sizes.anchor_paths is not None:
        move = jnp.broadcast_to(grid.round_up("move", sizes.move)[None], paths.shape)
        fixed = sizes.anchor_paths[None] / gammas[:, None]
        # Of an anchor without a nonlinear part no distance matters.
        inside = inside + jnp.where(fixed > 0, move * fixed, 0.0)
    factor = symmetrization_factor(num_samples) * jnp.sqrt(jnp.pi / num_samples) * epsilon
    found = jnp.where(epsilon > 0, factor * inside, 0.0)  # no nonlinear part, however large P
    family = jnp.argmin(found, axis=1)
    at = (jnp.arange(len(gammas)), family)
    return found[at], paths[at], move[at], family


def _with_noise(below, cost):
    """The bound on a risk from `below`, that on the risk with noise."""
    return below + _smoothing(below, cost)


@eqx.filter_jit
def class_search(
    outputs: Float[Array, "m K"],
    labels: Int[Array, " m"],
    input_norms: Float[Array, "t m"],
    sizes: ClassSizes,
    gammas: Float[Array, " gammas"],
    *,
    epsilon: _Scalar,
    delta: _Scalar,
    grid: ClassGrid,
) -> ClassBound:
    """The engine of [`class_split_bound`][] and [`class_anchored_bound`][]: the best cell for
    arrays that were checked. Any choice is covered by the union, so the search may be as coarse as
    it likes: margins are ranked by the plain ramp risk, and for the finalists the noise is chosen
    by the smoothed risk of some samples.

    **Arguments:**

    - `outputs`, `labels`: as for [`class_split_bound`][], in float64 and as integers.
    - `input_norms`: $\\|x_i\\|$ in each of the coordinates of the linear part, `(t m)`.
    - `sizes`: the norms.
    - `gammas`: the margins to try, `(gammas,)`: any without an anchor, those of the grid with one.
    - `epsilon`, `delta`, `grid`: as for [`class_split_bound`][].

    **Returns:**

    A [`ClassBound`][].
    """
    count, classes = outputs.shape
    anchored = sizes.move is not None
    num_samples = jnp.asarray(float(count))
    ahead, rival = rivals(outputs, labels)
    margins = jnp.min(jnp.where(rival, ahead, jnp.inf), axis=1)
    noise = jnp.asarray(grid.values("noise"))

    def plain(gamma):
        return jnp.mean(jnp.clip(1 - margins / gamma, 0, 1))

    def smoothed(chosen, gamma, deviation, metric):
        spread = deviation * gamma * input_norms[metric][chosen]
        return smooth_classes(outputs[chosen], labels[chosen], spread, gamma)

    risks = jax.lax.map(plain, gammas)
    divergence, linear, prior = _linear_cells(sizes, gammas, classes, grid)
    log_cells = grid.log_cells(len(sizes.squares), len(sizes.paths), anchored)
    capacity = jnp.sqrt((divergence + log_cells - jnp.log(delta)) / (2 * num_samples))
    nonlinear, path, move, family = _nonlinear_cells(sizes, gammas, epsilon, num_samples, grid)
    cost = noise[None] * sizes.noise_roots[:, None] / math.sqrt(math.pi)  # (t n)
    total = _with_noise((risks + nonlinear)[:, None, None] + capacity, cost[None])
    # Where all is vacuous the order of the finite ones still counts.
    finalists = jnp.argsort(jnp.min(total, axis=(1, 2)))[: min(FINALISTS, len(gammas))]
    metrics = jnp.argmin(jnp.min(total, axis=2), axis=1)[finalists]
    few = jnp.arange(0, count, -(-count // _GLIMPSE))

    def choose(args):
        place, metric = args
        risk = jax.lax.map(
            lambda d: jnp.mean(smoothed(few, gammas[place], d, metric)), noise, batch_size=8
        )
        found = _with_noise(risk + nonlinear[place] + capacity[place, metric], cost[metric])
        best = jnp.argmin(found)
        whole = jax.lax.map(
            lambda i: smoothed(i[None], gammas[place], noise[best], metric)[0],
            jnp.arange(count),
            batch_size=min(_BLOCK, count),
        )
        risk = jnp.mean(whole)
        below = risk + nonlinear[place] + capacity[place, metric, best]
        return _with_noise(below, cost[metric, best]), risk, best

    values, risks, noises = jax.lax.map(choose, (finalists, metrics))
    last = jnp.argmin(values)
    cell = (finalists[last], metrics[last], noises[last])
    terms = {"nonlinear": nonlinear, "path": path, "move": move, "family": family}
    terms = {name: value[cell[0]] for name, value in terms.items()}
    terms |= {"capacity": capacity[cell], "divergence": divergence[cell], "prior": prior[cell]}
    terms |= {"linear": linear[cell] * math.sqrt(classes - 1), "noise": noise[cell[2]]}
    # The cells were found over gamma, where the bound has no unit; users have the network's.
    gamma = gammas[cell[0]]
    terms |= {name: terms[name] * gamma for name in ("linear", "noise", "path")}
    return _bound(
        values[last],
        risks[last],
        gamma=gamma,
        metric=cell[1],
        log_cells=jnp.asarray(log_cells),
        **terms,
    )


def _bound(value, train_risk, **terms) -> ClassBound:
    known = terms["nonlinear"] + terms["capacity"]
    return ClassBound(
        train_risk=train_risk,
        smoothing=jnp.where(jnp.isfinite(value), value - train_risk - known, jnp.inf),
        penalty=jnp.where(jnp.isfinite(value), value - train_risk, jnp.inf),
        value=value,
        result=where(jnp.isfinite(value), RESULTS.successful, RESULTS.blow_up),
        **terms,
    )
