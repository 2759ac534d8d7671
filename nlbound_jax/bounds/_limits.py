"""What is left of Theorem 5.2 at the learning time as the initialization vanishes."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from .. import _validate
from .._types import Numeric
from ._theorem52 import log_phi


def small_beta_deviation(
    growth: Numeric,
    *,
    depth: int,
    epsilon: Numeric,
    ratio: Numeric,
    stable_rank_root: Numeric,
    alignment: Numeric,
    dim: Numeric,
    kappa: int = 2,
) -> Float[Array, "..."]:
    """The limit of the printed deviation $\\Delta_\\kappa \\epsilon^\\kappa / \\gamma$ as
    $\\beta \\to 0$, at the linear learning time $t^*_\\alpha(\\beta)$ of the fraction
    $\\alpha = r \\beta^L / s$, with the margin $\\gamma = \\alpha / q$.

    L = 2 (Eq. 19): $\\frac{\\Phi_\\kappa \\epsilon^\\kappa}{2} \\frac{s \\bar s_\\rho^2}{\\bar s^3}
    q\\, r^{\\bar s/s - 1} \\ln(\\frac{\\bar s_\\rho^2}{\\bar s^2} r^{\\bar s/s})$. L >= 3
    (Eq. 103, which lacks the factor $\\Phi_\\kappa \\epsilon^\\kappa / L$):
    $\\frac{\\Phi_\\kappa \\epsilon^\\kappa}{L} \\frac{q s}{r \\bar s} \\frac{L(L-1)}{L-2}
    B^{-(2L-2)/(L-2)} (1 - B)$ with
    $B = (\\bar s_\\rho/\\bar s)^{2-L} - \\frac{\\bar s}{s}(1 - r^{2/L-1})$, and $+\\infty$ where
    $B \\le 0$: u then blows up before the learning time. Here $\\bar s_r = (1-\\epsilon) s +
    \\epsilon \\sqrt r (L-1)$, its limit.

    **Arguments:**

    - `growth`: r > 1, how far the learned fraction is beyond the start.
    - `depth`: L >= 2.
    - `epsilon`: one minus the negative slope, in [0, 1].
    - `ratio`: q, the fraction over the margin, positive.
    - `stable_rank_root`: $\\rho \\ge 1$.
    - `alignment`: s, in (0, 1].
    - `dim`: d.
    - `kappa`: 1 or 2.

    **Returns:**

    The limit, of the broadcast shape.

    **Raises:**

    `ValueError` naming the argument, or if `jax_enable_x64` is not set.
    """
    _validate.needs_x64("small_beta_deviation")
    depth = _validate.integer("depth", depth, 2)
    kappa = _validate.member("kappa", kappa, (1, 2))
    real = _validate.real
    numbers = {
        "growth": real("growth", growth, 1, open_low=True),
        "epsilon": real("epsilon", epsilon, 0, 1),
        "ratio": real("ratio", ratio, 0, open_low=True),
        "stable_rank_root": real("stable_rank_root", stable_rank_root, 1),
        "alignment": real("alignment", alignment, 0, 1, open_low=True),
        "dim": real("dim", dim, 1),
    }
    _validate.broadcastable(numbers)
    r, epsilon, q, rho, s, d = jnp.broadcast_arrays(*numbers.values())
    sbar = (1 - epsilon) * s + epsilon * (depth - 1)
    lift = ((1 - epsilon) * s + epsilon * jnp.sqrt(rho) * (depth - 1)) / sbar
    factor = jnp.exp(log_phi(kappa, depth, rho, d)) * epsilon**kappa / depth
    if depth == 2:
        logarithm = 2 * jnp.log(lift) + sbar / s * jnp.log(r)
        return factor * s / sbar * lift**2 * q * r ** (sbar / s - 1) * logarithm
    rest = lift ** (2.0 - depth) - sbar / s * (1 - r ** (2 / depth - 1))
    alive = rest > 0
    safe = jnp.where(alive, rest, 1.0)
    power = -(2 * depth - 2) / (depth - 2)
    scale = q * s / (r * sbar) * depth * (depth - 1) / (depth - 2)
    return jnp.where(alive, factor * scale * safe**power * (1 - safe), jnp.inf)
