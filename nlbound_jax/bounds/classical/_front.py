"""All classical bounds of one trained network."""

import jax.numpy as jnp
from jaxtyping import PRNGKeyArray, Shaped

from ... import _validate
from ..._forward import outputs
from ..._types import AnyArray, Numeric, Weights
from ._bound import ClassicalBound
from ._counting import counting
from ._frobenius import frobenius
from ._network import check_data, check_reference, check_weights
from ._pac_bayes_gaussian import pac_bayes_gaussian
from ._pac_bayes_spectral import pac_bayes_spectral
from ._path_norm import path_norm
from ._spectral import spectral
from ._vc import vc


def all_bounds(
    weights: Weights,
    start: Weights | None,
    x: Shaped[AnyArray, "samples features"],
    y: Shaped[AnyArray, " samples"],
    *,
    epsilon: Numeric,
    delta: Numeric = 0.01,
    precision_bits: int = 32,
    key: PRNGKeyArray | None = None,
    steps: int = 2000,
) -> dict[str, ClassicalBound]:
    """Every classical bound of $f(x) = W_L \\phi(W_{L-1} \\cdots \\phi(W_1 x))$ on
    $P(y f(x) \\le 0)$. Each holds with probability $1 - \\delta$ by itself; for all at once
    divide `delta` by their number.

    **Arguments:**

    - `weights`: $W_1, \\dots, W_L$, `(out in)` each.
    - `start`: the initial weights, the reference of `spectral` and the centre of the priors; with
        `None` the reference is zero and `pac_bayes_gaussian` is left out.
    - `x`: the training inputs, `(samples, features)`, as the network sees them.
    - `y`: labels in {-1, +1}, `(samples,)`.

    **Other arguments:**

    - `epsilon`: one minus the negative slope, in [0, 1].
    - `delta`: one minus the confidence.
    - `precision_bits`: of [`counting`][].
    - `key`: for [`pac_bayes_gaussian`][], which is left out with `None`.
    - `steps`: of [`pac_bayes_gaussian`][].

    **Returns:**

    A dictionary from names to [`ClassicalBound`][]: `vc`, `counting`, `frobenius`, `path_norm`,
    `path_norm_l2`, `spectral`, `pac_bayes_spectral` and, with a key and a start,
    `pac_bayes_gaussian`.

    **Raises:**

    `ValueError` naming the argument.
    """
    weights = check_weights("weights", weights)
    start = check_reference("start", start, weights)
    inputs, labels = check_data(x, y)
    if inputs.shape[1] != weights[0].shape[1]:
        raise ValueError(
            f"`x` must have {weights[0].shape[1]} features, as many as `weights`, "
            f"got {inputs.shape[1]}."
        )
    slope = _validate.number("epsilon", epsilon, low=0, high=1)
    margins = labels * outputs(weights, inputs.T, slope)
    squares = jnp.sum(inputs**2, axis=1)
    size = jnp.sqrt(jnp.mean(squares))
    widths = (inputs.shape[1], *(w.shape[0] for w in weights))
    risk = jnp.mean(jnp.where(margins <= 0, 1.0, 0.0))
    sample = {"train_risk": risk, "num_samples": inputs.shape[0], "delta": delta}
    column = jnp.sqrt(jnp.max(jnp.mean(inputs**2, axis=0)))
    bounds = [
        vc(widths, **sample),
        counting(widths, **sample, precision_bits=precision_bits),
        frobenius(weights, margins, input_norm=size, delta=delta),
        path_norm(weights, margins, input_norm=column, delta=delta),
        path_norm(weights, margins, input_norm=size, inputs="l2", delta=delta),
        spectral(weights, margins, input_norm=size, reference=start, delta=delta),
        pac_bayes_spectral(
            weights,
            margins,
            largest_norm=jnp.sqrt(jnp.max(squares)),
            reference=start,
            delta=delta,
        ),
    ]
    if key is not None and start is not None:
        common = {"epsilon": slope, "key": key, "delta": delta, "steps": steps}
        bounds.append(pac_bayes_gaussian(weights, start, inputs, labels, **common))
    return {bound.name: bound for bound in bounds}
