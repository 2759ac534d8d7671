"""Writing a report to a folder."""

from pathlib import Path

from .. import _validate
from .._files import prepare_folder, write_json, write_png
from ._plot import plot
from ._report import Report


def save(report: Report, out: str | Path) -> None:
    """Write `report.json` and `report.png` to a folder.

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
