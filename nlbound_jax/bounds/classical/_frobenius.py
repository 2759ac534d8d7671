"""The product of the Frobenius norms."""

import math

import jax.numpy as jnp
from jaxtyping import Float

from ... import _validate
from ..._types import AnyArray, Numeric, Weights
from ._bound import SAMPLES, ClassicalBound
from ._network import check_delta, check_margins, check_weights
from ._ramp import peeling_factor, ramp_terms


def frobenius(
    weights: Weights,
    margins: Float[AnyArray, " m"],
    *,
    input_norm: Numeric,
    delta: Numeric = 0.01,
    gamma: Numeric | None = None,
) -> ClassicalBound:
    """The bound by the product of the Frobenius norms, $N = \\prod_l \\|W_l\\|_F$: for every fixed
    slope, all networks and $\\gamma = N 2^{-k/8}$, k an integer,

    $P(y f \\le 0) \\le \\frac1m \\sum_i \\text{ramp}_\\gamma(y_i f(x_i))
    + \\frac{2 c_L N}{\\gamma \\sqrt m} \\sqrt{\\frac1m \\sum_i \\|x_i\\|^2}
    + 2 \\sqrt{\\frac{\\ln(1/\\delta p_k)}{2m}}$,

    $c_L = \\min(2^{L-1}, 1 + \\sqrt{2 (L-1) \\ln 2})$,
    $p_k = \\frac{2/3}{(|k|+1)(|k|+2)}$ (Golowich, Rakhlin, Shamir 2018, Theorem 1, with a
    union over k).

    **Arguments:**

    - `weights`: $W_1, \\dots, W_L$, `(out in)` each.
    - `margins`: $y_i f(x_i)$ on the sample, `(m,)`.

    **Other arguments:**

    - `input_norm`: the root mean square of $\\|x_i\\|$ over the sample.
    - `delta`: one minus the confidence.
    - `gamma`: the margin, rounded down to one of the union; by default the best.

    **Returns:**

    A [`ClassicalBound`][].

    **Raises:**

    `ValueError` naming the argument.
    """
    weights, margins = check_weights("weights", weights), check_margins(margins)
    size = _validate.number("input_norm", input_norm, low=0)
    gamma = None if gamma is None else _validate.number("gamma", gamma, low=0, open_low=True)
    norm = jnp.prod(jnp.stack([jnp.linalg.norm(w) for w in weights]))
    unit = 2 * peeling_factor(len(weights)) * size / math.sqrt(margins.shape[0])
    return ClassicalBound(
        **ramp_terms(margins, norm, unit, check_delta(delta), gamma),
        name="frobenius",
        a_priori=False,
        deterministic=True,
        assumes=(SAMPLES,),
        source="Golowich, Rakhlin, Shamir 2018, Theorem 1",
    )
