"""The priors of the split bound: what the linear part of a network costs."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .. import _validate
from .._types import AnyArray, Numeric, Weights
from ._split_grid import SplitGrid
from ._split_norms import linear_part

_Scalar = Float[Array, ""]
_Values = Float[Array, "..."]


class LinearSizes(eqx.Module):
    """What the priors need of the linear part l, in the eigenbasis of the inputs' second moment.

    **Attributes:**

    - `squares`: $l_i^2$, `(d,)`.
    - `shapes`: q for each exponent e of `grid.priors`, $q_i \\propto \\lambda_i^e$ with mean 1,
        `(priors, d)`.
    - `exponents`: `grid.priors`.
    """

    squares: Float[Array, " d"]
    shapes: Float[Array, "priors d"]
    exponents: tuple[float, ...] = eqx.field(static=True)


def sizes_of(
    straight: Float[Array, " d"], spectrum: Float[Array, " d"], grid: SplitGrid
) -> LinearSizes:
    """[`LinearSizes`][] of a linear part and a spectrum that were checked."""
    # Over the largest, so that no power under- or overflows as a whole.
    shapes = jnp.stack([(spectrum / jnp.max(spectrum)) ** e for e in grid.priors])
    shapes = shapes / jnp.mean(shapes, axis=1, keepdims=True)
    return LinearSizes(straight**2, shapes, grid.priors)


def linear_sizes(
    weights: Weights, epsilon: Numeric, spectrum: Float[AnyArray, " d"], grid: SplitGrid
) -> LinearSizes:
    """The [`LinearSizes`][] of a network.

    **Arguments:**

    - `weights`: $W_1, \\dots, W_L$, `(out in)` each.
    - `epsilon`: one minus the negative slope.
    - `spectrum`: $\\lambda$, `(d,)`, positive: fixed before the sample is drawn, or the eigenvalues
        of the second moment of the whole sample, which is the declared plug-in.
    - `grid`: the cells, whose `priors` are the exponents.

    **Returns:**

    A [`LinearSizes`][], for `linear_norm` of [`split_bound`][].

    **Raises:**

    `ValueError` naming the argument.
    """
    straight = linear_part(weights, epsilon)
    grid = _validate.instance("grid", grid, SplitGrid)
    spectrum = _validate.real("spectrum", spectrum, 0, open_low=True)
    if spectrum.shape != straight.shape:
        raise ValueError(f"`spectrum` must have shape {straight.shape}, got {spectrum.shape}.")
    return sizes_of(straight, spectrum, grid)


def from_ball(linear: _Values, noise: _Values, dim: int) -> _Values:
    """$d \\ln(1 + B/\\nu)$, the divergence of the uniform law in a ball of radius $\\nu$ from
    that in the ball of radius $B + \\nu$."""
    return dim * jnp.log1p(linear / noise)


def from_gaussian(linear: _Scalar, noise: _Scalar, shape: Float[Array, " d"]) -> _Scalar:
    """The divergence of the uniform law in the ball of radius $\\nu$ around l from $N(0, \\tau^2)$,
    $\\tau_i^2 = \\sigma^2 + B^2 q_i/d$ with $\\sigma^2 = \\nu^2/(d+2)$, for the l of the cell:

    $\\frac12 \\sum_i \\ln\\Big(1 + \\frac{B^2 q_i}{d \\sigma^2}\\Big)
    + \\frac d2 \\ln\\frac{2e}{d+2} + \\ln\\Gamma\\Big(\\frac d2 + 1\\Big)$."""
    dim = shape.shape[0]
    ratio = (linear / noise) ** 2 * (dim + 2) / dim
    excess = dim / 2 * (1 + math.log(2 / (dim + 2))) + math.lgamma(dim / 2 + 1)
    found = jnp.sum(jnp.log1p(ratio * shape)) / 2 + excess
    return jnp.where(jnp.isfinite(linear), found, jnp.inf)


def smallest_cell(
    squares: Float[Array, " d"],
    radius: _Scalar,
    noise: _Scalar,
    shape: Float[Array, " d"],
    values: Float[Array, " values"],
) -> _Scalar:
    """The smallest B of `values` with
    $\\sum_i l_i^2/\\tau_i^2 \\le \\sum_i (B^2 q_i/d)/\\tau_i^2$; `+inf` if there is none. The left
    side falls in B and the right one grows, so it is bisected.

    `squares` are $l_i^2$ and `radius` is $\\nu$ in the units of the outputs; `noise` is $\\nu$ in
    those of `values`."""
    dim = shape.shape[0]
    size = squares * ((dim + 2) / radius**2)  # over sigma^2, as is the ratio below

    def halve(_, ends):
        low, high = ends
        middle = (low + high) // 2
        linear = values[jnp.minimum(middle, len(values) - 1)]
        ratio = (linear / noise) ** 2 * ((dim + 2) / dim) * shape
        holds = jnp.sum((size - ratio) / (1 + ratio)) <= 0
        done = low >= high
        return (
            jnp.where(done | holds, low, middle + 1),
            jnp.where(done | ~holds, high, middle),
        )

    steps = math.ceil(math.log2(len(values) + 1))
    _, found = jax.lax.fori_loop(0, steps, halve, (jnp.asarray(0), jnp.asarray(len(values))))
    return jnp.append(values, jnp.inf)[found]


def _from_gaussian(squares, radius, noise, shape, values):
    linear = smallest_cell(squares, radius, noise, shape, values)
    return from_gaussian(linear, noise, shape), linear


def divergences(
    sizes: LinearSizes | _Scalar, gammas: Float[Array, " g"], dim: int, grid: SplitGrid
) -> tuple[Float[Array, "g n priors"], Float[Array, "g n priors"]]:
    """The divergence from every prior, and $B/\\gamma$ of its cell, for every margin and radius."""
    noise = jnp.asarray(grid.values("noise"))[None]
    noise = jnp.broadcast_to(noise, (len(gammas), noise.shape[1]))
    whole = isinstance(sizes, LinearSizes)
    norm = jnp.sqrt(jnp.sum(sizes.squares)) if whole else sizes
    linear = jnp.broadcast_to(grid.round_up("linear", norm / gammas)[:, None], noise.shape)
    found = [(from_ball(linear, noise, dim), linear)]
    if whole:
        values, radii = jnp.asarray(grid.values("linear")), noise * gammas[:, None]
        over = (None, 0, 0, None, None)
        each = jax.vmap(jax.vmap(_from_gaussian, over), over)
        found = [
            each(sizes.squares, radii, noise, shape, values) if exponent > 0 else found[0]
            for exponent, shape in zip(sizes.exponents, sizes.shapes, strict=True)
        ]
    costs, cells = zip(*found, strict=True)
    return jnp.stack(costs, axis=-1), jnp.stack(cells, axis=-1)
