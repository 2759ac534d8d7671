"""The anchored bound: a network pays for its distance from one that a part of the sample
determines."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, Shaped

from .. import _validate
from .._results import RESULTS
from .._types import AnyArray, Numeric, Weights
from ._anchored_grid import SMALLEST, AnchoredGrid
from ._anchored_nearby import Nearby, checked_nearby
from ._anchored_problem import floored
from ._anchored_search import FINALISTS, AnchoredBound, anchored_search

# Folded into the key: one that has served for an initialization gives other numbers here.
_TAG = 0x616E6368


def anchored_bound(
    x: Shaped[AnyArray, "n d"],
    y: Shaped[AnyArray, " n"],
    weights: Weights,
    anchor: Weights,
    *,
    x_first: Shaped[AnyArray, "m1 d"],
    epsilon: Numeric,
    key: PRNGKeyArray,
    delta: Numeric = 0.01,
    shapes: Shaped[AnyArray, "shapes width"] | None = None,
    metrics: Shaped[AnyArray, "metrics d"] | None = None,
    anchors: int = 1,
    draws: int = 8,
    grid: AnchoredGrid | None = None,
    near: Nearby | None = None,
    finalists: int = FINALISTS,
) -> AnchoredBound:
    """The anchored bound on a network with one hidden layer. The sample is split into S1 and S2
    beforehand; S1 determines the coordinates $\\hat x$, a network U, the anchor, and all grids;
    W is trained in any way on all of it. Write $f_W = l \\cdot \\hat x + \\frac\\epsilon2
    \\sum_k s_k |u_k \\cdot \\hat x|$ and let $h_\\theta$ have $l + S_0 n_0$ and
    $u_k + \\sigma_k n_k$ in their places, n standard normal; $q = \\|\\hat x\\|_Q$. With
    probability $1 - \\delta$ over S2 (n samples) and the draws, for all cells and *all* networks W,

    $P(y f_W \\le 0) \\le \\text{Bin}^{-1}(k_\\tau; n, \\delta_1/(n_U n_\\tau n_Q))
    + \\frac1{p_c} \\text{kl}^{-1}\\big(\\frac1n \\sum_i [y_i f_U(x_i) > \\tau q_i]\\,
    P_\\theta(y_i h_\\theta(x_i) \\le c_i q_i),
    \\frac{\\text{KL} + \\ln(2 \\sqrt n K/\\delta_2)}{n}\\big)$

    with $k_\\tau$ the number of samples of S2 on which the anchor has $y f_U \\le \\tau q$ (its
    errors, at $\\tau = 0$), KL the divergence of the noise around W from that around U, and a
    threshold c that the noise exceeds with a probability of at most $1 - p_c$. It assumes iid
    samples and nothing else. Outputs that are zero or not a number are errors. New here: statement
    and proof are in the README of this folder, Section 8.

    The mean over the noise of the linear part is exact; that over the rest is estimated with
    `draws` independent draws for each sample, and what that may be off by is paid for within
    $\\delta$. The draws come from `key` and must not depend on the sample nor on what trained the
    networks: take a key that nothing else has used. (A fixed number is folded into it, so that
    even the key of the initialization gives other draws than the initialization saw.) At
    $\\epsilon = 0$ nothing is drawn.

    **Main arguments:**

    - `x`: S2 in the coordinates $\\hat x$, `(n d)`; see [`split`][].
    - `y`: its labels, in {-1, +1}.
    - `weights`: $W_1$ `(width d)` in these coordinates and $W_2$ `(1 width)`.
    - `anchor`: the anchor's, of the same shapes; S1 and independent randomness determine it.
    - `x_first`: S1 (or some of it) in the coordinates $\\hat x$, `(m1 d)`: the noise is measured in
        units of the anchor's outputs there.
    - `epsilon`: one minus the negative slope, in [0, 1].
    - `key`: a JAX random key, for the draws.

    **Other arguments:**

    - `delta`: one minus the confidence.
    - `shapes`: r, how the nonlinear noise is shared out over the units, $\\sigma_k^2 \\propto r_k$;
        determined by S1, such as [`anchor_shapes`][]. By default the sizes of the anchor's units.
    - `metrics`: the diagonals of Q to try, positive and determined by S1; the identity by default.
    - `anchors`: $n_U$, the number of anchors of which the best bound is reported, such as those of
        several training times.
    - `draws`: an even number, of draws for each sample.
    - `grid`: an [`AnchoredGrid`][]; it must be fixed before S2 is seen.
    - `near`: a [`Nearby`][], what was known of W before it was trained. KL is then the most that
        it could be, and the price of the signs that of the most that could differ: with the
        envelope, all but the measured errors is known a priori in each cell. If W turns out to be
        farther, what it costs stands there, and the bound holds, but it was not known before.
    - `finalists`: how many of the cells that look best are looked at more closely.

    **Returns:**

    An [`AnchoredBound`][].

    **Raises:**

    `ValueError` naming the argument, or if `jax_enable_x64` is not set.
    """
    _validate.needs_x64("anchored_bound")
    grid = AnchoredGrid() if grid is None else grid
    _validate.instance("grid", grid, AnchoredGrid)
    weights, anchor = two_layers("weights", weights), two_layers("anchor", anchor)
    if [w.shape for w in weights] != [w.shape for w in anchor]:
        raise ValueError(
            f"`anchor` must have the shapes of `weights`, {[w.shape for w in weights]}, got "
            f"{[w.shape for w in anchor]}."
        )
    width, dim = weights[0].shape
    x, y = samples("x", x, dim), labels("y", y)
    x_first = samples("x_first", x_first, dim)
    if y.shape != x.shape[:1]:
        raise ValueError(f"`y` must have shape ({x.shape[0]},), got {y.shape}.")
    draws = _validate.integer("draws", draws, 2)
    if draws % 2:
        raise ValueError(f"`draws` must be even, got {draws}.")
    if shapes is not None:
        shapes = _rows("shapes", shapes, width)
    roots = None if metrics is None else jnp.sqrt(_rows("metrics", metrics, dim))
    nearby = None if near is None else checked_nearby(near, width, dim)
    settings = {
        "epsilon": _validate.number("epsilon", epsilon, 0, 1),
        "delta": _validate.number("delta", delta, 0, 1, open_low=True, open_high=True),
        "key": jax.random.fold_in(_validate.key("key", key), _TAG),
        "pairs": draws // 2,
        "anchors": _validate.integer("anchors", anchors, 1),
        "grid": grid,
        "near": nearby,
        "finalists": _validate.integer("finalists", finalists, 1),
    }
    if roots is None:
        return anchored_search(x, y, x_first, weights, anchor, shapes, **settings)
    best = None
    keys = jax.random.split(settings["key"], len(roots))
    for i, root in enumerate(roots[:, None]):
        settings["key"] = keys[i]
        if nearby is not None:
            settings["near"] = nearby.over(root[0])
        net, centre = ((w[0] / root, w[1]) for w in (weights, anchor))
        found = anchored_search(
            x * root, y, x_first * root, net, centre, shapes, metrics=len(roots), **settings
        )
        best = found if best is None else _better(best, found, i)
    assert best is not None
    return best


def _better(one: AnchoredBound, other: AnchoredBound, metric: int) -> AnchoredBound:
    take = other.value < one.value
    arrays = [{n: getattr(b, n) for n in b.__dataclass_fields__} for b in (one, other)]
    arrays[1]["metric"] = jnp.full_like(one.metric, metric)
    results = [a.pop("result") for a in arrays]
    chosen = jax.tree.map(lambda a, b: jnp.where(take, b, a), *arrays)
    return AnchoredBound(**chosen, result=RESULTS.where(take, results[1], results[0]))


def anchor_shapes(
    anchor: Weights, others: Sequence[Weights], *, powers: tuple[float, ...] = (1.0, 1.5)
) -> Float[Array, "powers width"]:
    """Shapes of the nonlinear noise: how far each unit of the anchor is from that of networks
    trained alike on parts of S1, $r_k = \\max(\\text{rms}\\, \\|d_k\\|, \\text{mean}/5)^p$ with
    the displacements $d_k$ of $W_{2k} W_{1k}$.

    **Arguments:**

    - `anchor`: $W_1$ `(width d)` in the coordinates $\\hat x$ and $W_2$ `(1 width)`.
    - `others`: networks of the same shapes; S1 and independent randomness determine them.
    - `powers`: p, one shape for each.

    **Returns:**

    `(powers width)`.

    **Raises:**

    `ValueError` naming the argument, or if `jax_enable_x64` is not set.
    """
    _validate.needs_x64("anchor_shapes")
    anchor = two_layers("anchor", anchor)
    if not isinstance(others, Sequence) or not others:
        raise ValueError("`others` must be a sequence of at least one network, got none.")
    others = [two_layers("others", other) for other in others]
    shapes = [w.shape for w in anchor]
    if any([w.shape for w in other] != shapes for other in others):
        raise ValueError(f"`others` must have the shapes of `anchor`, {shapes}.")
    if not isinstance(powers, tuple) or not powers:
        raise ValueError(
            f"`powers` must be a tuple of at least one number, got {_validate.shown(powers)}."
        )
    powers = tuple(_validate.scalar("powers", p, 0) for p in powers)
    # All networks over one unit: their differences count.
    scale = [jnp.max(jnp.abs(w)) for w in anchor]
    scale = [jnp.where(s > 0, s, 1.0) for s in scale]

    def units(weights):
        return (weights[1][0] / scale[1])[:, None] * (weights[0] / scale[0])

    moved = jnp.stack([units(other) - units(anchor) for other in others])
    sizes = floored(jnp.sqrt(jnp.mean(jnp.sum(moved**2, axis=2), axis=0)))
    return jnp.stack([sizes**p for p in powers])


def two_layers(name: str, weights: Weights) -> Weights:
    """A network with one hidden layer, in float64."""
    weights = _validate.matrices(name, weights)
    if len(weights) != 2:
        raise ValueError(f"`{name}` must be of depth 2 (one hidden layer), got {len(weights)}.")
    _validate.finite(name, weights)
    return tuple(jnp.asarray(w, float) for w in weights)


def samples(name: str, x: Shaped[AnyArray, "n d"], dim: int) -> Float[Array, "n d"]:
    """Inputs that a network takes."""
    x = _validate.real(name, x)
    if x.ndim != 2 or not x.shape[0] or x.shape[1] != dim:
        raise ValueError(f"`{name}` must have shape (samples, {dim}), got {x.shape}.")
    return x


def labels(name: str, y: Shaped[AnyArray, " n"]) -> Float[Array, " n"]:
    """Labels in {-1, +1}."""
    y = _validate.real(name, y)
    if y.ndim != 1 or (not _validate.is_traced(y) and not bool(jnp.all(jnp.abs(y) == 1))):
        raise ValueError(f"`{name}` must be labels -1 and +1 of shape (n,), got another array.")
    return y


def _rows(name: str, given, width: int) -> Float[Array, "rows width"]:
    rows = _validate.real(name, given, 0, open_low=True)
    if rows.ndim != 2 or not rows.shape[0] or rows.shape[1] != width:
        raise ValueError(f"`{name}` must have shape (n, {width}), got {rows.shape}.")
    if not _validate.is_traced(given):
        values = np.asarray(given, float)
        least = np.min(values / np.max(values, axis=1, keepdims=True))
        if least < SMALLEST:
            raise ValueError(
                f"`{name}` must be at least {SMALLEST:g} of the largest in the row, got "
                f"{least:g} of it."
            )
    return rows / jnp.max(rows, axis=1, keepdims=True)
