"""The data of a sweep: one task, or one for every combination of the axes that name data."""

import hashlib
import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np

from .. import _validate, ladder
from .._naming import naming
from ..tasks import DataSpec, Task, load_task
from ._config import SweepConfig
from ._options import DATA


class Source:
    """The tasks of a sweep, the one in use in memory; `axes` are the axes that choose it."""

    def __init__(self, config: SweepConfig, task: Task | None = None):
        self.config, self.given = config, task
        self.axes = tuple(name for name in config.axes if name in DATA)
        self._key: tuple[int, ...] | None = None
        self._task = task
        if task is not None:
            _validate.instance("task", task, Task)
            named = [n for n in DATA if n in config.axes or n in config.settings]
            if named:
                table = "axes" if named[0] in config.axes else "settings"
                raise ValueError(f"`{table}.{named[0]}` must be left out with `task`.")
        sizes = [range(len(config.axes[name])) for name in self.axes]
        # Every task is loaded once before any work, which names what is wrong with the data.
        self.summaries = {key: self._summary(key) for key in itertools.product(*sizes)}

    def task(self, index: Mapping[str, int]) -> Task:
        """The task at a place of the axes."""
        key = tuple(index[name] for name in self.axes)
        if self.given is not None:
            return self.given
        if self._task is None or key != self._key:
            self._task = None  # the old one goes before the new one comes
            self._task, self._key = self._load(key), key
        return self._task

    def _load(self, key: tuple[int, ...]) -> Task:
        options = self.config.options(dict(zip(self.axes, key, strict=True)))
        where = {n: f"{'axes' if n in self.axes else 'settings'}.{n}" for n in DATA}
        with naming(**where):
            return load_task(DataSpec(**{n: options[n] for n in DATA if n in options}))

    def _summary(self, key: tuple[int, ...]) -> dict[str, Any]:
        task, config = self.task(dict(zip(self.axes, key, strict=True))), self.config
        flow = "flow" in config.axes.get("dynamics", (config.settings.get("dynamics", "flow"),))
        return {
            "task": task.name,
            "num_samples": task.num_samples,
            "rank": task.rank,
            "alignment": float(task.alignment),
            "known": ladder.known_of(task, depth=2, along=True, flow=flow),  # of some depth
            "labels": _digest(task.y, task.y_test),
        }

    @property
    def known(self) -> set[str]:
        """What the bounds may need and some of the tasks have."""
        return {name for summary in self.summaries.values() for name in summary["known"]}

    def identity(self) -> list[list[Any]]:
        """What tells other data of the same name apart, the same on every machine: whitened
        inputs are not, to the last bit."""
        keys = ("task", "num_samples", "rank", "labels")
        return [[summary[k] for k in keys] for summary in self.summaries.values()]


def _digest(*arrays: np.ndarray | None) -> str:
    digest = hashlib.blake2b(digest_size=12)
    for array in arrays:
        if array is not None:
            digest.update(np.sign(array).astype(np.int8).tobytes())
    return digest.hexdigest()
