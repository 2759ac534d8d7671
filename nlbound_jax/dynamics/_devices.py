"""Which devices a flow runs on."""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from .. import _validate
from ._field import AXIS
from ._trajectory import is_concrete


def samples_mesh(devices: Sequence[Any] | None, *inputs: Any) -> Mesh | None:
    """The devices to share the samples out over, for [`make_blocks`][].

    By default all CPU devices, which are the cores of one machine: XLA runs a loop over blocks on
    one core, however many threads its products may use. Not where JAX traces the inputs or was
    told which device to use: there it is not for this library to move them.

    **Arguments:**

    - `devices`: devices of this process, of one platform; the default if `None`.
    - `inputs`: what a flow starts from, any arrays.

    **Returns:**

    A mesh of one axis, or `None` for where `inputs` are.

    **Raises:**

    `ValueError` if `devices` are none of this process, twice the same or of several platforms.
    """
    if devices is not None:
        return Mesh(np.asarray(_checked(devices)), (AXIS,))
    if not is_concrete(inputs) or jax.config.jax_default_device is not None:  # pyright: ignore
        return None
    devices = jax.local_devices()
    several = devices[0].platform == "cpu" and len(devices) > 1
    return Mesh(np.asarray(devices), (AXIS,)) if several else None


def _checked(devices: Any) -> list[Any]:
    local = jax.local_devices(backend=None) + _cpus()
    if not isinstance(devices, Sequence) or not devices or any(d not in local for d in devices):
        raise ValueError(
            "`devices` must be a sequence of devices of this process (jax.local_devices()), "
            f"got {_validate.shown(devices)}."
        )
    if len(set(devices)) < len(devices) or len({d.platform for d in devices}) > 1:
        raise ValueError(f"`devices` must be different devices of one platform, got {devices}.")
    return list(devices)


def _cpus() -> list[Any]:
    try:
        return jax.local_devices(backend="cpu")
    except RuntimeError:  # JAX_PLATFORMS leaves it out
        return []


def replicate(tree: Any, mesh: Mesh | None) -> Any:
    """Arrays on every device of a mesh.

    **Arguments:**

    - `tree`: any tree; what is no array stays as it is.
    - `mesh`: out of [`samples_mesh`][] or any other; with `None` the arrays stay where they are.

    **Returns:**

    The tree.
    """
    if mesh is None:
        return tree
    sharding = NamedSharding(mesh, PartitionSpec())
    return jax.tree.map(lambda a: jax.device_put(a, sharding) if eqx.is_array(a) else a, tree)


def run_on_mesh(function: Callable[..., Any], *inputs: Any, mesh: Mesh | None) -> Any:
    """Run a function on every device of a mesh at once, from inputs that each of them has.

    **Arguments:**

    - `function`: of `inputs`; it may use data sharded over the mesh ([`Blocks`][]), and its
        result must be the same on all devices.
    - `inputs`: any trees.
    - `mesh`: out of [`samples_mesh`][]; with `None` the function is just called.

    **Returns:**

    What `function` returns, its arrays tied to no device; else every later operation would run
    on all of them. Where JAX traces they stay as they are.
    """
    return _gather(function(*replicate(inputs, mesh)), mesh)


def _gather(tree: Any, mesh: Mesh | None) -> Any:
    if mesh is None or not is_concrete(tree):
        return tree
    return jax.tree.map(
        lambda a: jnp.asarray(np.asarray(a)) if isinstance(a, jax.Array) else a, tree
    )
