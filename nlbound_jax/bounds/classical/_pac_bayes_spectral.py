"""PAC-Bayes with Gaussian noise that leaves every margin in place."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ... import _validate
from ..._types import AnyArray, Numeric, Weights
from .._kl import invert
from ._bound import SAMPLES, START, ClassicalBound
from ._network import check_delta, check_margins, check_reference, check_weights
from ._strata import grid_value, index_above, index_above_log, log_cost

_Scalar = Float[Array, ""]

# Tried: the sum of the relative perturbations, and the share of the noise that is kept.
_PERTURBATIONS = np.geomspace(1e-3, 3.0, 60)
_KEPT = (0.5, 0.7, 0.9, 0.97)
# The share of delta for the largest norm.
TAIL_SHARE = 0.1


class Noise(eqx.Module):
    """One choice of the noise: $\\gamma/\\prod_l \\|W_l\\|$, the divergence of the noise that is
    kept, and $\\ln 1/p$ of its cell."""

    margin: _Scalar
    divergence: _Scalar
    log_cost: _Scalar


class Norms(eqx.Module):
    """$\\|W_l\\|$, $\\|W_l - M_l\\|_F$, the units $\\|M_l\\|$ (`None` without a reference), each
    `(layers,)`; $\\sqrt{k_l} + \\sqrt{k_{l-1}}$, `(layers,)`; the largest norm of an input."""

    spectral: Float[Array, " layers"]
    distance: Float[Array, " layers"]
    units: Float[Array, " layers"] | None
    roots: Float[Array, " layers"]
    largest: _Scalar


def measure(weights: Weights, reference: Weights | None, largest: _Scalar) -> Norms:
    """The norms of a network; a vanishing matrix counts as one of norm 1, since the output is 0
    with it."""

    def sizes(matrices):
        norms = jnp.stack([jnp.linalg.norm(w, 2) for w in matrices])
        return jnp.where(norms > 0, norms, 1.0)

    moved = weights
    if reference is not None:
        moved = [w - r for w, r in zip(weights, reference, strict=True)]
    return Norms(
        spectral=sizes(weights),
        distance=jnp.stack([jnp.linalg.norm(w) for w in moved]),
        units=None if reference is None else sizes(reference),
        roots=jnp.asarray([math.sqrt(w.shape[0]) + math.sqrt(w.shape[1]) for w in weights]),
        largest=largest,
    )


def quantiles(roots: Float[Array, " layers"], kept: _Scalar) -> Float[Array, " layers"]:
    """$c_l = \\sqrt{k_l} + \\sqrt{k_{l-1}} + \\sqrt{2 \\ln(L/(1-q))}$: a standard Gaussian matrix
    of each layer has at most this spectral norm, all at once with probability q."""
    return roots + jnp.sqrt(2 * jnp.log(roots.shape[0] / (1 - kept)))


def smallest_margin(norms: Norms, relative: Float[Array, " layers"]) -> _Scalar:
    """$2 B (\\prod_l (1 + \\tau_l/s_l) - 1)$: in units of $\\prod_l s_l$, twice what perturbations
    of spectral norm $\\tau_l$ can change in an output."""
    return 2 * norms.largest * jnp.expm1(jnp.sum(jnp.log1p(relative)))


def noise(norms: Norms, perturbation: _Scalar, kept: _Scalar) -> Noise:
    """The noise $\\sigma_l = s_l/a_l$ with about $\\sum_l c_l/a_l$ = `perturbation`, the $a_l$ that
    minimize the divergence at that, and the smallest margin that it respects, on the grid."""
    widest = quantiles(norms.roots, kept)
    relative_distance = norms.distance / norms.spectral
    shape = jnp.cbrt(widest / jnp.maximum(relative_distance, 1e-3) ** 2)
    inverse = shape * jnp.sum(widest / shape) / perturbation
    if norms.units is None:
        # The prior is a network of standard Gaussian weights times prod sigma / gamma = 2^(k/8).
        total = jnp.sum(jnp.log2(inverse))
        margin = smallest_margin(norms, widest / inverse)
        index = -index_above_log(total + jnp.log2(margin))
        margin = jnp.exp2(-total) / grid_value(index)
        cost = log_cost(index)
    else:
        index = -index_above(norms.units * inverse / norms.spectral)
        inverse = norms.spectral / (norms.units * grid_value(index))
        scale = jnp.prod(norms.spectral / norms.units)
        level = index_above(smallest_margin(norms, widest / inverse) * scale)
        margin = grid_value(level) / scale
        cost = jnp.sum(log_cost(index)) + log_cost(level)
    whole = jnp.sum((inverse * relative_distance) ** 2) / 2
    whole = jnp.where(jnp.isnan(whole), jnp.inf, whole)  # noise below the grid
    entropy = -kept * jnp.log(kept) - (1 - kept) * jnp.log1p(-kept)
    return Noise(margin=margin, divergence=(whole + entropy) / kept, log_cost=cost)


@eqx.filter_jit
def _search(margins, norms: Norms, norm, delta) -> dict[str, _Scalar]:
    num_samples = margins.shape[0]
    perturbations = jnp.asarray(_PERTURBATIONS, margins.dtype)
    kept = jnp.asarray(_KEPT, margins.dtype)
    pairs = jnp.meshgrid(perturbations, kept)
    tried = jax.vmap(lambda p, q: noise(norms, p, q))(*(a.ravel() for a in pairs))
    usable = (norm > 0) & jnp.isfinite(norm)
    scaled = jnp.where(usable, margins / jnp.where(usable, norm, 1.0), 0.0)
    risks = jax.lax.map(lambda g: jnp.mean(jnp.where(scaled <= g, 1.0, 0.0)), tried.margin)
    # A divergence that overflowed gives 1 like any other beyond m ln 2.
    capacity = jnp.minimum(tried.divergence / num_samples, 1e3)
    rest = (0.5 * jnp.log(4.0 * num_samples) + tried.log_cost) / num_samples
    rest = rest - jnp.log((1 - TAIL_SHARE) * delta) / num_samples
    values = invert(risks, capacity + rest)
    best = jnp.argmin(values)
    risk = risks[best]
    tail = -jnp.log(TAIL_SHARE * delta) / num_samples
    value = values[best] + tail
    complexity = invert(risk, capacity[best]) - risk
    return {
        "value": value,
        "train_risk": risk,
        "complexity": complexity,
        "confidence": value - risk - complexity,
        "gamma": tried.margin[best] * norm,
    }


def pac_bayes_spectral(
    weights: Weights,
    margins: Float[AnyArray, " m"],
    *,
    largest_norm: Numeric,
    reference: Weights | None = None,
    delta: Numeric = 0.01,
) -> ClassicalBound:
    """The PAC-Bayes bound by spectral norms, for the network itself: for every fixed slope, all
    networks, $\\gamma$ and noises $\\sigma_l$ of a grid, and q in (0, 1), with

    $2 B \\prod_l \\|W_l\\| (\\prod_l (1 + \\sigma_l c_l/\\|W_l\\|) - 1) \\le \\gamma$,
    $c_l = \\sqrt{k_l} + \\sqrt{k_{l-1}} + \\sqrt{2 \\ln(L/(1-q))}$,

    $P(y f \\le 0) \\le \\text{kl}^{-1}\\big(\\hat R_\\gamma,
    \\frac1m (\\frac1q (\\sum_l \\frac{\\|W_l - M_l\\|_F^2}{2 \\sigma_l^2} + H(q))
    + \\ln \\frac{2 \\sqrt m}{0.9\\, \\delta p})\\big) + \\frac1m \\ln \\frac1{0.1\\, \\delta}$,

    $\\hat R_\\gamma$ the share of the sample with $y f \\le \\gamma$, H the binary entropy, B the
    largest $\\|x_i\\|$ of the sample (the last term is for inputs beyond it). Without a reference
    p is the cost of $\\prod_l \\sigma_l/\\gamma = 2^{k/8}$ alone, since layers can be rescaled
    against each other; with one it is that of every $\\sigma_l/\\|M_l\\|$ and of
    $\\gamma/\\prod_l \\|M_l\\|$. Neyshabur, Bhojanapalli, Srebro 2018, Theorem 1; all constants are
    derived in the README of `bounds`.

    **Arguments:**

    - `weights`: $W_1, \\dots, W_L$, `(out in)` each.
    - `margins`: $y_i f(x_i)$ on the sample, `(m,)`.

    **Other arguments:**

    - `largest_norm`: B, the largest $\\|x_i\\|$ of the sample.
    - `reference`: $M_1, \\dots, M_L$, the centre of the prior, fixed before the sample, such as the
        initial weights; by default zero.
    - `delta`: one minus the confidence.

    **Returns:**

    A [`ClassicalBound`][]; `complexity` is what the divergence adds in $\\text{kl}^{-1}$.

    **Raises:**

    `ValueError` naming the argument.
    """
    weights, margins = check_weights("weights", weights), check_margins(margins)
    reference = check_reference("reference", reference, weights)
    largest = _validate.number("largest_norm", largest_norm, low=0)
    norms = measure(weights, reference, largest)
    norm = jnp.prod(jnp.stack([jnp.linalg.norm(w, 2) for w in weights]))
    return ClassicalBound(
        **_search(margins, norms, norm, check_delta(delta)),
        name="pac_bayes_spectral",
        a_priori=False,
        deterministic=True,
        assumes=(SAMPLES,) if reference is None else (SAMPLES, START),
        source="Neyshabur, Bhojanapalli, Srebro 2018, Theorem 1",
    )
