"""How far a leaky network can be from its reference: the right-hand side of the envelope."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from .._products import product_gap

_Scalar = Float[Array, ""]


class EnvelopeSlopes(NamedTuple):
    """What the slope enters the envelope by, $\\sigma = 1 - \\epsilon/2$ with differences from 1
    that do not cancel; out of [`envelope_slopes`][].

    **Attributes:**

    - `depth`: L.
    - `log_sigma`: $\\ln \\sigma$.
    """

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
        """$\\sigma^{l-1} - \\omega$ and $1 - \\sigma^{l-1}$ of a layer.

        **Arguments:**

        - `level`: l, from 1.

        **Returns:**

        Two scalars.
        """
        below = jnp.exp((level - 1) * self.log_sigma)
        after = -jnp.expm1((self.depth - level) * self.log_sigma)
        return below * after, -jnp.expm1((level - 1) * self.log_sigma)


def envelope_slopes(epsilon: _Scalar, depth: int) -> EnvelopeSlopes:
    """What the slope of a network enters its envelope by.

    **Arguments:**

    - `epsilon`: one minus the negative slope, a scalar array in [0, 1].
    - `depth`: L.

    **Returns:**

    An [`EnvelopeSlopes`][].
    """
    return EnvelopeSlopes(depth, jnp.log1p(-epsilon / 2))


def _product(values: list[_Scalar]) -> _Scalar:
    result = jnp.ones(())
    for value in values:
        result = result * value
    return result


class EnvelopeTerms(NamedTuple):
    """The quantities that the envelope's proof bounds on the way, out of [`envelope_terms`][].

    **Attributes:**

    - `lin`: a bound on $\\omega \\|W_L \\cdots W_1 - V_L \\cdots V_1\\|$.
    - `non`: a bound on the root mean square of the nonlinear part $N_W$.
    - `ell`: $\\ell$, a bound on the root mean square of $y - f_W$.
    - `gap`: G, a bound on $\\|r_W - r_V\\|$.
    """

    lin: _Scalar
    non: _Scalar
    ell: _Scalar
    gap: _Scalar


def envelope_terms(
    distances: Float[Array, " layers"],
    norms: Float[Array, " layers"],
    frobenius: _Scalar,
    residual: _Scalar,
    alignment: _Scalar,
    initial_residual: _Scalar,
    slope: EnvelopeSlopes,
) -> EnvelopeTerms:
    """The terms of the envelope's right-hand side, at one time; with $A_l = a_l + x_l$ and
    $A_1^F = F + x_1$

    $\\text{lin} = \\omega (\\prod A_j - \\prod a_j)$,
    $\\text{non} = (1 - \\omega) A_1^F \\prod_{j \\ge 2} A_j$,
    $\\ell = \\min\\{\\ell(0), \\sqrt{1 - s^2 + (\\|r\\| + \\text{lin})^2} + \\text{non}\\}$,
    $G = \\min\\{\\text{lin} + \\text{non}, \\ell + \\|r\\|\\}$.

    **Arguments:**

    - `distances`: $x_l \\ge \\|W_l - V_l\\|_F$, `(layers,)`.
    - `norms`: $a_l = \\|V_l\\|$, `(layers,)`.
    - `frobenius`: $F = \\|V_1\\|_F$.
    - `residual`: $\\|r\\| = \\|q - \\omega V_L \\cdots V_1\\|$.
    - `alignment`: $s = \\|q\\|$.
    - `initial_residual`: $\\ell(0)$, the root mean square of $y - f$ at time 0.
    - `slope`: out of [`envelope_slopes`][].

    **Returns:**

    An [`EnvelopeTerms`][].
    """
    a, x = list(norms), list(distances)
    upper = [p + q for p, q in zip(a, x, strict=True)]
    lin = slope.omega * product_gap(a, x)
    non = slope.bend * (frobenius + x[0]) * _product(upper[1:])
    rest = jnp.maximum(1 - alignment**2, 0.0)
    ell = jnp.minimum(initial_residual, jnp.sqrt(rest + (residual + lin) ** 2) + non)
    gap = jnp.minimum(lin + non, ell + residual)
    return EnvelopeTerms(lin, non, ell, gap)


def envelope_field(
    distances: Float[Array, " layers"],
    norms: Float[Array, " layers"],
    frobenius: _Scalar,
    residual: _Scalar,
    alignment: _Scalar,
    initial_residual: _Scalar,
    slope: EnvelopeSlopes,
) -> Float[Array, " layers"]:
    """$\\dot x_l = \\omega \\{ \\|r\\| ([A]_l - [a]_l) + [A]_l G \\}
    + \\ell \\{ (\\sigma^{l-1} - \\omega) [A]_l + (1 - \\sigma^{l-1}) [A^F]_l \\}$

    with $A_l = a_l + x_l$, $[A]_l = \\prod_{j \\ne l} A_j$, and $\\ell$, G of
    [`envelope_terms`][].
    """
    a, x = list(norms), list(distances)
    upper = [p + q for p, q in zip(a, x, strict=True)]
    first = frobenius + x[0]
    omega = slope.omega
    _, _, ell, gap = envelope_terms(
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
