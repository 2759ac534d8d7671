"""Files of arrays and a JSON header: written whole, and refused in one line where they are not
what they should be."""

import json
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from .._npz import DAMAGE, read_arrays
from .._writing import writable, write_atomically


def write_saved(path: Path, what: str, version: int, header: dict[str, Any], arrays: dict) -> None:
    """Write arrays and a header as one `.npz` file of a `what`, `run` or `trajectory`."""
    header = {"format": f"nlbound_jax {what}", "version": version, **header}
    text = json.dumps(header, allow_nan=False).encode()
    arrays = {**arrays, "header": np.frombuffer(text, np.uint8)}
    arrays = {name: np.asarray(array) for name, array in arrays.items()}
    with writable("path", "file", path):
        room = sum(array.nbytes for array in arrays.values())
        write_atomically(path, lambda file: np.savez(file, **arrays), room)


def read_saved(path: Path, what: str, version: int) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The header and the arrays that [`write_saved`][] wrote."""
    try:
        arrays, broken = read_arrays(path)
    except DAMAGE as error:
        missing = isinstance(error, OSError) and error.strerror
        refuse(path, what, missing or "it is damaged, cut short, or no .npz file of arrays")
    if broken is not None:
        refuse(path, what, f"it is damaged, in {broken}")
    try:
        header = json.loads(arrays.pop("header").tobytes())
        ours = header["format"] == f"nlbound_jax {what}"
    except DAMAGE:
        ours, header = False, {}
    if not ours:
        refuse(path, what, f"it was not written by `save_{what}`")
    if header.get("version") != version:
        found = header.get("version")
        refuse(path, what, f"it has version {found!r}, this library reads {version}")
    return header, arrays


def refuse(path: Path, what: str, reason: str) -> NoReturn:
    """Say in one line why a file is not a saved `what`."""
    raise ValueError(
        f"`path` must be a {what} saved by `save_{what}`, got {str(path)!r}: {reason}."
    )


def unfit(path: Path, what: str, error: BaseException) -> NoReturn:
    """Say that the parts of the file do not go together."""
    refuse(path, what, f"its content does not fit together ({type(error).__name__})")
