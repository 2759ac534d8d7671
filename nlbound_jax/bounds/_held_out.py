"""The split bound without the plug-in: raw inputs, in a basis from inputs outside the sample."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .. import _validate
from .._types import AnyArray, Numeric, Weights
from ._split_grid import SplitGrid
from ._split_norms import linear_part, path_norms
from ._split_prior import sizes_of
from ._split_search import SplitSizes

EXPONENTS = (0.0, 0.25, 0.4)
RIDGES = (1e-6, 1e-5, 3e-5)


class HeldOutWhitening(eqx.Module):
    """Coordinates $\\tilde x_i = e_i^{-1/2} x_i$ in the eigenbasis of held-out inputs,
    $e_i = (\\tilde\\lambda_i + \\eta)^{1-a}$, and what the sample says of them.

    **Attributes:**

    - `basis`: the eigenvectors in columns, `(p p)`.
    - `scales`: e for each pair (a, ridge), a slowest, `(pairs p)`.
    - `roots`: the root of $\\tau$, an upper confidence bound of $E\\|\\tilde x\\|^2$, `(pairs,)`.
    - `input_norms`: $\\|\\tilde x\\|$ of the sample at a = 0, `(ridges m)`.
    - `delta`: the probability that some $\\tau$ is too small.
    """

    basis: Float[Array, "p p"]
    scales: Float[Array, "pairs p"]
    roots: Float[Array, " pairs"]
    input_norms: Float[Array, "ridges m"]
    delta: float = eqx.field(static=True)

    @property
    def ridges(self) -> int:
        """How many ridges there are; the linear part may have any of them."""
        return self.input_norms.shape[0]

    def sizes(
        self,
        weights: Weights,
        epsilon: Numeric,
        ridge: Numeric,
        grid: SplitGrid | None = None,
    ) -> SplitSizes:
        """The norms of a network on raw inputs; the linear part has a = 0 and the ridge of that
        index, the nonlinear part whichever pair is best. The families are all combinations.

        **Arguments:**

        - `weights`: U, W_2, ..., `(out in)` each, U on raw inputs.
        - `epsilon`: one minus the negative slope.
        - `ridge`: an index below `ridges`.
        - `grid`: the cells, for their `priors`, of variances as $e_i$ at a = 0; by default those
            of `SplitGrid()`.

        **Returns:**

        The [`SplitSizes`][] that [`split_bound`][] calls `linear_norm`, `paths`, `roots` and
        `noise_root`.
        """
        first, rest = weights[0] @ self.basis, weights[1:]
        straight = linear_part((first, *rest), epsilon)
        scaled = first[None] * jnp.sqrt(self.scales)[:, None, :]
        paths = jax.vmap(lambda first: path_norms((first, *rest)))(scaled)
        # The ridge of the linear part is in the cell too: the others are there to be counted.
        copies = self.ridges
        scale = self.scales[ridge]
        grid = SplitGrid() if grid is None else grid
        return SplitSizes(
            linear_norm=sizes_of(straight * jnp.sqrt(scale), scale, grid),
            paths=jnp.concatenate([paths] * copies),
            roots=jnp.concatenate([self.roots] * copies),
            noise_root=self.roots[ridge],
        )


def _numbers(name: str, value: AnyArray) -> np.ndarray:
    array = _validate.numeric(name, value, "an array of numbers")
    _validate.finite(name, (array,))
    return array


def mean_limit_root(
    mean: AnyArray, largest: AnyArray, count: int, delta: float, shares: int = 1
) -> np.ndarray:
    """The root of an upper confidence limit of a mean (Lemma 7), one of so many that share
    `delta`: with $c' = 2b \\ln(\\text{shares}/\\delta)/m$ it is $(\\sqrt{c'} + \\sqrt{c' + 4M})/2$,
    for the mean M of m independent numbers in [0, b] or a self-bounding function of b."""
    c = 2 * largest * math.log(shares / delta) / count
    return (np.sqrt(c) + np.sqrt(c + 4 * mean)) / 2


def held_out_whitening(
    inputs: Float[AnyArray, "m p"],
    held_out: Float[AnyArray, "n p"],
    *,
    norm_bound: float,
    delta: float = 1e-3,
    exponents: tuple[float, ...] = EXPONENTS,
    ridges: tuple[float, ...] = RIDGES,
) -> HeldOutWhitening:
    """What the split bound needs where nothing is plugged in for the true $\\Sigma$.

    With M the mean of $\\|\\tilde x\\|^2$ over the sample, $b = R^2 / \\min_i e_i$ and
    $c' = 2 b \\ln(\\text{pairs}/\\delta) / m$, with probability $1 - \\delta$ for all pairs
    $E\\|\\tilde x\\|^2 \\le \\tau = ((\\sqrt{c'} + \\sqrt{c' + 4M})/2)^2$. Statement and proof are
    in the README of this folder.

    **Arguments:**

    - `inputs`: the raw training inputs, `(m p)`.
    - `held_out`: raw inputs that do not depend on them, without labels, `(n p)`.

    **Other arguments:**

    - `norm_bound`: R with $\\|x\\| \\le R$ for every input, known beforehand.
    - `delta`: the share of the confidence spent here.
    - `exponents`: the values of a; the first must be 0, which the linear part uses.
    - `ridges`: the values of $\\eta$, positive, in the units of the squared inputs.

    **Returns:**

    A [`HeldOutWhitening`][].

    **Raises:**

    `ValueError` naming the argument, or if `jax_enable_x64` is not set.
    """
    _validate.needs_x64("held_out_whitening")
    norm_bound = _validate.scalar("norm_bound", norm_bound, low=0, open_low=True)
    delta = _validate.scalar("delta", delta, low=0, high=1, open_low=True, open_high=True)
    inputs, held_out = _numbers("inputs", inputs), _numbers("held_out", held_out)
    fit = inputs.ndim == held_out.ndim == 2 and inputs.shape[1] == held_out.shape[1]
    if not fit or 0 in (*inputs.shape, *held_out.shape):
        raise ValueError(
            "`inputs` and `held_out` must have shapes (m, p) and (n, p), "
            f"got {inputs.shape} and {held_out.shape}."
        )
    if not isinstance(exponents, tuple) or not exponents or exponents[0] != 0:
        raise ValueError(f"`exponents` must begin with 0, got {_validate.shown(exponents)}.")
    for exponent in exponents:
        _validate.scalar("exponents", exponent, low=0, high=1)
    if not isinstance(ridges, tuple) or not ridges:
        raise ValueError(
            f"`ridges` must be a tuple of at least one number, got {_validate.shown(ridges)}."
        )
    for ridge in ridges:
        _validate.scalar("ridges", ridge, low=0, open_low=True)
    moment = held_out.T.astype(float) @ held_out.astype(float) / len(held_out)
    eigenvalues, basis = np.linalg.eigh(moment)
    eigenvalues = np.maximum(eigenvalues, 0.0)
    pairs = [(a, eta) for a in exponents for eta in ridges]
    scales = np.stack([(eigenvalues + eta) ** (1 - a) for a, eta in pairs])
    squares = (inputs @ basis) ** 2
    norms = np.sqrt(squares @ (1 / scales[: len(ridges)]).T)
    largest = float(np.sqrt(squares.sum(axis=1).max()))
    if largest > norm_bound * (1 + 1e-6):
        raise ValueError(
            f"`norm_bound` must be at least the largest norm in `inputs`, {largest:g}, "
            f"got {norm_bound:g}."
        )
    mean = (1 / scales) @ squares.mean(axis=0)
    largest = norm_bound**2 / scales.min(axis=1)
    return HeldOutWhitening(
        basis=jnp.asarray(basis),
        scales=jnp.asarray(scales),
        roots=jnp.asarray(mean_limit_root(mean, largest, len(inputs), delta, len(pairs))),
        input_norms=jnp.asarray(norms.T),
        delta=delta,
    )
