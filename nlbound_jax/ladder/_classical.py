"""The classical bounds as bounds of the ladder, on whitened inputs."""

import abc
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from .. import _validate
from .._results import RESULTS, where
from ..bounds import classical
from ..bounds.classical import ClassicalBound
from ..tasks import Task
from ._bound import PLUG_IN, AbstractBound
from ._snapshot import Snapshot
from ._terms import Terms

_GOLOWICH = ("golowich2018size", "bartlett2002rademacher", "ledoux1991probability")


class AbstractClassicalBound(AbstractBound):
    """A bound out of [`classical`][nlbound_jax.bounds.classical], evaluated as if the whitening had
    been fixed before the sample: the same plug-in as in the bounds of this library."""

    needs = ()
    a_priori = False
    measures = "ramp risk"

    def assumes(self, data: Task) -> tuple[str, ...]:
        """The plug-in, and that the network at time 0, where it is a reference, is independent of
        the sample."""
        return (PLUG_IN, classical.START) if "start" in self.needs else (PLUG_IN,)

    @abc.abstractmethod
    def formula(self, at: Snapshot, delta: Float[Array, ""]) -> ClassicalBound:
        """The bound as the formula gives it.

        **Arguments:**

        - `at`: a [`Snapshot`][].
        - `delta`: one minus the confidence.

        **Returns:**

        A [`ClassicalBound`][].
        """

    def __call__(self, at: Snapshot, delta: Float[Array, ""]) -> Terms:
        """The bound on the network; `rest` is the confidence term."""
        bound = self.formula(at, delta)
        return at.terms(
            gamma=bound.gamma,
            train_term=bound.train_risk,
            complexity=bound.complexity,
            rest=bound.confidence,
            result=where(jnp.isfinite(bound.value), RESULTS.successful, RESULTS.blow_up),
            parts={"confidence": bound.confidence},
        )


def _widths(at: Snapshot) -> tuple[int, ...]:
    return (at.data.dim, *(w.shape[0] for w in at.net.weights))


def _sample(at: Snapshot, delta) -> dict[str, Any]:
    """What the bounds that count need: an output of zero, or NaN, counts as an error."""
    risk = jnp.mean(~(at.relative[0] > 0), dtype=float)
    return {"train_risk": risk, "num_samples": at.data.num_samples, "delta": delta}


def _squares(at: Snapshot) -> Float[Array, " m"]:
    return jnp.sum(at.data.x.astype(float) ** 2, axis=0)


def _size(at: Snapshot) -> Float[Array, ""]:
    """The root mean square of $\\|x_i\\|$."""
    return jnp.sqrt(jnp.mean(_squares(at)))


class VC(AbstractClassicalBound):
    """[`vc`][nlbound_jax.bounds.classical.vc]."""

    name = "vc"
    a_priori = True
    measures = "error"
    source = "Bartlett, Harvey, Liaw, Mehrabian 2019, Theorem 7"
    cites = ("bartlett2019nearly", "anthony1999neural")
    colour, marker = "tab:blue", "s"

    def assumes(self, data: Task) -> tuple[str, ...]:
        """On inputs of full rank it is the same before any linear map."""
        return () if data.rank == data.num_features else super().assumes(data)

    def formula(self, at: Snapshot, delta: Float[Array, ""]) -> ClassicalBound:
        """By the architecture alone."""
        return classical.vc(_widths(at), **_sample(at, delta))


class Counting(AbstractClassicalBound):
    """[`counting`][nlbound_jax.bounds.classical.counting].

    **Attributes:**

    - `precision_bits`: p.
    """

    precision_bits: int = eqx.field(static=True, default=32)

    name = "counting"
    a_priori = True
    measures = "error"
    source = "Hoeffding 1963; Shalev-Shwartz and Ben-David 2014, Remark 4.1"
    cites = ("hoeffding1963probability", "shalev2014understanding")
    colour, marker = "tab:orange", "v"

    def __check_init__(self):
        _validate.integer("precision_bits", self.precision_bits, 1)

    def assumes(self, data: Task) -> tuple[str, ...]:
        """The plug-in, and that weights are rounded."""
        numbers = f"every weight is one of 2^{self.precision_bits} numbers fixed before the sample"
        return (*super().assumes(data), numbers)

    def formula(self, at: Snapshot, delta: Float[Array, ""]) -> ClassicalBound:
        """By the number of weights and their bits."""
        sample = _sample(at, delta)
        return classical.counting(_widths(at), **sample, precision_bits=self.precision_bits)


