"""A trained run in one file, and back."""

import math
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .. import _validate
from .._npz import DAMAGE
from .._results import RESULTS, outcome_name
from .._types import Data
from ..dynamics import Trajectory
from ..networks import LeakyMLP
from ..tasks import Task, Transform
from ._report import Report, summary
from ._saved import read_saved, unfit, write_saved
from ._settings import Settings

VERSION = 1


class SavedRun(eqx.Module):
    """A trained run out of [`load_run`][].

    **Attributes:**

    - `trajectory`: the trained network over time, a [`Trajectory`][].
    - `transform`: raw inputs to whitened ones, a [`Transform`][].
    - `task`: a summary of the data, as in a [`Report`][].
    - `settings`: the [`Settings`][].
    """

    trajectory: Trajectory
    transform: Transform
    task: dict[str, Any]
    settings: Settings = eqx.field(static=True)

    @property
    def network(self) -> LeakyMLP:
        """The network at the end of training."""
        return self.trajectory.network()

    def predict(self, x: Data) -> Float[Array, "*samples"]:
        """The predicted label of raw inputs, by the network at the end of training.

        **Arguments:**

        - `x`: raw inputs as `task.transform` takes them: `(n features)` or `(features,)`; for
            MNIST images of bytes, `(n height width)` or `(height width)`, for images out of
            [`from_tfds`][] also `(n height width channels)`.

        **Returns:**

        The labels in {-1, +1}, a scalar or `(samples,)`.

        **Raises:**

        `ValueError` if the shape does not fit or an entry is not finite.
        """
        whitened = self.transform(x)
        with jax.enable_x64(True):  # the dtype of the weights, whatever the configuration
            return self.network.predict(whitened)


def save_run(report: Report, task: Task, path: str | Path) -> None:
    """Write a trained run to one `.npz` file (arrays and a JSON header, nothing pickled), from
    which [`load_run`][] has it back to the bit.

    **Arguments:**

    - `report`: a [`Report`][]; its bounds are not kept, [`save`][] writes those.
    - `task`: the task that it is a report on; its transform, not its data, is kept.
    - `path`: the file; folders are made if need be.

    **Returns:**

    Nothing.

    **Raises:**

    `ValueError` if `task` is another one or the file cannot be written; `OSError`, one line, if
    there is not enough room. What was there stays.
    """
    report = _validate.instance("report", report, Report)
    task = _validate.instance("task", task, Task)
    path = _validate.path("path", path)
    if summary(task) != report.task:
        raise ValueError(
            f"`task` must be the one that the report is on, {report.task['name']!r} with rank "
            f"{report.task['rank']} and alignment {report.task['alignment']:g}, got "
            f"{task.name!r} with rank {task.rank} and alignment {task.alignment:g}."
        )
    run, transform = report.trajectory, task.transform
    arrays: dict[str, Any] = {f"W{i}": w for i, w in enumerate(run.weights, start=1)}
    arrays |= {"ts": run.ts, "epsilon": run.epsilon, "reached": run.reached}
    arrays |= {f"stats.{k}": v for k, v in run.stats.items() if not isinstance(v, int)}
    arrays["matrix"] = transform.matrix
    if transform.columns is not None:  # it came later, as `image`
        arrays["columns"] = transform.columns
    header = {
        "depth": len(run.weights),
        "result": outcome_name(run.result),
        "stats": {k: v for k, v in run.stats.items() if isinstance(v, int)},
        # `image` and `bias` came later: a file without them is one of a task that has none.
        "transform": {
            "scale": float(transform.scale),
            "side": transform.side,
            "image": transform.image,
            "bias": transform.bias,
        },
        "task": report.task,
        "settings": report.settings.as_dict(),
    }
    write_saved(path, "run", VERSION, header, arrays)


def load_run(path: str | Path) -> SavedRun:
    """The run that [`save_run`][] wrote.

    ```python
    run = report.load_run("run.npz")
    labels = run.predict(images)
    ```

    **Arguments:**

    - `path`: the file.

    **Returns:**

    A [`SavedRun`][]; its arrays have the dtype they were saved with, whatever
    `jax_enable_x64` says.

    **Raises:**

    `ValueError` naming the path if the file cannot be read, is damaged or cut short, is of
    another version, or was not written by [`save_run`][].
    """
    path = _validate.path("path", path)
    header, arrays = read_saved(path, "run", VERSION)
    try:
        with jax.enable_x64(True):
            return _build(header, arrays)
    except DAMAGE as error:
        unfit(path, "run", error)


def _build(header: dict[str, Any], arrays: dict[str, np.ndarray]) -> SavedRun:
    """The run of a header and arrays; `ValueError` and others if they do not fit together."""
    weights = tuple(arrays[f"W{i + 1}"] for i in range(header["depth"]))
    ts, matrix, epsilon, reached = (arrays[k] for k in ("ts", "matrix", "epsilon", "reached"))
    scale, side = header["transform"]["scale"], header["transform"]["side"]
    image, bias = header["transform"].get("image"), header["transform"].get("bias", False)
    image = None if image is None else tuple(image)
    fit = all(w.ndim == 3 and w.shape[0] == ts.size > 0 for w in weights)
    fit = fit and ts.ndim == 1 and matrix.ndim == 2 and epsilon.ndim == reached.ndim == 0
    fit = fit and matrix.shape[1] == weights[0].shape[2]
    fit = fit and all(a.dtype.kind == "f" for a in (*weights, ts, matrix, epsilon, reached))
    columns = arrays.get("columns")
    fit = fit and (
        columns is None or (columns.dtype.kind, columns.shape) == ("f", matrix.shape[:1])
    )
    fit = fit and (
        image is None or (len(image) == 3 and math.prod(image) + bias == matrix.shape[0])
    )
    fit = fit and (image is None or all(isinstance(n, int) and n > 0 for n in image))
    fit = fit and isinstance(bias, bool)
    if not fit or not isinstance(scale, float) or not isinstance(side, int | None):
        raise ValueError("shapes or dtypes")
    stats = {k[6:]: jnp.asarray(a) for k, a in arrays.items() if k.startswith("stats.")}
    trajectory = Trajectory(
        ts=jnp.asarray(ts),
        weights=tuple(jnp.asarray(w) for w in weights),
        epsilon=jnp.asarray(epsilon),
        reached=jnp.asarray(reached),
        stats={**header["stats"], **stats},
        result=jax.tree.map(jnp.asarray, getattr(RESULTS, header["result"])),
    )
    trajectory.network()  # refuses layers that do not fit together
    settings = header["settings"]
    settings = Settings(**{**settings, "ratios": tuple(settings["ratios"])})
    transform = Transform(matrix, scale, side, image, columns, bias)
    return SavedRun(trajectory, transform, header["task"], settings)
