"""The split bound as bounds of the ladder, in its four versions."""

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .. import bounds
from ..bounds import SplitBound, SplitGrid, SplitSizes
from ..networks import LeakyMLP, in_units
from ..tasks import Task
from ._bound import FLOW, NO_PLUG_IN, PLUG_IN, AbstractBound
from ._snapshot import Snapshot
from ._terms import Terms

# Fixed before any sample is seen; the union over its cells is paid for.
GRID = SplitGrid()


class AbstractSplitBound(AbstractBound):
    """[`split_bound`][] in its best cell, at the margin that is best for it: any cost nothing but
    the cells."""

    needs = ()
    measures = "smoothed ramp risk"
    source = "nlbound_jax"
    cites = (
        "mcallester1999some",
        "donsker1983asymptotic",
        "bartlett2002rademacher",
        "ledoux1991probability",
        "mcdiarmid1989method",
        "hoeffding1963probability",
    )
    # Whether the families of its cells are metrics along the linear part.
    metric: ClassVar[bool] = False

    def assumes(self, data: Task) -> tuple[str, ...]:
        """Nothing of the training, if everything is measured."""
        return (PLUG_IN,)

    def _terms(self, at: Snapshot, bound: SplitBound) -> Terms:
        """Its capacity is the price of the linear part; what the nonlinear part costs is counted
        with the noise and the distance, as the paper counts its deviation."""
        parts = {
            "nonlinear": bound.nonlinear,
            "smoothing": bound.smoothing,
            "deviation": bound.deviation,
            "noise": bound.noise,
            "linear": bound.linear,
            "paths": bound.paths[None],
            "log_cells": bound.log_cells,
        }
        if not self.a_priori:
            parts["prior"] = jnp.asarray(GRID.priors)[bound.prior]
        if self.metric and at.net.depth == 2:
            thetas, exponents = (jnp.asarray(part) for part in GRID.metrics())
            parts["theta"] = thetas[bound.family]
            parts["exponent"] = jnp.asarray(GRID.exponents)[exponents[bound.family]]
        return at.terms(
            gamma=bound.gamma,
            train_term=bound.train_risk,
            complexity=bound.capacity,
            rest=bound.nonlinear + bound.smoothing + bound.deviation,
            result=bound.result,
            parts=parts,
        )


def _search(
    at: Snapshot, relative: tuple[Any, Any], norms, sizes: SplitSizes, delta, **changes: Any
) -> SplitBound:
    """The best cell. Margins, and so `sizes` and the deviation, are over a unit of the network, in
    which nothing underflows; the bound does not depend on it, and is given in the network's
    own. `changes` are what differs from the whitened training set."""
    margins, unit = relative
    known = {
        "epsilon": at.epsilon,
        "num_samples": jnp.asarray(float(at.data.num_samples)),
        "delta": delta,
        "deviation": jnp.zeros(()),
        "dim": at.data.dim,
        "depth": at.net.depth,
        "grid": GRID,
    }
    gammas = bounds.split_gammas(margins)
    found = bounds.split_search(margins, norms, sizes, gammas, **known | changes)

    def in_outputs(bound: SplitBound) -> tuple[Any, ...]:
        return (bound.gamma, bound.noise, bound.linear, bound.paths)

    # A unit may be below the doubles: what is infinite over it stays so.
    parts = tuple(jnp.where(jnp.isinf(p), p, p * unit) for p in in_outputs(found))
    return eqx.tree_at(in_outputs, found, parts)


def _over(values, unit):
    """`values` over a unit; nothing is known of them where it is below the doubles."""
    return jnp.where(unit > 0, values / jnp.where(unit > 0, unit, 1.0), jnp.inf)


def _plain_sizes(linear_norm, paths, dim: int) -> SplitSizes:
    """The norms where inputs are whitened: the plug-in takes $E\\|x\\|^2$ to be d."""
    root = jnp.sqrt(jnp.asarray(float(dim)))
    return SplitSizes(linear_norm, paths[None], root[None], root)


def _scaled(at: Snapshot) -> tuple[Any, ...]:
    """The weights over their units, in float64."""
    return tuple(w.astype(float) for w in in_units(at.net)[0].weights)


