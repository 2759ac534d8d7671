"""Every inequality of a run."""

import numpy as np

from .. import _validate
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


def claimed_names(depth: int) -> list[str]:
    """The names of the claimed inequalities, in the order of [`evaluate`][]: known before anything
    is measured.

    **Arguments:**

    - `depth`: L.

    **Returns:**

    A list of names.

    **Raises:**

    `ValueError` if `depth` is no integer of at least 2.
    """
    depth = _validate.integer("depth", depth, 2)
    names = ["norms-repaired", "difference-repaired", "pointwise-repaired"]
    names += ["root-mean-square-repaired", "residual"]
    names += [f"envelope-{level}" for level in range(1, depth + 1)]
    names += ["lin", "non", "ell", "gradient-gap", "deviation", "nonlinear-deviation"]
    return [*names, "linear-size", *(f"path-{j}" for j in range(1, depth)), "nonlinear"]


def evaluate(run: Measured) -> Checks:
    """Every inequality of the proofs along a run: where they are tight and where they lose.

    **Arguments:**

    - `run`: out of [`measure`][].

    **Returns:**

    A [`Checks`][].
    """
    derivative = run.derivative
    gap = None if derivative.central is None else np.asarray(derivative.gap)
    error = None if derivative.error is None else np.asarray(derivative.error)
    checks = tuple(check for function in ALL for check in function(run))
    return Checks(checks, np.asarray(derivative.crossings), gap, error)
