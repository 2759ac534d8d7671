"""The trajectory bound, from the envelope or from measured distances."""

import abc
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from ..bounds import trajectory_bound
from ..tasks import Task
from ._bound import FLOW, PLUG_IN
from ._proxy import ROUNDING, AbstractProxyBound
from ._snapshot import Snapshot
from ._terms import Terms


class AbstractTrajectoryBound(AbstractProxyBound):
    """[`trajectory_bound`][] at every margin of the run."""

    needs = ("reference", "gammas", "cells")
    source = "nlbound_jax"
    cites = ("hoeffding1963probability", "chernoff1952measure", "clarke1990optimization")

    def assumes(self, data: Task) -> tuple[str, ...]:
        """Nothing of the training, if the distances are measured."""
        return (PLUG_IN, ROUNDING)

    @abc.abstractmethod
    def distances(self, at: Snapshot) -> Float[Array, " layers"]:
        """$x_l \\ge \\|W_l - V_l\\|_F$.

        **Arguments:**

        - `at`: a [`Snapshot`][].

        **Returns:**

        The distances, `(layers,)`.
        """

    def __call__(self, at: Snapshot, delta: Float[Array, ""]) -> Terms:
        """The bound from these distances."""
        reference: Any = at.reference
        _, gammas, cells = at.along
        bound = trajectory_bound(
            reference.norms,
            reference.frobenius[0],
            self.distances(at),
            epsilon=at.epsilon,
            gamma=gammas,
            dim=at.data.dim,
            num_samples=at.data.num_samples,
            kappa=self.kappa,
            precision_bits=self.precision_bits,
            delta=delta,
            cells=cells,
        )
        return self._terms(at, bound)


class EnvelopeTrajectoryBound(AbstractTrajectoryBound):
    """The trajectory bound from the envelope, known before training.

    **Attributes:**

    - `kappa`: which proxy, 1 or 2.
    - `precision_bits`: p.
    """

    name = "trajectory"
    needs = ("reference", "envelope", "gammas", "cells")
    a_priori = True
    colour = "tab:purple"

    def assumes(self, data: Task) -> tuple[str, ...]:
        """That the envelope holds; that of steps assumes these steps."""
        return (FLOW, PLUG_IN, ROUNDING)

    def distances(self, at: Snapshot) -> Float[Array, " layers"]:
        """The envelope."""
        return at.envelope  # pyright: ignore


class MeasuredTrajectoryBound(AbstractTrajectoryBound):
    """The trajectory bound from the distances of the trained network.

    **Attributes:**

    - `kappa`: which proxy, 1 or 2.
    - `precision_bits`: p.
    """

    name = "trajectory-measured"
    a_priori = False
    colour = "tab:pink"

    def distances(self, at: Snapshot) -> Float[Array, " layers"]:
        """Measured on the weights."""
        reference: Any = at.reference
        pairs = zip(at.weights, reference.weights, strict=True)
        return jnp.stack([jnp.linalg.norm(w - v) for w, v in pairs])
