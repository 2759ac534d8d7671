"""The norms that enter the split bound: of weights as they are, or of weights not yet trained."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from .. import _validate
from .._forward import end_to_end
from .._products import product_gap
from .._types import AnyArray, Numeric, Weights
from ._split_grid import SplitGrid

_Values = Float[Array, "..."]


def check_slope(epsilon: Numeric) -> None:
    """Raise unless a concrete `epsilon` is a slope."""
    # What is traced was checked where it came in: a check at run time would be paid every call.
    if not _validate.is_traced(epsilon):
        _validate.number("epsilon", epsilon, 0, 1)


def linear_part(weights: Weights, epsilon: Numeric) -> Float[Array, " d"]:
    """The linear part of a network, $l_W = \\omega (W_L \\cdots W_1)^\\top$ with
    $\\omega = (1 - \\epsilon/2)^{L-1}$.

    **Arguments:**

    - `weights`: $W_1, \\dots, W_L$, `(out in)` each.
    - `epsilon`: one minus the negative slope.

    **Returns:**

    `(d,)`.

    **Raises:**

    `ValueError` naming the argument.
    """
    weights = _validate.matrices("weights", weights)
    _validate.finite("weights", weights)
    check_slope(epsilon)
    straight = end_to_end(weights)
    slope = 1 - jnp.asarray(epsilon, straight.dtype) / 2
    return slope ** (len(weights) - 1) * straight


def path_norms(weights: Weights) -> Float[Array, " levels"]:
    """The totals of the split bound, one for each hidden layer:

    $p_j = p_j^+ + p_j^- = \\sum_k |w_k|\\, \\|\\text{row}_k(W_j)\\| \\prod_{i<j} \\|W_i\\|_F$ with
    $w = (W_L \\cdots W_{j+1})^\\top$.

    **Arguments:**

    - `weights`: $W_1, \\dots, W_L$, `(out in)` each.

    **Returns:**

    `(L-1,)`.

    **Raises:**

    `ValueError` naming the argument.
    """
    weights = _validate.matrices("weights", weights)
    _validate.finite("weights", weights)
    totals, row = [], weights[-1][0]
    for j in range(len(weights) - 2, -1, -1):
        inner = jnp.prod(jnp.stack([jnp.ones(()), *map(jnp.linalg.norm, weights[:j])]))
        totals.append(inner * jnp.sum(jnp.abs(row) * jnp.linalg.norm(weights[j], axis=1)))
        row = row @ weights[j]
    return jnp.stack(totals[::-1])


def norms_nearby(
    weights: Weights, distances: Float[AnyArray, " layers"], epsilon: Numeric
) -> tuple[Float[Array, ""], Float[Array, " levels"]]:
    """Bounds on $\\|l_W\\|$ and the totals $p_j$ of every W with $\\|W_l - V_l\\|_F \\le x_l$:
    their values at V plus what a telescoping product can add,

    $\\|l_W\\| \\le \\omega (\\|V_L \\cdots V_1\\| + \\prod_l A_l - \\prod_l a_l)$,
    $p_j(W) \\le p_j(V) + \\prod_{i>j} A_i \\prod_{i \\le j} A_i^F
    - \\prod_{i>j} a_i \\prod_{i \\le j} a_i^F$,

    with $a_l = \\|V_l\\|$, $a_l^F = \\|V_l\\|_F$, $A = a + x$.

    **Arguments:**

    - `weights`: V, `(out in)` each.
    - `distances`: x, `(layers,)`; `+inf` gives `+inf`.
    - `epsilon`: one minus the negative slope.

    **Returns:**

    A bound on $\\|l_W\\|$, and `(L-1,)` bounds on the totals.

    **Raises:**

    `ValueError` naming the argument.
    """
    weights = _validate.matrices("weights", weights)
    check_slope(epsilon)
    depth = len(weights)
    far = _validate.at_least_zero("distances", distances)
    if far.shape != (depth,):
        raise ValueError(f"`distances` must have shape ({depth},), got {far.shape}.")
    blown = ~jnp.isfinite(far).all()
    x = list(jnp.where(blown, 0.0, far))
    spectral = [jnp.linalg.norm(w, 2) for w in weights]
    frobenius = [jnp.linalg.norm(w) for w in weights]
    omega = (1 - jnp.asarray(epsilon, float) / 2) ** (depth - 1)
    linear = jnp.linalg.norm(linear_part(weights, epsilon)) + omega * product_gap(spectral, x)
    gaps = [product_gap(frobenius[: j + 1] + spectral[j + 1 :], x) for j in range(depth - 1)]
    totals = path_norms(weights) + jnp.stack(gaps)
    return jnp.where(blown, jnp.inf, linear), jnp.where(blown, jnp.inf, totals)


class LinearMetric(eqx.Module):
    """What the metric along the linear part needs of a network with L = 2; `(k)` hidden units,
    `(e)` exponents. With $v_k$ the rows of $W_1$, $l$ the linear part and
    $\\|v\\|_\\mu^2 = \\sum_i v_i^2 / \\mu_i$:

    **Attributes:**

    - `outer`: $|w_k|$, the absolute values of $W_2$, `(k,)`.
    - `squares`, `products`: $\\|v_k\\|_\\mu^2$ and $\\langle v_k, l \\rangle_\\mu$, `(e k)`.
    - `linear_squares`: $\\|l\\|_\\mu^2$, `(e,)`.
    - `linear_norm`: $\\|l\\|$.
    - `smallest`: $\\min_i \\mu_i$, `(e,)`.
    - `exponents`: a in $\\mu_i \\propto \\lambda_i^a$.
    """

    outer: Float[Array, " k"]
    squares: Float[Array, "e k"]
    products: Float[Array, "e k"]
    linear_squares: Float[Array, " e"]
    linear_norm: Float[Array, ""]
    smallest: Float[Array, " e"]
    exponents: tuple[float, ...] = eqx.field(static=True)

    def paths(self, noise: Float[Array, " n"], grid: SplitGrid) -> Float[Array, "n c"]:
        """$\\sum_k |w_k| m_k$ for each radius $\\nu$ and each (theta, exponent) of the grid:

        $m_k^2 = b_k^2 (\\|l\\| + \\nu)^2/\\theta
        + (\\|v_k - b_k l\\|_\\mu + |b_k| \\nu/\\sqrt{\\min \\mu})^2/(1 - \\theta)$ with the
        $b_k$ that is best at $\\nu = 0$.

        **Arguments:**

        - `noise`: $\\nu$, `(n,)`.
        - `grid`: the cells.

        **Returns:**

        `(n, families)`.
        """
        nu = noise[:, None]
        columns = []
        for theta, e in zip(*grid.metrics(), strict=True):
            v, vl, ll = self.squares[e], self.products[e], self.linear_squares[e]
            if theta == 0:
                b, along = jnp.zeros_like(vl), jnp.zeros(())
            else:
                b = vl / (1 - theta) / (self.linear_norm**2 / theta + ll / (1 - theta))
                b = jnp.where(self.linear_norm > 0, b, 0.0)
                along = b[None, :] ** 2 * (self.linear_norm + nu) ** 2 / theta
            rest = jnp.sqrt(jnp.maximum(v - 2 * b * vl + b**2 * ll, 0.0))[None, :]
            rest = rest + jnp.abs(b)[None, :] * nu / jnp.sqrt(self.smallest[e])
            columns.append(jnp.sqrt(along + rest**2 / (1 - theta)) @ self.outer)
        return jnp.stack(columns, axis=1)


def linear_metric(
    weights: Weights, epsilon: Numeric, spectrum: Float[AnyArray, " d"], grid: SplitGrid
) -> LinearMetric:
    """The [`LinearMetric`][] of a network with L = 2, $\\mu_i \\propto \\lambda_i^a$.

    **Arguments:**

    - `weights`: $W_1$ and $W_2$, `(out in)` each.
    - `epsilon`: one minus the negative slope.
    - `spectrum`: $\\lambda$, `(d,)`, positive: fixed before the sample is drawn, or the eigenvalues
        of the second moment of the whole sample, which is the declared plug-in.
    - `grid`: the cells, whose `thetas` and `exponents` are the metrics to try.

    **Returns:**

    A [`LinearMetric`][], for `paths` of [`split_bound`][].

    **Raises:**

    `ValueError` naming the argument.
    """
    weights = _validate.matrices("weights", weights)
    if len(weights) != 2:
        raise ValueError(f"`weights` must be two matrices, got {len(weights)}.")
    grid = _validate.instance("grid", grid, SplitGrid)
    spectrum = _validate.real("spectrum", spectrum, 0, open_low=True)
    if spectrum.shape != weights[0].shape[1:]:
        raise ValueError(
            f"`spectrum` must have shape {weights[0].shape[1:]}, got {spectrum.shape}."
        )
    first, last = weights
    straight = linear_part(weights, epsilon)
    mu = jnp.stack([spectrum**a for a in grid.exponents])
    mu = mu / jnp.sum(mu, axis=1, keepdims=True)
    inverse = 1 / mu
    return LinearMetric(
        outer=jnp.abs(last[0]),
        squares=inverse @ (first**2).T,
        products=inverse @ (first * straight[None, :]).T,
        linear_squares=inverse @ straight**2,
        linear_norm=jnp.linalg.norm(straight),
        smallest=jnp.min(mu, axis=1),
        exponents=grid.exponents,
    )
