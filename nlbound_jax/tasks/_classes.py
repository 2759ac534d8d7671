"""The task of several classes: images or vectors, a code of the classes."""

from collections.abc import Sequence
from typing import Any, Literal

import equinox as eqx
import numpy as np
from jaxtyping import Float, Int, Shaped

from .. import _validate
from .._types import AnyArray, Data
from ._arrays import array_of, labels_of
from ._mnist import load_mnist
from ._task import finite, pool, whiten


class Inputs(eqx.Module):
    """From raw inputs to those of a [`ClassTask`][]: images are average-pooled to `side` x `side`
    if that is set; then inputs are divided by `scale`, and whitened if there is a `matrix`.

    **Attributes:**

    - `shape`: of one raw input (after pooling, with a first axis of one channel).
    - `scale`: a positive number in the units of the raw inputs.
    - `side`: what images are pooled to, or `None`.
    - `matrix`: $M$ of $\\tilde x = M^\\top x / \\text{scale}$, `(features d)`, or `None`.
    """

    shape: tuple[int, ...]
    scale: float
    side: int | None = None
    matrix: Float[np.ndarray, "features d"] | None = None

    def __call__(self, x: Data) -> Float[np.ndarray, "..."]:
        """The inputs of raw ones.

        **Arguments:**

        - `x`: one raw input or several, with a leading axis; with `side` images `(height width)`.

        **Returns:**

        The inputs, float64.

        **Raises:**

        `ValueError` if the shape does not fit or an entry is not finite.
        """
        x = _validate.numpy_numbers(np.asarray(x))
        if self.side is not None:
            x = pool(x, self.side)
            x = x.reshape(*x.shape[:-1], *self.shape)
        axes = len(self.shape)
        if x.shape[x.ndim - axes :] != self.shape or x.ndim not in (axes, axes + 1):
            raise ValueError(
                f"`x` must be inputs of shape {self.shape}, one or several, got shape {x.shape}."
            )
        x = finite("x", x) / self.scale
        if self.matrix is None:
            return x
        return x.reshape(*x.shape[: x.ndim - axes], -1) @ self.matrix


