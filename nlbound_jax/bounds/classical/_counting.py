"""A finite class: every weight has p bits."""

import math

import jax.numpy as jnp

from ... import _validate
from ..._types import Numeric
from ._bound import SAMPLES, ClassicalBound
from ._network import check_delta, check_widths
from ._vc import counts


def counting(
    widths: tuple[int, ...],
    *,
    train_risk: Numeric,
    num_samples: int,
    precision_bits: int = 32,
    delta: Numeric = 0.01,
) -> ClassicalBound:
    """The union over all networks whose W weights are numbers of p bits:

    $P(y f \\le 0) \\le \\hat R + \\sqrt{\\frac{p W \\ln 2 + \\ln(1/\\delta)}{2m}}$
    (Hoeffding's inequality; Shalev-Shwartz and Ben-David 2014, Section 4.2 and Remark 4.1).

    **Arguments:**

    - `widths`: $(d, k_1, \\dots, k_L)$, $k_L = 1$.

    **Other arguments:**

    - `train_risk`: the share of the sample with $y f \\le 0$, for the rounded network.
    - `num_samples`: m.
    - `precision_bits`: p; the set of numbers is fixed before the sample.
    - `delta`: one minus the confidence.

    **Returns:**

    A [`ClassicalBound`][]; `complexity` is the term without $\\delta$.

    **Raises:**

    `ValueError` naming the argument.
    """
    widths = check_widths(widths)
    num_samples = _validate.integer("num_samples", num_samples, 1)
    bits = _validate.integer("precision_bits", precision_bits, 1)
    risk = _validate.number("train_risk", train_risk, low=0, high=1)
    exponent = bits * counts(widths)[-1] * math.log(2)
    complexity = jnp.asarray(math.sqrt(exponent / (2 * num_samples)))
    penalty = jnp.sqrt((exponent - jnp.log(check_delta(delta))) / (2 * num_samples))
    return ClassicalBound(
        value=risk + penalty,
        train_risk=risk,
        complexity=complexity,
        confidence=penalty - complexity,
        gamma=None,
        name="counting",
        a_priori=True,
        deterministic=True,
        assumes=(SAMPLES, f"every weight is one of 2^{bits} numbers fixed before the sample"),
        source="Hoeffding 1963; Shalev-Shwartz and Ben-David 2014, Remark 4.1",
    )
