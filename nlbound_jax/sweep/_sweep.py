"""The sweep: pieces of work, done by this process, into one store."""

import importlib.metadata
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import xarray as xr

from .. import _validate, ladder
from ..ladder import AbstractBound
from ..report import Settings
from ..tasks import Task
from ._config import SweepConfig
from ._data import Source
from ._ensemble import local_mesh
from ._evaluate import Reports
from ._flows import Devices
from ._layout import Layout, Piece, share
from ._options import DATA, options_of
from ._progress import Meter, SweepProgress, process_name
from ._store import Store, read_marks
from ._theory import Theory
from ._variables import all_check_names, report_variables, theory_variables

PACKAGES = ("nlbound_jax", "jax", "equinox", "diffrax", "optax", "numpy")
SCHEMA = 2
SUMMARY = {"task": "1", "num_samples": "samples", "rank": "coordinates", "alignment": "1"}


def sweep(
    config: str | os.PathLike[str] | Mapping[str, Any] | SweepConfig,
    out: str | os.PathLike[str],
    *,
    task: Task | None = None,
    shard: tuple[int, int] | None = None,
    devices: Sequence[Any] | None = None,
    progress: Callable[[SweepProgress], None] | None = None,
) -> xr.Dataset:
    """Reports over named axes, in pieces, into one labelled Zarr store.

    The flows of a piece have one shape: they are trained together in one compiled function, the
    lanes shared out over the local devices, each lane with its own adaptive steps. A piece is
    one chunk of every array of the store. A sweep that was cut short goes on where it stopped
    when it is called again: what is complete is not computed again, and the arrays are to the
    last bit those of an uninterrupted one.

    **Arguments:**

    - `config`: a TOML file, a mapping of the same layout, or a [`SweepConfig`][]. `axes` maps
        options to their values, `{"start": 1e-3, "stop": 1, "num": 50, "scale": "log"}` or a
        list; `settings` has the options that are the same everywhere, those of a [`Settings`][]
        and `dataset`, `side`, `components`, `positive`, `norm_bound`, `data_dir` as
        `nlbound report` takes them; `compute` has `mode`, `keep` and `chunk`.
    - `out`: the store; made, or continued if it is of the same configuration.

    **Other arguments:**

    - `task`: the data, in place of `dataset`.
    - `shard`: `(i, n)`, i from 0 to n - 1: do every n-th piece from the i-th on. By default this
        process's share under `jax.distributed`, all pieces if that was not initialized.
    - `devices`: local devices to use; all by default.
    - `progress`: called with a [`SweepProgress`][] before the first piece and after each.

    **Returns:**

    An `xarray.Dataset`, read from the store when it is looked at: it may lack the pieces of other
    processes, where floating-point arrays are NaN and `result` is 0 (`missing`). A flow that
    failed is recorded in `result`, what it reached is kept, and the others go on.

    **Raises:**

    `ValueError` naming the entry of the configuration or the argument, before any work; in
    particular the first setting in which an existing store differs. `OSError`, one line, if there
    is no room for a piece: the others are kept, and it goes on there when it is called again.
    """
    config = SweepConfig.load(config)
    path = _validate.path("out", out)
    index, count = _shard(shard)
    layout = Layout(config)
    if config.mode == "theory":
        if task is not None:
            raise ValueError("`task` must be left out with `compute.mode` = 'theory'.")
        source, bounds = None, ()
        variables = theory_variables(config, layout)
    else:
        if "float64" in config.axes.get("dtype", (config.settings.get("dtype"),)):
            _validate.needs_x64("dtype='float64'")
        source = Source(config, task)
        bounds = ladder.applicable(ladder.default_bounds(), source.known)
        variables = report_variables(config, layout)
    configuration = config.as_dict()
    # Not to be continued by a version that writes other arrays, or with other bounds.
    configuration["store"] = {"schema": SCHEMA, "bounds": [bound.name for bound in bounds]}
    if source is not None:
        configuration["data"] = {"identity": source.identity()}
    if task is not None:
        for name in DATA:
            del configuration["settings"][name]
    coordinates = _coordinates(config, configuration["settings"], source, bounds, layout)
    store = Store(path, configuration, layout, variables, coordinates)
    mesh = local_mesh(devices)
    if source is None:
        work: Any = Theory(config, layout, mesh).fill
    else:
        reports = Reports(config, layout, Devices(mesh, layout.capacity), bounds)

        def fill(piece: Piece, arrays: dict[str, np.ndarray]) -> dict[str, int]:
            return reports.fill(piece, source.task(_outer(piece, source)), arrays)

        work = fill
    _run(store, work, share(layout.num_pieces, index, count), (index, count), progress)
    return xr.open_zarr(path, chunks=None, zarr_format=2, consolidated=True)


