"""The right-hand side of gradient flow: of a `LeakyMLP` by hand, of any module by JAX."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, PyTree

from .. import _validate
from .._types import Parameters, Weights
from ..tasks import Task
from ._model import Model

# On CPUs a block and its activations fit the cache of one core: XLA's product with a contraction
# over all 60,000 samples runs at half the rate. Measured on two cores of two machines, from 125 to
# 30,000 samples, float32 and float64, d = 49, 196 and 784.
BLOCK = 500
# Few large products keep an accelerator busy: on an H200 all 60,000 samples at once take a tenth of
# the time of blocks of 1000 at d = 49, a quarter at 784.
ACCELERATOR_BLOCK = 2**16
# Of any module, whose activations may be larger than its inputs.
MODULE_ACCELERATOR_BLOCK = 2**12
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

    @property
    def arrays(self) -> tuple[Array, ...]:
        """What a function of one block takes, each `(k ...)`."""
        return self.x, self.y


class SampleBlocks(eqx.Module):
    """Training data in blocks of samples, each as the task has it, for any module. The blocks are
    filled up with copies of the first sample, which do not count: of a module with biases the
    gradient would not vanish at any input, and at zero it need not be finite.

    **Attributes:**

    - `x`: inputs, `(k block ...)`; `y`: targets, `(k block ...)`.
    - `counts`: which samples count, `(k block)`.
    - `num_samples`: m, without what the blocks are filled up with.
    - `mesh`: the devices over which the arrays are sharded, or `None`.
    """

    x: Float[Array, "k block ..."]
    y: Float[Array, "k block ..."]
    counts: Bool[Array, "k block"]
    num_samples: int = eqx.field(static=True)
    mesh: Mesh | None = eqx.field(static=True, default=None)

    @property
    def arrays(self) -> tuple[Array, ...]:
        """What a function of one block takes, each `(k ...)`."""
        return self.x, self.y, self.counts


def _layout(
    m: int, mesh: Mesh | None, largest: int | None, on_accelerators: int
) -> tuple[int, int]:
    """How many blocks there are and how many samples each has, shared out evenly over devices."""
    platform = jax.default_backend() if mesh is None else mesh.devices.flat[0].platform
    shards = 1 if mesh is None else mesh.size
    share = -(-m // shards)
    if largest is None:
        largest = BLOCK if platform == "cpu" else on_accelerators
    per_shard = -(-share // _validate.integer("largest", largest, 1))
    return shards * per_shard, -(-share // per_shard)


def _placed(arrays: tuple[np.ndarray, ...], mesh: Mesh | None) -> Any:
    if mesh is None:
        return tuple(map(jnp.asarray, arrays))
    return jax.device_put(arrays, NamedSharding(mesh, PartitionSpec(AXIS)))


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
    count, block = _layout(m, mesh, largest, ACCELERATOR_BLOCK)
    x, y = np.zeros((count, d, block), dtype), np.zeros((count, block), dtype)
    for i, start in enumerate(range(0, m, block)):
        part = slice(start, start + block)
        samples = task.x[part]
        x[i, :, : len(samples)], y[i, : len(samples)] = samples.T, task.y[part]
    placed = _placed((x, y), mesh)
    return Blocks(placed[0], placed[1], m, mesh)


def make_sample_blocks(
    x: Float[np.ndarray, "m ..."],
    y: Float[np.ndarray, "m ..."],
    dtype: DTypeLike,
    mesh: Mesh | None = None,
    *,
    largest: int | None = None,
) -> SampleBlocks:
    """Samples in blocks of about one size, for any module.

    **Main arguments:**

    - `x`, `y`: inputs and targets.
    - `dtype`: of the arrays: that of the parameters.
    - `mesh`: as for [`make_blocks`][].

    **Other arguments:**

    - `largest`: the largest number of samples of a block; by default 500 on CPUs and $2^{12}$ on
        accelerators.

    **Returns:**

    The data as [`SampleBlocks`][].

    **Raises:**

    `ValueError` if `largest` is no positive integer.
    """
    m = len(x)
    count, block = _layout(m, mesh, largest, MODULE_ACCELERATOR_BLOCK)

    def filled(values):
        out = np.empty((count * block, *values.shape[1:]), dtype)
        out[:m], out[m:] = values, values[0]
        return out.reshape(count, block, *values.shape[1:])

    counts = (np.arange(count * block) < m).reshape(count, block)
    placed = _placed((filled(x), filled(y), counts), mesh)
    return SampleBlocks(placed[0], placed[1], placed[2], m, mesh)


def sum_over_blocks(
    function: Callable[..., PyTree[Array]], blocks: Blocks | SampleBlocks, *args: Any
) -> PyTree[Array]:
    """The sum of `function(*args, *arrays)` over the blocks, `arrays` being those of one."""
    dynamic, static = eqx.partition(args, eqx.is_array)

    def of_shard(dynamic, *arrays):
        args = eqx.combine(dynamic, static)

        def add(total, block):
            return jax.tree.map(jnp.add, total, function(*args, *block)), None

        shapes = jax.eval_shape(lambda: function(*args, *(a[0] for a in arrays)))
        zero = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
        total, _ = jax.lax.scan(add, zero, arrays)
        return total if blocks.mesh is None else jax.lax.psum(total, AXIS)

    if blocks.mesh is None:
        return of_shard(dynamic, *blocks.arrays)
    spec, everywhere = PartitionSpec(AXIS), PartitionSpec()
    sharded = jax.shard_map(
        of_shard,
        mesh=blocks.mesh,
        in_specs=(everywhere, *(spec for _ in blocks.arrays)),
        out_specs=everywhere,
        check_vma=False,
    )
    return sharded(dynamic, *blocks.arrays)


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


def negative_gradient(
    weights: Parameters, model: Float[Array, ""] | Model, blocks: Blocks | SampleBlocks
) -> Parameters:
    """The right-hand side of gradient flow: of a `LeakyMLP`
    $-\\nabla_{W_l} \\frac{1}{2m} \\|Y - f(\\tilde X)\\|^2$ for every l (Eq. 4), of any module minus
    the gradient of the mean loss, by JAX.

    The former by hand, since phi is homogeneous:
    $h_{L-1} = \\phi'(z_{L-1}) \\odot W_{L-1} h_{L-2}$, so that the gradient by $W_L$ is the row
    sums of $W_{L-1} \\odot A_{L-1}^\\top$, and no second pass over the activations is needed. Where
    phi has its kink, phi' is 1 as in `leaky_relu`.

    **Arguments:**

    - `weights`: $W_1, \\dots, W_L$, `(out in)` each, or the parameters of a module.
    - `model`: of a `LeakyMLP` epsilon, one minus the negative slope, in the dtype of the weights;
        of any module a [`Model`][].
    - `blocks`: the data, out of [`make_blocks`][], or [`make_sample_blocks`][] for a `Model`.

    **Returns:**

    A tree like `weights`.
    """
    with jax.default_matmul_precision(jax.config.jax_default_matmul_precision or "highest"):  # pyright: ignore
        if isinstance(model, Model):
            # A block at a time also where it is differentiated.
            block_gradient = eqx.filter_checkpoint(Model.gradient)
            sums = sum_over_blocks(block_gradient, blocks, model, weights)
            return jax.tree.map(lambda a: -a / blocks.num_samples, sums)
        sums = sum_over_blocks(_block_sums, blocks, weights, model)
    *rest, before_last = [a.T / blocks.num_samples for a in sums]
    last = jnp.sum(weights[-2] * before_last, axis=1)[None]
    return (*rest, weights[-1].T * before_last, last)
