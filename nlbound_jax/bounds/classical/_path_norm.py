"""The path norm."""

import math
from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Float

from ... import _validate
from ..._types import AnyArray, Numeric, Weights
from ._bound import SAMPLES, ClassicalBound
from ._network import check_delta, check_margins, check_weights
from ._ramp import peeling_factor, ramp_terms

Inputs = Literal["linf", "l2"]


def path_sum(weights: Weights, inputs: Inputs) -> Float[Array, ""]:
    """$|W_L| \\cdots |W_2|\\, r$ with $r_k$ the 1-norm (`linf`) or 2-norm (`l2`) of row k of
    $W_1$."""
    order = 1 if inputs == "linf" else 2
    paths = jnp.linalg.norm(weights[0], ord=order, axis=1)
    for w in weights[1:]:
        paths = jnp.abs(w) @ paths
    return paths[0]


def path_norm(
    weights: Weights,
    margins: Float[AnyArray, " m"],
    *,
    input_norm: Numeric,
    inputs: Inputs = "linf",
    delta: Numeric = 0.01,
    gamma: Numeric | None = None,
) -> ClassicalBound:
    """The bound by the path norm $N = |W_L| \\cdots |W_2|\\, r$: for every fixed slope, all
    networks and $\\gamma = N 2^{-k/8}$, k an integer,

    $P(y f \\le 0) \\le \\frac1m \\sum_i \\text{ramp}_\\gamma(y_i f(x_i))
    + \\frac{2 c\\, N b}{\\gamma \\sqrt m} + 2 \\sqrt{\\frac{\\ln(1/\\delta p_k)}{2m}}$.

    `"linf"`: $r_k$ is the 1-norm of row k of $W_1$, so that N sums the products of absolute
    weights over all paths; inputs are measured by $b = \\max_j (\\frac1m \\sum_i x_{ij}^2)^{1/2}$,
    at most the largest $\\|x_i\\|_\\infty$; $c = \\sqrt{2 (L \\ln 2 + \\ln d)}$.
    `"l2"`: $r_k$ is the 2-norm of the row, $b = (\\frac1m \\sum_i \\|x_i\\|^2)^{1/2}$ and
    $c = \\min(2^{L-1}, 1 + \\sqrt{2 (L-1) \\ln 2})$ (Neyshabur, Tomioka, Srebro 2015, with the
    exponential moment of Golowich, Rakhlin, Shamir 2018, Theorems 1 and 2).

    **Arguments:**

    - `weights`: $W_1, \\dots, W_L$, `(out in)` each.
    - `margins`: $y_i f(x_i)$ on the sample, `(m,)`.

    **Other arguments:**

    - `input_norm`: b.
    - `inputs`: how inputs are measured, `"linf"` or `"l2"`.
    - `delta`: one minus the confidence.
    - `gamma`: the margin, rounded down to one of the union; by default the best.

    **Returns:**

    A [`ClassicalBound`][].

    **Raises:**

    `ValueError` naming the argument.
    """
    weights, margins = check_weights("weights", weights), check_margins(margins)
    inputs = _validate.member("inputs", inputs, ("linf", "l2"))
    size = _validate.number("input_norm", input_norm, low=0)
    gamma = None if gamma is None else _validate.number("gamma", gamma, low=0, open_low=True)
    depth, dim = len(weights), weights[0].shape[1]
    if inputs == "linf":
        factor = math.sqrt(2 * (depth * math.log(2) + math.log(dim)))
    else:
        factor = peeling_factor(depth)
    unit = 2 * factor * size / math.sqrt(margins.shape[0])
    return ClassicalBound(
        **ramp_terms(margins, path_sum(weights, inputs), unit, check_delta(delta), gamma),
        name="path_norm" if inputs == "linf" else "path_norm_l2",
        a_priori=False,
        deterministic=True,
        assumes=(SAMPLES,),
        source="Neyshabur, Tomioka, Srebro 2015, Section 4; Golowich, Rakhlin, Shamir 2018",
    )
