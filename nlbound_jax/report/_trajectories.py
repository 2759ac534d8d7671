"""The training of any module in one file, and back."""

from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np

from .. import _validate
from .._npz import DAMAGE
from .._results import RESULTS, outcome_name
from ..dynamics import Trajectory
from ..networks import LeakyMLP
from ._saved import read_saved, unfit, write_saved

VERSION = 1
_TRAINED, _FIXED, _STATS = "trained.", "fixed.", "stats."


def _name(path: Any) -> str:
    """Where a leaf is, as `layers[0].bias`."""
    return jtu.keystr(path).removeprefix(".")


def _is_numbers(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | np.ndarray) and not jnp.issubdtype(
        leaf.dtype, jax.dtypes.extended
    )


def save_trajectory(trajectory: Trajectory, path: str | Path) -> None:
    """Write the training of a module to one `.npz` file (arrays and a JSON header, nothing
    pickled), from which [`load_trajectory`][] has it back to the bit: the parameters over time and
    the arrays that are not trained, each by where it is in the module.

    **Arguments:**

    - `trajectory`: a [`Trajectory`][], of a [`LeakyMLP`][] or any other module.
    - `path`: the file; folders are made if need be.

    **Returns:**

    Nothing.

    **Raises:**

    `ValueError` if the file cannot be written; `OSError`, one line, if there is not enough room.
    What was there stays.
    """
    run = _validate.instance("trajectory", trajectory, Trajectory)
    path = _validate.path("path", path)
    if any(_validate.is_traced(leaf) for leaf in jax.tree.leaves(run)):
        raise ValueError("`trajectory` must be of numbers, got one that JAX is tracing.")
    prefix = "" if run.epsilon is None else "weights"
    arrays = {"ts": run.ts, "reached": run.reached}
    for place, leaf in jtu.tree_leaves_with_path(run.weights):
        arrays[f"{_TRAINED}{prefix}{_name(place)}"] = leaf
    for place, leaf in jtu.tree_leaves_with_path(run.rest):
        if _is_numbers(leaf):
            arrays[f"{_FIXED}{_name(place)}"] = leaf
    if run.epsilon is not None:
        arrays[f"{_FIXED}epsilon"] = run.epsilon
    plain = {k: v for k, v in run.stats.items() if v is None or isinstance(v, int)}
    arrays |= {f"{_STATS}{k}": v for k, v in run.stats.items() if k not in plain}
    # Those that the file has no name for, as bfloat16.
    dtypes = {k: str(a.dtype) for k, a in arrays.items() if np.dtype(a.dtype).kind == "V"}
    header = {"result": outcome_name(run.result), "stats": plain, "dtypes": dtypes}
    write_saved(path, "trajectory", VERSION, header, arrays)


def load_trajectory(path: str | Path, like: eqx.Module) -> Trajectory:
    """The training that [`save_trajectory`][] wrote.

    ```python
    report.save_trajectory(dynamics.gradient_flow(net, task, t1=5.0), "run.npz")
    trained = report.load_trajectory("run.npz", net).network()
    ```

    **Arguments:**

    - `path`: the file.
    - `like`: a module as the trained one was built: what is no array (functions, static fields,
        random keys) is taken from it, all other arrays from the file.

    **Returns:**

    A [`Trajectory`][]; its arrays have the dtype they were saved with, whatever
    `jax_enable_x64` says.

    **Raises:**

    `ValueError` naming the argument if the file cannot be read, is damaged or cut short, is of
    another version or was not written by [`save_trajectory`][], or if `like` has other arrays.
    """
    path = _validate.path("path", path)
    if not isinstance(like, eqx.Module):
        raise ValueError(f"`like` must be an Equinox module, got {_validate.shown(like)}.")
    header, arrays = read_saved(path, "trajectory", VERSION)
    try:
        for name, dtype in header["dtypes"].items():
            arrays[name] = arrays[name].view(jnp.dtype(dtype))
        ts, reached = arrays.pop("ts"), arrays.pop("reached")
        stats = {k: arrays.pop(k) for k in list(arrays) if k.startswith(_STATS)}
        result = getattr(RESULTS, header["result"])
        fit = ts.ndim == 1 and reached.ndim == 0 and ts.dtype == reached.dtype
        fit = fit and jnp.issubdtype(ts.dtype, jnp.floating)
        if not fit or not all(name.startswith((_TRAINED, _FIXED)) for name in arrays):
            raise ValueError("shapes or names")
        plain = dict(header["stats"])
    except DAMAGE as error:
        unfit(path, "trajectory", error)
    with jax.enable_x64(True):
        stats = {k.removeprefix(_STATS): jnp.asarray(v) for k, v in stats.items()}
        weights, rest = _filled(like, arrays, len(ts))
        ends = (jnp.asarray(reached), {**plain, **stats}, jax.tree.map(jnp.asarray, result))
        if isinstance(like, LeakyMLP):
            return Trajectory(jnp.asarray(ts), weights.weights, rest.epsilon, *ends)
        return Trajectory(jnp.asarray(ts), weights, None, *ends, rest)


def _filled(like: Any, arrays: dict[str, np.ndarray], times: int) -> tuple[Any, Any]:
    """The parameters over time, with `None` for the rest of `like`, and the reverse."""
    left = dict(arrays)

    def take(kind, place, leaf, *first):
        name = _name(place)
        array = left.pop(f"{kind}{name}")
        shape, dtype = (*first, *leaf.shape), np.dtype(leaf.dtype)
        if (array.shape, array.dtype) != (shape, dtype):
            raise ValueError(
                f"`like` must have arrays as the trained module, {name} of {array.dtype} and shape "
                f"{array.shape[len(first) :]}, got {leaf.dtype} and {leaf.shape}."
            )
        return array if isinstance(leaf, np.ndarray) and not first else jnp.asarray(array)

    def part(place, leaf):
        if not _is_numbers(leaf):
            return None, leaf
        if f"{_TRAINED}{_name(place)}" in left:
            return take(_TRAINED, place, leaf, times), None
        if f"{_FIXED}{_name(place)}" in left:
            return None, take(_FIXED, place, leaf)
        raise ValueError(f"`like` must have arrays as the trained module, got {_name(place)} more.")

    places, structure = jtu.tree_flatten_with_path(like)
    parts = [part(*entry) for entry in places]
    if left:
        missing = next(iter(left)).split(".", 1)[1]
        raise ValueError(f"`like` must have arrays as the trained module, got no {missing}.")
    weights, rest = zip(*parts, strict=True)
    return jtu.tree_unflatten(structure, weights), jtu.tree_unflatten(structure, rest)
