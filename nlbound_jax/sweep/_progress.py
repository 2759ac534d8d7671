"""How far a sweep is, over all its processes."""

import json
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax

from .. import _validate
from ._store import count_marks, read_attributes, read_marks


class SweepProgress(NamedTuple):
    """How far a sweep is, whichever process did it.

    **Attributes:**

    - `pieces`, `pieces_done`: pieces of work, and how many are complete.
    - `flows`, `flows_done`: flows (cells with `mode="theory"`), and how many are in the store.
    - `failed`: how many of them ended otherwise than successfully, by outcome.
    - `rate`: flows a second since this process began, all processes together; 0 before the first.
    - `remaining`: estimated seconds to the end, or `None` before the first piece.
    """

    pieces: int
    pieces_done: int
    flows: int
    flows_done: int
    failed: dict[str, int]
    rate: float
    remaining: float | None


class Meter:
    """Follows the marks of a store."""

    def __init__(self, path: Path, pieces: int, flows: int):
        self.path, self.pieces, self.flows = path, pieces, flows
        self.began = time.monotonic()
        self.marks = read_marks(path)
        self.before = sum(sum(m["flows"].values()) for m in self.marks.values())

    def read(self) -> SweepProgress:
        """The progress now."""
        self.marks = read_marks(self.path, self.marks)
        done, failed = count_marks(self.marks)
        rate = (done - self.before) / max(time.monotonic() - self.began, 1e-9)
        left = (self.flows - done) / rate if rate > 0 else (None if done < self.flows else 0.0)
        return SweepProgress(
            self.pieces, len(self.marks), self.flows, done, failed, max(rate, 0.0), left
        )


class SweepStatus(NamedTuple):
    """What [`sweep_status`][] found in a store.

    **Attributes:**

    - `path`: the store.
    - `config`: its configuration, JSON values.
    - `pieces`, `pieces_done`, `flows`, `flows_done`, `failed`: as in a [`SweepProgress`][].
    - `seconds`: the time that was spent on the pieces, added over all processes.
    - `processes`: how many pieces each process did, by its name (`shard 1/2 on cpu x 1`).
    """

    path: Path
    config: dict[str, Any]
    pieces: int
    pieces_done: int
    flows: int
    flows_done: int
    failed: dict[str, int]
    seconds: float
    processes: dict[str, int]


def sweep_status(store: str | Path) -> SweepStatus:
    """How far the sweep in a store is. Marks are counted and no array is read.

    **Arguments:**

    - `store`: the path of the store.

    **Returns:**

    A [`SweepStatus`][].

    **Raises:**

    `ValueError` if it is not the store of a sweep.
    """
    path = _validate.path("store", store)
    attributes = read_attributes("store", path)
    marks = read_marks(path)
    done, failed = count_marks(marks)
    who = [mark["process"] for mark in marks.values()]
    return SweepStatus(
        path=path,
        config=json.loads(attributes["configuration"]),
        pieces=attributes["pieces"],
        pieces_done=len(marks),
        flows=attributes["flows"],
        flows_done=done,
        failed=failed,
        seconds=sum(mark["seconds"] for mark in marks.values()),
        processes={name: who.count(name) for name in sorted(set(who))},
    )


def process_name(index: int, count: int) -> str:
    """This process in a word, for the marks."""
    devices = jax.local_devices()
    return f"shard {index + 1}/{count} on {devices[0].platform} x {len(devices)}"
