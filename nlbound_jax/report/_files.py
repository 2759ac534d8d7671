"""Writing a report to a folder."""

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from matplotlib.figure import Figure

from .. import _validate
from ._plot import plot
from ._report import Report


def prepare_folder(out: str | Path) -> Path:
    """Make the folder `out` and try to write in it, before any work is done.

    **Arguments:**

    - `out`: a path; parents are made.

    **Returns:**

    The path.

    **Raises:**

    `ValueError` if nothing can be written there.
    """
    path = _validate.path("out", out)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ValueError(
            f"`out` must be a folder that can be written, got {str(path)!r}: {reason}."
        ) from None
    return path


def write_atomically(path: Path, fill: Callable[[BinaryIO], object]) -> None:
    """Write beside `path` and move into place, so that no half-written file is ever seen."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    try:
        with os.fdopen(handle, "wb") as file:
            fill(file)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def write_json(path: Path, found: dict[str, Any]) -> None:
    """Write plain values as JSON."""
    text = json.dumps(found, indent=1, allow_nan=False).encode()
    write_atomically(path, lambda file: file.write(text))


def write_png(path: Path, figure: Figure, dpi: int = 120) -> None:
    """Write a picture."""
    write_atomically(path, lambda file: figure.savefig(file, format="png", dpi=dpi))


def save(report: Report, out: str | Path) -> None:
    """Write `report.json` and `report.png` to a folder.

    **Arguments:**

    - `report`: a [`Report`][].
    - `out`: where to; made if need be.

    **Returns:**

    Nothing.

    **Raises:**

    `ValueError` if the folder cannot be written.
    """
    report = _validate.instance("report", report, Report)
    path = prepare_folder(out)
    write_json(path / "report.json", report.as_dict())
    write_png(path / "report.png", plot(report))
