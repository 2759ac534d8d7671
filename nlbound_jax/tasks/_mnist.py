"""The bundled MNIST."""

import importlib.resources
from collections.abc import Collection

import numpy as np

from .. import _validate
from ._task import Task, build, pool


def load_mnist() -> dict[str, np.ndarray]:
    """The 70,000 images as they are: `x_train (60000 28 28)`, `y_train (60000,)`, `x_test`,
    `y_test`, unsigned bytes.

    **Returns:**

    A dictionary of the four arrays. Data: LeCun, Cortes and Burges, CC BY-SA 3.0 (see
    `tasks/data/NOTICE.md`).
    """
    source = importlib.resources.files(__spec__.parent) / "data" / "mnist.npz"
    with source.open("rb") as file, np.load(file) as archive:
        return {name: archive[name] for name in ("x_train", "y_train", "x_test", "y_test")}


def _digits(name: str, digits: Collection[int]) -> frozenset[int]:
    try:
        chosen = frozenset(digits)
    except TypeError:  # no collection, or of something without a hash
        chosen = frozenset()
    if not chosen or not all(isinstance(k, int | np.integer) and 0 <= k <= 9 for k in chosen):
        raise ValueError(
            f"`{name}` must be a non-empty set of digits 0 to 9, got {_validate.shown(digits)}."
        )
    return frozenset(map(int, chosen))


def mnist(
    side: int = 7,
    components: int | None = None,
    *,
    positive: Collection[int] = (5, 6, 7, 8, 9),
    negative: Collection[int] | None = None,
    cut: float = 1e-12,
    bias: bool = False,
) -> Task:
    """Binary MNIST, pooled and whitened, from the file bundled with the package.

    Average pooling to `side` x `side`, pixels in [0, 1], divided by `side` (so that
    $\\|x\\| \\le 1$ whatever the image), whitened with $\\Sigma_X$ of the training set.

    **Arguments:**

    - `side`: 7, 14 or 28 pixels.
    - `components`: keep that many leading principal directions; all by default.

    **Other arguments:**

    - `positive`: the digits labelled +1.
    - `negative`: the digits labelled -1; by default all that are not positive. Images of other
        digits are left out.
    - `cut`: eigenvalues of $\\Sigma_X$ below `cut` times the largest are cut.
    - `bias`: biases in the first layer, as in [`from_arrays`][].

    **Returns:**

    A [`Task`][] with 60,000 training and 10,000 test samples (for the default digits).

    **Raises:**

    `ValueError` naming the argument.
    """
    side = _validate.member("side", side, (7, 14, 28))
    plus = _digits("positive", positive)
    minus = frozenset(range(10)) - plus if negative is None else _digits("negative", negative)
    if not minus:
        raise ValueError("`positive` must leave digits to be labelled -1, got all of them.")
    if plus & minus:
        raise ValueError(
            f"`positive` and `negative` must be disjoint, got {sorted(plus)} and {sorted(minus)}."
        )
    raw = load_mnist()
    parts = []
    for split in ("train", "test"):
        digit = raw[f"y_{split}"]
        kept = np.isin(digit, list(plus | minus))
        images = raw[f"x_{split}"][kept]
        labels = np.where(np.isin(digit[kept], list(plus)), 1.0, -1.0)
        parts += [pool(images, side), labels]
    return build(
        *parts,
        scale=255.0 * side,  # raw pixels are bytes
        side=side,
        norm_bound=1.0,
        cut=cut,
        components=components,
        name=f"mnist {side}x{side}",
        bias=bias,
    )
