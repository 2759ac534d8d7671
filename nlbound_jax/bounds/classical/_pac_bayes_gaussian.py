"""PAC-Bayes for a random network around the trained one."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, Shaped

from ... import _validate
from ..._forward import outputs
from ..._types import AnyArray, Numeric, Weights
from .._kl import invert
from ._bound import SAMPLES, START, ClassicalBound
from ._network import check_data, check_delta, check_reference, check_weights
from ._posterior import Posterior, count_errors, train
from ._strata import grid_value, index_above, log_cost

_Scalar = Float[Array, ""]


def best_divergence(posterior: Posterior, start: Weights) -> _Scalar:
    """The smallest KL + $\\ln(1/p_k)$ over priors of variance $u 2^{k/8}$, u the mean square of the
    start weights; those within a factor of 256 of the one with the smallest KL."""
    count = sum(w.size for w in start)
    unit = sum(jnp.sum(w**2) for w in start) / count
    unit = jnp.where(unit > 0, unit, 1.0)
    middle = index_above(posterior.spread(start) / count / unit)
    index = middle + jnp.arange(-64, 65, dtype=middle.dtype)
    return jnp.min(posterior.divergence(start, unit * grid_value(index)) + log_cost(index))


def evaluate(
    posterior: Posterior, start: Weights, data, epsilon: _Scalar, delta: _Scalar, share, key, draws
) -> dict[str, _Scalar]:
    """The bound for a posterior: `share` of delta for the Monte Carlo estimate."""
    x, y = data
    num_samples = x.shape[0]
    errors = count_errors(posterior, x, y, epsilon, jax.random.split(key, draws))
    dtype = _validate.float_dtype()
    posterior, start = jax.tree.map(lambda a: a.astype(dtype), (posterior, start))
    risk = jnp.mean(errors.astype(dtype)) / num_samples
    upper = invert(risk, -jnp.log(share * delta) / (num_samples * draws))
    capacity = best_divergence(posterior, start) / num_samples
    rest = (0.5 * math.log(4 * num_samples) - jnp.log((1 - share) * delta)) / num_samples
    value = invert(upper, capacity + rest)
    complexity = invert(upper, capacity) - upper
    return {
        "value": value,
        "train_risk": risk,
        "complexity": complexity,
        "confidence": value - risk - complexity,
    }


def pac_bayes_gaussian(
    weights: Weights,
    start: Weights,
    x: Shaped[AnyArray, "samples features"],
    y: Shaped[AnyArray, " samples"],
    *,
    epsilon: Numeric,
    key: PRNGKeyArray,
    delta: Numeric = 0.01,
    steps: int = 2000,
    batch_size: int = 500,
    draws: int = 20,
    share: float = 0.1,
) -> ClassicalBound:
    """The PAC-Bayes bound for a *random* network, its weights drawn from a posterior
    $Q = N(w, \\text{diag}(s))$ that is trained from the given ones; the prior is
    $P_k = N(w_0, u 2^{k/8} I)$, $w_0$ the start weights and u their mean square. With
    probability $1 - \\delta$, over the sample and the draws, for all Q and integers k,

    $E_{w \\sim Q} P(y f_w \\le 0) \\le \\text{kl}^{-1}\\big(\\bar R,
    \\frac1m (\\text{KL}(Q \\| P_k) + \\ln \\frac{2 \\sqrt m}{(1 - \\alpha) \\delta p_k})\\big)$,
    $\\bar R = \\text{kl}^{-1}\\big(\\hat R, \\frac1{mn} \\ln \\frac1{\\alpha \\delta}\\big)$,

    $\\hat R$ the share of errors when each of the m samples meets n networks, all mn of them
    independent; $p_k = \\frac{2/3}{(|k|+1)(|k|+2)}$; $\\alpha$ = `share`. Dziugaite and Roy 2017,
    Section 3, with Maurer's constant (2004). Adam minimizes the logistic loss plus
    $\\sqrt{(\\text{KL} + \\dots)/2m}$; any Q would be covered, so training may stop anywhere.

    **Arguments:**

    - `weights`: $W_1, \\dots, W_L$, `(out in)` each, where training of Q begins.
    - `start`: the initial weights of the same shapes, the centre of the prior.
    - `x`: inputs, `(samples, features)`.
    - `y`: labels in {-1, +1}, `(samples,)`.

    **Other arguments:**

    - `epsilon`: one minus the negative slope, in [0, 1].
    - `key`: for the batches, the noise and the draws.
    - `delta`: one minus the confidence.
    - `steps`: steps of Adam; 0 keeps the given weights with a deviation of $e^{-2}$ of each
        layer's root mean square.
    - `batch_size`: samples in a batch.
    - `draws`: n.
    - `share`: the share of `delta` for the Monte Carlo estimate.

    **Returns:**

    A [`ClassicalBound`][] with `deterministic=False`.

    **Raises:**

    `ValueError` naming the argument.
    """
    weights = check_weights("weights", weights)
    centre = check_reference("start", start, weights)
    x, y = check_data(x, y)
    if x.shape[1] != weights[0].shape[1]:
        raise ValueError(
            f"`x` must have {weights[0].shape[1]} features, as many as `weights`, got {x.shape[1]}."
        )
    steps = _validate.integer("steps", steps, 0)
    batch_size = _validate.integer("batch_size", batch_size, 1)
    draws = _validate.integer("draws", draws, 1)
    share = _validate.scalar("share", share, low=0, high=1, open_low=True, open_high=True)
    slope, delta = _validate.number("epsilon", epsilon, low=0, high=1), check_delta(delta)
    size = jnp.sqrt(jnp.mean(outputs(weights, x.T, slope) ** 2))
    numbers = {
        "epsilon": slope,
        "output": jnp.where(size > 0, size, 1.0),
        "confidence": 0.5 * math.log(4 * x.shape[0]) - jnp.log(delta),
        "num_samples": jnp.asarray(float(x.shape[0])),
    }
    # Single precision is enough: whatever posterior comes out is the one that is bounded.
    single = jax.tree.map(lambda a: a.astype(np.float32), (weights, centre, (x, y), numbers))
    weights, centre, data, numbers = single
    first, second = jax.random.split(key)
    posterior = train(weights, centre, data, numbers, first, steps, batch_size)
    terms = evaluate(posterior, centre, data, numbers["epsilon"], delta, share, second, draws)
    return ClassicalBound(
        **terms,
        gamma=None,
        name="pac_bayes_gaussian",
        a_priori=False,
        deterministic=False,
        assumes=(SAMPLES, START),
        source="Dziugaite and Roy 2017, Section 3; Maurer 2004",
    )
