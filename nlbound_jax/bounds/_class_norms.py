"""The norms of a network of one hidden layer and K outputs: dense, or convolution and pooling."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from .. import _validate
from .._types import AnyArray, Numeric

_TINY = 1e-300


def patch_positions(
    shape: tuple[int, int, int],
    size: tuple[int, int],
    *,
    stride: int = 1,
    padding: int = 0,
) -> Int[np.ndarray, "positions q"]:
    """Which entries of a flattened image every patch of a convolution has.

    **Arguments:**

    - `shape`: of an image, `(channels, height, width)`.
    - `size`: of a filter, `(rows, columns)`.
    - `stride`: of the convolution.
    - `padding`: rows and columns of zeros around the image.

    **Returns:**

    Places in the flattened image, a row for each position, rows first; -1 for a zero outside.

    **Raises:**

    `ValueError` naming the argument.
    """
    for name, given, length in (("shape", shape, 3), ("size", size, 2)):
        if not isinstance(given, tuple | list) or len(given) != length:
            raise ValueError(f"`{name}` must be {length} sizes, got {_validate.shown(given)}.")
    channels, height, width = (_validate.integer("shape", n, 1) for n in shape)
    rows, columns = (_validate.integer("size", n, 1) for n in size)
    stride = _validate.integer("stride", stride, 1)
    padding = _validate.integer("padding", padding, 0)
    if rows > height + 2 * padding or columns > width + 2 * padding:
        raise ValueError(
            f"`size` must fit into {height} x {width} pixels and {padding} more at each side, "
            f"got {rows} x {columns}."
        )
    places = np.arange(channels * height * width).reshape(channels, height, width)
    around = ((0, 0), (padding, padding), (padding, padding))
    places = np.pad(places, around, constant_values=-1)
    windows = np.lib.stride_tricks.sliding_window_view(places, (rows, columns), axis=(1, 2))
    windows = windows[:, ::stride, ::stride]
    return np.moveaxis(windows, 0, 2).reshape(-1, channels * rows * columns)


def pooled_columns(
    head: Float[AnyArray, "K features"], height: int, width: int, pool: int = 1
) -> Float[Array, "filters positions K"]:
    """What every filter at every position contributes to the outputs, $a_{cp}$: the head's column
    of the square that p lies in, over the number of its positions; 0 outside of all squares.

    **Arguments:**

    - `head`: the last layer on the flattened channels, rows and columns of the pooled filters.
    - `height`, `width`: of the convolution's outputs.
    - `pool`: the side of the squares whose means are taken.

    **Returns:**

    `(filters positions K)`.

    **Raises:**

    `ValueError` naming the argument.
    """
    height, width = (_validate.integer("height", height, 1), _validate.integer("width", width, 1))
    pool = _validate.integer("pool", pool, 1, min(height, width))
    rows, columns = height // pool, width // pool
    shape = getattr(head, "shape", ())
    if len(shape) != 2 or 0 in shape or shape[1] % (rows * columns):
        raise ValueError(
            f"`head` must be a matrix with {rows} x {columns} columns for each filter, "
            f"got {_validate.shown(head)}."
        )
    head = _validate.real("head", head)
    cells = head.T.reshape(-1, rows, columns, shape[0]) / pool**2
    cells = jnp.repeat(jnp.repeat(cells, pool, axis=1), pool, axis=2)
    outside = ((0, 0), (0, height - rows * pool), (0, width - columns * pool), (0, 0))
    return jnp.pad(cells, outside).reshape(len(cells), height * width, -1)


def centred(columns: Float[Array, "... K"]) -> Float[Array, "... K"]:
    """$\\Pi a$: what is common to all outputs changes no answer."""
    return columns - jnp.mean(columns, axis=-1, keepdims=True)


def class_linear_part(
    filters: Float[AnyArray, "c q"],
    columns: Float[AnyArray, "c positions K"],
    positions: Int[AnyArray, "positions q"],
    *,
    epsilon: Numeric,
    dim: int,
) -> Float[Array, "K d"]:
    """$\\Pi l = (1 - \\epsilon/2)\\, \\Pi \\sum_{cp} a_{cp} w_c^\\top \\pi_p$, the linear part of
    a network $\\sum_{cp} a_{cp}\\, \\phi(w_c \\cdot \\pi_p x)$ without what all outputs share.

    **Arguments:**

    - `filters`: $w_c$, `(c q)`: the rows of a dense first layer, or flattened filters.
    - `columns`: $a_{cp}$, `(c positions K)`; of a dense network there is one position.
    - `positions`: as of [`patch_positions`][]; all inputs for a dense network.
    - `epsilon`: one minus the negative slope.
    - `dim`: the size of an input.

    **Returns:**

    `(K d)`.

    **Raises:**

    `ValueError` naming the argument.
    """
    filters, columns = checked_layers(filters, columns)
    dim = _validate.integer("dim", dim, 1)
    positions = checked_positions(positions, dim)
    expected = (columns.shape[1], filters.shape[1])
    if positions.shape != expected:
        raise ValueError(f"`positions` must have shape {expected}, got {positions.shape}.")
    slope = 1 - _validate.number("epsilon", epsilon, 0, 1) / 2
    patches = jnp.einsum("cpk,cq->kpq", centred(columns), filters, precision="highest")
    straight = jnp.zeros((columns.shape[2], dim + 1), filters.dtype)
    return slope.astype(filters.dtype) * straight.at[:, positions].add(patches)[:, :dim]


def class_paths(
    filters: Float[AnyArray, "c q"],
    columns: Float[AnyArray, "c positions K"],
    roots: Float[AnyArray, "f q q"],
    weights: Float[AnyArray, "f positions"],
) -> Float[Array, " f"]:
    """$P = \\sum_c \\|w_c\\|_M \\big(\\sum_p \\|\\Pi a_{cp}\\|^2/\\omega_p\\big)^{1/2}$,
    $\\|w\\|_M = \\|M^{1/2} w\\|$: the size of the nonlinear part.

    **Arguments:**

    - `filters`, `columns`: as for [`class_linear_part`][].
    - `roots`: $M^{1/2}$ of each metric.
    - `weights`: $\\omega$ of each metric, positive.

    **Returns:**

    P in each metric, `(f,)`.

    **Raises:**

    `ValueError` naming the argument.
    """
    filters, columns = checked_layers(filters, columns)
    roots = _validate.real("roots", roots)
    weights = _validate.real("weights", weights, 0, open_low=True)
    if roots.ndim != 3 or not len(roots) or roots.shape[1:] != (filters.shape[1],) * 2:
        raise ValueError(
            f"`roots` must have shape (f, {filters.shape[1]}, {filters.shape[1]}), "
            f"got {roots.shape}."
        )
    if weights.shape != (len(roots), columns.shape[1]):
        raise ValueError(
            f"`weights` must have shape {(len(roots), columns.shape[1])}, got {weights.shape}."
        )
    return jnp.einsum("fc,fc->f", filter_norms(filters, roots), column_norms(columns, weights))


def filter_norms(filters: Float[Array, "c q"], roots: Float[Array, "f q q"]) -> Float[Array, "f c"]:
    """$\\|w_c\\|_M$ in each metric.

    **Arguments:**

    - `filters`, `roots`: as for [`class_paths`][].

    **Returns:**

    `(f c)`.
    """
    return jax.lax.map(
        lambda root: jnp.sqrt(
            jnp.sum(jnp.matmul(filters, root, precision="highest") ** 2, axis=1) + _TINY
        ),
        roots.astype(filters.dtype),
    )


def column_norms(
    columns: Float[Array, "c positions K"], weights: Float[Array, "f positions"]
) -> Float[Array, "f c"]:
    """$(\\sum_p \\|\\Pi a_{cp}\\|^2/\\omega_p)^{1/2}$ in each metric.

    **Arguments:**

    - `columns`, `weights`: as for [`class_paths`][].

    **Returns:**

    `(f c)`.
    """
    squares = jnp.sum(centred(columns) ** 2, axis=2)
    inverse = (1 / weights).astype(columns.dtype)
    return jnp.sqrt(jnp.matmul(inverse, squares.T, precision="highest") + _TINY)


def class_root(
    traces: Numeric, spreads: Numeric, classes: int, positions: int
) -> Float[Array, "..."]:
    """$\\sqrt V$, $V = (\\sqrt T + E\\chi_{K-1} \\sqrt\\Lambda)^2 + \\Lambda$; without the last
    term where there is one position.

    **Arguments:**

    - `traces`: T, a bound on $\\sum_p \\omega_p E\\|\\pi_p x\\|^2$.
    - `spreads`: $\\Lambda$, one on the mean of $\\sum_p \\omega_p \\lambda_p$, $\\lambda_p$ the
        largest eigenvalue of the sample's second moment at p.
    - `classes`: K, at least 2.
    - `positions`: how many there are.

    **Returns:**

    Of the broadcast shape.

    **Raises:**

    `ValueError` naming the argument.
    """
    classes = _validate.integer("classes", classes, 2)
    positions = _validate.integer("positions", positions, 1)
    traces, spreads = (
        _validate.at_least_zero("traces", traces),
        _validate.at_least_zero("spreads", spreads),
    )
    _validate.broadcastable({"traces": traces, "spreads": spreads})
    traces, spreads = jnp.broadcast_arrays(traces, spreads)
    chi = math.sqrt(2) * math.exp(math.lgamma(classes / 2) - math.lgamma((classes - 1) / 2))
    first = jnp.sqrt(traces) + chi * jnp.sqrt(spreads)
    return first if positions == 1 else jnp.sqrt(first**2 + spreads)


def checked_layers(filters, columns) -> tuple[Float[Array, "c q"], Float[Array, "c p K"]]:
    """Filters and columns that fit together."""
    filters, columns = _validate.real("filters", filters), _validate.real("columns", columns)
    if filters.ndim != 2 or 0 in filters.shape:
        raise ValueError(f"`filters` must have shape (c, q), got {filters.shape}.")
    fit = columns.ndim == 3 and len(columns) == len(filters) and 0 not in columns.shape
    if not fit or columns.shape[2] < 2:
        raise ValueError(
            f"`columns` must have shape ({len(filters)}, positions, K), K >= 2, "
            f"got {columns.shape}."
        )
    return filters, columns


def checked_positions(positions, dim: int) -> Int[np.ndarray, "positions q"]:
    """Places in inputs of size `dim`, or -1, as integers."""
    found = _validate.numeric("positions", positions, "places in an input").astype(float)
    if found.ndim != 2 or 0 in found.shape or not np.isin(found, np.arange(-1, dim)).all():
        raise ValueError(
            f"`positions` must be places below {dim} of shape (positions, q), "
            f"got {_validate.shown(positions)}."
        )
    return found.astype(int)
