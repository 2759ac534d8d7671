"""The arrays of a sweep: their dimensions, types and units."""

from typing import Any, NamedTuple

import numpy as np

from .. import checks
from .._results import CELL_OUTCOMES, outcome_names
from ._config import SweepConfig
from ._layout import Layout

# A result that is not there yet, one that was not wanted, and the outcomes of the solvers.
FLAGS = ("missing", *outcome_names(), "no_learning_time")
HOLDS = ("missing", "fails", "holds")
TERMS = ("u", "v", "log_v", "capacity", "deviation", "penalty", "value")
TIME = "gradient-flow time"
RISK = "fraction misclassified"


class Variable(NamedTuple):
    """An array: the axes it has, its further dimensions, its type and its attributes."""

    name: str
    axes: tuple[str, ...]
    inner: tuple[str, ...]
    dtype: str
    attrs: dict[str, Any]

    @property
    def dims(self) -> tuple[str, ...]:
        """All dimensions."""
        return (*self.axes, *self.inner)

    def empty(self, shape: tuple[int, ...]) -> np.ndarray:
        """An array of nothing: NaN, or the flag `missing`."""
        floating = self.dtype.startswith("f")
        return np.full(shape, np.nan if floating else 0, self.dtype)


def flag_attrs(names: tuple[str, ...]) -> dict[str, Any]:
    """Attributes of an array of flags."""
    return {"flag_values": list(range(len(names))), "flag_meanings": " ".join(names)}


def all_check_names(config: SweepConfig) -> list[str]:
    """Those of every depth of a sweep."""
    depths = config.axes.get("depth", (config.settings.get("depth", 2),))
    names = [name for depth in sorted(depths, reverse=True) for name in checks.claimed_names(depth)]
    return list(dict.fromkeys(names))


def theory_variables(config: SweepConfig, layout: Layout) -> list[Variable]:
    """The terms of Theorem 5.2."""
    axes = tuple(layout.sizes)
    risk = "train_risk" in config.axes or "train_risk" in config.settings
    terms = TERMS if risk else TERMS[:-1]
    units = {"capacity": RISK, "deviation": RISK, "penalty": RISK, "value": RISK}
    variables = [Variable(n, axes, (), "f8", {"units": units.get(n, "1")}) for n in terms]
    names = ("missing", *CELL_OUTCOMES)
    return [*variables, Variable("result", axes, (), "i1", flag_attrs(names))]


def report_variables(config: SweepConfig, layout: Layout) -> list[Variable]:
    """What is kept of every report."""
    axes = tuple(layout.sizes)
    flow = tuple(n for n in axes if n not in layout.after)

    def floats(names: dict[str, tuple[str, str]], axes, *inner: str) -> list[Variable]:
        return [
            Variable(name, axes, inner, "f8", {"units": units, "long_name": text})
            for name, (units, text) in names.items()
        ]

    variables = [
        Variable("result", flow, (), "i1", flag_attrs(FLAGS) | {"long_name": "how training ended"}),
        Variable("num_steps", flow, (), "i4", {"units": "solver steps"}),
    ]
    variables += floats(
        {
            "reached": (TIME, "where training ended"),
            "final_train_risk": (RISK, "train error at the end of training"),
            "final_test_risk": (RISK, "test error at the end of training"),
        },
        flow,
    )
    if "trajectory" in config.keep:
        names = {
            "t": (TIME, "times at which the bounds are evaluated"),
            "train_risk": (RISK, "train error"),
            "test_risk": (RISK, "test error"),
            "scale": ("network output", "size of the reference network's outputs"),
        }
        variables += floats(names, flow, "time")
    if "bounds" in config.keep:
        names = {
            "value": (RISK, "bound on the test error, best t and margin"),
            "best_t": (TIME, "t of the best cell"),
            "best_gamma": ("margin", "margin of the best cell"),
            "train_term": (RISK, "train term of the best cell"),
            "complexity": (RISK, "complexity of the best cell"),
            "rest": (RISK, "the rest of the best cell"),
            "best_test_risk": (RISK, "test error at the t of the best cell"),
        }
        variables += floats(names, axes, "bound")
        names = {"value_over_time": (RISK, "bound on the test error, best margin at each time")}
        variables += floats(names, axes, "bound", "time")
        attrs = flag_attrs(FLAGS) | {"long_name": "why the best cell is what it is"}
        variables.append(Variable("bound_result", axes, ("bound",), "i1", attrs))
    if "checks" in config.keep:
        names = {"slack": ("1", "smallest bound / measured of a claimed inequality over time")}
        variables += floats(names, flow, "check")
        variables.append(Variable("holds", flow, ("check",), "i1", flag_attrs(HOLDS)))
    return variables
