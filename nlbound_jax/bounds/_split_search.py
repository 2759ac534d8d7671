"""The search for the best cell of the split bound, term by term."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .. import _validate
from .._results import RESULTS, where
from .._types import Numeric
from ._noise_ball import mean_absolute_noise, smooth
from ._split_grid import SplitGrid
from ._split_norms import LinearMetric, check_slope
from ._split_prior import LinearSizes, divergences

_Scalar = Float[Array, ""]

# How many margins, out of those tried, get their smoothed ramp risk computed.
FINALISTS = 4


class SplitBound(eqx.Module):
    """The split bound of one network in its best cell, term by term.

    **Attributes:**

    - `train_risk`: $\\frac1m \\sum E_\\xi \\text{ramp}_\\gamma(y f + \\xi)$, the ramp risk smoothed
        by the noise.
    - `nonlinear`: D, the Rademacher complexity of the nonlinear part.
    - `capacity`: $\\sqrt{(\\mathcal K + \\ln(K/\\delta))/2m}$, for the linear part.
    - `deviation`: what was added over $\\gamma$ (zero but for a train risk of another network).
    - `smoothing`: the cost of the noise, $c \\sqrt{\\min(V, 1)}$ with
        $c = \\nu \\sqrt d\\, E|u_1| / 2\\gamma$ and V the value.
    - `penalty`: the sum of the last four.
    - `value`: V, `train_risk + penalty`, the bound on P(y f <= 0).
    - `gamma`: the margin; `noise`: $\\nu$; `linear`: B; `paths`: $P_j^+ + P_j^-$ of the cell,
        `(L-1,)`; all in the units of the network's outputs.
    - `family`: which metric the cell has; `prior`: which of `grid.priors`.
    - `log_cells`: $\\ln K$.
    - `result`: `successful`, or `blow_up` where a norm is `+inf` or beyond the declared range.
    """

    train_risk: _Scalar
    nonlinear: _Scalar
    capacity: _Scalar
    deviation: _Scalar
    smoothing: _Scalar
    penalty: _Scalar
    value: _Scalar
    gamma: _Scalar
    noise: _Scalar
    linear: _Scalar
    paths: Float[Array, " levels"]
    family: Array
    prior: Array
    log_cells: _Scalar
    result: RESULTS


def layer_factors(epsilon: _Scalar | float, depth: int) -> Float[Array, " levels"]:
    """What the totals $p_j$ of [`path_norms`][] are multiplied by in D:
    $\\sigma^{L-1-j} \\rho^{j-1}$ for j = 1 ... L-1, $\\sigma = 1 - \\epsilon/2$ and
    $\\rho = \\sigma + \\epsilon/\\sqrt2$.

    **Arguments:**

    - `epsilon`: one minus the negative slope, in [0, 1].
    - `depth`: L.

    **Returns:**

    `(L-1,)`.

    **Raises:**

    `ValueError` naming the argument.
    """
    depth = _validate.integer("depth", depth, 2)
    check_slope(epsilon)
    j = jnp.arange(1, depth, dtype=float)
    slope = 1 - epsilon / 2
    return slope ** (depth - 1 - j) * (slope + epsilon / math.sqrt(2)) ** (j - 1)


def symmetrization_factor(num_samples: Numeric) -> _Scalar:
    """What the Rademacher complexity of 2m points, rather than m, leaves of every D:

    $S_m = \\min\\{1,\\; 1/(\\sqrt2\\,(1 - 1/\\sqrt{\\pi m}))\\}$,

    0.709 at m = 60000. The 1 is classical symmetrization, which is better up to m = 3.

    **Arguments:**

    - `num_samples`: m, at least 1.

    **Returns:**

    $S_m$.

    **Raises:**

    `ValueError` naming the argument.
    """
    if not _validate.is_traced(num_samples):  # as for a slope
        _validate.number("num_samples", num_samples, 1)
    m = jnp.asarray(num_samples, float)
    return jnp.minimum(1.0, 1 / (math.sqrt(2) * (1 - 1 / jnp.sqrt(math.pi * m))))


class SplitSizes(eqx.Module):
    """The norms of a network, and what the distribution of the inputs contributes to D.

    **Attributes:**

    - `linear_norm`: $\\|l_W\\|$ or a bound on it, or [`LinearSizes`][] for more priors.
    - `paths`: the totals $p_j$ or bounds on them, `(families levels)`, or a [`LinearMetric`][].
    - `roots`: by family, what stands for $\\sqrt d$ in D, `(families,)`.
    - `noise_root`: what stands for $\\sqrt d$ in c, the cost of the noise.
    """

    linear_norm: _Scalar | LinearSizes
    paths: Float[Array, "families levels"] | LinearMetric
    roots: Float[Array, " families"]
    noise_root: _Scalar

    @property
    def families(self) -> int:
        """How many pairs of a prior and a metric are tried; the union is over them too."""
        linear = self.linear_norm
        priors = len(linear.exponents) if isinstance(linear, LinearSizes) else 1
        return self.roots.shape[0] * priors


def _penalties(
    sizes: SplitSizes, gammas, epsilon, num_samples, delta, dim: int, depth: int, grid: SplitGrid
):
    """The cells, each `(gammas noises)`, in the best family: all that does not look at a sample."""
    # Norms over gamma, rounded up to the grid: what is rounded up is still a bound, and the union
    # is over the grid.
    noise = jnp.asarray(grid.values("noise"))
    costs, linear = divergences(sizes.linear_norm, gammas, dim, grid)
    prior = jnp.argmin(costs, axis=-1)
    divergence = jnp.min(costs, axis=-1)
    linear = jnp.take_along_axis(linear, prior[..., None], axis=-1)[..., 0]
    log_cells = grid.log_cells(depth, sizes.families)
    capacity = jnp.sqrt((divergence + log_cells - jnp.log(delta)) / (2 * num_samples))
    wrong_side = noise * sizes.noise_root * mean_absolute_noise(dim) / 2
    # In the metric along the linear part the paths depend on the noise too.
    if isinstance(sizes.paths, LinearMetric):
        radii = (gammas[:, None] * noise[None, :]).reshape(-1)
        paths = sizes.paths.paths(radii, grid).reshape(len(gammas), len(noise), -1, 1)
        paths = paths / gammas[:, None, None, None]
    else:
        paths = (sizes.paths[None] / gammas[:, None, None])[:, None]
    paths = grid.round_up("path", paths) * ((grid.pieces + 1) / grid.pieces)
    factors = layer_factors(epsilon, depth)
    halved = symmetrization_factor(num_samples)
    terms = halved * epsilon / jnp.sqrt(num_samples) * factors[None, None, None] * paths
    terms = jnp.where(epsilon > 0, terms, 0.0)  # no nonlinear part, however large the norms
    nonlinear = jnp.sum(terms, axis=-1) * sizes.roots[None, None]
    family = jnp.argmin(nonlinear, axis=-1)
    nonlinear = jnp.min(nonlinear, axis=-1)
    shape = (len(gammas), len(noise))
    chosen = jnp.take_along_axis(paths, family[..., None, None], axis=2)[..., 0, :]
    return {
        "linear": linear,
        "prior": prior,
        "paths": jnp.broadcast_to(chosen, (*shape, depth - 1)),
        "family": jnp.broadcast_to(family, shape),
        "nonlinear": jnp.broadcast_to(nonlinear, shape),
        "capacity": capacity,
        "wrong_side": jnp.broadcast_to(wrong_side[None, :], shape),
        "noise": jnp.broadcast_to(noise[None, :], shape),
    }


def _smoothing(smoothed, wrong_side):
    """What turns a bound A on the risk with noise into one without: the noise helps only where
    the margin is not positive, so that $P \\le A + c \\sqrt P$. This is $c \\sqrt P$ at the largest
    such P, and c where that P exceeds 1."""
    root = (wrong_side + jnp.sqrt(wrong_side**2 + 4 * smoothed)) / 2
    return wrong_side * jnp.minimum(root, 1.0)


@eqx.filter_jit
def split_search(
    margins: Float[Array, " m"],
    input_norms: Float[Array, " m"],
    sizes: SplitSizes,
    gammas: Float[Array, " gammas"],
    *,
    epsilon: _Scalar,
    num_samples: _Scalar,
    delta: _Scalar,
    deviation: _Scalar,
    dim: int,
    depth: int,
    grid: SplitGrid,
) -> SplitBound:
    """The engine of [`split_bound`][]: the best cell for arrays that were checked, compiled once
    for all numbers of one shape. Any choice is covered by the union, so the search may be as coarse
    as it likes: for each margin the radius that is best for the plain ramp risk, the margins ranked
    by it too, and the smoothed one only for the finalists.

    **Arguments:**

    - `margins`: $y_i f_W(x_i)$ on the training set, `(m,)`.
    - `input_norms`: $\\|x_i\\|$, `(m,)`, in the dtype of `margins`.
    - `sizes`: the norms of the network.
    - `gammas`: the margins to try, `(gammas,)`, such as [`split_gammas`][].
    - `epsilon`, `delta`, `deviation`, `dim`, `depth`, `grid`: as for [`split_bound`][]; the first
        three are scalar arrays in float64.
    - `num_samples`: m, a scalar array in float64.

    **Returns:**

    A [`SplitBound`][].
    """

    def plain(gamma):
        ramp = jnp.clip(1 - margins / gamma.astype(margins.dtype), 0, 1)
        return jnp.mean(ramp, dtype=float)

    def smoothed(args):
        gamma, noise = (a.astype(margins.dtype) for a in args)
        return jnp.mean(smooth(margins, noise * gamma * input_norms, gamma, dim), dtype=float)

    # The smoothed risk costs an integral a sample, the plain one a subtraction, and they order the
    # cells nearly alike. Margins one after the other: all at once would be (gammas m) floats.
    risks = jax.lax.map(plain, gammas)
    cells = _penalties(sizes, gammas, epsilon, num_samples, delta, dim, depth, grid)
    cells["deviation"] = jnp.broadcast_to((deviation / gammas)[:, None], cells["noise"].shape)
    known = cells["nonlinear"] + cells["capacity"] + cells["deviation"]
    total = risks[:, None] + known
    total = total + _smoothing(total, cells["wrong_side"])
    best = jnp.argmin(total, axis=1)
    at = jnp.arange(len(gammas))
    # Where all is vacuous the order of the finite ones still counts.
    finalists = jnp.argsort(total[at, best])[: min(FINALISTS, len(gammas))]
    cells = {name: value[finalists, best[finalists]] for name, value in cells.items()}
    known, gammas = known[finalists, best[finalists]], gammas[finalists]
    risks = jax.lax.map(smoothed, (gammas, cells["noise"]))
    cells["smoothing"] = _smoothing(risks + known, cells.pop("wrong_side"))
    penalty = known + cells["smoothing"]
    total = risks + penalty
    place = jnp.argmin(total)
    # The cells were found over gamma, where the bound has no unit; users have the network's.
    cells = {name: value[place] for name, value in cells.items()}
    gamma = gammas[place]
    units = {name: cells.pop(name) * gamma for name in ("noise", "linear", "paths")}
    value = total[place]
    return SplitBound(
        train_risk=risks[place],
        penalty=penalty[place],
        value=value,
        gamma=gamma,
        log_cells=jnp.asarray(grid.log_cells(depth, sizes.families)),
        result=where(jnp.isfinite(value), RESULTS.successful, RESULTS.blow_up),
        **cells,
        **units,
    )


def split_gammas(margins: Float[Array, " m"]) -> Float[Array, " gammas"]:
    """The margins that [`split_bound`][] tries by default: 32 around the root mean square of the
    outputs. Their number costs nothing.

    **Arguments:**

    - `margins`: $y_i f_W(x_i)$ on the training set, `(m,)`.

    **Returns:**

    `(32,)`.
    """
    size = jnp.sqrt(jnp.mean(margins**2, dtype=float))
    size = jnp.where(jnp.isfinite(size) & (size > 0), size, 1.0)
    return size * jnp.asarray(np.geomspace(3e-3, 3.0, 32))
