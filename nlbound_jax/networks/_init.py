"""Initialization."""

import warnings
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from .. import _validate
from .._types import InitKind, Numeric
from ._mlp import LeakyMLP


def _rank_one(w: Float[Array, "out in"]) -> Float[Array, "out in"]:
    u, s, vt = jnp.linalg.svd(w, full_matrices=False)
    return s[0] * jnp.outer(u[:, 0], vt[0])


def floating(dtype: Any) -> Any:
    """`dtype` as JAX's, if it is one of the floating ones."""
    try:
        with warnings.catch_warnings():  # NumPy warns of some of the names it still takes
            warnings.simplefilter("ignore")
            found = jnp.dtype(dtype)
        if jnp.issubdtype(found, jnp.floating):
            return jax.dtypes.canonicalize_dtype(found)
    except (TypeError, ValueError):
        pass
    raise ValueError(f"`dtype` must be a floating dtype, got {_validate.shown(dtype)}.")


def layer_norm(beta: Numeric, dtype: Any) -> Float[Array, ""]:
    """`beta` in the dtype of the weights, if that can hold it."""
    number = _validate.number("beta", beta, 0, open_low=True)
    limits = jnp.finfo(dtype)
    low, high = float(limits.tiny), float(limits.max)
    if not _validate.is_traced(number) and not low <= float(number) <= high:
        raise ValueError(
            f"`beta` must be in [{low:.3g}, {high:.3g}] for weights of {dtype}, "
            f"got {float(number):g}."
        )
    return number.astype(dtype)


def drawn(
    key: PRNGKeyArray, out_size: int, fan_in: int, dtype: Any
) -> Float[Array, "out_size fan_in"]:
    """PyTorch's default of a layer, in `dtype` or, if LAPACK does not know that, in float32: drawn
    in float32 whatever the dtype, so that a key means one network."""
    wide = dtype if dtype.itemsize >= 4 else jnp.dtype("float32")
    bound = fan_in**-0.5
    return jax.random.uniform(key, (out_size, fan_in), "float32", -bound, bound).astype(wide)


def scaled(w: Float[Array, "out in"], beta: Float[Array, ""], dtype: Any) -> Float[Array, "out in"]:
    """`w` at the spectral norm `beta`, in `dtype`."""
    return (w * (beta.astype(w.dtype) / jnp.linalg.norm(w, ord=2))).astype(dtype)


def initialize(
    key: PRNGKeyArray,
    in_size: int,
    width: int,
    depth: int,
    *,
    epsilon: Numeric,
    beta: Numeric,
    kind: InitKind = "default",
    out_size: int = 1,
    dtype: Any = None,
) -> LeakyMLP:
    """A network as the paper initializes it (Section 6).

    PyTorch's `Linear` default, $W_{ij} \\sim U(-1/\\sqrt{n_{in}}, 1/\\sqrt{n_{in}})$, then each
    layer rescaled to the spectral norm $\\beta$.

    **Arguments:**

    - `key`: a JAX random key.
    - `in_size`: d, the number of whitened coordinates.
    - `width`: the number of units of each hidden layer.
    - `depth`: L >= 2, the number of weight matrices.
    - `epsilon`: one minus the negative slope, in [0, 1].
    - `beta`: spectral norm of every layer, positive.

    **Other arguments:**

    - `kind`: `"default"`, or `"rank-one"`: the input layer is replaced by its rank-one part, so
        that $\\rho = \\|W_1\\|_F/\\|W_1\\| = 1$.
    - `out_size`: K, the number of outputs.
    - `dtype`: of the weights and epsilon; JAX's default floating dtype if `None`.

    **Returns:**

    A [`LeakyMLP`][].

    **Raises:**

    `ValueError` naming the argument.
    """
    in_size = _validate.integer("in_size", in_size, 1)
    width = _validate.integer("width", width, 1)
    depth = _validate.integer("depth", depth, 2)
    kind = _validate.member("kind", kind, ("default", "rank-one"))
    out_size = _validate.integer("out_size", out_size, 1)
    dtype = _validate.float_dtype() if dtype is None else floating(dtype)
    _validate.key("key", key)
    epsilon = _validate.number("epsilon", epsilon, 0, 1).astype(dtype)
    beta = layer_norm(beta, dtype)
    sizes = [in_size] + [width] * (depth - 1) + [out_size]
    weights = []
    for subkey, fan_in, fan_out in zip(
        jax.random.split(key, depth), sizes[:-1], sizes[1:], strict=True
    ):
        w = drawn(subkey, fan_out, fan_in, dtype)
        if kind == "rank-one" and not weights:
            w = _rank_one(w)
        weights.append(scaled(w, beta, dtype))
    return LeakyMLP(tuple(weights), epsilon)