class Frobenius(AbstractClassicalBound):
    """[`frobenius`][nlbound_jax.bounds.classical.frobenius]."""

    name = "frobenius"
    source = "Golowich, Rakhlin, Shamir 2018, Theorem 1"
    cites = _GOLOWICH
    colour, marker = "tab:cyan", "o"

    def formula(self, at: Snapshot, delta: Float[Array, ""]) -> ClassicalBound:
        """By the product of the Frobenius norms."""
        return classical.frobenius(at.weights, at.margins, input_norm=_size(at), delta=delta)


class PathNorm(AbstractClassicalBound):
    """[`path_norm`][nlbound_jax.bounds.classical.path_norm], inputs by their largest entry."""

    name = "path-norm"
    source = "Neyshabur, Tomioka, Srebro 2015, Section 4; Golowich, Rakhlin, Shamir 2018"
    cites = ("neyshabur2015norm", *_GOLOWICH)
    colour, marker = "teal", "x"

    def formula(self, at: Snapshot, delta: Float[Array, ""]) -> ClassicalBound:
        """By the sum over paths."""
        column = jnp.sqrt(jnp.max(jnp.mean(at.data.x.astype(float) ** 2, axis=1)))
        return classical.path_norm(at.weights, at.margins, input_norm=column, delta=delta)


class PathNormL2(AbstractClassicalBound):
    """[`path_norm`][nlbound_jax.bounds.classical.path_norm], inputs by their norm."""

    name = "path-norm-l2"
    source = "Neyshabur, Tomioka, Srebro 2015, Section 4; Golowich, Rakhlin, Shamir 2018"
    cites = ("neyshabur2015norm", *_GOLOWICH)
    colour, marker = "navy", "+"

    def formula(self, at: Snapshot, delta: Float[Array, ""]) -> ClassicalBound:
        """By the sum over paths."""
        size = {"input_norm": _size(at), "inputs": "l2"}
        return classical.path_norm(at.weights, at.margins, **size, delta=delta)


class Spectral(AbstractClassicalBound):
    """[`spectral`][nlbound_jax.bounds.classical.spectral], the reference is the start."""

    name = "spectral"
    needs = ("start",)
    source = "Bartlett, Foster, Telgarsky 2017, Theorem 3.3 and Lemma A.8"
    cites = ("bartlett2017spectrally", "bartlett2002rademacher")
    colour, marker = "goldenrod", "^"

    def formula(self, at: Snapshot, delta: Float[Array, ""]) -> ClassicalBound:
        """By spectral norms and the distance from the start."""
        start: Any = at.start
        known = {"input_norm": _size(at), "reference": start.net.weights}
        return classical.spectral(at.weights, at.margins, **known, delta=delta)


class PACBayesSpectral(AbstractClassicalBound):
    """[`pac_bayes_spectral`][nlbound_jax.bounds.classical.pac_bayes_spectral], the prior is around
    the start."""

    name = "pac-bayes-spectral"
    needs = ("start",)
    measures = "margin risk"
    source = "Neyshabur, Bhojanapalli, Srebro 2018, Theorem 1"
    cites = ("neyshabur2018pac", "mcallester1999some", "davidson2001local")
    colour, marker = "tab:purple", "D"

    def formula(self, at: Snapshot, delta: Float[Array, ""]) -> ClassicalBound:
        """For the network itself."""
        start: Any = at.start
        return classical.pac_bayes_spectral(
            at.weights,
            at.margins,
            largest_norm=jnp.sqrt(jnp.max(_squares(at))),
            reference=start.net.weights,
            delta=delta,
        )


class PACBayesGaussian(AbstractClassicalBound):
    """[`pac_bayes_gaussian`][nlbound_jax.bounds.classical.pac_bayes_gaussian]: its estimate is made
    once, at the end of training.

    **Attributes:**

    - `steps`: of Adam on the posterior.
    """

    steps: int = eqx.field(static=True, default=2000)

    name = "pac-bayes-gaussian"
    needs = ("start", "key")
    deterministic = False
    about = "a random one, its mean and deviations trained further on the bound itself"
    measures = "error of a random network"
    over_time = False
    source = "Dziugaite and Roy 2017, Section 3; Maurer 2004"
    cites = (
        "dziugaite2017computing",
        "langford2001bounds",
        "maurer2004note",
        "kingma2015variational",
        "deepmind2020jax",
    )
    colour, marker = "magenta", "*"

    def __check_init__(self):
        _validate.integer("steps", self.steps, 0)

    def formula(self, at: Snapshot, delta: Float[Array, ""]) -> ClassicalBound:
        """For a random network around the trained one."""
        start: Any = at.start
        known: dict[str, Any] = {"epsilon": at.epsilon, "key": at.key, "steps": self.steps}
        x, y = at.data.x.T, at.data.y
        return classical.pac_bayes_gaussian(
            at.weights, start.net.weights, x, y, **known, delta=delta
        )
