"""The split of a task into the part that determines an anchor and the part that certifies."""

import dataclasses

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Float, Int, PRNGKeyArray

from .. import _validate
from .._types import AnyArray
from ._task import ROUNDING, Task, Transform, build, finite

_SUBSAMPLES = 4
# Of the largest input: below it the rounding of S2 is no longer small beside S1.
_SMALLEST = 1e-3


class AnchorSplit(eqx.Module):
    """The two parts S1 and S2 of a task's training set, and the coordinates $\\hat x$ in which an
    anchored certificate is written.

    $\\hat x = M_1^\\top x / \\text{scale}$ with $M_1 = V (\\Lambda + r)^{-1/2}$, $\\Lambda$ and V
    the eigenvalues and eigenvectors of the second moment of S1. All raw features are kept and
    r > 0, so the map is invertible: a network is the same function in any of the coordinates, on
    every input. It depends on S1 alone (the scale cancels), as do the anchor's task and all
    subsamples.

    **Attributes:**

    - `first`, `second`: the places of S1 `(m1,)` and S2 `(n,)` in the task, in random order.
    - `anchor`: the [`Task`][] of S1 alone, whitened by the second moment of S1.
    - `x`, `y`: S2 in the coordinates $\\hat x$, `(n d)`, and its labels; d is the number of raw
        features.
    - `x_first`, `y_first`: S1 in the coordinates $\\hat x$, `(m1 d)`, and its labels.
    - `x_test`, `y_test`: the test inputs in the coordinates $\\hat x$ and their labels, or `None`.
    - `transform`: raw inputs to $\\hat x$, a [`Transform`][].
    - `fraction`: the share of S1 that was asked for.
    - `ridge`: r over the mean eigenvalue of S1.
    """

    first: Int[np.ndarray, " m1"]
    second: Int[np.ndarray, " n"]
    anchor: Task
    x: Float[np.ndarray, "n d"]
    y: Float[np.ndarray, " n"]
    x_first: Float[np.ndarray, "m1 d"]
    y_first: Float[np.ndarray, " m1"]
    x_test: Float[np.ndarray, "t d"] | None
    y_test: Float[np.ndarray, " t"] | None
    transform: Transform
    fraction: float
    ridge: float

    def from_task(
        self, first: Float[AnyArray, "*batch width rank"], task: Task
    ) -> Float[np.ndarray, "*batch width d"]:
        """The first-layer matrix in the coordinates $\\hat x$ of one that takes the whitened inputs
        of a task on the same raw features: the full task (its whitening depends on S2, which that
        of a certified network may), `anchor`, or one of [`AnchorSplit.subsamples`][].

        **Arguments:**

        - `first`: $W_1$, `(width rank)`, or several with leading axes.
        - `task`: the task, with whitening $M^\\top$.

        **Returns:**

        $W_1 M^\\top M_1^{-\\top}$, `(width d)` with the same leading axes, float64: the same
        function of every raw input.

        **Raises:**

        `ValueError` naming the argument.
        """
        matrix = self._matrix_of(task)
        return _matrices(first, matrix.shape[1]) @ (matrix.T @ self._back())

    def from_raw(self, first: Float[AnyArray, "*batch width features"]) -> Float[np.ndarray, "..."]:
        """As [`AnchorSplit.from_task`][], for a matrix that takes raw features over
        `transform.scale`.

        **Arguments:**

        - `first`: $W_1$, `(width features)`, or several with leading axes.

        **Returns:**

        `(width d)` with the same leading axes, float64.

        **Raises:**

        `ValueError` naming the argument.
        """
        return _matrices(first, self.x.shape[1]) @ self._back()

    def to_task(
        self, first: Float[AnyArray, "*batch width d"], task: Task
    ) -> Float[np.ndarray, "*batch width rank"]:
        """The other way: a first-layer matrix in the coordinates $\\hat x$ as one that takes the
        whitened inputs of a task, the same function of all inputs in the span of its training set.
        So every network may start where the anchor starts.

        **Arguments:**

        - `first`: $W_1$, `(width d)`, or several with leading axes.
        - `task`: as in [`AnchorSplit.from_task`][].

        **Returns:**

        `(width rank)` with the same leading axes, float64.

        **Raises:**

        `ValueError` naming the argument.
        """
        rank = self._matrix_of(task).shape[1]
        raw = task.transform.inverse(np.eye(rank)) * (task.transform.scale / self.transform.scale)
        return _matrices(first, self.x.shape[1]) @ (raw @ self.transform.matrix).T

    def _back(self) -> Float[np.ndarray, "features d"]:
        """The inverse of $M_1^\\top$."""
        return self.transform.inverse(np.eye(self.x.shape[1])).T

    def _matrix_of(self, task: Task) -> Float[np.ndarray, "features rank"]:
        task, features = _validate.instance("task", task, Task), self.x.shape[1]
        if task.num_features != features:
            raise ValueError(f"`task` must have {features} raw features, got {task.num_features}.")
        return task.transform.matrix * (self.transform.scale / task.transform.scale)

    def subsamples(self) -> tuple[Task, ...]:
        """Halves of S1, whitened each by its own second moment: networks trained on them show how
        far training moves a network for want of samples (the shapes of the anchored bound).

        **Returns:**

        Four tasks: the two halves of S1 as it lies here, and those of every other sample.

        **Raises:**

        `ValueError` if S1 has less than four samples.
        """
        inputs = _raw(self.transform, self.x_first)
        count = len(inputs)
        if count < _SUBSAMPLES:
            raise ValueError(f"`task` must leave {_SUBSAMPLES} samples in S1, got {count}.")
        middle = count // 2
        halves = (slice(middle), slice(middle, None), slice(0, None, 2), slice(1, None, 2))
        like = self.anchor
        return tuple(_part(like, inputs[half], self.y_first[half], None) for half in halves)


