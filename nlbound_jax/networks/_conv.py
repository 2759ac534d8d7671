"""The bias-free leaky-ReLU network of convolutions, and its linear reference."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from .. import _validate
from .._forward import leaky_relu
from .._types import AnyArray

Filters = tuple[Float[Array, "_out _in _rows _columns"], ...]


def image_shape(shape: Any) -> Any:
    """`shape` as a tuple `(channels, height, width)`."""
    if not isinstance(shape, tuple | list) or len(shape) != 3:
        raise ValueError(
            f"`shape` must be (channels, height, width), got {_validate.shown(shape)}."
        )
    return tuple(_validate.integer("shape", size, 1) for size in shape)


def _at_least(name: str, low: int) -> Callable[[Any], int]:
    """The check of a static field; it runs before Equinox looks at the field itself."""

    def check(value: Any) -> int:
        return _validate.integer(name, value, low)

    return check


class LeakyConv(eqx.Module):
    """A convolutional network without biases: L - 1 convolutions, each followed by
    $\\phi(z) = z - \\epsilon \\min(0, z)$ and average pooling, and a linear head of K outputs. It
    takes one image; several go through `jax.vmap`.

    Its linear reference, [`LinearConv`][], has $(1 - \\epsilon/2) z$ in the place of $\\phi(z)$,
    which is $(1 - \\epsilon/2) z + (\\epsilon/2) |z|$.

    **Attributes:**

    - `filters`: a tuple of L - 1 >= 1 arrays `(out in rows columns)`, of cross-correlations as in
        `eqx.nn.Conv2d`.
    - `head`: the last layer, `(K features)`; the features are those of the last pooling, flattened.
    - `epsilon`: one minus the negative slope, a scalar array in [0, 1]; an array, so that it can be
        differentiated. Only `filters` and `head` are trained.
    - `shape`: of an image, `(channels, height, width)`.
    - `stride`: of every convolution, 1 by default.
    - `padding`: rows and columns of zeros around the input of every convolution, 0 by default.
    - `pool`: the side of the squares whose means are taken, 1 by default. Rows and columns that do
        not fill a square are left out.
    """

    filters: Filters
    head: Float[Array, "outputs features"]
    epsilon: Float[Array, ""]
    shape: tuple[int, int, int] = eqx.field(static=True, converter=image_shape)
    stride: int = eqx.field(static=True, default=1, converter=_at_least("stride", 1))
    padding: int = eqx.field(static=True, default=0, converter=_at_least("padding", 0))
    pool: int = eqx.field(static=True, default=1, converter=_at_least("pool", 1))

    def __check_init__(self):
        _check_filters(self.filters, self.shape[0])
        shapes = [w.shape for w in self.filters]
        channels, height, width = shape_of_features(
            "filters", self.shape, shapes, self.stride, self.padding, self.pool
        )
        features = channels * height * width
        found = getattr(self.head, "shape", ())
        if len(found) != 2 or found[0] < 1 or found[1] != features:
            raise ValueError(
                f"`head` must be a matrix (outputs, {features}), got {_validate.shown(self.head)}."
            )
        dtypes = [w.dtype for w in (*self.filters, self.head)]
        if len(set(dtypes)) > 1 or not jnp.issubdtype(dtypes[0], jnp.floating):
            raise ValueError(
                "`filters` and `head` must be of one floating dtype, got "
                f"{', '.join(map(str, dtypes))}."
            )
        _validate.finite("filters", self.filters)
        _validate.finite("head", [self.head])
        if getattr(self.epsilon, "shape", None) != ():
            raise ValueError(
                f"`epsilon` must be a scalar array, got {_validate.shown(self.epsilon)}."
            )
        if not _validate.is_traced(self.epsilon):
            _validate.real("epsilon", self.epsilon, 0, 1)

    @property
    def depth(self) -> int:
        """L, the number of layers with weights."""
        return len(self.filters) + 1

    def __call__(self, x: Shaped[AnyArray, "channels height width"]) -> Float[Array, " outputs"]:
        """The outputs $f(x)$.

        **Arguments:**

        - `x`: one image, of shape `shape`.

        **Returns:**

        The outputs, `(K,)`, in the dtype of the weights.

        **Raises:**

        `ValueError` if the shape does not fit or an entry is not finite.
        """
        return _outputs(self, _image(self, x), leaky_relu)

    def linear_map(self) -> Float[Array, "outputs features"]:
        """The linear reference as a matrix,
        $l = (1 - \\epsilon/2)^{L-1} W_L \\cdots W_1$ with the convolutions and poolings as
        matrices: `LinearConv(net)(x)` is $l$ times the image, flattened.

        **Returns:**

        The matrix, `(K, channels * height * width)`, in the dtype of the weights.
        """
        x = jnp.zeros(self.shape, self.head.dtype)
        rows = jax.jacrev(lambda x: _outputs(self, x, _linear_part))(x)
        return rows.reshape(len(self.head), -1)


class LinearConv(eqx.Module):
    """The linear reference of a [`LeakyConv`][]: $(1 - \\epsilon/2) z$ in the place of every
    $\\phi(z)$. Its gradient flow stays near that of the network as long as $\\epsilon$ is small.

    **Attributes:**

    - `network`: the network, whose `filters` and `head` are trained.
    """

    network: LeakyConv

    def __check_init__(self):
        _validate.instance("network", self.network, LeakyConv)

    def __call__(self, x: Shaped[AnyArray, "channels height width"]) -> Float[Array, " outputs"]:
        """The outputs.

        **Arguments:**

        - `x`: one image, of the shape that the network takes.

        **Returns:**

        The outputs, `(K,)`, in the dtype of the weights.

        **Raises:**

        `ValueError` if the shape does not fit or an entry is not finite.
        """
        return _outputs(self.network, _image(self.network, x), _linear_part)


def _linear_part(z: Float[Array, "..."], epsilon: Float[Array, ""]) -> Float[Array, "..."]:
    return (1 - epsilon / 2) * z


def _outputs(
    net: LeakyConv, x: Float[Array, "channels height width"], activation: Callable[..., Any]
) -> Float[Array, " outputs"]:
    epsilon = net.epsilon.astype(x.dtype)
    for w in net.filters:
        z = _convolve(w, x, net.stride, net.padding)
        x = _pooled(activation(z, epsilon), net.pool)
    return net.head @ x.reshape(-1)


def _convolve(w, x, stride, padding):
    """The convolution as a product with patches: on a CPU, inside a loop as the flow is one, XLA's
    own is slower by a factor of ten and more."""
    out, _, rows, columns = w.shape
    x = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding)))
    height, width = (x.shape[1] - rows) // stride + 1, (x.shape[2] - columns) // stride + 1
    down, across = stride * (height - 1) + 1, stride * (width - 1) + 1
    patches = [
        x[:, i : i + down : stride, j : j + across : stride]
        for i in range(rows)
        for j in range(columns)
    ]
    flat = jnp.stack(patches, axis=1).reshape(-1, height * width)
    return (w.reshape(out, -1) @ flat).reshape(out, height, width)


def _pooled(x, pool):
    channels, height, width = x.shape[0], x.shape[1] // pool, x.shape[2] // pool
    x = x[:, : height * pool, : width * pool]
    return jnp.mean(x.reshape(channels, height, pool, width, pool), axis=(2, 4))


def _image(net: LeakyConv, x: Any) -> Float[Array, "channels height width"]:
    """`x` in the dtype of the weights, if it is one image."""
    if not _validate.is_traced(x):  # a check at run time would be paid at every call
        x = _validate.real("x", x)
    if x.shape != net.shape:
        raise ValueError(f"`x` must be one image of shape {net.shape}, got shape {x.shape}.")
    return x.astype(net.head.dtype)


def _check_filters(filters: Any, channels: int) -> None:
    """Raise unless the filters are arrays that fit together."""
    if not isinstance(filters, tuple):
        raise ValueError(f"`filters` must be a tuple of arrays, got {_validate.shown(filters)}.")
    shapes: list[tuple[int, ...]] = [tuple(getattr(w, "shape", ())) for w in filters]
    fit = bool(shapes) and all(len(s) == 4 and 0 not in s for s in shapes)
    inputs = [channels, *(s[0] for s in shapes[:-1])] if fit else []
    if not fit or inputs != [s[1] for s in shapes]:
        raise ValueError(
            "`filters` must be at least one array (out, in, rows, columns), the first for "
            f"{channels} channels and each for the outputs of the one before, got shapes {shapes}."
        )


def shape_of_features(
    name: str,
    shape: tuple[int, int, int],
    filters: list[tuple[int, ...]],
    stride: Any,
    padding: Any,
    pool: Any,
) -> tuple[int, int, int]:
    """The shape of what the head takes; `ValueError` if there is nothing left of an image.

    **Arguments:**

    - `name`: what the argument that says the sizes of the filters is called.
    - `shape`: of an image.
    - `filters`: the shapes `(out in rows columns)`.
    - `stride`, `padding`, `pool`: as of [`LeakyConv`][], unchecked.
    """
    stride = _validate.integer("stride", stride, 1)
    # More zeros than that would make patches of nothing else.
    padding = _validate.integer("padding", padding, 0, max(max(s[2:]) for s in filters) - 1)
    pool = _validate.integer("pool", pool, 1)
    channels, height, width = shape
    for out, _, rows, columns in filters:
        if rows > height + 2 * padding or columns > width + 2 * padding:
            raise ValueError(
                f"`{name}` must fit into their inputs, of {height} x {width} pixels and "
                f"{padding} more at each side, got {rows} x {columns}."
            )
        height = (height + 2 * padding - rows) // stride + 1
        width = (width + 2 * padding - columns) // stride + 1
        if pool > min(height, width):
            raise ValueError(
                f"`pool` must be at most the {height} x {width} pixels of every convolution, "
                f"got {pool}."
            )
        channels, height, width = out, height // pool, width // pool
    return channels, height, width
