"""How far a leaky network can be from its reference: the right-hand side of the envelope."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from .._products import product_gap

_Scalar = Float[Array, ""]


class Slopes(NamedTuple):
    """What the slope enters by: sigma = 1 - epsilon/2, and differences from 1 uncancelled."""

    depth: int
    log_sigma: _Scalar

    @property
    def omega(self) -> _Scalar:
        """$\\omega = \\sigma^{L-1}$, the gain of the linear part."""
        return jnp.exp((self.depth - 1) * self.log_sigma)

    @property
    def bend(self) -> _Scalar:
        """$c = 1 - \\omega$."""
        return -jnp.expm1((self.depth - 1) * self.log_sigma)

    def before(self, level: int) -> tuple[_Scalar, _Scalar]:
        """$\\sigma^{l-1} - \\omega$ and $1 - \\sigma^{l-1}$ for the layer l = `level`."""
        below = jnp.exp((level - 1) * self.log_sigma)
        after = -jnp.expm1((self.depth - level) * self.log_sigma)
        return below * after, -jnp.expm1((level - 1) * self.log_sigma)


def slopes(epsilon: _Scalar, depth: int) -> Slopes:
    """The [`Slopes`][] of a network."""
    return Slopes(depth, jnp.log1p(-epsilon / 2))


def _product(values: list[_Scalar]) -> _Scalar:
    result = jnp.ones(())
    for value in values:
        result = result * value
    return result


def intermediates(
    distances: Float[Array, " layers"],
    norms: Float[Array, " layers"],
    frobenius: _Scalar,
    residual: _Scalar,
    alignment: _Scalar,
    initial_residual: _Scalar,
    slope: Slopes,
) -> tuple[_Scalar, _Scalar, _Scalar, _Scalar]:
    """lin, non, $\\ell$ and G of [`envelope_field`][]."""
    a, x = list(norms), list(distances)
    upper = [p + q for p, q in zip(a, x, strict=True)]
    lin = slope.omega * product_gap(a, x)
    non = slope.bend * (frobenius + x[0]) * _product(upper[1:])
    rest = jnp.maximum(1 - alignment**2, 0.0)
    ell = jnp.minimum(initial_residual, jnp.sqrt(rest + (residual + lin) ** 2) + non)
    gap = jnp.minimum(lin + non, ell + residual)
    return lin, non, ell, gap


def envelope_field(
    distances: Float[Array, " layers"],
    norms: Float[Array, " layers"],
    frobenius: _Scalar,
    residual: _Scalar,
    alignment: _Scalar,
    initial_residual: _Scalar,
    slope: Slopes,
) -> Float[Array, " layers"]:
    """$\\dot x_l = \\omega \\{ \\|r\\| ([A]_l - [a]_l) + [A]_l G \\}
    + \\ell \\{ (\\sigma^{l-1} - \\omega) [A]_l + (1 - \\sigma^{l-1}) [A^F]_l \\}$

    with $A_l = a_l + x_l$, $[A]_l = \\prod_{j \\ne l} A_j$ and
    $\\text{lin} = \\omega (\\prod A_j - \\prod a_j)$,
    $\\text{non} = c A_1^F \\prod_{j \\ge 2} A_j$,
    $\\ell = \\min\\{\\ell(0), \\sqrt{1 - s^2 + (\\|r\\| + \\text{lin})^2} + \\text{non}\\}$,
    $G = \\min\\{\\text{lin} + \\text{non}, \\ell + \\|r\\|\\}$.
    """
    a, x = list(norms), list(distances)
    upper = [p + q for p, q in zip(a, x, strict=True)]
    first = frobenius + x[0]
    omega = slope.omega
    _, _, ell, gap = intermediates(
        distances, norms, frobenius, residual, alignment, initial_residual, slope
    )
    rates = []
    for level in range(1, slope.depth + 1):
        others = [i for i in range(slope.depth) if i != level - 1]
        others_upper = _product([upper[i] for i in others])
        others_gap = product_gap([a[i] for i in others], [x[i] for i in others])
        with_first = _product([first if i == 0 else upper[i] for i in others])
        pure, mixed = slope.before(level)
        rate = omega * (residual * others_gap + others_upper * gap)
        rates.append(rate + ell * (pure * others_upper + mixed * with_first))
    return jnp.stack(rates)