def _matrices(first, columns: int) -> Float[np.ndarray, "*batch width columns"]:
    first = np.asarray(first)
    if first.ndim < 2 or first.shape[-1] != columns:
        raise ValueError(f"`first` must be matrices of {columns} columns, got shape {first.shape}.")
    return finite("first", first)


def _part(task: Task, inputs, y, test) -> Task:
    """A task like `task` of some inputs over its scale."""
    transform = task.transform
    return build(
        inputs * transform.scale,
        y,
        None if test is None else test * transform.scale,
        None if test is None else task.y_test,
        scale=transform.scale,
        side=transform.side,
        norm_bound=task.norm_bound,
        cut=task.cut,
        components=None,
        name=task.name,
        image=transform.image,
        by_columns=transform.columns is not None,
        bias=transform.bias,
        has_constant=True,
    )


def _ridge_whitening(x: Float[np.ndarray, "m features"], ridge: float, by_columns: bool):
    """The invertible map of S1, and by what it divides the features first."""
    columns = None
    if by_columns:
        sizes = np.sqrt(np.mean(x**2, axis=0))
        columns = np.where(sizes > 0, sizes, np.sqrt(np.mean(sizes**2)))
        x = x / columns
    triangular = np.linalg.qr(x, mode="r")
    # The full basis: directions in which S1 is zero are kept as well.
    _, singular, right = np.linalg.svd(triangular, full_matrices=True)
    spectrum = np.zeros(len(right))
    spectrum[: len(singular)] = singular**2 / len(x)
    roots = np.sqrt(spectrum + ridge * np.mean(spectrum))
    matrix = right.T / roots
    largest = np.argmax(np.abs(matrix), axis=0)  # signs that do not depend on the LAPACK build
    matrix = matrix * np.sign(matrix[largest, np.arange(len(matrix))])
    return (matrix if columns is None else matrix / columns[:, None]), columns


