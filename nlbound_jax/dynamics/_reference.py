"""The reference network: linear, trained the same way, integrated without a pass over the data."""

from typing import Any

import diffrax
import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from .. import _validate
from .._results import RESULTS
from .._types import AnyArray, Weights
from ..networks import LeakyMLP
from ._flow import default_controller


class ReferenceTrajectory(eqx.Module):
    """The reference network V along its flow.

    **Attributes:**

    - `ts`: the times, `(times,)`.
    - `linear_map`: $\\omega V_L \\cdots V_1$, `(times d)`.
    - `result`: how the solve ended; entries that were not reached are `inf`.
    """

    ts: Float[Array, " times"]
    linear_map: Float[Array, "times d"]
    result: RESULTS

    @property
    def scale(self) -> Float[Array, " times"]:
        """$\\|\\omega V_L \\cdots V_1\\|$, the size of the reference network's outputs."""
        return jnp.linalg.norm(self.linear_map, axis=-1)


def _end_to_end(weights: Weights) -> Float[Array, " d"]:
    row = weights[-1]
    for w in weights[-2::-1]:
        row = row @ w
    return row[0]


@eqx.filter_jit
def _solve(weights: Weights, omega, target, ts) -> tuple[Any, RESULTS]:
    def field(t, weights, args):
        # Products from the left, V_L ... V_{l+1}, and from the right, V_{l-1} ... V_1 res.
        left = [jnp.ones((1, 1), target.dtype)]
        for w in weights[:0:-1]:
            left.append(left[-1] @ w)
        residual = target - omega * (left[-1] @ weights[0])[0]
        right = [residual]
        for w in weights[:-1]:
            right.append(w @ right[-1])
        pairs = zip(left[::-1], right, strict=True)
        return tuple(omega * jnp.outer(a[0], b) for a, b in pairs)

    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(field),
        diffrax.Tsit5(),
        t0=0.0,
        t1=ts[-1],
        dt0=None,
        y0=weights,
        saveat=diffrax.SaveAt(ts=ts, fn=lambda t, y, args: omega * _end_to_end(y)),
        stepsize_controller=default_controller(weights, rtol=1e-9),
        max_steps=100_000,
        throw=False,
    )
    return solution.ys, RESULTS.promote(solution.result)


def reference_flow(
    net: LeakyMLP, target: Float[AnyArray, " d"], ts: Float[AnyArray, " times"]
) -> ReferenceTrajectory:
    """The flow of the reference network: linear, slope $\\sigma = 1 - \\epsilon/2$, same start.

    $\\dot V_l = \\omega (V_L \\cdots V_{l+1})^\\top r\\, (V_{l-1} \\cdots V_1)^\\top$ with
    $r = q - \\omega V_L \\cdots V_1$ and $\\omega = \\sigma^{L-1}$. It sees the data only
    through q.

    **Arguments:**

    - `net`: the leaky network at time 0.
    - `target`: $q = Y \\tilde X^\\top / m$, `(d,)` (`task.target`).
    - `ts`: the times to save, increasing, `(times,)`.

    **Returns:**

    A [`ReferenceTrajectory`][].

    **Raises:**

    `ValueError` naming the argument, or if `jax_enable_x64` is not set: it needs float64.
    """
    _validate.needs_x64("reference_flow")
    ts = _validate.real("ts", ts, 0)
    target = _validate.real("target", target)
    omega = (1 - net.epsilon.astype(float) / 2) ** (net.depth - 1)
    weights = tuple(w.astype(float) for w in net.weights)
    linear_map, result = _solve(weights, omega, target, ts)
    return ReferenceTrajectory(ts, linear_map, result)
