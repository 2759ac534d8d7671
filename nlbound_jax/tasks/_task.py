"""The task: whitened data of a binary classification problem and what the theory needs of it."""

import math
import sys
import warnings

import equinox as eqx
import numpy as np
from jaxtyping import Float, Shaped

from .. import _validate
from .._types import AnyArray, Data

# What whitening dropped below this share of the largest singular value is rounding.
ROUNDING = 1e-12


class Transform(eqx.Module):
    """From raw inputs to whitened ones, with the statistics of the training set.

    Images are average-pooled first: to `side` x `side` (if `side` is set), or to `image` =
    (height, width, channels) if they have a last axis of channels. Then
    $\\tilde x = M^\\top x / \\text{scale}$.

    With `bias` a constant feature, $\\text{scale}/\\sqrt2$, comes after the others: the weights of
    it in the first layer are biases, exactly.

    **Attributes:**

    - `matrix`: $M$, `(features d)`; the constant counts as a feature.
    - `scale`: a positive number in the units of the raw inputs, such as a bound on their norm.
    - `side`, `image`: what images are pooled to, or `None`.
    - `columns`: by what each feature was divided before the whitening, `(features,)`, or `None`;
        $M$ divides by it.
    - `bias`: whether there is a constant feature.
    """

    matrix: Float[np.ndarray, "features d"]
    scale: float
    side: int | None = None
    image: tuple[int, int, int] | None = None
    columns: Float[np.ndarray, " features"] | None = None
    bias: bool = False

    def __call__(self, x: Data) -> Float[np.ndarray, "*batch d"]:
        """Whiten raw inputs.

        **Arguments:**

        - `x`: `(n features)` or one sample `(features,)`, without a constant feature; if the task
            pools images, also
            `(n height width)` or `(height width)`, with `image` set
            `(n height width channels)` or `(height width channels)`.

        **Returns:**

        The whitened inputs, `(n d)` or `(d,)`, float64.

        **Raises:**

        `ValueError` if the shape does not fit or an entry is not finite.
        """
        x = _validate.numpy_numbers(np.asarray(x))
        if self.side is not None:
            x = pool(x, self.side)
        elif self.image is not None and x.ndim > 2:
            x = pool_channels(x, self.image)
        features = self.matrix.shape[0] - self.bias
        if x.ndim not in (1, 2) or x.shape[-1] != features:
            raise ValueError(
                f"`x` must have {features} features in its last axis, got shape {x.shape}."
            )
        x = finite("x", x)
        if self.bias:
            x = with_constant(x, self.scale / math.sqrt(2))
        return (x / self.scale) @ self.matrix

    def inverse(self, x: Float[AnyArray, "*batch d"]) -> Float[np.ndarray, "*batch features"]:
        """Back to raw inputs over `scale`: of any input the part in the span that whitening kept.
        For a training input that is all of it, unless `components` or `cut` dropped a direction.

        **Arguments:**

        - `x`: whitened inputs, `(n d)` or `(d,)`.

        **Returns:**

        $x / \\text{scale}$, `(n features)` or `(features,)`, with the constant feature if there is
        one.

        **Raises:**

        `ValueError` if the shape does not fit or an entry is not finite.
        """
        x = np.asarray(x)
        if x.ndim not in (1, 2) or x.shape[-1] != self.matrix.shape[1]:
            raise ValueError(
                f"`x` must have {self.matrix.shape[1]} coordinates in its last axis, "
                f"got shape {x.shape}."
            )
        # The columns of M are orthogonal, once it no longer divides the features.
        sizes = np.ones(len(self.matrix)) if self.columns is None else self.columns
        matrix = sizes[:, None] * self.matrix
        return (finite("x", x) @ (matrix / np.sum(matrix**2, axis=0)).T) * sizes


