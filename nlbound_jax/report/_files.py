"""Writing a report to a folder."""

from pathlib import Path

import numpy as np

from .. import _validate
from .._files import prepare_folder, write_arrays, write_json, write_png
from ._plot import plot
from ._report import Report


def save(report: Report, out: str | Path) -> None:
    """Write `report.json` and `report.png` to a folder, and each network that a bound is about
    where that is another than the trained one: `BOUND.npz` with `W1` ... `WL` on raw features over
    the task's scale, as `nlbound certify` takes them.

    **Arguments:**

    - `report`: a [`Report`][].
    - `out`: where to; made if need be.

    **Returns:**

    Nothing.

    **Raises:**

    `ValueError` if the folder cannot be written; `OSError`, one line, if there is not enough room.
    """
    report = _validate.instance("report", report, Report)
    path = prepare_folder(out)
    write_json(path / "report.json", report.as_dict())
    write_png(path / "report.png", plot(report))
    for name, net in report.certified.items():
        arrays = {f"W{i}": np.asarray(w) for i, w in enumerate(net.weights, start=1)}
        write_arrays(path / f"{name}.npz", arrays)
