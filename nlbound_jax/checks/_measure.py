"""A run, with everything measured that an inequality of the proof speaks of."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .. import _validate
from .._types import AnyArray, Numeric, Weights
from ..bounds import linear_part, path_norms
from ..dynamics import ReferenceTrajectory, TauDerivative, reference_flow, tau_derivative
from ..networks import LeakyMLP, check_network
from ..tasks import Task

_Times = Float[Array, "*times"]
_PerLayer = Float[Array, "*times layers"]

RTOL = 1e-6


class Sides(eqx.Module):
    """The left sides over time. Roots of means of squares are over the training set.

    **Attributes:**

    - `spectral`, `frobenius`: norms of the $W_l$, `(times layers)`.
    - `distance`: $\\|W_l - V_l\\|_F$ to the reference network.
    - `difference`: $\\|W_l^\\epsilon - W_l^0\\|_F / \\epsilon$, and `difference_spectral`.
    - `residual`: the root mean square of $y - f_W$; `projected`: $\\|(Y - f_W) X^\\top\\|/m$.
    - `linear_gap`: $\\omega \\|W_L \\cdots W_1 - V_L \\cdots V_1\\|$; `nonlinear`: the root mean
        square of $N_W$; `gradient_gap`: $\\|r_W - r_V\\|$.
    - `output_gap`, `bent_gap`: the root mean squares of $f_W - f_V$ and $N_W - N_V$.
    - `proxy_gap`, `proxy_pointwise`: of $f_W$ to the proxy of Eq. 25, the root mean square, and
        the largest ratio to $\\|x\\|$.
    - `alignment`: $\\sum_l \\text{tr}[\\nabla^X_l \\nabla_l^\\top]$ over the product of the norms.
    - `linear_size`: $\\|l_W\\|$; `paths`: the $p_j$, `(times levels)`.
    """

    spectral: _PerLayer
    frobenius: _PerLayer
    distance: _PerLayer
    difference: _PerLayer
    difference_spectral: _PerLayer
    residual: _Times
    projected: _Times
    linear_gap: _Times
    nonlinear: _Times
    gradient_gap: _Times
    output_gap: _Times
    bent_gap: _Times
    proxy_gap: _Times
    proxy_pointwise: _Times
    alignment: _Times
    linear_size: _Times
    paths: Float[Array, "*times levels"]


class Measured(eqx.Module):
    """What [`evaluate`][] needs of a run.

    **Attributes:**

    - `task`, `net`: the data, and the network at time 0.
    - `derivative`: a [`TauDerivative`][], with the flow.
    - `reference`: the reference network and its envelope, a [`ReferenceTrajectory`][].
    - `sides`: the left sides of the inequalities, a [`Sides`][].
    - `initial_residual`: the root mean square of $y - f$ at t = 0.
    """

    task: Task
    net: LeakyMLP
    derivative: TauDerivative
    reference: ReferenceTrajectory
    sides: Sides
    initial_residual: float


def _spectral(weights: Weights) -> Float[Array, " layers"]:
    return jnp.stack([jnp.linalg.norm(w, 2) for w in weights])


def _frobenius(weights: Weights) -> Float[Array, " layers"]:
    return jnp.stack([jnp.linalg.norm(w) for w in weights])


def _rms(values: Float[Array, " m"]) -> Float[Array, ""]:
    return jnp.sqrt(jnp.mean(values**2))


def _aligned(net: LeakyMLP, x, y, target) -> Float[Array, ""]:
    """The cosine between the gradients of the loss and of the projected loss (Eq. 104-107)."""

    def loss(weights, project: bool):
        error = y - LeakyMLP(weights, net.epsilon).features_first(x)
        return jnp.sum((error @ x.T / y.size) ** 2) / 2 if project else jnp.mean(error**2) / 2

    one, other = (jax.grad(loss)(net.weights, project) for project in (True, False))
    dot = sum(jnp.sum(a * b) for a, b in zip(one, other, strict=True))
    size = jnp.sqrt(jnp.sum(_frobenius(one) ** 2) * jnp.sum(_frobenius(other) ** 2))
    return dot / jnp.where(size > 0, size, 1.0)


@eqx.filter_jit
def _sides(trained, reference, linear, frozen, epsilon, x, y, target) -> Sides:
    norms = jnp.linalg.norm(x, axis=0)

    def one(args) -> Sides:
        w, v, w0, rate = args
        net = LeakyMLP(w, epsilon)
        part, part_v = linear_part(w, epsilon), linear_part(v, epsilon)
        out, out_v = net.features_first(x), LeakyMLP(v, epsilon).features_first(x)
        bent, bent_v = out - part @ x, out_v - part_v @ x
        error = y - out
        proxy = LeakyMLP(w0, epsilon).features_first(x)
        # Eq. 25: the least-squares linear function of what is left; X X^T = m I.
        rest = out - proxy
        left = rest - (rest @ x.T / y.size) @ x
        gaps = [a - b for a, b in zip(w, w0, strict=True)]
        scale = jnp.where(epsilon > 0, epsilon, 1.0)
        moved = tuple(jnp.where(epsilon > 0, g / scale, r) for g, r in zip(gaps, rate, strict=True))
        return Sides(
            spectral=_spectral(w),
            frobenius=_frobenius(w),
            distance=_frobenius(tuple(a - b for a, b in zip(w, v, strict=True))),
            difference=_frobenius(moved),
            difference_spectral=_spectral(moved),
            residual=_rms(error),
            projected=jnp.linalg.norm(error @ x.T) / y.size,
            linear_gap=jnp.linalg.norm(part - part_v),
            nonlinear=_rms(bent),
            gradient_gap=jnp.linalg.norm(error @ x.T / y.size - (target - part_v)),
            output_gap=_rms(out - out_v),
            bent_gap=_rms(bent - bent_v),
            proxy_gap=_rms(left),
            proxy_pointwise=jnp.max(jnp.abs(left) / jnp.where(norms > 0, norms, 1.0)),
            alignment=_aligned(net, x, y, target),
            linear_size=jnp.linalg.norm(part),
            paths=path_norms(w),
        )

    return jax.lax.map(one, (trained, reference, linear, frozen))


def measure(
    net: LeakyMLP,
    task: Task,
    ts: Float[AnyArray, " times"],
    *,
    central: bool = True,
    step: Numeric | None = None,
    stepsize_controller: diffrax.AbstractStepSizeController | None = None,
    max_steps: int = 4096,
    progress_meter: diffrax.AbstractProgressMeter | None = None,
) -> Measured:
    """Train a network in float64 and measure what the inequalities bound.

    **Arguments:**

    - `net`: the network at time 0.
    - `task`: the data.
    - `ts`: the times, increasing and positive, `(times,)`.

    **Other arguments:**

    - `central`: whether to find the true derivative in tau as well (four more flows).
    - `step`: the h of its difference quotient, see [`tau_derivative`][].
    - `stepsize_controller`: Diffrax's, of every flow; a tolerance of 1e-6 by default.
    - `max_steps`: the largest number of solver steps of a flow.
    - `progress_meter`: a Diffrax progress meter; none by default.

    **Returns:**

    A [`Measured`][], for [`evaluate`][].

    **Raises:**

    `ValueError` naming the argument, or if `jax_enable_x64` is not set; `RuntimeError` saying
    which flow stopped when.
    """
    _validate.needs_x64("measure")
    ts = _validate.real("ts", ts, 0, open_low=True)
    net = check_network("net", net, _validate.instance("task", task, Task).rank)
    if ts.ndim != 1 or not ts.shape[0] or bool((jnp.diff(ts) <= 0).any()):
        raise ValueError(f"`ts` must be increasing times (times,), got shape {ts.shape}.")
    net = jax.tree.map(lambda a: a.astype(float), net)
    smallest = min(float(jnp.linalg.norm(w)) for w in net.weights)
    controller = stepsize_controller or diffrax.PIDController(rtol=RTOL, atol=RTOL * smallest)
    derivative = tau_derivative(
        net,
        task,
        t1=float(ts[-1]),
        saveat=diffrax.SaveAt(ts=ts),
        stepsize_controller=controller,
        central=central,
        finite_difference=False,
        step=step,
        max_steps=max_steps,
        progress_meter=diffrax.NoProgressMeter() if progress_meter is None else progress_meter,
    )
    start = float(np.sqrt(np.mean((task.y - np.asarray(net(task.x))) ** 2)))
    reference = reference_flow(net, task.target, ts, initial_residual=start, throw=True)
    linear_net = LeakyMLP(net.weights, jnp.zeros_like(net.epsilon))
    linear = reference_flow(linear_net, task.target, ts, envelope=False, throw=True)
    sides = _sides(
        derivative.weights,
        reference.weights,
        linear.weights,
        derivative.frozen,
        net.epsilon,
        jnp.asarray(task.x.T, float),
        jnp.asarray(task.y, float),
        jnp.asarray(task.target, float),
    )
    return Measured(task, net, derivative, reference, sides, start)