class Task(eqx.Module):
    """A binary classification problem on whitened inputs.

    Arrays are (samples, features), the transpose of the paper's $\\tilde X$. The inputs are in
    the principal coordinates of the training set's second moment $\\Sigma_X = X X^\\top / m$,
    eigenvalues descending, so that $\\tilde X \\tilde X^\\top = m I$ on the training set. The
    library plugs $\\Sigma_X$ in for the distribution's $\\Sigma$.

    **Attributes:**

    - `x`, `y`: training inputs `(m d)` and labels `(m,)` in {-1, +1}.
    - `x_test`, `y_test`: test inputs `(n d)` and labels, or `None`.
    - `target`: $q = Y \\tilde X^\\top / m$, `(d,)`; the least-squares linear fit.
    - `alignment`: $s = \\|q\\| \\le 1$.
    - `rank`: d, the rank of $\\Sigma_X$ after the cut (or the number of components kept).
    - `spectrum`: the eigenvalues of $\\Sigma_X$ that were kept, descending, `(d,)`.
    - `transform`: raw inputs to whitened ones, a [`Transform`][].
    - `norm_bound`: R with $\\|x\\| \\le R$ for every input, known beforehand, or `None`.
    - `held_out`: the test inputs before whitening, over `transform.scale`, `(n features)`,
        float32, or `None`: inputs that do not depend on the training set.
    - `cut`: eigenvalues of $\\Sigma_X$ below `cut` times the largest were cut.
    - `dropped`: the root of the largest eigenvalue that was not kept, over that of the largest; of
        the size of a rounding where the training set lies in the span that was kept.
    - `name`: what the data is, in words.
    """

    x: Float[np.ndarray, "m d"]
    y: Float[np.ndarray, " m"]
    x_test: Float[np.ndarray, "n d"] | None
    y_test: Float[np.ndarray, " n"] | None
    target: Float[np.ndarray, " d"]
    alignment: float
    spectrum: Float[np.ndarray, " d"]
    transform: Transform
    norm_bound: float | None
    name: str
    held_out: Float[np.ndarray, "n features"] | None = None
    cut: float = 1e-12
    dropped: float = 0.0

    @property
    def keeps_all(self) -> bool:
        """Whether the training set lies, up to rounding, in the span that whitening kept, so that
        its raw inputs can be had back."""
        return self.dropped <= ROUNDING

    @property
    def rank(self) -> int:
        """d, the number of whitened coordinates."""
        return self.x.shape[1]

    @property
    def num_features(self) -> int:
        """How many features the raw inputs have (after pooling), at least d; a constant feature
        is one of them."""
        return self.transform.matrix.shape[0]

    @property
    def condition_number(self) -> float:
        """The largest over the smallest singular value of the inputs that whitening kept:
        $\\sqrt{\\lambda_1/\\lambda_d}$, at most $1/\\sqrt{\\text{cut}}$."""
        return math.sqrt(self.spectrum[0] / self.spectrum[-1])

    @property
    def num_samples(self) -> int:
        """m, the number of training samples."""
        return self.x.shape[0]


def finite(name: str, x: np.ndarray) -> np.ndarray:
    """`x` as float64, or one line if it is not numeric and finite."""
    x = _validate.numpy_numbers(x)
    if x.dtype.kind not in "biuf":
        raise ValueError(f"`{name}` must be an array of numbers, got dtype {x.dtype}.")
    with np.errstate(over="ignore"):  # an extended precision may have larger numbers
        x = x.astype(np.float64, copy=False)
    if not np.isfinite(x).all():
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(x))[0])
        raise ValueError(f"`{name}` must be finite, got {x[where]} at index {where}.")
    return x


def largest_norm(x: Float[np.ndarray, "m features"]) -> float:
    """$\\max_i \\|x_i\\|$, where squares may neither overflow nor vanish."""
    unit = float(np.abs(x).max()) or 1.0
    largest = unit * float(np.linalg.norm(x / unit, axis=1).max())
    if not math.isfinite(largest):
        raise ValueError("`x` must have norms below 1.8e308, got a larger one.")
    return largest


def pool(images: Shaped[np.ndarray, "..."], side: int) -> Shaped[np.ndarray, "*batch features"]:
    """Average-pool square images `(... height width)` to `(... side*side)`."""
    height = images.shape[-1] if images.ndim else 0
    if images.ndim not in (2, 3) or images.shape[-2] != height or height % side:
        raise ValueError(
            f"`x` must be square images (n, height, height) with height divisible by {side}, "
            f"got shape {images.shape}."
        )
    block = height // side
    blocks = images.reshape(*images.shape[:-2], side, block, side, block)
    return blocks.mean(axis=(-3, -1)).reshape(*images.shape[:-2], side * side)


