"""Tasks from prepared data sets of TensorFlow Datasets, read without TensorFlow."""

import math
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from .. import _validate
from ._prepared import Source, find_source
from ._task import Task, build, finite, largest_norm, pool_channels


def _classes(name: str, chosen: Any, label: Any) -> frozenset[int]:
    """Classes as numbers; a word is the name of a class."""
    if isinstance(chosen, str) or not isinstance(chosen, Collection) or not len(chosen):
        raise ValueError(
            f"`{name}` must be a non-empty collection of classes, got {_validate.shown(chosen)}."
        )
    words: Any = getattr(label, "names", None) or ()
    count = getattr(label, "num_classes", None)
    found = []
    for one in chosen:
        number: Any = words.index(one) if isinstance(one, str) and one in words else one
        whole = isinstance(number, (int, np.integer)) and not isinstance(number, bool)
        if not whole or (count is not None and not 0 <= number < count):
            allowed = "classes" if count is None else f"of the {count} classes"
            listing = ", ".join([*words[:12], "..."] if len(words) > 12 else words)
            raise ValueError(
                f"`{name}` must be {allowed}{f' ({listing})' if words else ''}, "
                f"got {_validate.shown(one)}."
            )
        found.append(int(number))
    return frozenset(found)


def _sides(
    positive: Collection[int | str] | None, negative: Collection[int | str] | None, label: Any
) -> tuple[frozenset[int], frozenset[int] | None]:
    """The classes labelled +1 and -1; `None` stands for all others."""
    count = getattr(label, "num_classes", None)
    if positive is None:
        if count is None or count < 2:
            raise ValueError("`positive` must be given for labels of unknown classes, got None.")
        plus = frozenset(range(count // 2, count))
    else:
        plus = _classes("positive", positive, label)
    if negative is None:
        return plus, None
    minus = _classes("negative", negative, label)
    if plus & minus:
        raise ValueError(
            f"`positive` and `negative` must be disjoint, got {sorted(plus)} and {sorted(minus)}."
        )
    return plus, minus


def _rows(
    source: Source,
    name: str,
    split: str,
    side: int | None,
    sides: tuple[frozenset[int], frozenset[int] | None],
) -> tuple[np.ndarray, np.ndarray]:
    """Inputs `(m ...)` of the chosen classes, pooled, and labels in {-1, +1}."""
    plus, minus = sides
    lowest = 0 if hasattr(source.label, "num_classes") else -math.inf  # -1: no label is known
    rows, signs = [], []
    for example in source.examples(name, split):
        label = int(example[source.label_key])
        if label not in plus and (label < lowest if minus is None else label not in minus):
            continue
        row = np.asarray(example[source.image_key])
        if side is not None:
            if row.shape[0] % side or row.shape[1] % side:
                raise ValueError(
                    f"`side` must divide the height and width of the images, got {side} for "
                    f"{row.shape}."
                )
            shape = (side, side, row.shape[2])
            row = pool_channels(row, shape).reshape(shape)
        if rows and row.shape != rows[0].shape:
            hint = ", which `side` can pool" if source.is_image and side is None else ""
            raise ValueError(
                f"`{name}` must hold inputs of one shape, got {rows[0].shape} and "
                f"{row.shape}{hint}."
            )
        rows.append(row)
        signs.append(1.0 if label in plus else -1.0)
    if not rows:
        raise ValueError(f"`{name}` must have samples of the classes, got none in {split!r}.")
    return np.stack(rows), np.asarray(signs)


def from_tfds(
    name: str,
    positive: Collection[int | str] | None = None,
    negative: Collection[int | str] | None = None,
    *,
    side: int | None = None,
    components: int | None = None,
    split: str = "train",
    test_split: str | None = "test",
    data_dir: str | Path | None = None,
    download: bool = False,
    image_key: str | None = None,
    label_key: str | None = None,
    cut: float = 1e-12,
    bias: bool = False,
) -> Task:
    """A task from a data set of [TensorFlow Datasets](https://www.tensorflow.org/datasets) that
    is prepared in the format `array_record`. Reading needs the extra `nlbound_jax[tfds]` and no
    TensorFlow.

    ```python
    task = tasks.from_tfds("fashion_mnist", positive=["Sandal", "Sneaker"], side=7)
    ```

    Images of any size and number of channels are pooled and flattened, (height, width, channels)
    in C order. Those of bytes have a norm bound known beforehand: entries are divided by
    $255 \\sqrt{\\text{features}}$, so that $\\|x\\| \\le 1$ whatever the image. Other numeric
    features (tables) are flattened and divided by the largest norm in the training set.

    **Arguments:**

    - `name`: as TFDS has it, with a configuration or version if need be: `"cifar10"`,
        `"emnist/letters"`, `"mnist:3.0.1"`.
    - `positive`: the classes labelled +1, numbers or names; by default the upper half of them
        (5 to 9 of ten).
    - `negative`: the classes labelled -1; by default all that are not positive. Samples of other
        classes are left out.

    **Other arguments:**

    - `side`: average-pool images to `side` x `side`, which must divide height and width; by
        default images keep their size.
    - `components`: keep that many leading principal directions; all by default.
    - `split`, `test_split`: training and test data, in the language of TFDS: `"train[:50%]"`;
        `test_split=None` for no test data.
    - `data_dir`: the folder of prepared data sets; `TFDS_DATA_DIR` or `~/tensorflow_datasets`
        by default.
    - `download`: download and prepare what is not there. Many data sets of images need
        TensorFlow for that. Nothing is begun unless one of the data set's servers answers within
        five seconds. Without it no server is asked for anything.
    - `image_key`, `label_key`: the features to use; by default the data set's supervised pair,
        else its only image and its only class label.
    - `cut`: eigenvalues of $\\Sigma_X$ below `cut` times the largest are cut.
    - `bias`: biases in the first layer, as in [`from_arrays`][]; of images of bytes only.

    **Returns:**

    A [`Task`][].

    **Raises:**

    `ValueError` naming the argument; `ImportError` without the extra.
    """
    name = _validate.instance("name", name, str)
    split = _validate.instance("split", split, str)
    if test_split is not None:
        test_split = _validate.instance("test_split", test_split, str)
    if side is not None:
        side = _validate.integer("side", side, 1)
    source = find_source(
        name, data_dir, download=download, image_key=image_key, label_key=label_key
    )
    if side is not None and not source.is_image:
        raise ValueError(f"`side` must be None where the inputs are no images, got {side}.")
    sides = _sides(positive, negative, source.label)
    x, y = _rows(source, "split", split, side, sides)
    if abs(y.sum()) == len(y):
        raise ValueError(
            f"`split` must have samples of both classes, got {split!r} with {len(y)} of "
            f"the {'positive' if y[0] > 0 else 'negative'} one only."
        )
    x_test, y_test = None, None
    if test_split is not None:
        x_test, y_test = _rows(source, "test_split", test_split, side, sides)
        if x_test.shape[1:] != x.shape[1:]:
            raise ValueError(
                f"`test_split` must hold inputs of shape {x.shape[1:]} as `split`, "
                f"got {x_test.shape[1:]}."
            )
        x_test = finite("test_split", x_test.reshape(len(x_test), -1))
    shape, flat = x.shape[1:], finite("split", x.reshape(len(x), -1))
    top = source.top
    return build(
        flat,
        y,
        x_test,
        y_test,
        scale=(largest_norm(flat) or 1.0) if top is None else top * math.sqrt(flat.shape[1]),
        side=None,
        norm_bound=None if top is None else 1.0,
        cut=cut,
        components=components,
        name=f"{name} {'x'.join(map(str, shape[:2] if shape[2:] == (1,) else shape))}",
        image=shape if source.is_image else None,
        bias=bias,
    )
