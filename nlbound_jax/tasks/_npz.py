"""A task from an `.npz` file."""

from pathlib import Path
from typing import Literal

from .. import _validate
from .._npz import read_npz
from ._arrays import from_arrays
from ._task import Task


def from_npz(
    path: str | Path,
    *,
    norm_bound: float | None = None,
    components: int | None = None,
    cut: float = 1e-12,
    scale: Literal["norm", "columns"] = "norm",
    bias: bool = False,
) -> Task:
    """A task from an `.npz` file, as `numpy.savez("data.npz", x=x, y=y)` writes it.

    **Arguments:**

    - `path`: the file, with the arrays `x` `(m ...)` and `y` `(m,)` or `(m, 1)`, and `x_test`,
        `y_test` or none of them. Inputs have any real dtype; those with more than two axes, say
        images `(m height width channels)`, are flattened in C order: `x.reshape(len(x), -1)`, as
        new inputs are to be before `Task.transform` takes them. Labels are of two classes, as
        [`from_arrays`][] takes them.

    **Other arguments:**

    - `norm_bound`: R with $\\|x\\| \\le R$ for every input that may occur, known beforehand.
        Without it inputs are divided by the largest norm in the training set.
    - `components`: keep that many leading principal directions; all by default.
    - `cut`: eigenvalues of $\\Sigma_X$ below `cut` times the largest are cut.
    - `scale`: `"norm"`, or `"columns"`: divide each feature by its root mean square first, as in
        [`from_arrays`][].
    - `bias`: biases in the first layer, as in [`from_arrays`][].

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
            **arrays,
            norm_bound=norm_bound,
            components=components,
            cut=cut,
            scale=scale,
            bias=bias,
            name=path.name,
        )
    except ValueError as error:
        text = str(error)
        if not text.startswith(("`x", "`y")):
            raise
        raise ValueError(f"{text.removesuffix('.')}, in {str(path)!r}.") from None
