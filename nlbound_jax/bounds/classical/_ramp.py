"""The margin bound of a class given by one norm, for all norms and margins at once."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ._strata import grid_value, index_above, log_cost

_Scalar = Float[Array, ""]

# Ratios that are tried: from a complexity term of 2 down to one of 1e-6.
_BELOW, _ABOVE = 160, 8
_FARTHEST = 800.0


@eqx.filter_jit
def ramp_terms(
    margins: Float[Array, " m"],
    norm: _Scalar,
    unit: _Scalar,
    delta: _Scalar,
    gamma: _Scalar | None,
    log_cells: _Scalar | float = 0.0,
) -> dict[str, _Scalar]:
    """With probability $1 - \\delta$, for all networks f of all norms N and all $\\rho = 2^{k/8}$,

    $P(y f \\le 0) \\le \\frac1m \\sum_i \\text{ramp}(\\rho\\, y_i f(x_i) / N) + \\rho\\, u
    + 2 \\sqrt{\\frac{\\ln(1/\\delta p_k) + \\text{cells}}{2m}}$

    where $u/2$ bounds the empirical Rademacher complexity of the networks of norm 1; that is
    $\\gamma = N/\\rho$. The best $\\rho$ is taken, or the first that is at least `norm / gamma`.
    """
    num_samples = margins.shape[0]
    # A norm that underflowed counts as f = 0, whose ramp risk is the largest there is.
    usable = (norm > 0) & jnp.isfinite(norm)
    scaled = jnp.where(usable, margins / jnp.where(usable, norm, 1.0), 0.0)
    if gamma is None:
        last = index_above(1 / jnp.maximum(unit, jnp.finfo(unit.dtype).tiny))
        index = last + _ABOVE - jnp.arange(_BELOW + _ABOVE, dtype=unit.dtype)
    else:
        index = index_above(norm / gamma)[None]
    # Any index is covered by the union.
    index = jnp.clip(index, -_FARTHEST, _FARTHEST)
    ratios = grid_value(index)
    risks = jax.lax.map(lambda r: jnp.mean(jnp.clip(1 - r * scaled, 0, 1)), ratios)
    complexity = unit * ratios
    exponent = log_cost(index) + log_cells - jnp.log(delta)
    confidence = 2 * jnp.sqrt(exponent / (2 * num_samples))
    best = jnp.argmin(risks + complexity + confidence)
    terms = {"train_risk": risks, "complexity": complexity, "confidence": confidence}
    terms = {name: values[best] for name, values in terms.items()}
    return terms | {"value": sum(terms.values()), "gamma": norm / ratios[best]}


def peeling_factor(depth: int) -> float:
    """$\\min(2^{L-1}, 1 + \\sqrt{2 (L-1) \\ln 2})$: what L - 1 activations cost in the Euclidean
    norm, without or with the exponential moment of Golowich et al."""
    levels = depth - 1
    return min(2.0**levels, 1 + (2 * levels * 0.6931471805599453) ** 0.5)
