"""How long a network takes to learn a given fraction of its strongest mode."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from .. import _validate
from .._quadrature import gauss_legendre
from .._types import Numeric


def _linear_time(alpha, depth: int, s, beta) -> Float[Array, "..."]:
    """$t^*_\\alpha(\\beta)$ of the aligned linear network, elementwise.

    With $w = z^L / s$ the pole at w = 1 is integrated exactly and what is left,
    $\\int (w^{2/L-1} - 1) / (1 - w) dw$, in $\\log w$ by Gauss-Legendre.
    """
    power = 2 / depth - 1
    log_w0 = depth * jnp.log(beta) - jnp.log(s)
    log_w1 = jnp.log(alpha)
    width = (log_w1 - log_w0) / depth  # log of z(t*) / beta
    if depth == 2:
        first = width
    else:
        first = beta ** (2 - depth) * -jnp.expm1((2 - depth) * width) / (depth - 2)
    nodes, weights = (jnp.asarray(a, alpha.dtype) for a in gauss_legendre(64))
    y = log_w0[..., None] + (log_w1 - log_w0)[..., None] * nodes[(None,) * alpha.ndim]
    # Where one factor would overflow and the other vanish, their product.
    far = power * y > 60
    near = jnp.expm1(jnp.where(far, 0.0, power * y)) * jnp.exp(y)
    integrand = -jnp.where(far, jnp.exp((power + 1) * y), near) / jnp.expm1(y)
    rest = jnp.sum(weights[(None,) * alpha.ndim] * integrand, axis=-1) * (log_w1 - log_w0)
    pole = jnp.log1p(-jnp.exp(log_w0)) - jnp.log1p(-alpha)
    return (first + s**power / depth * (pole + rest)) / s


def learning_time(
    fraction: Numeric,
    *,
    depth: int,
    alignment: Numeric,
    beta: Numeric,
    epsilon: Numeric = 0.0,
) -> Float[Array, "..."]:
    """The time at which a network has learned `fraction` of the strongest mode.

    For an aligned linear network (Eq. 15 for L = 2, Eq. 97 for L >= 3), $z(0) = \\beta$,
    $\\dot z = z^{L-1} (s - z^L)$, it is the time at which $z^L = \\alpha s$:
    $t^*_\\alpha(\\beta) = \\int_\\beta^{(\\alpha s)^{1/L}} z^{1-L} / (s - z^L)\\, dz$.
    A leaky network keeps the time of its linear reference of slope
    $\\sigma = 1 - \\epsilon / 2$: with $\\omega = \\sigma^{L-1}$ it is
    $\\omega^{-2/L}\\, t^*_\\alpha(\\beta\\, \\omega^{1/L})$.

    **Arguments:**

    - `fraction`: $\\alpha$, in (0, 1).
    - `depth`: L >= 2.
    - `alignment`: $s = \\|q\\|$, in (0, 1].
    - `beta`: spectral norm of each layer at the start, positive.
    - `epsilon`: one minus the negative slope, in [0, 1].

    The numbers broadcast against each other.

    **Returns:**

    The time, in units of gradient-flow time, of the broadcast shape.

    **Raises:**

    `ValueError` naming the argument; also if the network starts beyond the fraction,
    $\\omega \\beta^L \\ge \\alpha s$.
    """
    depth = _validate.integer("depth", depth, 2)
    alpha = _validate.real("fraction", fraction, 0, 1, open_low=True, open_high=True)
    s = _validate.real("alignment", alignment, 0, 1, open_low=True)
    beta = _validate.real("beta", beta, 0, open_low=True)
    epsilon = _validate.real("epsilon", epsilon, 0, 1)
    alpha, s, beta, epsilon = jnp.broadcast_arrays(alpha, s, beta, epsilon)
    omega = (1 - epsilon / 2) ** (depth - 1)
    start = beta * omega ** (1 / depth)
    late = jnp.any(start**depth >= alpha * s)
    message = "`fraction` must exceed omega beta^depth / alignment, where the network starts"
    if not _validate.is_traced(late) and bool(jnp.any(start**depth >= s)):
        raise ValueError(
            "`beta` must be so small that omega beta^depth / alignment, where the network starts, "
            f"is below 1, got {float(jnp.max(start**depth / s)):g}: it starts beyond the target."
        )
    if not _validate.is_traced(late) and bool(late):
        raise ValueError(f"{message}, {float(jnp.max(start**depth / s)):g}.")
    alpha = eqx.error_if(alpha, late, message + ".")
    return omega ** (-2 / depth) * _linear_time(alpha, depth, s, start)