def _raw(
    transform: Transform,
    x: Float[np.ndarray, "m d"],
    first: Int[np.ndarray, " m1"] | slice = slice(None),
) -> Float[np.ndarray, "m features"]:
    """The inputs over the scale of samples of the training set. What is zero must not come back as
    a rounding: by its own scale it would count as much as any other. What counts as one is said by
    S1, the samples `first`."""
    raw = transform.inverse(x)
    sizes = np.abs(raw if transform.columns is None else raw / transform.columns)
    largest = sizes[first].max()
    if not largest > 0:
        raise ValueError("`task` must have a non-zero sample in S1, got only zeros.")
    if largest < _SMALLEST * sizes.max():
        raise ValueError(
            f"`task` must have inputs of one size in both parts, got {largest / sizes.max():.2g} "
            "of the largest in S1."
        )
    return np.where(sizes > ROUNDING * largest, raw, 0.0)


def _raw_test(task: Task):
    """The test inputs over the scale: in double precision what the whitening keeps of them, in
    single precision the rest."""
    if task.x_test is None or task.held_out is None:
        return None
    kept = task.transform.inverse(task.x_test)
    if task.rank == task.num_features:
        return kept
    held_out = np.asarray(task.held_out, np.float64)
    seen = task.transform.inverse(held_out @ task.transform.matrix)
    return kept + (held_out - seen)


def split(
    task: Task, *, key: PRNGKeyArray, fraction: float = 0.5, ridge: float = 1e-6
) -> AnchorSplit:
    """Split the training set by a random permutation: S1 determines an anchor network and the
    coordinates of the certificate, S2 certifies (README of `bounds`, section 8).

    The ridge is a fixed share of the *mean* eigenvalue of S1. It must be positive, so that no
    direction is lost and none of the dimensions depends on S2, and small, so that directions that
    matter are whitened; what S1 hardly sees keeps a moderate length $\\|\\hat x\\|$ on new inputs.

    **Arguments:**

    - `task`: a [`Task`][] whose whitening dropped no direction of its training set.
    - `key`: a JAX random key, chosen without a look at the data.
    - `fraction`: the share of S1, in (0, 1).
    - `ridge`: r over the mean eigenvalue of the second moment of S1, positive.

    **Returns:**

    An [`AnchorSplit`][].

    **Raises:**

    `ValueError` naming the argument: also if `components` or `cut` dropped a direction in which
    the training set is not zero, as then raw inputs cannot be had back from the task.
    """
    task = _validate.instance("task", task, Task)
    fraction = _validate.scalar("fraction", fraction, 0, 1, open_low=True, open_high=True)
    ridge = _validate.scalar("ridge", ridge, 0, open_low=True)
    key = _validate.key("key", key)
    if not task.keeps_all:
        raise ValueError(
            "`task` must keep every direction of its training set (no `components`, a smaller "
            f"`cut`), got one that dropped {task.dropped:.2g} of the largest."
        )
    count = round(fraction * task.num_samples)
    if not 0 < count < task.num_samples:
        raise ValueError(
            f"`fraction` must leave samples in both parts of {task.num_samples}, got {fraction:g}."
        )
    order = np.asarray(jax.random.permutation(key, task.num_samples))
    first, second = order[:count], order[count:]
    raw = _raw(task.transform, task.x, first)
    test = _raw_test(task)
    matrix, columns = _ridge_whitening(raw[first], ridge, task.transform.columns is not None)
    transform = dataclasses.replace(task.transform, matrix=matrix, columns=columns)
    return AnchorSplit(
        first=first,
        second=second,
        anchor=_part(task, raw[first], task.y[first], test),
        x=raw[second] @ matrix,
        y=task.y[second],
        x_first=raw[first] @ matrix,
        y_first=task.y[first],
        x_test=None if test is None else test @ matrix,
        y_test=None if test is None else task.y_test,
        transform=transform,
        fraction=fraction,
        ridge=ridge,
    )
