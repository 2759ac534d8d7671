"""A task from an `.npz` file."""

import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np

from .. import _validate
from ._arrays import from_arrays
from ._task import Task

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


def from_npz(
    path: str | Path,
    *,
    norm_bound: float | None = None,
    components: int | None = None,
    cut: float = 1e-12,
) -> Task:
    """A task from an `.npz` file, as `numpy.savez("data.npz", x=x, y=y)` writes it.

    **Arguments:**

    - `path`: the file, with the arrays `x` `(m ...)` and `y` `(m,)`, and `x_test`, `y_test` or
        none of them. Inputs have any real dtype; those with more than two axes, say images
        `(m height width channels)`, are flattened in C order: `x.reshape(len(x), -1)`, as new
        inputs are to be before `Task.transform` takes them. Labels are of two classes, as
        [`from_arrays`][] takes them.

    **Other arguments:**

    - `norm_bound`: R with $\\|x\\| \\le R$ for every input that may occur, known beforehand.
        Without it inputs are divided by the largest norm in the training set.
    - `components`: keep that many leading principal directions; all by default.
    - `cut`: eigenvalues of $\\Sigma_X$ below `cut` times the largest are cut.

    **Returns:**

    A [`Task`][] with the file's name.

    **Raises:**

    `ValueError` naming the file if it is damaged, cut short, of another kind, holds pickled
    objects, lacks an array or has others, or if its arrays are no data for [`from_arrays`][];
    naming the argument otherwise.
    """
    path = _validate.path("path", path)
    arrays = read_npz("path", path)
    missing = [key for key in ("x", "y") if key not in arrays]
    other = [key for key in arrays if key not in ("x", "y", "x_test", "y_test")]
    if missing or other:
        raise ValueError(
            "`path` must hold the arrays x, y and perhaps x_test, y_test, "
            f"got {', '.join(arrays) or 'none'} in {str(path)!r}."
        )
    for key in ("x", "x_test"):
        if key in arrays and arrays[key].ndim > 2 and 0 not in arrays[key].shape:
            arrays[key] = arrays[key].reshape(len(arrays[key]), -1)
    try:
        return from_arrays(
            **arrays, norm_bound=norm_bound, components=components, cut=cut, name=path.name
        )
    except ValueError as error:
        text = str(error)
        if not text.startswith(("`x", "`y")):
            raise
        raise ValueError(f"{text.removesuffix('.')}, in {str(path)!r}.") from None
