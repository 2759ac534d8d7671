"""The split bound as a regulariser: differentiable, at a margin and a radius that are given."""

import math

import jax.numpy as jnp
from jaxtyping import Array, Float

from .. import _validate
from .._types import AnyArray, Numeric, Weights
from ._split_norms import check_slope, linear_part
from ._split_search import layer_factors, symmetrization_factor

# Where a norm is 0 its gradient is taken to be 0.
_TINY = 1e-30


def _norm(array: Array, axis: int | None = None) -> Array:
    return jnp.sqrt(jnp.sum(array**2, axis=axis) + _TINY)


def split_penalty(
    weights: Weights,
    epsilon: Numeric,
    *,
    num_samples: int,
    gamma: float = 1.0,
    noise: float = 0.02,
    spectrum: Float[AnyArray, " d"] | None = None,
    exponent: float = 0.0,
    log_terms: float = 25.0,
) -> Float[Array, ""]:
    """The penalty of [`split_bound`][] as a differentiable function of the weights, to be added to
    a training loss:

    $S_m \\frac\\epsilon{\\gamma \\sqrt m} \\sum_j \\sigma^{L-1-j} \\rho^{j-1} p_j
    + \\sqrt{\\frac{d \\ln(1 + \\|l_W\\|/\\nu) + \\ln(K/\\delta)}{2m}}$

    with $p_j = \\sum_k |w_k|\\, \\|\\text{row}_k(W_j)\\|_\\mu \\prod_{i<j} \\|W_i\\|_F$ as in
    [`path_norms`][], but for $\\|v\\|_\\mu^2 = \\sum_i v_i^2/\\mu_i$ in the first layer,
    $\\mu_i \\propto \\lambda_i^a$ with sum 1 (a = 0: $\\sqrt d$ times the plain norm). Nothing is
    rounded to a grid, and the cost of the noise, which depends on the train term, is left out: this
    is no bound. But the split bound holds for all weights at once, so also for those that were
    trained on this.

    **Main arguments:**

    - `weights`: $W_1, \\dots, W_L$, `(out in)` each, on whitened inputs.
    - `epsilon`: one minus the negative slope.

    **Other arguments:**

    - `num_samples`: m.
    - `gamma`: the margin $\\gamma$ that the loss asks for. A network's scale is free, so 1 will do.
    - `noise`: $\\nu/\\gamma$, the deviation of the noise over the margin.
    - `spectrum`: $\\lambda$, the eigenvalues of the inputs' second moment, `(d,)`; needed for
        `exponent` other than 0.
    - `exponent`: a; the bound has such metrics for L = 2 only.
    - `log_terms`: $\\ln(K/\\delta)$, about.

    **Returns:**

    The penalty, in the dtype of the weights. Its gradient is finite, also where a row is 0.

    **Raises:**

    `ValueError` naming the argument.
    """
    weights = _validate.matrices("weights", weights)
    check_slope(epsilon)
    dtype, dim, depth = weights[0].dtype, weights[0].shape[1], len(weights)
    m = _validate.integer("num_samples", num_samples, 1)
    gamma = _validate.scalar("gamma", gamma, low=0, open_low=True)
    noise = _validate.scalar("noise", noise, low=0, open_low=True)
    log_terms = _validate.scalar("log_terms", log_terms, low=0)
    exponent = _validate.scalar("exponent", exponent, low=0)
    epsilon = jnp.asarray(epsilon, float)
    mu = jnp.full(dim, 1 / dim, dtype)
    if spectrum is not None:
        spectrum = _validate.real("spectrum", spectrum, 0, open_low=True)
        if spectrum.shape != (dim,):
            raise ValueError(f"`spectrum` must have shape ({dim},), got {spectrum.shape}.")
        mu = (spectrum / jnp.max(spectrum)) ** exponent
        mu = (mu / jnp.sum(mu)).astype(dtype)
    elif exponent:
        raise ValueError(f"`exponent` must be 0 without a `spectrum`, got {exponent:g}.")
    scaled = (weights[0] / jnp.sqrt(mu)[None], *weights[1:])
    totals, row = [], weights[-1][0]
    for j in range(depth - 2, -1, -1):
        inner = jnp.ones((), dtype)
        for w in scaled[:j]:
            inner = inner * _norm(w)
        totals.append(inner * jnp.sum(jnp.abs(row) * _norm(scaled[j], axis=1)))
        row = row @ weights[j]
    factors = layer_factors(epsilon, depth).astype(dtype)
    paths = jnp.sum(factors * jnp.stack(totals[::-1])) / gamma
    halved = (symmetrization_factor(m) / math.sqrt(m)).astype(dtype)
    straight = _norm(linear_part(weights, epsilon)) / gamma
    divergence = dim * jnp.log1p(straight / noise) + log_terms
    return halved * epsilon.astype(dtype) * paths + jnp.sqrt(divergence / (2 * m))
