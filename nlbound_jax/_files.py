"""Folders, pictures and JSON, and values as it can hold them."""

import io
import json
import math
import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np
from matplotlib.figure import Figure

from . import _validate
from ._writing import reason, write_bytes


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
        raise ValueError(
            f"`out` must be a folder that can be written, got {str(path)!r}: {reason(error)}."
        ) from None
    return path


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write values that are [`plain`][] as JSON."""
    write_bytes(path, json.dumps(values, indent=1, allow_nan=False).encode())


def write_png(path: Path, figure: Figure, dpi: int = 120) -> None:
    """Write a picture."""
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=dpi)
    write_bytes(path, picture.getvalue())


def write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write arrays as an `.npz` file."""
    content = io.BytesIO()
    np.savez(content, **arrays)  # pyright: ignore
    write_bytes(path, content.getvalue())


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
