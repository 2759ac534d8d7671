"""Theorem 5.2 over labelled grids."""

import importlib.metadata

import numpy as np
import xarray as xr

from .. import _validate
from .._results import CELL_OUTCOMES, cell_flags
from .._types import Numeric, Reading
from ._arguments import ARGUMENTS, CHOICES, given_numbers
from ._theorem52 import theorem_5_2

SEQUENCE = "a number or a non-empty sequence of numbers"
TERMS = ("u", "v", "log_v", "capacity", "deviation", "penalty")


def grid(
    t: Numeric,
    *,
    depth: int,
    epsilon: Numeric,
    beta: Numeric,
    gamma: Numeric,
    stable_rank_root: Numeric,
    alignment: Numeric,
    dim: Numeric,
    num_samples: Numeric,
    kappa: int = 2,
    precision_bits: Numeric = 32,
    delta: Numeric = 0.01,
    cells: Numeric = 1,
    train_risk: Numeric | None = None,
    reading: Reading = "repaired",
    assumption_5_1: bool = True,
    chunk_size: int = 2**17,
) -> xr.Dataset:
    """[`theorem_5_2`][] over the outer product of its arguments.

    **Arguments:**

    - `t`, `epsilon`, `beta`, `gamma`, `stable_rank_root`, `alignment`, `dim`, `num_samples`,
        `precision_bits`, `delta`, `cells`, `train_risk`: as in [`theorem_5_2`][]; each a number,
        or a sequence `(n,)` that becomes a dimension of the grid, in this order.
    - `depth`, `kappa`, `reading`, `assumption_5_1`: as in [`theorem_5_2`][], one for the grid.
    - `chunk_size`: cells evaluated at once; a cell takes some 3 kB while it is evaluated.

    **Returns:**

    An `xarray.Dataset` with the variables `u`, `v`, `log_v`, `capacity`, `deviation`, `penalty`,
    `value` (with `train_risk`) and `result` (0 successful, 1 blow_up, 2 overflow: why a
    bound is `+inf`); coordinates with units;
    the settings as attributes.

    **Raises:**

    `ValueError` naming the argument.
    """
    given = locals()
    chunk_size = _validate.integer("chunk_size", chunk_size, 1)
    numbers = {
        name: _validate.numeric(name, value, SEQUENCE).astype(float)
        for name, value in given_numbers(given).items()
    }
    for name, values in numbers.items():
        if values.ndim > 1 or values.size == 0:
            raise ValueError(f"`{name}` must be {SEQUENCE}, got shape {values.shape}.")
    settings = {name: given[name] for name in CHOICES}
    axes = {name: values for name, values in numbers.items() if values.ndim == 1}
    columns = _evaluate(numbers, axes, settings, chunk_size)
    shape = tuple(len(values) for values in axes.values())
    data = {name: (tuple(axes), column.reshape(shape)) for name, column in columns.items()}
    coords = {k: (k, v, {"units": ARGUMENTS[k].unit}) for k, v in axes.items()}
    dataset = xr.Dataset(data, coords=coords)
    dataset["result"].attrs = {
        "flag_values": list(range(len(CELL_OUTCOMES))),
        "flag_meanings": " ".join(CELL_OUTCOMES),
    }
    single = {k: float(v) for k, v in numbers.items() if v.ndim == 0}
    version = importlib.metadata.version("nlbound_jax")
    # Integers, since a Zarr attribute is JSON and netCDF has no booleans.
    settings["assumption_5_1"] = int(assumption_5_1)
    return dataset.assign_attrs(single | settings | {"nlbound_jax": version})


def _evaluate(numbers, axes, settings, chunk_size: int) -> dict[str, np.ndarray]:
    """Every term of every cell, cells in row-major order, in chunks of one shape."""
    shape = tuple(len(values) for values in axes.values())
    total = int(np.prod(shape, dtype=int))
    chunk_size = min(chunk_size, total)
    names = TERMS + (("value",) if "train_risk" in numbers else ())
    columns: dict[str, np.ndarray] = {name: np.empty(total) for name in names}
    columns["result"] = np.empty(total, np.int8)
    for start in range(0, total, chunk_size):
        stop = min(start + chunk_size, total)
        # The last chunk repeats its last cell, so that nothing is compiled for it.
        cells = np.minimum(np.arange(start, start + chunk_size), total - 1)
        index = dict(zip(axes, np.unravel_index(cells, shape), strict=True)) if shape else {}
        chosen = {k: v[index[k]] if k in index else v for k, v in numbers.items()}
        terms = theorem_5_2(**chosen, **settings)
        for name in names:
            values = np.broadcast_to(np.asarray(getattr(terms, name)), (chunk_size,))
            columns[name][start:stop] = values[: stop - start]
        flags = np.broadcast_to(cell_flags(terms.result), (chunk_size,))
        columns["result"][start:stop] = flags[: stop - start]
    return columns


def best_over(dataset: xr.Dataset, *dims: str) -> xr.Dataset:
    """The smallest bound over some dimensions of a grid, and where it is taken.

    The minimum over cells that were tried is a bound only if they were paid for: give their
    number as `cells` to [`grid`][].

    **Arguments:**

    - `dataset`: what [`grid`][] returned.
    - `dims`: dimensions to minimize over, such as `"t", "gamma"`.

    **Returns:**

    An `xarray.Dataset` over the other dimensions: all terms in the best cell, and the minimizing
    coordinates as variables `best_t`, `best_gamma`, ... The quantity minimized is `value`, or
    `penalty` where there is none.

    **Raises:**

    `ValueError` if a dimension is not one of the grid's.
    """
    dataset = _validate.instance("dataset", dataset, xr.Dataset)
    for dim in dims:
        _validate.member("dims", dim, [str(d) for d in dataset.dims])
    if not dims:
        raise ValueError("`dims` must name at least one dimension, got none.")
    target = "value" if "value" in dataset else "penalty"
    where = dataset[target].argmin(dim=list(dims))
    chosen = dataset.isel(where)
    return chosen.reset_coords(list(dims)).rename({dim: f"best_{dim}" for dim in dims})
