"""The exact upper confidence limit of a binomial proportion."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .. import _validate
from .._types import Numeric

_STEPS = 60
# The relative error of `betainc` here, measured up to 1e8 samples: some 1e-15 a sample.
_ERROR, _ERROR_PER_SAMPLE = 1e-12, 4e-15


@eqx.filter_jit
def binomial_limit(
    k: Float[Array, "..."], n: Float[Array, "..."], delta: Float[Array, "..."]
) -> Float[Array, "..."]:
    """[`binomial_upper`][] of numbers that were checked."""
    k, n, delta = jnp.broadcast_arrays(k, n, delta)
    safe = jnp.minimum(k, n - 1)  # k = n has no limit below 1
    least = delta * (1 - _ERROR - _ERROR_PER_SAMPLE * n)

    def halve(_, ends):
        low, high = ends
        middle = 0.5 * (low + high)
        # P(Bin(n, p) <= k), decreasing in p
        outside = jax.scipy.special.betainc(n - safe, safe + 1, 1 - middle) <= least
        return jnp.where(outside, low, middle), jnp.where(outside, middle, high)

    _, high = jax.lax.fori_loop(0, _STEPS, halve, (jnp.zeros_like(n), jnp.ones_like(n)))
    return jnp.where(k < n, high, 1.0)


def binomial_upper(k: Numeric, n: Numeric, delta: Numeric) -> Float[Array, "..."]:
    """$\\text{Bin}^{-1}(k; n, \\delta)
    = \\sup\\{p: P(\\text{Bin}(n, p) \\le k) > \\delta\\}$: if k of n independent samples are
    errors, the risk is at most this with probability $1 - \\delta$ (Clopper and Pearson 1934).

    **Arguments:**

    - `k`: the number of errors, in [0, n].
    - `n`: the number of samples, at least 1.
    - `delta`: one minus the confidence, in (0, 1).

    The numbers broadcast against each other.

    **Returns:**

    The limit, of the broadcast shape, rounded upwards; 1 for k = n.

    **Raises:**

    `ValueError` naming the argument, or if `jax_enable_x64` is not set.
    """
    _validate.needs_x64("binomial_upper")
    numbers = {
        "k": _validate.real("k", k, 0),
        "n": _validate.real("n", n, 1),
        "delta": _validate.real("delta", delta, 0, 1, open_low=True, open_high=True),
    }
    _validate.broadcastable(numbers)
    k, n, delta = jnp.broadcast_arrays(*numbers.values())
    if not _validate.is_traced(k) and not _validate.is_traced(n) and bool(jnp.any(k > n)):
        raise ValueError("`k` must be at most `n`, got more errors than samples.")
    return binomial_limit(k, n, delta)
