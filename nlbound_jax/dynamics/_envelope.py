"""What the slope enters the envelope by, and the terms of its right-hand side."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

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

    @property
    def half(self) -> _Scalar:
        """$\\epsilon / 2 = 1 - \\sigma$."""
        return -jnp.expm1(self.log_sigma)

    def power(self, exponent: int) -> _Scalar:
        """$\\sigma$ to a power.

        **Arguments:**

        - `exponent`: an integer.

        **Returns:**

        A scalar.
        """
        return jnp.exp(exponent * self.log_sigma)


def envelope_slopes(epsilon: _Scalar, depth: int) -> EnvelopeSlopes:
    """What the slope of a network enters its envelope by.

    **Arguments:**

    - `epsilon`: one minus the negative slope, a scalar array in [0, 1].
    - `depth`: L.

    **Returns:**

    An [`EnvelopeSlopes`][].
    """
    return EnvelopeSlopes(depth, jnp.log1p(-epsilon / 2))


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