class ClassTask(eqx.Module):
    """A classification problem of K >= 2 classes for [`gradient_flow`][] and
    [`gradient_descent`][] of any module. The bounds are for a binary [`Task`][].

    **Attributes:**

    - `x`: training inputs, `(m ...)`: vectors, or images as they are.
    - `y`: the places of their classes in `classes`, `(m,)`.
    - `x_test`, `y_test`: test inputs and classes, or `None`.
    - `classes`: the labels as they were given, in order, `(K,)`.
    - `codes`: what stands for each class, `(K outputs)`.
    - `inputs`: raw inputs to those of the task, an [`Inputs`][].
    - `name`: what the data is, in words.
    """

    x: Float[np.ndarray, "m ..."]
    y: Int[np.ndarray, " m"]
    x_test: Float[np.ndarray, "n ..."] | None
    y_test: Int[np.ndarray, " n"] | None
    classes: Shaped[np.ndarray, " K"]
    codes: Float[np.ndarray, "K outputs"]
    inputs: Inputs
    name: str

    @property
    def targets(self) -> Float[np.ndarray, "m outputs"]:
        """Y, the code of the class of each training sample."""
        return self.codes[self.y]

    @property
    def target(self) -> Float[np.ndarray, "outputs d"]:
        """$q = Y X^\\top / m$ on flattened inputs; where they are whitened the least-squares linear
        fit."""
        return self.targets.T @ self.x.reshape(self.num_samples, -1) / self.num_samples

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one input."""
        return self.x.shape[1:]

    @property
    def num_classes(self) -> int:
        """K, the number of classes."""
        return len(self.classes)

    @property
    def num_samples(self) -> int:
        """m, the number of training samples."""
        return len(self.x)

    def predict(self, outputs: Float[AnyArray, "*batch outputs"]) -> Shaped[np.ndarray, "*batch"]:
        """The class whose code is nearest to outputs of a network: of one-hot and of $\\pm 1$ codes
        that of the largest output.

        **Arguments:**

        - `outputs`: of one input or several, `(outputs,)` or `(n outputs)`.

        **Returns:**

        Places in `classes`, as in `y`.
        """
        outputs = np.asarray(outputs, float)
        scores = outputs @ self.codes.T - np.sum(self.codes**2, axis=1) / 2
        return np.asarray(np.argmax(scores, axis=-1))


def _codes(code: Any, count: int) -> Float[np.ndarray, "K outputs"]:
    if isinstance(code, str):
        one_hot = np.eye(count)
        code = _validate.member("code", code, ("one-hot", "signs"))
        return one_hot if code == "one-hot" else 2 * one_hot - 1
    codes = finite("code", array_of("code", code))
    if codes.ndim != 2 or len(codes) != count or not codes.shape[1]:
        raise ValueError(
            f"`code` must be 'one-hot', 'signs' or a row for each of the {count} classes, "
            f"got shape {codes.shape}."
        )
    if len(np.unique(codes, axis=0)) < count:
        raise ValueError("`code` must have different rows, got two classes of one code.")
    return codes


def _batch(name: str, x: Data, shape: tuple[int, ...] | None) -> Float[np.ndarray, "n ..."]:
    x = array_of(name, x)
    if x.ndim < 2 or 0 in x.shape:
        raise ValueError(f"`{name}` must be a non-empty array (samples, ...), got {x.shape}.")
    if shape is not None and x.shape[1:] != shape:
        raise ValueError(
            f"`{name}` must have samples of shape {shape} like `x`, got {x.shape[1:]}."
        )
    return finite(name, x)


def _places(name: str, labels: np.ndarray, classes: np.ndarray) -> Int[np.ndarray, " n"]:
    known = np.isin(labels, classes)
    if not known.all():
        raise ValueError(
            f"`{name}` must have the classes of `y`, got {labels[~known][0].item()!r} as well."
        )
    return np.searchsorted(classes, labels)


def class_task(
    x: Data,
    y: Data,
    x_test: Data | None = None,
    y_test: Data | None = None,
    *,
    code: Literal["one-hot", "signs"] | Data = "one-hot",
    scale: float | None = None,
    whitened: bool = False,
    components: int | None = None,
    cut: float = 1e-12,
    name: str = "arrays",
) -> ClassTask:
    """A task of two or more classes from arrays in memory.

    ```python
    task = tasks.class_task(images, labels)  # images (m channels height width)
    run = dynamics.gradient_flow(net, task, t1=10.0, loss=optax.softmax_cross_entropy)
    ```

    **Arguments:**

    - `x`: training inputs, `(m ...)`, any real dtype. Images keep their shape; the convolutions of
        Equinox take `(channels height width)`.
    - `y`: training labels, `(m,)` or `(m, 1)`, of two values or more.
    - `x_test`, `y_test`: test data, both or none.

    **Other arguments:**

    - `code`: what stands for the classes as targets: `"one-hot"`, `"signs"` (+1 for the class, -1
        for the others), or a matrix `(K outputs)`, a row for each class in the order of
        `numpy.unique`.
    - `scale`: inputs are divided by it; the largest absolute entry of `x` by default.
    - `whitened`: flatten the inputs and whiten them, as for a [`Task`][].
    - `components`, `cut`: of the whitening, as for [`from_arrays`][].
    - `name`: what the data is, in words.

    **Returns:**

    A [`ClassTask`][].

    **Raises:**

    `ValueError` naming the argument: wrong shapes, NaN or infinity, labels of one class.
    """
    x = _batch("x", x, None)
    y = labels_of("y", y, len(x))
    classes = np.unique(y)
    if len(classes) < 2:
        raise ValueError(f"`y` must have at least two classes, got {len(classes)}.")
    if (x_test is None) != (y_test is None):
        raise ValueError("`x_test` and `y_test` must be given together, got only one of them.")
    test = None
    if x_test is not None and y_test is not None:
        x_test = _batch("x_test", x_test, x.shape[1:])
        test = x_test, _places("y_test", labels_of("y_test", y_test, len(x_test)), classes)
    if scale is None:
        scale = float(np.abs(x).max()) or 1.0
    scale = _validate.scalar("scale", scale, 0, open_low=True)
    codes, places = _codes(code, len(classes)), _places("y", y, classes)
    inputs = Inputs(x.shape[1:], scale)
    options = {"whitened": whitened, "components": components, "cut": cut}
    name = _validate.instance("name", name, str)
    return _build(inputs, (x, places), test, classes, codes, name, **options)


def _build(
    inputs: Inputs,
    train: Sequence[np.ndarray],
    test: Sequence[np.ndarray] | None,
    classes: np.ndarray,
    codes: np.ndarray,
    name: str,
    *,
    whitened: bool,
    components: int | None,
    cut: float,
) -> ClassTask:
    """The task of raw inputs, which are pooled already."""
    whitened = _validate.flag("whitened", whitened)
    cut = _validate.scalar("cut", cut, low=0, high=1, open_high=True)
    if components is not None and not whitened:
        raise ValueError(
            "`components` must be left out where the inputs are not whitened, got "
            f"{_validate.shown(components)}."
        )
    arrays = [part[0] / inputs.scale for part in (train, test) if part is not None]
    if whitened:
        arrays = [a.reshape(len(a), -1) for a in arrays]
        _, matrix, _ = whiten(arrays[0], cut, components)
        inputs = eqx.tree_at(lambda i: i.matrix, inputs, matrix, is_leaf=lambda n: n is None)
        arrays = [a @ matrix for a in arrays]
    return ClassTask(
        x=arrays[0],
        y=train[1],
        x_test=None if test is None else arrays[1],
        y_test=None if test is None else test[1],
        classes=classes,
        codes=codes,
        inputs=inputs,
        name=name,
    )


def mnist_classes(
    side: int = 28,
    *,
    code: Literal["one-hot", "signs"] | Data = "one-hot",
    whitened: bool = False,
    components: int | None = None,
    cut: float = 1e-12,
) -> ClassTask:
    """The ten digits of MNIST, from the file bundled with the package: images
    `(1 side side)` of pixels in [0, 1], average-pooled.

    **Arguments:**

    - `side`: 7, 14 or 28 pixels.

    **Other arguments:**

    - `code`, `whitened`, `components`, `cut`: as for [`class_task`][].

    **Returns:**

    A [`ClassTask`][] with 60,000 training and 10,000 test samples.

    **Raises:**

    `ValueError` naming the argument.
    """
    side = _validate.member("side", side, (7, 14, 28))
    codes, raw, shape = _codes(code, 10), load_mnist(), (1, side, side)
    train, test = (
        (pool(raw[f"x_{part}"], side).reshape(-1, *shape), raw[f"y_{part}"].astype(int))
        for part in ("train", "test")
    )
    options = {"whitened": whitened, "components": components, "cut": cut}
    name = f"mnist digits {side}x{side}"
    return _build(Inputs(shape, 255.0, side), train, test, np.arange(10), codes, name, **options)
