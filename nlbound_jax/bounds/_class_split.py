"""The split bound and the anchored bound of a network of one hidden layer with K outputs."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from .. import _validate
from .._types import AnyArray, Numeric
from ._class_grid import ClassGrid
from ._class_norms import centred
from ._class_ramp import class_outputs, rivals
from ._class_search import ClassBound, ClassSizes, class_search
from ._split_search import split_gammas


def class_split_bound(
    outputs: Float[AnyArray, "m K"],
    labels: Shaped[AnyArray, " m"],
    input_norms: Float[AnyArray, "*t m"],
    *,
    epsilon: Numeric,
    linear: Float[AnyArray, "*t K d"],
    paths: Float[AnyArray, " f"],
    roots: Float[AnyArray, " f"],
    noise_roots: Numeric | None = None,
    spectra: Float[AnyArray, "*t d"] | None = None,
    delta: Numeric = 0.01,
    gammas: AnyArray | None = None,
    grid: ClassGrid | None = None,
) -> ClassBound:
    """The split bound for several classes. Write $f(x) = l x + \\frac\\epsilon2 \\sum_{cp}
    a_{cp} |w_c \\cdot \\pi_p x|$, $a_{cp} \\in R^K$: a dense network of one hidden layer has one
    position p, a convolutional one many. With $\\Pi = I - 11^\\top/K$ and probability
    $1 - \\delta$, for all margins $\\gamma$, all cells and all networks in them, however trained,

    $P\\big(f_y \\le \\max_{j \\ne y} f_j\\big) \\le \\Big(\\frac{c + \\sqrt{c^2 + 4A}}2\\Big)^2,
    \\quad A = \\frac1m \\sum_i E_g\\, \\text{ramp}_\\gamma\\big(\\min_{j \\ne y}(f_y - f_j
    + \\sigma \\|x_i\\| (g_y - g_j))\\big) + D + \\sqrt{\\frac{\\mathcal K + \\ln(K/\\delta)}{2m}}$

    with $D = S_m \\sqrt\\pi\\, \\frac\\epsilon\\gamma P \\sqrt{V/m}$ ($S_m$ of
    [`symmetrization_factor`][]), $\\mathcal K = \\frac{(K-1) d}2 \\ln\\big(1
    + \\frac{B^2}{(K-1) d \\sigma^2}\\big)$, $B \\ge \\|\\Pi l\\|_F$, and
    $c = \\sigma \\sqrt{E\\|x\\|^2/\\pi}/\\gamma$. Statement and proof are in the README of this
    folder, section 9.

    **Main arguments:**

    - `outputs`: $f(x_i)$, `(m K)`, K at least 2.
    - `labels`: y, integers from 0 to K - 1.
    - `input_norms`: $\\|x_i\\|$ in the coordinates of the linear part, `(m,)`, or `(t m)` for
        several coordinates of which the best is taken.
    - `epsilon`: one minus the negative slope, in [0, 1].
    - `linear`: l in these coordinates, `(K d)` or `(t K d)`: [`class_linear_part`][].
    - `paths`: P, or a bound on it, in each metric: [`class_paths`][], `(f,)`.
    - `roots`: $\\sqrt V$ in each metric: [`class_root`][], `(f,)`.

    **Other arguments:**

    - `noise_roots`: the root of $E\\|x\\|^2$ in each of the coordinates, `(t,)`; $\\sqrt d$ if
        `None`.
    - `spectra`: what the priors of `grid` are made of, `(d,)` or `(t d)`, positive and fixed
        before the sample is seen (or the declared plug-in); all 1 if `None`.
    - `delta`: one minus the confidence.
    - `gammas`: the margins to try, `(gammas,)`; they cost nothing.
    - `grid`: a [`ClassGrid`][], fixed before the sample is seen.

    **Returns:**

    A [`ClassBound`][].

    **Raises:**

    `ValueError` naming the argument, or if `jax_enable_x64` is not set.
    """
    _validate.needs_x64("class_split_bound")
    cells: ClassGrid = _validate.instance("grid", ClassGrid() if grid is None else grid, ClassGrid)
    outputs, labels = class_outputs(outputs, labels)
    norms, sizes = _sizes(outputs, input_norms, linear, paths, roots, noise_roots, spectra, cells)
    if gammas is None:
        ahead, rival = rivals(outputs, labels)
        tried = split_gammas(jnp.min(jnp.where(rival, ahead, jnp.inf), axis=1))
    else:
        tried = _validate.real("gammas", gammas, 0, open_low=True)
    if tried.ndim != 1 or not tried.shape[0]:
        raise ValueError(f"`gammas` must have shape (gammas,), got {tried.shape}.")
    return class_search(
        outputs, labels, norms, sizes, tried, **_numbers(epsilon, delta), grid=cells
    )


def class_anchored_bound(
    outputs: Float[AnyArray, "m K"],
    labels: Shaped[AnyArray, " m"],
    input_norms: Float[AnyArray, "*t m"],
    *,
    epsilon: Numeric,
    linear: Float[AnyArray, "*t K d"],
    paths: Float[AnyArray, " f"],
    roots: Float[AnyArray, " f"],
    moves: Float[AnyArray, " f"],
    anchor_paths: Float[AnyArray, " f"],
    unit: Numeric,
    noise_roots: Numeric | None = None,
    spectra: Float[AnyArray, "*t d"] | None = None,
    delta: Numeric = 0.01,
    grid: ClassGrid | None = None,
) -> ClassBound:
    """[`class_split_bound`][] around an anchor: a network of the same architecture with the filters
    $w^0$ and columns $a^0$ that S1, a part of the sample, determines. The bound is on the other
    part, S2, and pays for the distance between the two:

    $D = S_m \\sqrt\\pi\\, \\frac\\epsilon{\\gamma \\sqrt m} \\big[T Q_0 + P \\sqrt V\\big]$ and
    $B \\ge \\|\\Pi(l - l_0)\\|_F$,

    with $T \\ge \\max_c \\|w_c - w^0_c\\|/t_c$ for a profile t that S1 determines,
    $Q_0 \\ge \\sum_c t_c \\sum_p \\|\\Pi a^0_{cp}\\| (E\\|\\pi_p x\\|^2)^{1/2}$, and P of
    $(w, a - a^0)$. Margins have a share in the union here.

    **Main arguments:**

    - `outputs`, `labels`, `input_norms`: of the network on S2, as for [`class_split_bound`][].
    - `epsilon`: one minus the negative slope.
    - `linear`: $l - l_0$, as l there.
    - `paths`: P of the filters of the network and the *differences* of the columns, `(f,)`.
    - `roots`: $\\sqrt V$, `(f,)`.
    - `moves`: T, `(f,)`.
    - `anchor_paths`: $Q_0$, `(f,)`.
    - `unit`: of the margins, which S1 determines.

    **Other arguments:**

    - `noise_roots`, `spectra`, `delta`, `grid`: as for [`class_split_bound`][]; nothing of the
        grid may depend on S2.

    **Returns:**

    A [`ClassBound`][].

    **Raises:**

    `ValueError` naming the argument, or if `jax_enable_x64` is not set.
    """
    _validate.needs_x64("class_anchored_bound")
    cells: ClassGrid = _validate.instance("grid", ClassGrid() if grid is None else grid, ClassGrid)
    outputs, labels = class_outputs(outputs, labels)
    moved = {"moves": moves, "anchor_paths": anchor_paths}
    norms, sizes = _sizes(
        outputs, input_norms, linear, paths, roots, noise_roots, spectra, cells, **moved
    )
    unit = _validate.number("unit", unit, 0, open_low=True)
    gammas = unit * jnp.asarray(cells.values("margin"))
    return class_search(
        outputs, labels, norms, sizes, gammas, **_numbers(epsilon, delta), grid=cells
    )


def _numbers(epsilon, delta) -> dict[str, Array]:
    return {
        "epsilon": _validate.number("epsilon", epsilon, 0, 1),
        "delta": _validate.number("delta", delta, 0, 1, open_low=True, open_high=True),
    }


def _sizes(outputs, input_norms, linear, paths, roots, noise_roots, spectra, grid, **moved):
    """The norms of inputs and [`ClassSizes`][], each with the axes that may be left out."""
    count, classes = outputs.shape
    linear = _validate.real("linear", linear)
    if linear.ndim not in (2, 3) or 0 in linear.shape or linear.shape[-2] != classes:
        raise ValueError(
            f"`linear` must have shape ({classes}, d) or (t, {classes}, d), got {linear.shape}."
        )
    linear = linear.reshape(-1, *linear.shape[-2:])
    metrics, dim = len(linear), linear.shape[2]
    if noise_roots is None:
        noise_roots = jnp.full(metrics, jnp.sqrt(float(dim)))
    if spectra is None:
        spectra = jnp.ones((metrics, dim))
    norms = _shaped("input_norms", _validate.real("input_norms", input_norms, 0), (metrics, count))
    spectra = _validate.real("spectra", spectra, 0, open_low=True)
    spectra = _shaped("spectra", spectra, (metrics, dim))
    noise_roots = _validate.real("noise_roots", noise_roots, 0)
    noise_roots = _shaped("noise_roots", jnp.atleast_1d(noise_roots), (metrics,))
    paths = _validate.at_least_zero("paths", paths)
    if paths.ndim != 1 or not len(paths):
        raise ValueError(f"`paths` must have shape (f,), got {paths.shape}.")
    roots = _shaped("roots", _validate.real("roots", roots, 0), paths.shape)
    for name, value in moved.items():
        moved[name] = _shaped(name, _validate.at_least_zero(name, value), paths.shape)
    # Over the largest, so that no power under- or overflows as a whole.
    scaled = spectra / jnp.max(spectra, axis=1, keepdims=True)
    shapes = jnp.stack([scaled**e for e in grid.priors], axis=1)
    sizes = ClassSizes(
        squares=jnp.sum(centred(jnp.swapaxes(linear, 1, 2)) ** 2, axis=2) / (classes - 1),
        shapes=shapes / jnp.mean(shapes, axis=2, keepdims=True),
        noise_roots=noise_roots,
        paths=paths,
        roots=roots,
        move=moved.get("moves"),
        anchor_paths=moved.get("anchor_paths"),
    )
    return norms, sizes


def _shaped(name: str, array: Array, shape: tuple[int, ...]) -> Array:
    """`array` of this shape; a first axis of length 1 may be left out."""
    if array.shape != shape and (1, *array.shape) != shape:
        raise ValueError(f"`{name}` must have shape {shape}, got {array.shape}.")
    return array.reshape(shape)
