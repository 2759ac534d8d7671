"""Files that are written whole or not at all, and values as JSON can hold them."""

import json
import math
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import jax
import numpy as np
from matplotlib.figure import Figure

from . import _validate


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


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write values that are [`plain`][] as JSON."""
    text = json.dumps(values, indent=1, allow_nan=False).encode()
    write_atomically(path, lambda file: file.write(text))


def write_png(path: Path, figure: Figure, dpi: int = 120) -> None:
    """Write a picture."""
    write_atomically(path, lambda file: figure.savefig(file, format="png", dpi=dpi))


def plain(value: Any) -> Any:
    """`value` as JSON can hold it; numbers that are not finite become null."""
    if isinstance(value, (np.ndarray, jax.Array)):
        value = value.tolist()
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value.item() if isinstance(value, np.generic) else value
