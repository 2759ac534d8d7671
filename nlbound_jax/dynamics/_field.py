"""The right-hand side of gradient flow on whitened data."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._types import Weights
from ..networks import LeakyMLP
from ..tasks import Task

# XLA's product with a contraction over all 60,000 samples runs at half the rate of one over
# blocks of this size, which fit the cache (two cores, float32 and float64).
BLOCK = 1000


class Blocks(eqx.Module):
    """Training data in blocks of samples, features first: `x (k d block)`, `y (k block)`.

    The last block is filled up with zero inputs of label 0, whose residual and gradient vanish
    since the networks have no biases.
    """

    x: Float[Array, "k d block"]
    y: Float[Array, "k block"]
    num_samples: int = eqx.field(static=True)


def make_blocks(task: Task, dtype) -> Blocks:
    """The training set of `task` in blocks, on the device."""
    m, d = task.x.shape
    block = min(BLOCK, m)
    count = -(-m // block)
    x = np.zeros((count * block, d), dtype)
    y = np.zeros(count * block, dtype)
    x[:m], y[:m] = task.x, task.y
    x = x.reshape(count, block, d).transpose(0, 2, 1)
    return Blocks(jnp.asarray(x), jnp.asarray(y.reshape(count, block)), m)


def _block_loss(weights: Weights, epsilon: Float[Array, ""], x, y) -> Float[Array, ""]:
    # Features first, (width samples): the transpose of what the public `LeakyMLP` takes.
    out = LeakyMLP(weights, epsilon).features_first(x)
    return 0.5 * jnp.sum((y - out) ** 2)


def negative_gradient(weights: Weights, epsilon: Float[Array, ""], blocks: Blocks) -> Weights:
    """$-\\nabla_{W_l} \\frac{1}{2m} \\|Y - f(\\tilde X)\\|^2$ for every l (Eq. 4)."""

    def add(total, block):
        gradient = jax.grad(_block_loss)(weights, epsilon, *block)
        return jax.tree.map(jnp.subtract, total, gradient), None

    zero = jax.tree.map(jnp.zeros_like, weights)
    total, _ = jax.lax.scan(add, zero, (blocks.x, blocks.y))
    return jax.tree.map(lambda g: g / blocks.num_samples, total)
