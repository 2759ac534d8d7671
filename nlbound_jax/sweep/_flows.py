"""The flows of a piece: networks of one shape, trained together, and their reference networks."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from .. import ladder
from .._results import RESULTS, outcome_names
from ..dynamics import Trajectory, default_controller, make_blocks, replicate
from ..networks import LeakyMLP
from ..report import (
    NothingToLearn,
    Settings,
    bound_key,
    end_time,
    reference_beside,
    save_times,
    start_network,
    train_network,
)
from ..tasks import Task
from ._config import SweepConfig
from ._ensemble import Ended, Flow, Start, map_lanes


class Devices:
    """The devices of this process; the arrays of the task in use stay on them."""

    def __init__(self, mesh: Mesh, capacity: int):
        self.mesh, self.capacity = mesh, capacity
        self._task: Task | None = None
        self._held: dict[str, Any] = {}

    def use(self, task: Task) -> None:
        """Make room for the arrays of `task`."""
        if task is not self._task:
            self._held.clear()
            self._task = task

    def hold(self, key: str, make: Callable[[], Any]) -> Any:
        """What `make` makes of the task, on every device, made once."""
        if key not in self._held:
            self._held[key] = replicate(make(), self.mesh)
        return self._held[key]

    def replicate(self, arrays: Any) -> Any:
        """`arrays` on every device."""
        return replicate(arrays, self.mesh)

    def map(self, function: Any, lanes: list[Any], shared: Any) -> list[Any]:
        """`function` of every lane that is not `None`."""
        some = next((lane for lane in lanes if lane is not None), None)
        if some is None:
            return [None] * len(lanes)
        filled = [some if lane is None else lane for lane in lanes]
        wanted = [lane is not None for lane in lanes]
        mapped = map_lanes(function, filled, wanted, shared, self.mesh, self.capacity)
        return [
            jax.tree.map(lambda leaf, i=i: leaf[i], mapped) if run else None
            for i, run in enumerate(wanted)
        ]


class Lane(NamedTuple):
    """One flow: its place, settings and network at time 0; `t1` is `None` where there is no
    learning time, for nothing is left to learn."""

    place: dict[str, int]
    settings: Settings
    net: LeakyMLP
    t1: float | None


class Followed(NamedTuple):
    """A flow and its reference network at the times to speak of, the first `valid` ones; the
    rest repeats the last of them, so that all lanes have one shape."""

    lane: Lane
    run: ladder.Run
    valid: int


def make_lane(config: SweepConfig, place: dict[str, int], task: Task) -> Lane:
    """The lane at a place of the axes."""
    settings = config.report_settings(config.options(place))
    try:
        t1 = end_time(task, settings)
    except NothingToLearn:
        t1 = None
    return Lane(place, settings, start_network(task, settings), t1)


def train_together(lanes: list[Lane], task: Task, devices: Devices) -> list[Ended | None]:
    """Every lane trained; `None` where there is no learning time or descent diverged."""
    settings = lanes[0].settings
    if settings.dynamics == "gd":
        # On one device, so that the result does not depend on how many there are.
        one = devices.mesh.devices.ravel()[:1].tolist()
        return [None if lane.t1 is None else _descend(lane, task, one) for lane in lanes]
    dtype = np.dtype(settings.dtype)
    blocks = devices.hold(f"blocks {dtype}", lambda: make_blocks(task, dtype))
    starts = [None if lane.t1 is None else _start(lane, lane.t1, dtype) for lane in lanes]
    return devices.map(Flow(settings.max_steps), starts, blocks)


def outcome(lane: Lane, ended: Ended | None) -> str:
    """How training ended, in a word."""
    if lane.t1 is None:
        return "no_learning_time"
    return "diverged" if ended is None else outcome_names()[int(ended.result)]


def _start(lane: Lane, t1: float, dtype: np.dtype) -> Start:
    """The arrays of a lane as `gradient_flow` makes them, to the last bit."""
    settings = lane.settings
    controller = default_controller(lane.net.weights, settings.rtol)
    arrays = Start(
        weights=lane.net.weights,
        epsilon=lane.net.epsilon,
        t1=jnp.asarray(t1, dtype),
        ts=save_times(t1, settings),
        rtol=jnp.asarray(settings.rtol, dtype),
        atol=jnp.asarray(controller.atol, dtype),
    )
    return jax.tree.map(np.asarray, arrays)


def _descend(lane: Lane, task: Task, devices: list[Any]) -> Ended | None:
    """Gradient descent of one lane, as many times as all lanes have; `None` where it diverged."""
    try:
        trajectory = train_network(lane.net, task, lane.settings, lane.t1 or 0.0, devices=devices)
    except RuntimeError:
        return None
    more = lane.settings.num_times - len(trajectory.ts)

    def padded(leaf: Any) -> Any:
        return jnp.pad(leaf, [(0, more)] + [(0, 0)] * (leaf.ndim - 1), constant_values=jnp.inf)

    arrays = Ended(
        ts=padded(trajectory.ts),
        weights=tuple(padded(w) for w in trajectory.weights),
        end=tuple(w[-1] for w in trajectory.weights),
        reached=trajectory.reached,
        num_steps=jnp.asarray(trajectory.stats["num_steps"]),
        result=RESULTS.successful._value,  # pyright: ignore
        residual=jnp.asarray(ladder.root_mean_square_residual(lane.net, task)),
    )
    return jax.tree.map(np.asarray, arrays)


def follow(lane: Lane, ended: Ended | None, task: Task) -> Followed | None:
    """The reference network beside a flow; `None` if the flow has no time to speak of, or if that
    of the reference network stopped."""
    if ended is None:
        return None
    saved = int(np.isfinite(ended.ts).sum())
    ts, weights = ended.ts, ended.weights
    if saved < len(ts):  # it ended early: the state there is the last one
        ts = np.where(np.arange(len(ts)) < saved, ts, ended.reached)
        keep = (np.arange(len(ts)) < saved)[:, None, None]
        weights = tuple(np.where(keep, w, e) for w, e in zip(weights, ended.end, strict=True))
    finite = np.all([np.isfinite(w).all(axis=(1, 2)) for w in weights], axis=0) & (ts > 0)
    # A flow that ended early has its state there as well; descent has no more than was saved.
    last = saved + (lane.settings.dynamics == "flow")
    valid = min(last, len(ts), int(np.cumprod(finite).sum()))
    if not valid:
        return None
    chosen = np.minimum(np.arange(len(ts)), valid - 1)
    ts, weights = ts[chosen], tuple(w[chosen] for w in weights)
    arrays = jax.tree.map(jnp.asarray, (ts, weights, lane.net.epsilon, ended.reached))
    stats = {"num_steps": ended.num_steps}
    trajectory = Trajectory(*arrays, stats, RESULTS.successful)  # pyright: ignore
    residual = float(ended.residual)
    try:
        reference = reference_beside(
            lane.net, task, trajectory, lane.settings, initial_residual=residual
        )
        run = ladder.follow(
            task,
            lane.net,
            trajectory,
            ratios=lane.settings.ratios,
            cells=lane.settings.cells,
            initial_residual=residual,
            key=bound_key(lane.settings),
            reference=reference,
        )
    except RuntimeError:  # the reference network did not get there
        return None
    return Followed(lane, run, valid)


@functools.cache
def _cpu() -> Any:
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:  # a configuration without it
        return None


def on_host() -> Any:
    """Where the small solves in float64 run: dozens of tiny operations a step."""
    return jax.default_device(_cpu())