def _run(store: Store, work: Any, numbers: range, who: tuple[int, int], progress) -> None:
    """Do the pieces of `numbers` that are not done yet."""
    layout = store.layout
    meter = Meter(store.path, layout.num_pieces, layout.num_flows) if progress else None
    if progress is not None and meter is not None:
        progress(meter.read())
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    head = {"process": process_name(*who), "versions": versions}
    for number in numbers:
        piece = layout.piece(number)
        if store.is_done(piece):
            continue
        began = time.monotonic()
        arrays = store.empty(piece)
        counts = work(piece, arrays)
        seconds = round(time.monotonic() - began, 3)
        store.write(piece, arrays, head | {"flows": counts, "seconds": seconds})
        if progress is not None and meter is not None:
            progress(meter.read())
    if len(read_marks(store.path)) == layout.num_pieces:
        store.tidy()


def _shard(shard: tuple[int, int] | None) -> tuple[int, int]:
    if shard is None:
        return jax.process_index(), jax.process_count()
    if jax.process_count() > 1:
        raise ValueError("`shard` must be left out under jax.distributed, which has its own.")
    good = isinstance(shard, tuple) and len(shard) == 2 and all(type(n) is int for n in shard)
    if not good or not 0 <= shard[0] < shard[1]:
        raise ValueError(f"`shard` must be (i, n) with 0 <= i < n, got {_validate.shown(shard)}.")
    return shard


def _outer(piece: Piece, source: Source) -> dict[str, int]:
    return {name: piece.slices[name].start for name in source.axes}


def _coordinates(
    config: SweepConfig,
    settings: dict[str, Any],
    source: Source | None,
    bounds: Sequence[AbstractBound],
    layout: Layout,
) -> xr.Dataset:
    """The empty dataset: the axes, what the data is, and every setting as an attribute."""
    options = options_of(config.mode)
    coords: dict[str, Any] = {}
    for name, values in config.axes.items():
        numbers = [int(v) for v in values] if isinstance(values[0], bool) else list(values)
        coords[name] = (name, np.asarray(numbers), {"units": options[name].unit})
    attrs = {n: int(v) if isinstance(v, bool) else v for n, v in settings.items()}
    attrs = {n: v for n, v in attrs.items() if v is not None}
    if source is not None:
        if "bounds" in config.keep:
            coords["bound"] = ("bound", np.asarray([bound.name for bound in bounds]))
        if "checks" in config.keep:
            coords["check"] = ("check", np.asarray(all_check_names(config)))
        if {"bounds", "trajectory"} & set(config.keep):
            times = config.settings.get("num_times", Settings.num_times)
            coords["time"] = ("time", np.arange(times), {"long_name": "index of the saved time"})
        shape = tuple(layout.sizes[n] for n in source.axes)
        for name, units in SUMMARY.items():
            values = [summary[name] for summary in source.summaries.values()]
            if source.axes:
                coords[name] = (source.axes, np.asarray(values).reshape(shape), {"units": units})
            else:
                attrs[name] = values[0]
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    attrs |= {"mode": config.mode, "versions": json.dumps(versions)}
    return xr.Dataset(coords=coords, attrs=attrs)
