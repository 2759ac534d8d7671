"""The ramp risk of several outputs, smoothed by Gaussian noise in the linear part."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Shaped

from .. import _validate
from .._types import AnyArray, Numeric

# The trapezoid rule over the noise of the strongest rival: 18 standard deviations.
_REACH = 9.0
# Below this share of the margin noise is taken to be of this size, so that nothing divides by 0.
_LEAST = 1e-12


def _hinge(z: Array) -> Array:
    """$E(z + n)_+$ for a standard Gaussian n."""
    tail = jnp.exp(-jnp.square(z) / 2) / np.sqrt(2 * np.pi)
    return z * jax.scipy.special.ndtr(z) + tail


def _steps(classes: int) -> int:
    """Of the rule: the strongest of many rivals has less to vary by, and a finer one is needed."""
    return 48 if classes <= 3 else 96 if classes <= 30 else 144 if classes <= 300 else 288


def rivals(
    outputs: Float[Array, "m K"], labels: Int[Array, " m"]
) -> tuple[Float[Array, "m K"], Shaped[Array, "m K"]]:
    """$f_y - f_j$ for every class j, and where j is not y."""
    rival = jnp.arange(outputs.shape[1], dtype=labels.dtype)[None] != labels[:, None]
    own = jnp.take_along_axis(outputs, labels[:, None], axis=1)
    return own - outputs, rival


def smooth_classes(
    outputs: Float[Array, "m K"],
    labels: Int[Array, " m"],
    spread: Float[Array, " m"],
    gamma: Float[Array, ""],
) -> Float[Array, " m"]:
    """[`class_smoothed_ramp`][] of numbers that were checked, in float64.

    With $S = \\max_{j \\ne y} (g_j - (f_y - f_j)/b)$ and $c = \\gamma/b$ the mean over $g_y$ is
    $\\frac1c (H(S + c) - H(S))$, $H(z) = E(z + n)_+$, and S has the density
    $\\prod_j \\Phi(z_j) \\sum_j \\varphi(z_j)/\\Phi(z_j)$, $z_j = s + (f_y - f_j)/b$: nothing of it
    is left 9 to either side of $-\\min_j (f_y - f_j)/b$, where the rule of trapezoids converges
    faster than any power.
    """
    noise = jnp.maximum(spread, _LEAST * gamma)
    ahead, rival = rivals(outputs, labels)
    ahead = jnp.where(rival, ahead / noise[:, None], jnp.inf)
    centre = jnp.min(ahead, axis=1)
    # Far from the centre a rival has no part in it, and an infinity would make NaN of 0 times it.
    apart = jnp.minimum(ahead - centre[:, None], 40.0)
    ratio = gamma / noise
    steps = _steps(outputs.shape[1])
    nodes = jnp.asarray(np.linspace(-_REACH, _REACH, steps + 1))

    def at(total, node):
        z = apart + node
        chance = jnp.where(rival, jax.scipy.special.ndtr(z), 1.0)
        density = jnp.where(rival, jnp.exp(-jnp.square(z) / 2) / np.sqrt(2 * np.pi), 0.0)
        density = jnp.prod(chance, axis=1) * jnp.sum(density / chance, axis=1)
        place = node - centre
        return total + density * (_hinge(place + ratio) - _hinge(place)), None

    total, _ = jax.lax.scan(at, jnp.zeros_like(noise), nodes)
    return jnp.clip(total * (2 * _REACH / steps / ratio), 0.0, 1.0)


def class_smoothed_ramp(
    outputs: Float[AnyArray, "m K"],
    labels: Shaped[AnyArray, " m"],
    spread: Numeric,
    gamma: Numeric,
) -> Float[Array, " m"]:
    """$E\\, \\text{ramp}_\\gamma\\big(\\min_{j \\ne y} (f_y - f_j + b (g_y - g_j))\\big)$ for
    independent standard Gaussians g, where $\\text{ramp}_\\gamma$ is 1 up to 0, 0 from $\\gamma$ on
    and linear between: the ramp loss of a network with Gaussian noise in its linear part.

    **Arguments:**

    - `outputs`: $f(x_i)$, `(m K)`, K at least 2.
    - `labels`: y, integers from 0 to K - 1, `(m,)`.
    - `spread`: b, a number or `(m,)`, at least 0.
    - `gamma`: the margin $\\gamma$.

    **Returns:**

    `(m,)`, within 1e-12 (tested up to 10,000 classes).

    **Raises:**

    `ValueError` naming the argument, or if `jax_enable_x64` is not set.
    """
    _validate.needs_x64("class_smoothed_ramp")
    outputs, labels = class_outputs(outputs, labels)
    gamma = _validate.number("gamma", gamma, 0, open_low=True)
    spread = _validate.real("spread", spread, 0)
    if spread.shape not in ((), labels.shape):
        raise ValueError(
            f"`spread` must be a number or have shape {labels.shape}, got {spread.shape}."
        )
    return smooth_classes(outputs, labels, jnp.broadcast_to(spread, labels.shape), gamma)


def class_outputs(outputs, labels) -> tuple[Float[Array, "m K"], Int[Array, " m"]]:
    """Outputs in float64 and labels as integers, if they are some of one sample."""
    outputs = _validate.real("outputs", outputs)
    if outputs.ndim != 2 or not outputs.shape[0] or outputs.shape[1] < 2:
        raise ValueError(f"`outputs` must have shape (m, K), K >= 2, got {outputs.shape}.")
    count, classes = outputs.shape
    allowed = f"{count} integers in [0, {classes - 1}]"
    if _validate.is_traced(labels):
        return outputs, jnp.asarray(labels, jnp.int32)
    raw = _validate.numeric("labels", labels, allowed).astype(float)
    if raw.shape != (count,):
        raise ValueError(f"`labels` must be {allowed}, got shape {raw.shape}.")
    wrong = raw[~np.isin(raw, np.arange(classes))]
    if wrong.size:
        raise ValueError(f"`labels` must be {allowed}, got {wrong[0]:g}.")
    return outputs, jnp.asarray(raw.astype(np.int32))
