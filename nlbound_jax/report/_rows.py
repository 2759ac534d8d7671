"""Bounds as rows: the one place where JSON entries are made."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from .._results import outcome_name
from ..ladder import AbstractBound, Terms

# What a row is about, unless its bound is about another network.
THE_NETWORK = "the network"


def row(
    bound: AbstractBound, terms: Terms, assumes: Iterable[str], test_risk: float | None
) -> dict[str, Any]:
    """An entry of `bounds` in `report.json`.

    **Arguments:**

    - `bound`: the bound.
    - `terms`: what it says, at one margin: numbers.
    - `assumes`: what it assumes of the data at hand.
    - `test_risk`: of the network, or `None`.

    **Returns:**

    A dictionary of plain values. `value` is at most 1, `uncapped` is the sum of the three terms.
    """
    # A random network has no test error of its own here.
    random = terms.certified is None and not bound.deterministic
    numbers = {
        "train_term": float(terms.train_term),
        "complexity": float(terms.complexity),
        "rest": float(terms.rest),
        "uncapped": float(terms.value),
        "value": min(1.0, float(terms.value)),
    }
    return {
        "bound": bound.name,
        "t": _known(terms.t),
        "gamma": _known(terms.gamma),
        **numbers,
        "train_margin_risk": _known(terms.margin_risk),
        "train_ramp_risk": _known(terms.ramp_risk),
        "test_risk": None if random else test_risk,
        "a_priori": bound.a_priori,
        "deterministic": bound.deterministic,
        "about": bound.about if random or terms.certified is not None else THE_NETWORK,
        "assumes": list(assumes),
        "source": bound.source,
        "numbers": bound.numbers,
        "result": outcome_name(terms.result),
        "parts": {name: np.asarray(part).tolist() for name, part in terms.parts.items()},
    }


def _known(value: Any) -> float | None:
    """NaN stands for what a bound does not have."""
    return None if math.isnan(value) else float(value)


class Rows:
    """Rows of some bounds along a run.

    **Arguments:**

    - `bounds`: by name.
    - `terms`: over time and margins, by name.
    - `assumes`: by name.
    - `test_risk`: by time of training; empty without test data.
    - `certified_risk`: that of the network that a bound is about, by the name of the bound, where
        it is another than the trained one.
    """

    def __init__(
        self,
        bounds: Iterable[AbstractBound],
        terms: Mapping[str, Terms],
        assumes: Mapping[str, Iterable[str]],
        test_risk: Mapping[float, float],
        certified_risk: Mapping[str, float | None] | None = None,
    ):
        self.bounds = {bound.name: bound for bound in bounds}
        self.terms, self.assumes, self.test_risk = terms, assumes, test_risk
        self.certified_risk = certified_risk or {}

    def cell(self, name: str, time: int, margin: int) -> dict[str, Any]:
        """The row of one cell."""
        terms = self.terms[name].at(time, margin)
        risk = self.test_risk.get(float(terms.t))
        risk = self.certified_risk.get(name, risk)
        return row(self.bounds[name], terms, self.assumes[name], risk)

    def every(self) -> list[dict[str, Any]]:
        """All rows, those of a bound in the order of time and margin."""
        return [
            self.cell(name, *cell)
            for name, terms in self.terms.items()
            for cell in np.ndindex(terms.gamma.shape)
        ]

    def over_time(self, name: str) -> list[dict[str, Any]]:
        """The best margin at every time."""
        margins = self.terms[name].best_margins()
        return [self.cell(name, i, int(j)) for i, j in enumerate(margins)]

    def best(self, name: str) -> dict[str, Any]:
        """The best cell."""
        return self.cell(name, *self.terms[name].best_cell())
