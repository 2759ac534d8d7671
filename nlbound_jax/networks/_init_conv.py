"""Initialization of convolutional networks."""

import math
from collections.abc import Sequence
from typing import Any

import jax
from jaxtyping import PRNGKeyArray

from .. import _validate
from .._types import Numeric
from ._conv import LeakyConv, image_shape, shape_of_features
from ._init import drawn, floating, layer_norm, scaled


def initialize_conv(
    key: PRNGKeyArray,
    shape: Sequence[int],
    channels: Sequence[int],
    out_size: int,
    *,
    epsilon: Numeric,
    beta: Numeric,
    size: int = 3,
    stride: int = 1,
    padding: int = 0,
    pool: int = 1,
    dtype: Any = None,
) -> LeakyConv:
    """A convolutional network, initialized as [`initialize`][] does it: PyTorch's default for
    convolutions and linear layers, $U(-1/\\sqrt{n_{in}}, 1/\\sqrt{n_{in}})$ with $n_{in}$ the
    entries of a filter, then each layer rescaled to the spectral norm $\\beta$.

    **Arguments:**

    - `key`: a JAX random key.
    - `shape`: of an image, `(channels, height, width)`, as `task.shape`.
    - `channels`: the numbers of filters of the convolutions, one or more.
    - `out_size`: K, the number of outputs.
    - `epsilon`: one minus the negative slope, in [0, 1].
    - `beta`: spectral norm of every layer as a matrix, positive: of a convolution of its filters as
        a matrix `(out, in * size * size)`. As a map of images its norm is at most
        $\\lceil$size / stride$\\rceil$ times that, as each pixel is in no more than the square of
        this of its patches.

    **Other arguments:**

    - `size`: the side of the filters, in pixels.
    - `stride`: of every convolution.
    - `padding`: rows and columns of zeros around the input of every convolution, fewer than `size`.
    - `pool`: the side of the squares whose means are taken after each activation.
    - `dtype`: of the weights and epsilon; JAX's default floating dtype if `None`.

    **Returns:**

    A [`LeakyConv`][].

    **Raises:**

    `ValueError` naming the argument.
    """
    images = image_shape(shape)
    if not isinstance(channels, tuple | list) or not channels:
        raise ValueError(
            "`channels` must be the numbers of filters, one or more, got "
            f"{_validate.shown(channels)}."
        )
    counts = [images[0], *(_validate.integer("channels", c, 1) for c in channels)]
    out_size = _validate.integer("out_size", out_size, 1)
    size = _validate.integer("size", size, 1)
    filters = [(b, a, size, size) for a, b in zip(counts[:-1], counts[1:], strict=True)]
    features = shape_of_features("size", images, filters, stride, padding, pool)
    dtype = _validate.float_dtype() if dtype is None else floating(dtype)
    _validate.key("key", key)
    epsilon = _validate.number("epsilon", epsilon, 0, 1).astype(dtype)
    beta = layer_norm(beta, dtype)
    shapes = [*filters, (out_size, math.prod(features))]
    weights = [
        scaled(drawn(subkey, s[0], math.prod(s[1:]), dtype), beta, dtype).reshape(s)
        for subkey, s in zip(jax.random.split(key, len(shapes)), shapes, strict=True)
    ]
    options = int(stride), int(padding), int(pool)
    return LeakyConv(tuple(weights[:-1]), weights[-1], epsilon, images, *options)