class SplitAPriori(AbstractSplitBound):
    """The train term is measured; the norms are those that the envelope allows. Of the cost of the
    noise $c \\sqrt V$ only c is known before: V holds the train term."""

    name = "split-a-priori"
    needs = ("reference", "envelope")
    a_priori = True
    colour = "tab:green"

    def assumes(self, data: Task) -> tuple[str, ...]:
        """That the envelope holds; that of steps assumes these steps."""
        return (FLOW, PLUG_IN)

    def __call__(self, at: Snapshot, delta: Float[Array, ""]) -> Terms:
        """The bound on the trained network."""
        sizes = self.sizes(at, at.relative[1])
        return self._terms(at, _search(at, at.relative, at.data.norms, sizes, delta))

    def sizes(self, at: Snapshot, unit: Float[Array, ""]) -> SplitSizes:
        """The norms that any network within the envelope has.

        **Arguments:**

        - `at`: a [`Snapshot`][].
        - `unit`: of the outputs.

        **Returns:**

        A [`SplitSizes`][].
        """
        reference: Any = at.reference
        linear, paths = bounds.norms_nearby(reference.weights, reference.envelope, at.epsilon)
        return _plain_sizes(_over(linear, unit), _over(paths, unit), at.data.dim)


class SplitWhollyAPriori(SplitAPriori):
    """The train term too is known before training: that of the reference network's weights, at
    the distance Q that the envelope allows."""

    name = "split-wholly-a-priori"
    measures = "smoothed ramp risk of the reference network's weights"
    colour = "tab:olive"

    def __call__(self, at: Snapshot, delta: Float[Array, ""]) -> Terms:
        """The bound on the trained network, from the reference network's margins."""
        reference: Any = at.reference
        relative = at.relative_margins(LeakyMLP(reference.weights, at.epsilon))
        finite = jnp.isfinite(reference.envelope).all()
        # The norms may be infinite too where the envelope is: no 0 * inf on the way.
        norms, frobenius, far = (
            jnp.where(finite, values, 0.0)
            for values in (reference.norms, reference.frobenius[0], reference.envelope)
        )
        reach = jnp.where(finite, bounds.output_distance(norms, frobenius, far), jnp.inf)
        sizes, reach = self.sizes(at, relative[1]), _over(reach, relative[1])
        bound = _search(at, relative, at.data.norms, sizes, delta, deviation=reach)
        return self._terms(at, bound)


class SplitAPosteriori(AbstractSplitBound):
    """Everything is measured on the network, however it was trained."""

    name = "split-a-posteriori"
    a_priori = False
    colour = "tab:red"
    metric = True

    def __call__(self, at: Snapshot, delta: Float[Array, ""]) -> Terms:
        """The bound on the network."""
        weights, dim = _scaled(at), at.data.dim
        size = bounds.linear_sizes(weights, at.epsilon, at.data.spectrum, GRID)
        if at.net.depth == 2:
            metric = bounds.linear_metric(weights, at.epsilon, at.data.spectrum, GRID)
            ones = jnp.ones(len(GRID.metrics()[0]))
            sizes = SplitSizes(size, metric, ones, jnp.sqrt(jnp.asarray(float(dim))))
        else:
            sizes = _plain_sizes(size, bounds.path_norms(weights), dim)
        return self._terms(at, _search(at, at.relative, at.data.norms, sizes, delta))


class SplitNoPlugIn(AbstractSplitBound):
    """As a posteriori, but second moments are bounded by held-out inputs instead of plugged in."""

    name = "split-no-plug-in"
    needs = ("held_out",)
    a_priori = False
    colour = "tab:brown"

    def assumes(self, data: Task) -> tuple[str, ...]:
        """That the held-out inputs are what they are called."""
        return (NO_PLUG_IN,)

    def __call__(self, at: Snapshot, delta: Float[Array, ""]) -> Terms:
        """The bound on the network, at the ridge that is best for it."""
        held_out: Any = at.held_out
        weights = _scaled(at)
        raw = (weights[0] @ at.data.matrix.T, *weights[1:])
        less = {"delta": delta * (1 - at.data.moment_share), "dim": held_out.basis.shape[0]}

        # One after the other: a search holds several arrays of the size of the sample.
        def at_ridge(args):
            ridge, norms = args
            sizes = held_out.sizes(raw, at.epsilon, ridge, GRID)
            norms = norms.astype(at.data.y.dtype)
            return _search(at, at.relative, norms, sizes, **less)

        ridges = (jnp.arange(held_out.ridges), held_out.input_norms)
        tried = jax.lax.map(at_ridge, ridges)
        best = jnp.argmin(tried.value)
        return self._terms(at, jax.tree.map(lambda leaf: leaf[best], tried))
