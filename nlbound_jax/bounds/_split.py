"""The split bound: PAC-Bayes for the linear part, Rademacher complexity for the rest."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .. import _validate
from .._results import RESULTS, where
from .._types import AnyArray, Numeric
from ._noise_ball import mean_absolute_noise, smooth
from ._split_grid import SplitGrid
from ._split_norms import LinearMetric

_Scalar = Float[Array, ""]

# How many margins, out of those tried, get their smoothed ramp risk computed.
FINALISTS = 4


class SplitBound(eqx.Module):
    """The split bound of one network in its best cell, term by term.

    **Attributes:**

    - `train_risk`: $\\frac1m \\sum E_\\xi \\text{ramp}_\\gamma(y f + \\xi)$, the ramp risk smoothed
        by the noise.
    - `complexity`: D, the Rademacher complexity of the nonlinear part.
    - `capacity`: $\\sqrt{(d \\ln(1 + B/\\nu) + \\ln(K/\\delta))/2m}$, for the linear part.
    - `smoothing`: $\\nu \\sqrt d\\, E|u_1| / 2\\gamma$, the cost of the noise.
    - `deviation`: what was added over $\\gamma$ (zero but for a train risk of another network).
    - `penalty`: the sum of the last four.
    - `value`: `train_risk + penalty`, the bound on P(y f <= 0).
    - `gamma`: the margin; `noise`: $\\nu$; `linear`: B; `paths`: $P_j^+ + P_j^-$ of the cell,
        `(L-1,)`; all in the units of the network's outputs.
    - `family`: which metric the cell has.
    - `log_cells`: $\\ln K$.
    - `result`: `successful`, or `blow_up` where a norm is `+inf` or beyond the declared range.
    """

    train_risk: _Scalar
    complexity: _Scalar
    capacity: _Scalar
    smoothing: _Scalar
    deviation: _Scalar
    penalty: _Scalar
    value: _Scalar
    gamma: _Scalar
    noise: _Scalar
    linear: _Scalar
    paths: Float[Array, " levels"]
    family: Array
    log_cells: _Scalar
    result: RESULTS


def layer_factors(epsilon, depth: int) -> Float[Array, " levels"]:
    """$\\sigma^{L-1-j} (1 + \\epsilon/2)^{j-1}$ for j = 1 ... L-1."""
    j = jnp.arange(1, depth, dtype=float)
    return (1 - epsilon / 2) ** (depth - 1 - j) * (1 + epsilon / 2) ** (j - 1)


class Sizes(eqx.Module):
    """The norms of a network, and what the distribution of the inputs contributes.

    `paths` is `(families levels)`, or a [`LinearMetric`][]; `roots`, `(families,)`, is $\\sqrt d$
    for the plain norms."""

    linear_norm: _Scalar
    paths: Float[Array, "families levels"] | LinearMetric
    roots: Float[Array, " families"]
    noise_root: _Scalar


def _penalties(sizes: Sizes, gammas, numbers, dim: int, depth: int, grid: SplitGrid):
    """Every term but the train risk, `(gammas noises)`, in the best family; and the cells."""
    epsilon, m = numbers["epsilon"], numbers["num_samples"]
    noise = jnp.asarray(grid.values("noise"))
    linear = grid.round_up("linear", sizes.linear_norm / gammas)
    divergence = dim * jnp.log1p(linear[:, None] / noise[None, :])
    log_cells = grid.log_cells(depth, sizes.roots.shape[0])
    capacity = jnp.sqrt((divergence + log_cells - jnp.log(numbers["delta"])) / (2 * m))
    smoothing = noise * sizes.noise_root * mean_absolute_noise(dim) / 2
    if isinstance(sizes.paths, LinearMetric):
        radii = (gammas[:, None] * noise[None, :]).reshape(-1)
        paths = sizes.paths.paths(radii, grid).reshape(len(gammas), len(noise), -1, 1)
        paths = paths / gammas[:, None, None, None]
    else:
        paths = (sizes.paths[None] / gammas[:, None, None])[:, None]
    paths = grid.round_up("path", paths) * ((grid.pieces + 1) / grid.pieces)
    factors = layer_factors(epsilon, depth)
    terms = epsilon / jnp.sqrt(m) * factors[None, None, None] * paths
    terms = jnp.where(epsilon > 0, terms, 0.0)  # no nonlinear part, however large the norms
    complexity = jnp.sum(terms, axis=-1) * sizes.roots[None, None]
    family = jnp.argmin(complexity, axis=-1)
    complexity = jnp.min(complexity, axis=-1)
    shape = (len(gammas), len(noise))
    chosen = jnp.take_along_axis(paths, family[..., None, None], axis=2)[..., 0, :]
    cells = {
        "linear": jnp.broadcast_to(linear[:, None], shape),
        "paths": jnp.broadcast_to(chosen, (*shape, depth - 1)),
        "family": jnp.broadcast_to(family, shape),
        "complexity": jnp.broadcast_to(complexity, shape),
        "capacity": capacity,
        "smoothing": jnp.broadcast_to(smoothing[None, :], shape),
        "noise": jnp.broadcast_to(noise[None, :], shape),
    }
    return cells, cells["complexity"] + capacity + cells["smoothing"]


@eqx.filter_jit
def search(
    margins, input_norms, sizes: Sizes, gammas, numbers, dim: int, depth: int, grid: SplitGrid
) -> SplitBound:
    """The best cell. Any choice is covered by the union, so the search may be as coarse as it
    likes: the radius that minimizes the penalty for each margin, the margins ranked by the plain
    ramp risk, and the smoothed one only for the finalists."""
    cells, penalty = _penalties(sizes, gammas, numbers, dim, depth, grid)
    best = jnp.argmin(penalty, axis=1)
    at = jnp.arange(len(gammas))
    cells = {name: value[at, best] for name, value in cells.items()}
    deviation = numbers["deviation"] / gammas
    penalty = penalty[at, best] + deviation

    def plain(gamma):
        ramp = jnp.clip(1 - margins / gamma.astype(margins.dtype), 0, 1)
        return jnp.mean(ramp, dtype=float)

    def smoothed(args):
        gamma, noise = (a.astype(margins.dtype) for a in args)
        return jnp.mean(smooth(margins, noise * gamma * input_norms, gamma, dim), dtype=float)

    total = jax.lax.map(plain, gammas) + penalty
    # Where all is vacuous the order of the finite ones still counts.
    finalists = jnp.argsort(total)[: min(FINALISTS, len(gammas))]
    risks = jax.lax.map(smoothed, (gammas[finalists], cells["noise"][finalists]))
    total = risks + penalty[finalists]
    place = jnp.argmin(total)
    cells = {name: value[finalists][place] for name, value in cells.items()}
    gamma = gammas[finalists][place]
    units = {name: cells.pop(name) * gamma for name in ("noise", "linear", "paths")}
    value = total[place]
    return SplitBound(
        train_risk=risks[place],
        deviation=deviation[finalists][place],
        penalty=penalty[finalists][place],
        value=value,
        gamma=gamma,
        log_cells=jnp.asarray(grid.log_cells(depth, sizes.roots.shape[0])),
        result=where(jnp.isfinite(value), RESULTS.successful, RESULTS.blow_up),
        **cells,
        **units,
    )


def default_gammas(margins) -> Float[Array, " gammas"]:
    """32 margins around the root mean square of the outputs; their number costs nothing."""
    size = jnp.sqrt(jnp.mean(margins**2, dtype=float))
    size = jnp.where(jnp.isfinite(size) & (size > 0), size, 1.0)
    return size * jnp.asarray(np.geomspace(3e-3, 3.0, 32))


def split_bound(
    margins: Float[AnyArray, " m"],
    input_norms: Float[AnyArray, " m"],
    *,
    epsilon: Numeric,
    depth: int,
    dim: int,
    linear_norm: Numeric,
    paths: AnyArray | LinearMetric,
    delta: Numeric = 0.01,
    gammas: AnyArray | None = None,
    deviation: Numeric = 0.0,
    roots: AnyArray | None = None,
    noise_root: Numeric | None = None,
    grid: SplitGrid | None = None,
) -> SplitBound:
    """The split bound. Write $f_W(x) = l_W \\cdot x + N_W(x)$, $l_W = \\omega W_L \\cdots W_1$.
    With probability $1 - \\delta$, for all margins $\\gamma > 0$, all cells and *all* networks W
    in a cell, however they were trained,

    $P(y f_W \\le 0) \\le \\frac1m \\sum_i E_\\xi\\, \\text{ramp}_\\gamma(y_i f_W(x_i) + \\xi_i) + D
    + \\sqrt{\\frac{d \\ln(1 + B/\\nu) + \\ln(K/\\delta)}{2m}}
    + \\frac{\\nu \\sqrt d\\, E|u_1|}{2\\gamma}$

    with $\\xi = \\nu u \\cdot x$, u uniform in the unit ball, and
    $D = \\frac\\epsilon\\gamma \\sqrt{\\frac dm} \\sum_{j=1}^{L-1} \\sigma^{L-1-j}
    (1 + \\epsilon/2)^{j-1} (P_j^+ + P_j^-)$. The cell is found by a search; the union over all
    cells of `grid` is paid for. It needs no assumption on the training and holds for every
    slope; that inputs are whitened with the empirical $\\Sigma_X$ is an approximation (see
    `roots`). New here: statement and proof are in the README of this folder.

    **Main arguments:**

    - `margins`: $y_i f_W(x_i)$ on the training set, `(m,)`; float32 or float64.
    - `input_norms`: $\\|x_i\\|$, `(m,)`.
    - `epsilon`: one minus the negative slope, in [0, 1].
    - `depth`: L.
    - `dim`: d.
    - `linear_norm`: $\\|l_W\\|$, or a bound on it.
    - `paths`: the totals $p_j$ of [`path_norms`][] or bounds on them, `(L-1,)`; several families
        `(families, L-1)`; or a [`LinearMetric`][] (L = 2), which depends on $\\nu$.

    **Other arguments:**

    - `delta`: one minus the confidence.
    - `gammas`: the margins to try, `(gammas,)`; they cost nothing. By default 32 around the root
        mean square of `margins`.
    - `deviation`: a bound Q on the mean of $|f_W - f|$ over the training set where `margins` are
        those of another network f; $Q/\\gamma$ is added.
    - `roots`: by family, what stands for $\\sqrt d$ in D: a bound on the root of
        $E\\|x\\|^2$, `(families,)`; 1 for the metric.
    - `noise_root`: what stands for $\\sqrt d$ in the last term.
    - `grid`: a [`SplitGrid`][]; it must be fixed before the sample is seen.

    **Returns:**

    A [`SplitBound`][].

    **Raises:**

    `ValueError` naming the argument, or if `jax_enable_x64` is not set.
    """
    _validate.needs_x64("split_bound")
    depth, dim = _validate.integer("depth", depth, 2), _validate.integer("dim", dim, 1)
    grid = SplitGrid() if grid is None else grid
    _validate.instance("grid", grid, SplitGrid)
    margins, input_norms = _samples(margins, input_norms)
    real = _validate.real
    if isinstance(paths, LinearMetric):
        families = len(grid.metrics()[0])
        if depth != 2:
            raise ValueError(f"`depth` must be 2 with a metric, got {depth}.")
        if paths.exponents != grid.exponents:
            raise ValueError(
                f"`paths` must be a metric of the same `grid`, got exponents {paths.exponents} "
                f"against {grid.exponents}."
            )
        scale = jnp.ones(families)
    else:
        paths = _validate.at_least_zero("paths", paths)
        paths = paths[None] if paths.ndim == 1 else paths
        if paths.ndim != 2 or not paths.shape[0] or paths.shape[1] != depth - 1:
            raise ValueError(
                f"`paths` must have shape ({depth - 1},) or (families, {depth - 1}), "
                f"got {paths.shape}."
            )
        families = paths.shape[0]
        scale = jnp.full(families, math.sqrt(dim))
    size = _validate.at_least_zero("linear_norm", linear_norm)
    numbers = {
        "epsilon": real("epsilon", epsilon, 0, 1),
        "num_samples": jnp.asarray(float(margins.shape[0])),
        "delta": real("delta", delta, 0, 1, open_low=True, open_high=True),
        "deviation": _validate.at_least_zero("deviation", deviation),
    }
    sizes = Sizes(
        linear_norm=size,
        paths=paths,
        roots=scale if roots is None else real("roots", roots, 0),
        noise_root=real("noise_root", math.sqrt(dim) if noise_root is None else noise_root, 0),
    )
    for name, value in {**numbers, "linear_norm": size, "noise_root": sizes.noise_root}.items():
        if value.ndim:
            raise ValueError(f"`{name}` must be a single number, got shape {value.shape}.")
    if sizes.roots.shape != (families,):
        raise ValueError(f"`roots` must have shape ({families},), got {sizes.roots.shape}.")
    tried = default_gammas(margins) if gammas is None else real("gammas", gammas, 0, open_low=True)
    if tried.ndim != 1 or not tried.shape[0]:
        raise ValueError(f"`gammas` must have shape (gammas,), got {tried.shape}.")
    return search(margins, input_norms, sizes, tried, numbers, dim, depth, grid)


def _samples(margins, input_norms):
    dtype = getattr(margins, "dtype", float)
    margins = _validate.real("margins", margins)
    if jnp.issubdtype(dtype, jnp.floating):  # a large sample is worth its own precision
        margins = margins.astype(dtype)
    norms = _validate.real("input_norms", input_norms, 0).astype(margins.dtype)
    if margins.ndim != 1 or not margins.shape[0] or norms.shape != margins.shape:
        raise ValueError(
            "`margins` and `input_norms` must have the same shape (m,), "
            f"got {margins.shape} and {norms.shape}."
        )
    return margins, norms
