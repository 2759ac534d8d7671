"""Two networks of one hidden layer in the coordinates of an anchored certificate, and the noise
around one of them."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.stats import norm
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from .._types import Weights

_Scalar = Float[Array, ""]

FORMS = 2  # of the threshold
_FAR = 1e30  # in deviations, and within single precision


def unit_of(w: Float[Array, "out in"]) -> _Scalar:
    """A power of two near the largest entry."""
    largest = jnp.max(jnp.abs(w))
    largest = jnp.where(jnp.isfinite(largest) & (largest > 0), largest, 1.0)
    return largest / jnp.frexp(largest)[0]


def in_units(weights: Weights) -> Weights:
    """Every layer over a power of two near its largest entry, which changes no sign of an
    output."""
    return tuple(w / unit_of(w) for w in (w.astype(float) for w in weights))


def over(numerator, denominator):
    """A quotient, and 0 where the denominator is."""
    return jnp.where(denominator > 0, numerator / jnp.where(denominator > 0, denominator, 1.0), 0.0)


def in_deviations(distance, deviation):
    """Distances over the deviation of the noise: 0 where there is none, infinite where no noise
    hides one. (Squares come later, lest they vanish.)"""
    return jnp.where(distance == 0, 0.0, distance / deviation)


class Parts(eqx.Module):
    """$f = l \\cdot \\hat x + \\sum_k s_k |u_k \\cdot \\hat x|$, with $\\epsilon/2$ in the $u_k$.

    **Attributes:**

    - `linear`: l, `(d,)`.
    - `units`: $u_k = \\frac\\epsilon2 |W_{2k}| W_{1k}$, `(width d)`.
    - `signs`: $s_k$, `(width,)`.
    """

    linear: Float[Array, " d"]
    units: Float[Array, "width d"]
    signs: Float[Array, " width"]


def parts_of(weights: Weights, epsilon: _Scalar, signs: Array | None = None) -> Parts:
    """The parts of a network; a unit that is zero takes its sign from `signs`, or +1."""
    first, last = weights[0], weights[1][0]
    units = epsilon / 2 * jnp.abs(last)[:, None] * first
    spare = jnp.ones_like(last) if signs is None else signs
    used = jnp.any(units != 0, axis=1)
    signs = jnp.where(used, jnp.sign(last), spare)
    return Parts((1 - epsilon / 2) * (last @ first), units, signs)


class Sample(eqx.Module):
    """What a network does on S2, over $q = \\|\\hat x\\|$.

    **Attributes:**

    - `y`: labels.
    - `anchor`: $y f_U / q$ over the unit; $-\\infty$ where it is not a number.
    - `seen`: whether q is positive and neither it nor its square is out of range.
    - `output`: $y f_W / q$.
    - `bends`: $|u_k \\cdot \\hat x| / q$, `(n width)`.
    - `signs`: $s_k$.
    """

    y: Float[Array, " n"]
    anchor: Float[Array, " n"]
    seen: Bool[Array, " n"]
    output: Float[Array, " n"]
    bends: Float[Array, "n width"]
    signs: Float[Array, " width"]


class Noise(eqx.Module):
    """The noise of one cell.

    **Attributes:**

    - `factor`: what W is multiplied by.
    - `linear`: $S_0$.
    - `units`: $\\sigma_k$ (with $\\epsilon/2$), `(width,)`.
    - `level`, `form`, `bump`: s, which threshold, and $\\beta$.
    - `tail`: $s'$.
    - `margin`: $\\tau$.
    """

    factor: _Scalar
    linear: _Scalar
    units: Float[Array, " width"]
    level: _Scalar
    form: Array
    bump: _Scalar
    tail: _Scalar
    margin: _Scalar


def excess(level: Float[Array, "..."]) -> Float[Array, "..."]:
    """$H(s) = s \\Phi(s) + \\varphi(s)$: what a function of Gaussians with Lipschitz constant 1
    exceeds over its mean with a probability of at most $1 - \\Phi(s)$."""
    return level * norm.cdf(level) + norm.pdf(level)


def height(bump: Float[Array, "..."]) -> Float[Array, "..."]:
    """a of $\\kappa_\\beta(\\zeta) = a e^{-\\beta^2 \\zeta^2 / 2}$."""
    return math.sqrt(2 / math.pi) * jnp.sqrt(1 + bump**2)


def threshold(
    linear: Float[Array, "..."], by_sign: Float[Array, "2"], level, form, tail
) -> Float[Array, "... 2"]:
    """c for y = -1 and +1, over q; `by_sign` is the Lipschitz constant of the nonlinear part."""
    linear, level, form = jnp.broadcast_arrays(linear, level, form)
    by_sign = by_sign.reshape((1,) * linear.ndim + (2,))
    linear, level, form = linear[..., None], level[..., None], form[..., None]
    first = excess(level) * jnp.sqrt(linear**2 + by_sign**2)
    second = level * linear + excess(tail) * by_sign
    return jnp.where(form == 0, first, second)


def log_probability(level, form, tail) -> Float[Array, "..."]:
    """$\\ln p_c$."""
    return norm.logcdf(level) + jnp.where(form == 0, 0.0, norm.logcdf(tail))


def lipschitz(units: Float[Array, " width"], signs, bump) -> Float[Array, "2"]:
    """Of the nonlinear part of the noise, for y = -1 and +1: the units of the sign of y are
    corrected."""
    steep = 1 + height(bump) * bump * math.exp(-0.5)
    squares = jnp.stack([jnp.sum(jnp.where(signs == y, units**2, 0.0)) for y in (-1.0, 1.0)])
    return jnp.sqrt(steep**2 * squares + squares[::-1])


def shift(
    sample_bends: Float[Array, "n width"],
    y: Float[Array, " n"],
    signs: Float[Array, " width"],
    units: Float[Array, " width"],
    bump: _Scalar,
    draws: Float[Array, "n width"],
) -> Float[Array, " n"]:
    """$y \\sum_k s_k (|z_k + \\sigma_k n_k| - |z_k|)
    - \\sum_{s_k = y} \\sigma_k \\kappa_\\beta(z_k/\\sigma_k + n_k)$, in the dtype of the draws.
    The sign of $z_k$ is absorbed by that of $n_k$, and nothing cancels."""
    dtype = draws.dtype
    ratio = sample_bends / jnp.where(units > 0, units, 1.0)[None]
    ratio = jnp.minimum(ratio, _FAR).astype(dtype)  # its product with a bump of 0 must be 0
    units, signs, bump = units.astype(dtype), signs.astype(dtype), bump.astype(dtype)
    moved = jnp.maximum(draws, -draws - 2 * ratio)
    corrected = height(bump).astype(dtype) * jnp.exp(-0.5 * (bump * (ratio + draws)) ** 2)
    up, down = (jnp.where(signs == s, units, 0.0) for s in (1.0, -1.0))
    moved = jnp.matmul(moved, up - down, precision="highest")
    up, down = (jnp.matmul(corrected, side, precision="highest") for side in (up, down))
    found = jnp.where(y > 0, moved - up, -moved - down)
    return found.astype(float)


def disagreement(
    sample: Sample, noise: Noise, key: PRNGKeyArray, pairs: int
) -> tuple[_Scalar, _Scalar]:
    """The mean over S2 and over 2 `pairs` draws of [y f_U > tau q] P(y h <= c q | all noise but
    the linear part's), and that of the variance of such a term at its own sample. All draws of
    all samples are independent."""
    limits = threshold(
        noise.linear,
        lipschitz(noise.units, sample.signs, noise.bump),
        noise.level,
        noise.form,
        noise.tail,
    )
    limit = jnp.where(sample.y > 0, limits[1], limits[0])
    output = noise.factor * sample.output
    bends = noise.factor * sample.bends
    shape = sample.bends.shape

    def once(key):
        draws = jax.random.normal(key, shape, "float32")
        moved = shift(bends, sample.y, sample.signs, noise.units, noise.bump, draws)
        found = norm.cdf((limit - output - moved) / noise.linear)
        # Where x is zero, so is every output.
        found = jnp.where(jnp.isnan(found) | ~sample.seen, 1.0, found)
        return jnp.where(sample.anchor > noise.margin, found, 0.0)

    def pair(key):
        one, other = (once(k) for k in jax.random.split(key))
        return jnp.mean(one + other) / 2, jnp.mean((one - other) ** 2) / 2

    means, variances = jax.lax.map(pair, jax.random.split(key, pairs))
    return jnp.mean(means), jnp.mean(variances)
