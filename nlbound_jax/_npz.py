"""Reading `.npz` files that may be damaged, cut short or of another kind."""

import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np

# What reading a damaged or foreign file may raise.
DAMAGE = (
    AttributeError,
    EOFError,
    KeyError,
    MemoryError,
    OSError,
    OverflowError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)


def read_arrays(path: str | Path) -> tuple[dict[str, np.ndarray], str | None]:
    """The arrays of an `.npz` file, all of it read and nothing unpickled, or none and the member
    whose checksum is wrong. Raises one of `DAMAGE` where it cannot be read."""
    with zipfile.ZipFile(path) as archive:
        broken = archive.testzip()
    if broken is not None:
        return {}, broken
    with np.load(path, allow_pickle=False) as found:
        return {name: np.asarray(found[name]) for name in found.files}, None


def read_npz(name: str, path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of an `.npz` file, or one line that calls the file `name`."""
    try:
        arrays, broken = read_arrays(path)
        if broken is None:
            return arrays
        reason = f"it is damaged, in {broken}"
    except DAMAGE as error:
        missing = error.strerror if isinstance(error, OSError) else None
        pickled = "it holds Python objects" if "allow_pickle" in str(error) else None
        reason = missing or pickled or "it is damaged, cut short, or of another kind"
    raise ValueError(f"`{name}` must be an .npz file, got {str(path)!r}: {reason}.")
