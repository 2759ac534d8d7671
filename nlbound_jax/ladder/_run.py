"""A trained network and what its bounds need along the way."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, UInt32

from .._types import Numeric
from ..dynamics import ReferenceTrajectory, Trajectory, reference_flow
from ..networks import LeakyMLP, in_units
from ..tasks import Task
from ._anchor import Anchor
from ._snapshot import Reference, Snapshot, Start, start_of


class Along(eqx.Module):
    """The arrays of a run: what a compiled evaluation takes.

    **Attributes:**

    - `ts`, `weights`, `reference`, `gammas`: of every time, an axis of times leading.
    - `epsilon`, `start`, `cells`: as in a [`Snapshot`][].
    - `anchors`: the anchor's reference network, of every time, or `None`.
    - `key`: the numbers of a random key, or `None`.
    """

    ts: Float[Array, " times"]
    weights: tuple[Float[Array, "times _out _in"], ...]
    epsilon: Float[Array, ""]
    start: Start
    reference: Reference
    gammas: Float[Array, "times k"]
    cells: Float[Array, ""]
    key: UInt32[Array, "..."] | None
    anchors: tuple[Float[Array, "times _out _in"], ...] | None = None

    def changing(self) -> Any:
        """What has an axis of times, to be mapped over."""
        return (self.ts, self.weights, self.reference, self.gammas, self.anchors)

    def at(self, times: Any) -> "Along":
        """The run at some of its times.

        **Arguments:**

        - `times`: indices, `(n,)`.

        **Returns:**

        An [`Along`][].
        """
        changing = jax.tree.map(lambda leaf: leaf[times], self.changing())
        return eqx.tree_at(lambda along: along.changing(), self, changing)

    def snapshot(self, now: Any, samples: Any) -> Snapshot:
        """One point of training.

        **Arguments:**

        - `now`: `changing()` at one time.
        - `samples`: a [`Samples`][].

        **Returns:**

        A [`Snapshot`][].
        """
        t, weights, reference, gammas, anchors = now
        net = LeakyMLP(weights, self.epsilon)
        key = None if self.key is None else jax.random.wrap_key_data(self.key)
        known: dict[str, Any] = {"t": t, "start": self.start, "reference": reference}
        known |= {"gammas": gammas, "cells": self.cells, "key": key}
        known["anchor_reference"] = anchors
        return Snapshot(net, samples, **known)


class Run(eqx.Module):
    """A trained network, the reference network beside it, and where the bounds are evaluated.

    **Attributes:**

    - `task`: the data.
    - `start`: the network at time 0.
    - `trajectory`: the network over time, a [`Trajectory`][].
    - `reference`: the reference network at the same times, a [`ReferenceTrajectory`][].
    - `gammas`: margins fixed before training but for their unit, `(times k)`.
    - `cells`: how many cells (t, gamma) a union is taken over, also those that were not reached.
    - `key`: for bounds that draw at random, or `None`.
    - `anchor`: a network that a part of the sample determines, an [`Anchor`][], or `None`.
    - `flow`: whether both were trained by gradient flow; otherwise by the same steps.
    """

    task: Task
    start: LeakyMLP
    trajectory: Trajectory
    reference: ReferenceTrajectory
    gammas: Float[np.ndarray, "times k"]
    cells: int = eqx.field(static=True)
    key: PRNGKeyArray | None = None
    anchor: Anchor | None = None
    flow: bool = eqx.field(static=True, default=True)

    @property
    def scale(self) -> Float[np.ndarray, " times"]:
        """$\\|\\omega V_L \\cdots V_1(t)\\|$ of the reference network."""
        return np.linalg.norm(np.asarray(self.reference.linear_map), axis=-1)

    def along(self) -> Along:
        """The arrays of the run.

        **Returns:**

        An [`Along`][].
        """
        reference, anchors = self.reference, None
        if self.anchor is not None and self.anchor.reference is not None:
            # A run that ended early has fewer times; all of them are in the union.
            anchors = tuple(w[: len(self.trajectory.ts)] for w in self.anchor.reference)
        parts = (reference.norms, reference.frobenius, reference.envelope)
        return Along(
            ts=jnp.asarray(self.trajectory.ts, float),
            weights=self.trajectory.weights,
            epsilon=self.trajectory.epsilon,  # pyright: ignore (of a LeakyMLP)
            start=start_of(self.start),
            reference=Reference(tuple(jnp.asarray(v, float) for v in reference.weights), *parts),
            gammas=jnp.asarray(self.gammas),
            cells=jnp.asarray(float(self.cells)),
            key=None if self.key is None else jax.random.key_data(self.key),
            anchors=anchors,
        )


def root_mean_square_residual(net: LeakyMLP, task: Task) -> float:
    """$\\ell(0)$, the root mean square of $y - f(\\tilde x)$ over the training set.

    **Arguments:**

    - `net`: the network at time 0.
    - `task`: the data.

    **Returns:**

    A number.
    """
    scaled, unit = in_units(net)  # outputs may be beyond the dtype of the weights
    outputs = np.asarray(scaled(task.x), float) * float(unit)
    size = max(1.0, float(np.abs(outputs).max()))
    return size * float(np.sqrt(np.mean(((task.y - outputs) / size) ** 2)))


def follow(
    task: Task,
    start: LeakyMLP,
    trajectory: Trajectory,
    *,
    ratios: tuple[float, ...],
    cells: int,
    envelope: bool = True,
    initial_residual: Numeric | None = None,
    key: PRNGKeyArray | None = None,
    anchor: Anchor | None = None,
    reference: ReferenceTrajectory | None = None,
) -> Run:
    """The reference network beside a trained one: what every bound along training is made of.

    **Arguments:**

    - `task`: the data.
    - `start`: the network at time 0.
    - `trajectory`: the network over time.

    **Other arguments:**

    - `ratios`: the margins are $\\gamma$ = scale / ratio, with the scale
        $\\|\\omega V_L \\cdots V_1(t)\\|$ of the reference network.
    - `cells`: over how many cells (t, gamma) unions are taken. It must be fixed before the sample:
        a training that ends early has no fewer.
    - `envelope`: whether to integrate the envelope as well.
    - `initial_residual`: $\\ell(0)$, measured if `None`.
    - `key`: for bounds that draw at random. They must not depend on the start weights: not the
        key that those were drawn with.
    - `anchor`: out of [`anchor_of`][], of a split of this task.
    - `reference`: for a network that was trained by steps: the reference network trained by the
        same ones, out of [`reference_descent`][], at the times of `trajectory`. By default that of
        gradient flow.

    **Returns:**

    A [`Run`][].

    **Raises:**

    `ValueError` naming the argument, or if `jax_enable_x64` is not set; `RuntimeError` if the
    flow of the reference network stopped before its end.
    """
    flow, times = reference is None, np.shape(trajectory.ts)[0]
    if initial_residual is None and flow:
        initial_residual = root_mean_square_residual(start, task)
    if reference is None:
        reference = reference_flow(
            start,
            task.target,
            np.asarray(trajectory.ts, float),
            envelope=envelope,
            initial_residual=initial_residual,
            throw=True,
        )
    elif len(reference.ts) != times or not np.allclose(reference.ts, trajectory.ts, rtol=1e-5):
        raise ValueError("`reference` must be at the times of `trajectory`, got others.")
    if anchor is not None and anchor.reference is not None and len(anchor.reference[0]) < times:
        raise ValueError(
            f"`anchor` must have a reference network at {times} times or more, as many as "
            f"`trajectory`, got {len(anchor.reference[0])}."
        )
    gammas = np.asarray(reference.scale)[:, None] / np.asarray(ratios)
    return Run(task, start, trajectory, reference, gammas, cells, key, anchor, flow)


@eqx.filter_jit
def error_over_time(weights, epsilon, x, y) -> Float[Array, " times"]:
    """The share of samples with $y f(x) \\le 0$ at every time.

    **Arguments:**

    - `weights`: `(times out in)` each.
    - `epsilon`: one minus the negative slope.
    - `x`, `y`: inputs `(d m)` and labels `(m,)`, in the dtype of the weights.

    **Returns:**

    The shares, `(times,)`, float64.
    """

    def one(weights):
        margins = y * in_units(LeakyMLP(weights, epsilon))[0].features_first(x)
        # What is not known to be right (0 and NaN) counts as wrong.
        return jnp.mean(~(margins > 0), dtype=float)

    return jax.lax.map(one, weights)


def labelled_sets(task: Task, dtype: Any) -> tuple[Any, Any]:
    """The training and the test set as [`error_over_time`][] takes them.

    **Arguments:**

    - `task`: the data.
    - `dtype`: of the network.

    **Returns:**

    Inputs `(d m)` and labels `(m,)` of each; the second is `None` without test data.
    """

    def of(x, y):
        return jnp.asarray(x.T, dtype), jnp.asarray(y, dtype)

    has_test = task.x_test is not None and task.y_test is not None
    return of(task.x, task.y), of(task.x_test, task.y_test) if has_test else None


def risks(run: Run) -> tuple[Float[np.ndarray, " times"], Float[np.ndarray, " times"] | None]:
    """Train and test error of the network at every time.

    **Arguments:**

    - `run`: a [`Run`][].

    **Returns:**

    Two arrays `(times,)`; the second is `None` without test data.
    """
    weights, epsilon = run.trajectory.weights, run.trajectory.epsilon

    def of(data):
        return np.asarray(error_over_time(weights, epsilon, *data))

    train_set, test_set = labelled_sets(run.task, weights[0].dtype)
    return of(train_set), None if test_set is None else of(test_set)
