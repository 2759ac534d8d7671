"""The right-hand side of gradient flow on whitened data."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.typing import DTypeLike
from jaxtyping import Array, Float, PyTree

from .. import _validate
from .._types import Weights
from ..tasks import Task

# On CPUs a block and its activations fit the cache of one core: XLA's product with a contraction
# over all 60,000 samples runs at half the rate. Measured on two cores of two machines, from 125 to
# 30,000 samples, float32 and float64, d = 49, 196 and 784.
BLOCK = 500
# Few large products keep an accelerator busy: on an H200 all 60,000 samples at once take a tenth of
# the time of blocks of 1000 at d = 49, a quarter at 784.
ACCELERATOR_BLOCK = 2**16
AXIS = "samples"


class Blocks(eqx.Module):
    """Training data in blocks of samples, features first, out of [`make_blocks`][].

    The blocks are filled up with zero inputs of label 0, whose residual and gradient vanish since
    the networks have no biases.

    **Attributes:**

    - `x`: inputs, `(k d block)`; `y`: labels, `(k block)`.
    - `num_samples`: m, without what the blocks are filled up with.
    - `mesh`: the devices over which `x` and `y` are sharded, or `None`.
    """

    x: Float[Array, "k d block"]
    y: Float[Array, "k block"]
    num_samples: int = eqx.field(static=True)
    mesh: Mesh | None = eqx.field(static=True, default=None)


def make_blocks(
    task: Task, dtype: DTypeLike, mesh: Mesh | None = None, *, largest: int | None = None
) -> Blocks:
    """The training set of a task in blocks of about one size.

    **Main arguments:**

    - `task`: the data.
    - `dtype`: of the arrays: that of the weights.
    - `mesh`: the devices to share the blocks out over, out of [`samples_mesh`][]; by default they
        are on one device.

    **Other arguments:**

    - `largest`: the largest number of samples of a block; by default 500 on CPUs and $2^{16}$ on
        accelerators.

    **Returns:**

    The data as [`Blocks`][].

    **Raises:**

    `ValueError` if `largest` is no positive integer.
    """
    m, d = task.x.shape
    platform = jax.default_backend() if mesh is None else mesh.devices.flat[0].platform
    shards = 1 if mesh is None else mesh.size
    share = -(-m // shards)
    if largest is None:
        largest = BLOCK if platform == "cpu" else ACCELERATOR_BLOCK
    per_shard = -(-share // _validate.integer("largest", largest, 1))
    block = -(-share // per_shard)
    x = np.zeros((shards * per_shard, d, block), dtype)
    y = np.zeros((shards * per_shard, block), dtype)
    for i, start in enumerate(range(0, m, block)):
        part = slice(start, start + block)
        samples = task.x[part]
        x[i, :, : len(samples)], y[i, : len(samples)] = samples.T, task.y[part]
    if mesh is None:
        return Blocks(jnp.asarray(x), jnp.asarray(y), m)
    x, y = jax.device_put((x, y), NamedSharding(mesh, PartitionSpec(AXIS)))
    return Blocks(x, y, m, mesh)


def sum_over_blocks(
    function: Callable[..., PyTree[Array]], blocks: Blocks, *args: Any
) -> PyTree[Array]:
    """The sum of `function(*args, x, y)` over the blocks."""

    def of_shard(args, x, y):
        def add(total, block):
            return jax.tree.map(jnp.add, total, function(*args, *block)), None

        shapes = jax.eval_shape(lambda: function(*args, x[0], y[0]))
        zero = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
        total, _ = jax.lax.scan(add, zero, (x, y))
        return total if blocks.mesh is None else jax.lax.psum(total, AXIS)

    if blocks.mesh is None:
        return of_shard(args, blocks.x, blocks.y)
    spec, everywhere = PartitionSpec(AXIS), PartitionSpec()
    sharded = jax.shard_map(
        of_shard,
        mesh=blocks.mesh,
        in_specs=(everywhere, spec, spec),
        out_specs=everywhere,
        check_vma=False,
    )
    return sharded(args, blocks.x, blocks.y)


def _block_sums(weights: Weights, epsilon: Float[Array, ""], x, y) -> tuple[Array, ...]:
    """$A_l = \\sum_i h_{l-1} \\delta_l^\\top$ `(in out)` over a block for l < L: the layers' inputs
    and what backpropagation brings to their pre-activations, for the last but one without the
    factor $W_L$. (Transposed: 45 GFLOP/s a core rather than 30 in XLA's product at d = 49.)"""
    *hidden, last = weights
    inputs, slopes = [x], []
    for w in hidden:
        z = w @ inputs[-1]
        slopes.append(jnp.where(z < 0, 1 - epsilon, jnp.ones_like(epsilon)))
        inputs.append(z * slopes[-1])
    residual = y[None] - last @ inputs.pop()
    back = slopes[-1] * residual
    sums = [inputs[-1] @ back.T]
    up = last.T * hidden[-1]
    for w, h, slope in zip(hidden[-2::-1], inputs[-2::-1], slopes[-2::-1], strict=True):
        back = slope * (up.T @ back)
        sums.append(h @ back.T)
        up = w
    return tuple(sums[::-1])


def negative_gradient(weights: Weights, epsilon: Float[Array, ""], blocks: Blocks) -> Weights:
    """The right-hand side of gradient flow, $-\\nabla_{W_l} \\frac{1}{2m} \\|Y - f(\\tilde X)\\|^2$
    for every l (Eq. 4).

    By hand, since phi is homogeneous: $h_{L-1} = \\phi'(z_{L-1}) \\odot W_{L-1} h_{L-2}$, so that
    the gradient by $W_L$ is the row sums of $W_{L-1} \\odot A_{L-1}^\\top$, and no second pass over
    the activations is needed. Where phi has its kink, phi' is 1 as in `leaky_relu`.

    **Arguments:**

    - `weights`: $W_1, \\dots, W_L$, `(out in)` each.
    - `epsilon`: one minus the negative slope, in the dtype of the weights.
    - `blocks`: the data, out of [`make_blocks`][].

    **Returns:**

    A tuple of arrays of the shapes of `weights`.
    """
    with jax.default_matmul_precision(jax.config.jax_default_matmul_precision or "highest"):  # pyright: ignore
        sums = sum_over_blocks(_block_sums, blocks, weights, epsilon)
    *rest, before_last = [a.T / blocks.num_samples for a in sums]
    last = jnp.sum(weights[-2] * before_last, axis=1)[None]
    return (*rest, weights[-1].T * before_last, last)
