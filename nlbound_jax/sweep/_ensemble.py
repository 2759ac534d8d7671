"""Networks of one shape, trained and measured as one ensemble over the local devices.

Every lane takes its own adaptive steps: a device goes through its lanes one after the other
inside one compiled function (`vmap` would make each step of each lane wait for the slowest). No
number of one lane enters another, so the result does not depend on how many devices there are.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float

from ..dynamics import Blocks, pi_controller, solve_flow
from ..networks import LeakyMLP

AXIS = "lanes"


def local_mesh(devices: Sequence[Any] | None = None) -> Mesh:
    """All devices of this process in a row."""
    return Mesh(np.asarray(jax.local_devices() if devices is None else devices), (AXIS,))


@eqx.filter_jit
def _map(function: Callable[..., Any], lanes: Any, wanted, shared: Any, mesh: Mesh) -> Any:
    def one(args):
        lane, run = args
        blank = jax.tree.map(
            lambda a: jnp.zeros(a.shape, a.dtype), eqx.filter_eval_shape(function, lane, shared)
        )
        return jax.lax.cond(run, lambda: function(lane, shared), lambda: blank)

    spec, all_of_it = PartitionSpec(AXIS), PartitionSpec()
    mapped = jax.shard_map(
        lambda lanes, wanted, shared: jax.lax.map(one, (lanes, wanted)),
        mesh=mesh,
        in_specs=(spec, spec, all_of_it),
        out_specs=spec,
        check_vma=False,
    )
    return mapped(lanes, wanted, shared)


def map_lanes(
    function: Callable[..., Any],
    lanes: Sequence[Any],
    wanted: Sequence[bool],
    shared: Any,
    mesh: Mesh,
    capacity: int,
) -> Any:
    """`function(lane, shared)` for every lane, stacked, on the devices of `mesh`; zeros where a
    lane is not wanted. `shared` is on every device already. The shapes, and with them the
    compiled code, are those of `capacity` lanes however many there are."""
    size = -(-capacity // mesh.size) * mesh.size
    filled = [*lanes, *[lanes[0]] * (size - len(lanes))]
    # Lanes go round the devices in turn, so that a piece that is not full keeps all of them busy.
    order = np.arange(size).reshape(-1, mesh.size).T.ravel()
    run = np.asarray([*wanted, *[False] * (size - len(lanes))])[order]
    stacked = jax.tree.map(lambda *leaves: np.stack([leaves[i] for i in order]), *filled)
    stacked, run = jax.device_put((stacked, run), NamedSharding(mesh, PartitionSpec(AXIS)))
    flow = jax.tree.map(np.asarray, jax.device_get(_map(function, stacked, run, shared, mesh)))
    back = np.argsort(order)[: len(lanes)]
    return jax.tree.map(lambda leaf: leaf[back], flow)


class Start(NamedTuple):
    """A lane before training: the network, its end and times to save, and its tolerances."""

    weights: Any
    epsilon: Float[Array, ""]
    t1: Float[Array, ""]
    ts: Float[Array, " times"]
    rtol: Float[Array, ""]
    atol: Float[Array, ""]


class Ended(NamedTuple):
    """A lane after training. Times that were not reached are `inf`; `end` and `reached` are
    where training ended, `residual` is the root mean square of y - f at t = 0."""

    ts: Float[Array, " times"]
    weights: Any
    end: Any
    reached: Float[Array, ""]
    num_steps: Array
    result: Array
    residual: Float[Array, ""]


class Flow(eqx.Module):
    """The flow of one lane on data in [`Blocks`][]."""

    max_steps: int = eqx.field(static=True)

    def __call__(self, lane: Start, blocks: Blocks) -> Ended:
        flow = solve_flow(
            lane.weights,
            lane.epsilon,
            blocks,
            t1=lane.t1,
            saveat=diffrax.SaveAt(ts=lane.ts),
            stepsize_controller=pi_controller(lane.rtol, lane.atol),
            max_steps=self.max_steps,
        )
        return Ended(
            ts=flow.ts,
            weights=flow.weights,
            end=tuple(w[0] for w in flow.end),
            reached=flow.reached,
            num_steps=flow.stats["num_steps"],
            result=flow.result._value,  # pyright: ignore
            residual=_residual(LeakyMLP(lane.weights, lane.epsilon), blocks),
        )


def _residual(net: LeakyMLP, blocks: Blocks) -> Float[Array, ""]:
    def add(total, block):
        x, y = block
        return total + jnp.sum((y - net.features_first(x)).astype(float) ** 2), None

    total, _ = jax.lax.scan(add, jnp.zeros(()), (blocks.x, blocks.y))
    return jnp.sqrt(total / blocks.num_samples)
