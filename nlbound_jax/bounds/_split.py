"""The split bound: PAC-Bayes for the linear part, Rademacher complexity for the rest."""

import math

import jax.numpy as jnp
from jaxtyping import Float

from .. import _validate
from .._types import AnyArray, Numeric
from ._split_grid import SplitGrid
from ._split_norms import LinearMetric
from ._split_prior import LinearSizes
from ._split_search import SplitBound, SplitSizes, split_gammas, split_search


def split_bound(
    margins: Float[AnyArray, " m"],
    input_norms: Float[AnyArray, " m"],
    *,
    epsilon: Numeric,
    depth: int,
    dim: int,
    linear_norm: Numeric | LinearSizes,
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

    $P(y f_W \\le 0) \\le \\Big(\\frac{c + \\sqrt{c^2 + 4A}}2\\Big)^2, \\quad
    A = \\frac1m \\sum_i E_\\xi\\, \\text{ramp}_\\gamma(y_i f_W(x_i) + \\xi_i) + D
    + \\sqrt{\\frac{\\mathcal K + \\ln(K/\\delta)}{2m}}, \\quad
    c = \\frac{\\nu \\sqrt d\\, E|u_1|}{2\\gamma}$

    with $\\xi = \\nu u \\cdot x$, u uniform in the unit ball, and
    $D = S_m \\frac\\epsilon\\gamma \\sqrt{\\frac dm} \\sum_{j=1}^{L-1} \\sigma^{L-1-j}
    \\rho^{j-1} (P_j^+ + P_j^-)$, $\\rho = \\sigma + \\epsilon/\\sqrt2$ and $S_m$ of
    [`symmetrization_factor`][]; $\\mathcal K = d \\ln(1 + B/\\nu)$ for the prior that is uniform
    in a ball. The cell is found by a search; the union over all
    cells of `grid` is paid for. It needs no assumption on the training and holds for every
    slope; that inputs are whitened with the empirical $\\Sigma_X$ is an approximation (see
    `roots`). New here: statement and proof are in the README of this folder.

    **Main arguments:**

    - `margins`: $y_i f_W(x_i)$ on the training set, `(m,)`; float32 or float64.
    - `input_norms`: $\\|x_i\\|$, `(m,)`.
    - `epsilon`: one minus the negative slope, in [0, 1].
    - `depth`: L.
    - `dim`: d.
    - `linear_norm`: $\\|l_W\\|$ or a bound on it, for that prior; or [`LinearSizes`][], for all of
        `grid.priors`.
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
    - `noise_root`: what stands for $\\sqrt d$ in c.
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
            raise ValueError(_of_another_grid("paths", paths.exponents, grid.exponents))
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
    size = _linear(linear_norm, dim, grid)
    numbers = {
        "epsilon": real("epsilon", epsilon, 0, 1),
        "num_samples": jnp.asarray(float(margins.shape[0])),
        "delta": real("delta", delta, 0, 1, open_low=True, open_high=True),
        "deviation": _validate.at_least_zero("deviation", deviation),
    }
    sizes = SplitSizes(
        linear_norm=size,
        paths=paths,
        roots=scale if roots is None else real("roots", roots, 0),
        noise_root=real("noise_root", math.sqrt(dim) if noise_root is None else noise_root, 0),
    )
    for name, value in {**numbers, "noise_root": sizes.noise_root}.items():
        if value.ndim:
            raise ValueError(f"`{name}` must be a single number, got shape {value.shape}.")
    if sizes.roots.shape != (families,):
        raise ValueError(f"`roots` must have shape ({families},), got {sizes.roots.shape}.")
    tried = split_gammas(margins) if gammas is None else real("gammas", gammas, 0, open_low=True)
    if tried.ndim != 1 or not tried.shape[0]:
        raise ValueError(f"`gammas` must have shape (gammas,), got {tried.shape}.")
    return split_search(
        margins, input_norms, sizes, tried, **numbers, dim=dim, depth=depth, grid=grid
    )


def _of_another_grid(name, found, expected):
    return f"`{name}` must be of the same `grid`, got exponents {found} against {expected}."


def _linear(linear_norm, dim, grid):
    if not isinstance(linear_norm, LinearSizes):
        size = _validate.at_least_zero("linear_norm", linear_norm)
        if size.ndim:
            raise ValueError(f"`linear_norm` must be a single number, got shape {size.shape}.")
        return size
    if linear_norm.exponents != grid.priors:
        raise ValueError(_of_another_grid("linear_norm", linear_norm.exponents, grid.priors))
    if linear_norm.squares.shape != (dim,):
        raise ValueError(
            f"`linear_norm` must have `dim` (={dim}) squares, got {linear_norm.squares.shape}."
        )
    return linear_norm


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
