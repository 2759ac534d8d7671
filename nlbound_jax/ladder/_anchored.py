"""The anchored bounds: what is paid for is the distance from a network that a part of the sample
determines."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .. import bounds
from .._results import RESULTS
from ..networks import LeakyMLP, in_units
from ..tasks import Task
from ._anchor import Anchored
from ._bound import FLOW, AbstractBound
from ._snapshot import Snapshot
from ._terms import Terms

# Fixed for all data, as the default grid is (chosen on MNIST at 7 x 7). A distance that is only
# bounded asks for more noise and a wide prior; a search at every time of a run for fewer cells.
A_PRIORI = bounds.AnchoredGrid(
    linear=(3e-3, 0.1, 1.4),
    nonlinear=(1e-4, 0.1, 1.6),
    kappas=(20.0, 50.0, 100.0, 200.0, 400.0),
    kappas_nonlinear=(1.0, 1.3),
    levels=(0.7, 1.0, 1.3, 1.6, 2.0),
    bumps=(0.0,),
)


class AbstractAnchoredBound(AbstractBound):
    """Of the second part of a declared split of the sample, around an anchor that the first part
    determines. It is evaluated once, at the end of training: the best of several times would
    be a union over as many anchors."""

    a_priori = False
    over_time = False
    source = "nlbound_jax"
    marker = "D"
    needs: ClassVar[tuple[str, ...]] = ("anchor", "key")

    def assumes(self, data: Task) -> tuple[str, ...]:
        """That the sample is iid, and nothing else."""
        return ()


def _errors(at: Snapshot, anchored: Anchored, weights: Any) -> Bool[Array, " n"]:
    """Where a network on the split's inputs errs on S2: an output of 0, or NaN, is an error."""
    net = in_units(LeakyMLP(weights, at.epsilon))[0]
    return ~(anchored.y * net.features_first(anchored.x.T) > 0)


def _terms(at: Snapshot, found: bounds.AnchoredBound, certified: Any = None) -> Terms:
    """What is measured on S2 is the train term; the distance is paid for by the rest of its
    term."""
    measured = found.disagreement / found.probability
    names = ("anchor_risk", "anchor_bound", "disagreement", "monte_carlo", "divergence")
    names += ("exponent", "distance_bound", "probability", "log_cells")
    return at.terms(
        gamma=None,
        train_term=found.anchor_risk + measured,
        complexity=found.distance_bound - measured,
        rest=found.anchor_bound - found.anchor_risk,
        result=found.result,
        parts={name: getattr(found, name) for name in names},
        certified=certified,
    )


class AnchoredAPosteriori(AbstractAnchoredBound):
    """[`anchored_bound`][]: of the network itself, or of the one that the anchor comes with."""

    name = "anchored"
    about = "the same training from the anchor's start"
    needs = ("anchor", "key", "one_hidden_layer")
    measures = "error of the anchor and disagreement with it near the network"
    cites = ("maurer2004note", "clopper1934use", "borell1975brunn")
    colour = "black"

    def __call__(self, at: Snapshot, delta: Float[Array, ""]) -> Terms:
        """The bound on the network."""
        anchored: Any = at.anchor
        found = bounds.anchored_bound(
            anchored.x,
            anchored.y,
            anchored.moved(at.net),
            anchored.weights,
            x_first=anchored.x_first,
            epsilon=at.epsilon,
            key=at.key,  # pyright: ignore
            delta=delta,
            shapes=anchored.shapes,
        )
        return _terms(at, found, anchored.trained)


class AnchoredAPriori(AbstractAnchoredBound):
    """[`anchored_bound`][] of the network itself around the reference network of S1, at the
    distance that the envelope allows: the errors are measured, all else is known before training.
    The anchors of all times are in the union."""

    name = "anchored-a-priori"
    a_priori = True
    over_time = True
    needs = ("reference", "envelope", "anchor", "key", "one_hidden_layer", "anchor_reference")
    measures = "error of the first part's reference network and disagreement with it"
    cites = ("maurer2004note", "clopper1934use", "borell1975brunn")
    colour, marker = "deepskyblue", ""

    def assumes(self, data: Task) -> tuple[str, ...]:
        """That the envelope holds; that of steps assumes these steps."""
        return (FLOW,)

    def __call__(self, at: Snapshot, delta: Float[Array, ""]) -> Terms:
        """The bound on the trained network."""
        anchored: Any = at.anchor
        reference: Any = at.reference
        anchor: Any = at.anchor_reference
        first, *rest = at.weights
        found = bounds.anchored_bound(
            anchored.x,
            anchored.y,
            (first @ anchored.matrix, *rest),
            anchor,
            x_first=anchored.x_first,
            epsilon=at.epsilon,
            key=at.key,  # pyright: ignore
            delta=delta,
            anchors=anchored.times,
            draws=2,
            grid=A_PRIORI,
            near=bounds.Nearby(
                reference.weights, reference.envelope, anchored.matrix, anchored.stretch
            ),
            finalists=1,
        )
        return _terms(at, found)


class AnchoredOneDraw(AbstractAnchoredBound):
    """[`one_draw_bound`][]: of the network with one fixed draw of noise added to its weights. The
    network that was drawn is what is certified."""

    name = "anchored-one-draw"
    deterministic = False
    about = "the network plus one draw of noise"
    measures = "error of the drawn network"
    cites = (
        "rivasplata2020pac",
        "viallard2024general",
        "maurer2004note",
        "mhammedi2019pac",
        "clopper1934use",
    )
    colour = "dimgray"

    def __call__(self, at: Snapshot, delta: Float[Array, ""]) -> Terms:
        """The bound on the drawn network."""
        anchored: Any = at.anchor
        # In units of the anchor's layers: S1 determines them.
        sizes = [jnp.sqrt(jnp.mean(w**2)) for w in anchored.weights]
        found = bounds.one_draw_bound(
            anchored.moved(at.net),
            anchored.weights,
            lambda weights: _errors(at, anchored, weights),
            scales=tuple(jnp.where(size > 0, size, 1.0) for size in sizes),
            key=at.key,  # pyright: ignore
            delta=delta,
        )
        names = ("kl_value", "excess_value", "anchor_risk", "anchor_bound", "gap", "information")
        return at.terms(
            gamma=None,
            train_term=found.empirical,
            complexity=found.value - found.empirical,
            rest=0.0,
            result=found.result,
            parts={name: getattr(found, name) for name in (*names, "scale", "log_cells")},
            certified=found.parameters,
        )


class AnchorTestBound(AbstractAnchoredBound):
    """What S2, which it never saw, says of the anchor itself: the exact binomial limit. It is
    below the others, as it speaks of a network that was trained on a part of the sample."""

    name = "anchor-test-bound"
    needs = ("anchor",)
    about = "the anchor"
    measures = "error of the anchor"
    cites = ("clopper1934use",)
    colour = "silver"

    def __call__(self, at: Snapshot, delta: Float[Array, ""]) -> Terms:
        """The bound on the anchor."""
        anchored: Any = at.anchor
        errors = _errors(at, anchored, anchored.weights).astype(float)
        count = jnp.asarray(float(errors.shape[0]))
        limit = bounds.binomial_upper(jnp.sum(errors), count, delta)
        risk = jnp.mean(errors)
        return at.terms(
            gamma=None,
            train_term=risk,
            complexity=0.0,
            rest=limit - risk,
            result=jax.tree.map(jnp.asarray, RESULTS.successful),
            parts={"anchor_risk": risk},
            certified=anchored.weights,
        )
