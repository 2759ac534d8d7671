"""All bounds, in the order of tables. This is the one list of them."""

import dataclasses
from collections.abc import Iterable
from typing import Any

from ._anchored import AnchoredAPosteriori, AnchoredAPriori, AnchoredOneDraw, AnchorTestBound
from ._bound import AbstractBound
from ._classical import (
    VC,
    Counting,
    Frobenius,
    PACBayesGaussian,
    PACBayesSpectral,
    PathNorm,
    PathNormL2,
    Spectral,
)
from ._paper import PrintedTheorem52Bound, RepairedTheorem52Bound
from ._split import SplitAPosteriori, SplitAPriori, SplitNoPlugIn, SplitWhollyAPriori
from ._trajectory import EnvelopeTrajectoryBound, MeasuredTrajectoryBound

PAPER = (PrintedTheorem52Bound(), RepairedTheorem52Bound())
OURS = (
    EnvelopeTrajectoryBound(),
    MeasuredTrajectoryBound(),
    SplitAPriori(),
    SplitWhollyAPriori(),
    SplitAPosteriori(),
    SplitNoPlugIn(),
    AnchoredAPriori(),
    AnchoredAPosteriori(),
    AnchoredOneDraw(),
    AnchorTestBound(),
)
CLASSICAL = (
    VC(),
    Counting(),
    Frobenius(),
    PathNorm(),
    PathNormL2(),
    Spectral(),
    PACBayesSpectral(),
    PACBayesGaussian(),
)


def default_bounds() -> tuple[AbstractBound, ...]:
    """The bounds of a report, where none are asked for.

    **Returns:**

    Those of the paper and ours.
    """
    return (*PAPER, *OURS)


def classical_bounds() -> tuple[AbstractBound, ...]:
    """What the bounds of a report are compared with.

    **Returns:**

    The classical ones.
    """
    return CLASSICAL


def all_bounds() -> tuple[AbstractBound, ...]:
    """Every bound of the ladder.

    **Returns:**

    Those of the paper, ours, and the classical ones.
    """
    return (*default_bounds(), *classical_bounds())


def configured(bounds: Iterable[AbstractBound], **numbers: Any) -> tuple[AbstractBound, ...]:
    """The bounds with other numbers, each with those that it has a field for.

    **Arguments:**

    - `bounds`: bounds of the ladder.
    - `numbers`: by the name of a field, such as `kappa` or `precision_bits`.

    **Returns:**

    A tuple of bounds.
    """

    def changed(bound: AbstractBound) -> AbstractBound:
        own = {name: value for name, value in numbers.items() if name in bound.numbers}
        return dataclasses.replace(bound, **own) if own else bound

    return tuple(changed(bound) for bound in bounds)


def colour_of(name: str) -> str | None:
    """The colour of a bound in pictures.

    **Arguments:**

    - `name`: of a bound of the ladder.

    **Returns:**

    A colour of Matplotlib; `None`, its next one, for a name that is not in the ladder.
    """
    return next((bound.colour for bound in all_bounds() if bound.name == name), None)