def pool_channels(
    images: Shaped[np.ndarray, "..."], shape: tuple[int, int, int]
) -> Shaped[np.ndarray, "*batch features"]:
    """Average-pool images `(... height width channels)` to `shape` and flatten them."""
    side = np.shape(images)[-3:]
    fits = images.ndim in (3, 4) and side[2] == shape[2] and 0 not in side
    if not fits or side[0] % shape[0] or side[1] % shape[1]:
        raise ValueError(
            f"`x` must be images (n, height, width, {shape[2]}) with height divisible by "
            f"{shape[0]} and width by {shape[1]}, got shape {images.shape}."
        )
    batch, (height, width, channels) = images.shape[:-3], shape
    blocks = images.reshape(*batch, height, side[0] // height, width, side[1] // width, channels)
    return blocks.mean(axis=(-4, -2)).reshape(*batch, height * width * channels)


def whiten(
    x: Float[np.ndarray, "m features"], cut: float, components: int | None
) -> tuple[Float[np.ndarray, " d"], Float[np.ndarray, "features d"], float]:
    """Spectrum of $\\Sigma_X$ (descending, cut), the matrix $M$ with $\\tilde x = M^\\top x$, and
    the root of what was dropped over that of the largest.

    The singular values come from the triangular factor of `x`, not from the Gram matrix, whose
    small eigenvalues would be right to a relative 1e-16 / cut only.
    """
    triangular = np.linalg.qr(x, mode="r")
    _, singular, right = np.linalg.svd(triangular, full_matrices=False)
    spectrum = singular**2 / len(x)
    if not spectrum[0] > 0:
        raise ValueError("`x` must have a non-zero sample, got only zeros.")
    rank = int((spectrum > cut * spectrum[0]).sum())
    if components is None:  # else the small directions are not asked for
        _warn_of_scales(np.asarray(triangular), rank, cut)
    else:
        rank = _validate.integer("components", components, 1, rank)
    matrix = right[:rank].T * (math.sqrt(len(x)) / singular[:rank])
    # Fix the signs, so that the coordinates do not depend on the LAPACK build.
    largest = np.argmax(np.abs(matrix), axis=0)
    matrix = matrix * np.sign(matrix[largest, np.arange(rank)])
    dropped = math.sqrt(spectrum[rank] / spectrum[0]) if rank < len(spectrum) else 0.0
    return spectrum[:rank], matrix, dropped


def _warn_of_scales(triangular: Float[np.ndarray, "k features"], rank: int, cut: float) -> None:
    """Warn where the cut drops directions that it would keep at their own scale."""
    sizes = np.linalg.norm(triangular, axis=0)
    own = np.linalg.svd(triangular / np.where(sizes > 0, sizes, 1.0), compute_uv=False) ** 2
    full = int((own > cut * own[0]).sum())
    if full > rank:
        warnings.warn(
            f"whitening kept {rank} of {full} directions: the others are below `cut` = {cut:g} of "
            f"the largest eigenvalue, but not at the scale of their own features (root mean "
            f"squares from {sizes[sizes > 0].min() / sizes.max():.2g} to 1 of the largest); "
            '`scale="columns"` of from_arrays and from_npz (`--scale columns`) keeps them.',
            UserWarning,
            stacklevel=_depth_outside(),
        )


def _depth_outside() -> int:
    """The `stacklevel` of the line that called this library."""
    ours, frame, depth = 1, sys._getframe(1), 1
    while frame is not None:
        if frame.f_globals.get("__name__", "").split(".")[0] == __name__.split(".")[0]:
            ours = depth
        frame, depth = frame.f_back, depth + 1
    return ours + 1


def with_constant(x: Float[np.ndarray, "*batch features"], value: float):
    """Inputs with one more feature."""
    return np.concatenate([x, np.full((*x.shape[:-1], 1), value)], axis=-1)


def column_sizes(x: Float[np.ndarray, "m features"]) -> Float[np.ndarray, " features"]:
    """What divides each column to a root mean square that all of them share, and every sample
    into the unit ball; 1 for a column of zeros."""
    unit = np.abs(x).max(axis=0)
    unit = np.where(unit > 0, unit, 1.0)
    root = np.sqrt(np.mean((x / unit) ** 2, axis=0))
    sizes = unit * np.where(root > 0, root, 1.0)
    return sizes * (largest_norm(x / sizes) or 1.0)


def _single(x: Float[np.ndarray, "n features"]) -> Float[np.ndarray, "n features"]:
    largest = float(np.finfo(np.float32).max)
    if np.abs(x).max() > largest:
        raise ValueError(
            f"`x_test` must be within {largest:.2g} times the training inputs, got "
            f"{np.abs(x).max():.2g}."
        )
    return x.astype(np.float32)


def build(
    x: Float[np.ndarray, "m features"],
    y: Float[np.ndarray, " m"],
    x_test: Float[np.ndarray, "n features"] | None,
    y_test: Float[np.ndarray, " n"] | None,
    *,
    scale: float,
    side: int | None,
    norm_bound: float | None,
    cut: float,
    components: int | None,
    name: str,
    image: tuple[int, int, int] | None = None,
    by_columns: bool = False,
    bias: bool = False,
    has_constant: bool = False,
) -> Task:
    """A [`Task`][] from flattened, finite, unscaled inputs and labels in {-1, +1}. With `bias` a
    constant feature of the size of `scale` is added, unless the inputs have it already."""
    bias = _validate.flag("bias", bias)
    if bias and norm_bound is None:
        # A constant of the size of the sample would be chosen by all of it, S2 as well.
        raise ValueError(
            "`bias` must be False unless a bound on the norm of an input is known beforehand "
            "(`norm_bound`), which sets the size of the constant feature, got True."
        )
    if bias and not has_constant:
        x = with_constant(x, scale)
        x_test = None if x_test is None else with_constant(x_test, scale)
        scale = math.sqrt(2) * scale  # so that inputs stay within the unit ball
    cut = _validate.scalar("cut", cut, low=0, high=1, open_high=True)
    columns = column_sizes(x / scale) if by_columns else None
    if columns is None:
        spectrum, matrix, dropped = whiten(x / scale, cut, components)
    else:
        spectrum, matrix, dropped = whiten(x / scale / columns, cut, components)
        matrix = matrix / columns[:, None]
    whitened = (x / scale) @ matrix
    target = y @ whitened / len(y)
    return Task(
        x=whitened,
        y=y,
        x_test=None if x_test is None else (x_test / scale) @ matrix,
        y_test=y_test,
        target=target,
        alignment=float(np.linalg.norm(target)),
        spectrum=spectrum,
        transform=Transform(matrix, scale, side, image, columns, bias),
        norm_bound=norm_bound,
        name=name,
        held_out=None if x_test is None else _single(x_test / scale),
        cut=cut,
        dropped=dropped,
    )
