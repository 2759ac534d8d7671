"""A task from the user's own arrays."""

from typing import Literal

import numpy as np

from .. import _validate
from .._types import Data
from ._task import Task, build, finite, largest_norm


def array_of(name: str, data: Data) -> np.ndarray:
    if isinstance(data, np.ma.MaskedArray):
        raise ValueError(f"`{name}` must have no masked entries, got a masked array.")
    try:
        return _validate.numpy_numbers(np.asarray(data))
    except ValueError:
        raise ValueError(f"`{name}` must be an array, got rows of different lengths.") from None


def _inputs(name: str, x: Data, features: int | None) -> np.ndarray:
    x = array_of(name, x)
    if x.ndim != 2 or 0 in x.shape:
        raise ValueError(f"`{name}` must be a non-empty array (samples, features), got {x.shape}.")
    if features is not None and x.shape[1] != features:
        raise ValueError(f"`{name}` must have {features} features like `x`, got {x.shape[1]}.")
    return finite(name, x)


def labels_of(name: str, y: Data, num_samples: int) -> np.ndarray:
    y = array_of(name, y)
    if y.dtype == object and all(isinstance(label, str) for label in y.flat):
        y = y.astype(str)
    if y.shape == (num_samples, 1):
        y = y[:, 0]
    if y.ndim == 2 and len(y) == num_samples and y.shape[1] > 1:
        raise ValueError(
            f"`{name}` must have shape ({num_samples},), got {y.shape}: of one-hot labels give "
            "`y.argmax(axis=1) == k`, True (+1) for class k, or `y.argmax(axis=1)` if there are "
            "two, class 1 being +1."
        )
    if y.shape != (num_samples,):
        raise ValueError(f"`{name}` must have shape ({num_samples},), got {y.shape}.")
    if y.dtype.kind in "iuf":
        finite(name, y)
    elif y.dtype.kind not in "bUS":
        raise ValueError(f"`{name}` must be numbers, booleans or strings, got dtype {y.dtype}.")
    return y


def from_arrays(
    x: Data,
    y: Data,
    x_test: Data | None = None,
    y_test: Data | None = None,
    *,
    norm_bound: float | None = None,
    components: int | None = None,
    cut: float = 1e-12,
    scale: Literal["norm", "columns"] = "norm",
    bias: bool = False,
    name: str = "arrays",
) -> Task:
    """A task from arrays in memory.

    **Arguments:**

    - `x`: training inputs, `(m features)`, any real dtype.
    - `y`: training labels, `(m,)` or `(m, 1)`, of exactly two values; the larger one (in the
        order of `numpy.unique`) becomes +1.
    - `x_test`, `y_test`: test data, both or none.

    **Other arguments:**

    - `norm_bound`: R with $\\|x\\| \\le R$ for every input that may occur, known beforehand, in
        the units of `x`; inputs are divided by it. Without it they are divided by the largest
        norm in the training set, and `Task.norm_bound` is `None`.
    - `components`: keep that many leading principal directions; all by default.
    - `cut`: eigenvalues of $\\Sigma_X$ below `cut` times the largest are cut. A warning says if
        features of very different units make it drop what a feature of its own scale holds.
    - `scale`: `"norm"`, or `"columns"`: each feature is divided by its root mean square over the
        training set first (and all by one number, into the unit ball). Where nothing is cut the
        whitened inputs are the same up to a rotation. What changes is which directions `cut` and
        `components` drop, as they then go by correlations and not by units; `spectrum` and
        `condition_number`, and with them the bounds that use the spectrum. `norm_bound` keeps the
        units of `x`.
    - `bias`: biases in the first layer: inputs get one more feature, the constant R (which must be
        known: `norm_bound`), and are whitened with it. Everything holds with d + 1 coordinates.
    - `name`: what the data is, in words.

    **Returns:**

    A [`Task`][].

    **Raises:**

    `ValueError` naming the argument: wrong shapes, NaN or infinity, labels that are not of two
    classes, an input longer than `norm_bound`.
    """
    x = _inputs("x", x, None)
    y = labels_of("y", y, len(x))
    name = _validate.instance("name", name, str)
    scale = _validate.member("scale", scale, ("norm", "columns"))
    classes = np.unique(y)
    if len(classes) != 2:
        several = " (class_task takes several)" if len(classes) > 2 else ""
        raise ValueError(f"`y` must have exactly two classes, got {len(classes)}{several}.")
    if (x_test is None) != (y_test is None):
        raise ValueError("`x_test` and `y_test` must be given together, got only one of them.")
    test_inputs, test_signs = None, None
    if x_test is not None and y_test is not None:
        test_inputs = _inputs("x_test", x_test, x.shape[1])
        labels = labels_of("y_test", y_test, len(test_inputs))
        known = np.isin(labels, classes)
        if not known.all():
            raise ValueError(
                f"`y_test` must have the classes of `y`, got {labels[~known][0].item()!r} as well."
            )
        test_signs = np.where(labels == classes[1], 1.0, -1.0)
    largest = largest_norm(x)
    if norm_bound is not None:
        norm_bound = _validate.scalar("norm_bound", norm_bound, low=0, open_low=True)
        if largest > norm_bound * (1 + 1e-12):
            raise ValueError(
                f"`norm_bound` must be at least the largest norm in `x`, {largest:g}, "
                f"got {norm_bound:g}."
            )
    return build(
        x,
        np.where(y == classes[1], 1.0, -1.0),
        test_inputs,
        test_signs,
        scale=norm_bound or largest or 1.0,
        side=None,
        norm_bound=None if norm_bound is None else 1.0,
        cut=cut,
        components=components,
        name=name,
        by_columns=scale == "columns",
        bias=bias,
    )
