"""What every bound of the ladder is."""

import abc
import dataclasses
from typing import TYPE_CHECKING, Any, ClassVar

import equinox as eqx
from jaxtyping import Array, Float

from ..tasks import Task
from ._snapshot import Snapshot
from ._terms import Terms

if TYPE_CHECKING:  # a type checker knows no other name for it
    from typing import ClassVar as AbstractClassVar
else:
    from equinox import AbstractClassVar

PLUG_IN = "Sigma_X plugged in for Sigma"
NO_PLUG_IN = "test inputs (no labels) independent of the training set"
FLOW = "exact gradient flow"
STEPS = "gradient descent in these steps"


class AbstractBound(eqx.Module):
    """A bound of the ladder: it says what it needs, assumes and costs, and feeds a formula of
    [`bounds`][nlbound_jax.bounds] with what is known of a network.

    A new one is a class with the attributes below and `__call__`, and an entry in one tuple of
    this room; report, sweep, compare, certify, pictures, tables and citation read it there.

    **Attributes:**

    - `name`: of its rows in tables and files.
    - `needs`: what must be known beside the network and its training set, by the names that
        [`known_of`][] gives: `t`, `start`, `reference`, `envelope`, `gammas`, `cells`, `key`,
        `held_out`, `anchor`, `one_hidden_layer`; `flow`, that it was trained by gradient flow.
    - `a_priori`: whether all but the train term is known before training.
    - `deterministic`: whether it holds for the network itself; otherwise for a random one around
        it.
    - `about`: which network it bounds the error of where that is another, in words.
    - `over_time`: whether it is evaluated at every time, or at the end of training only.
    - `measures`: what its train term is, in words.
    - `source`: where statement and proof stand.
    - `cites`: keys of `references.bib`.
    - `colour`, `marker`: in pictures; what is not of this library, or is evaluated
        once, has a marker.
    """

    name: AbstractClassVar[str]
    needs: AbstractClassVar[tuple[str, ...]]
    a_priori: AbstractClassVar[bool]
    source: AbstractClassVar[str]
    cites: AbstractClassVar[tuple[str, ...]]
    colour: AbstractClassVar[str]
    deterministic: ClassVar[bool] = True
    about: ClassVar[str] = "the network"
    over_time: ClassVar[bool] = True
    measures: ClassVar[str] = "margin risk"
    marker: ClassVar[str] = ""

    @property
    def numbers(self) -> dict[str, Any]:
        """The numbers it was made with, by the names of its fields."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}

    @abc.abstractmethod
    def assumes(self, data: Task) -> tuple[str, ...]:
        """What it assumes beyond iid samples, in words.

        **Arguments:**

        - `data`: the task.

        **Returns:**

        A tuple of words.
        """

    @abc.abstractmethod
    def __call__(self, at: Snapshot, delta: Float[Array, ""]) -> Terms:
        """The bound on a network.

        **Arguments:**

        - `at`: what is known of the network, a [`Snapshot`][].
        - `delta`: one minus the confidence.

        **Returns:**

        A [`Terms`][].
        """


def assumptions(bound: AbstractBound, data: Task, *, flow: bool = True) -> tuple[str, ...]:
    """What a bound assumes of a training. What rests on the envelope alone asks of it that the
    reference network is trained in the same way: steps, where both made steps.

    **Arguments:**

    - `bound`: a bound of the ladder.
    - `data`: the task.
    - `flow`: whether the training was gradient flow; otherwise it made steps.

    **Returns:**

    A tuple of words.
    """
    steps = not flow and "envelope" in bound.needs and "flow" not in bound.needs
    return tuple(STEPS if steps and word == FLOW else word for word in bound.assumes(data))
