"""Every inequality of a run."""

import numpy as np

from ._check import Checks
from ._envelope import deviations, envelope, split_norms
from ._measure import Measured
from ._theorem import (
    gradient_alignment,
    proxy_deviation,
    residuals,
    slope_dependence,
    weight_norms,
)

ALL = (
    weight_norms,
    slope_dependence,
    proxy_deviation,
    residuals,
    gradient_alignment,
    envelope,
    deviations,
    split_norms,
)


def evaluate(run: Measured) -> Checks:
    """Every inequality of the proofs along a run: where they are tight and where they lose.

    **Arguments:**

    - `run`: out of [`measure`][].

    **Returns:**

    A [`Checks`][].
    """
    found = run.derivative
    gap = None if found.central is None else np.asarray(found.gap)
    error = None if found.error is None else np.asarray(found.error)
    checks = tuple(check for function in ALL for check in function(run))
    return Checks(checks, np.asarray(found.crossings), gap, error)
