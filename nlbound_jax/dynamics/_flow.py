"""Gradient flow, integrated as an ordinary differential equation."""

from collections.abc import Callable, Sequence
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp

from .. import _validate
from .._results import RESULTS
from .._types import Numeric, ParametersOverTime
from ..tasks import ClassTask, Task
from ._devices import run_on_mesh, samples_mesh
from ._engine import solve_flow
from ._problem import pose
from ._trajectory import Trajectory, is_concrete


def _trim(trajectory: Trajectory, end: ParametersOverTime) -> Trajectory:
    """Replace what was not reached by the state where the solve ended."""
    saved = int(jnp.sum(jnp.isfinite(trajectory.ts)))
    weights = jax.tree.map(
        lambda w, last: jnp.concatenate([w[:saved], last]), trajectory.weights, end
    )
    ts = jnp.concatenate([trajectory.ts[:saved], trajectory.reached[None]])
    return eqx.tree_at(lambda t: (t.ts, t.weights), trajectory, (ts, weights))


def gradient_flow(
    net: eqx.Module,
    task: Task | ClassTask,
    *,
    t1: Numeric,
    loss: Callable[..., Any] | None = None,
    saveat: diffrax.SaveAt | None = None,
    solver: diffrax.AbstractSolver | None = None,
    stepsize_controller: diffrax.AbstractStepSizeController | None = None,
    adjoint: diffrax.AbstractAdjoint | None = None,
    progress_meter: diffrax.AbstractProgressMeter | None = None,
    max_steps: int | None = 4096,
    devices: Sequence[Any] | None = None,
    throw: bool = True,
) -> Trajectory:
    """Train a network by gradient flow (Eq. 4), without a learning rate:

    $dW_l/dt = -\\partial_{W_l} \\frac{1}{2m} \\|Y - f(\\tilde X)\\|^2$, $W_l(0)$ from `net`.

    For any module and loss it is
    $d\\theta/dt = -\\partial_\\theta \\frac1m \\sum_i \\ell(f_\\theta(x_i), y_i)$.

    It is solved in pieces of about a third of a second, so that an interrupt ends it (the
    `KeyboardInterrupt` says how far it came); the steps are those of one solve. Where JAX traces
    it, and with `SaveAt(steps=...)`, it is one program.

    **Main arguments:**

    - `net`: the network at time 0: a [`LeakyMLP`][], or any Equinox module `net(x) -> outputs` that
        takes one sample, keeps no state and is in inference mode. Its floating arrays are trained
        (`eqx.is_inexact_array`; of a `LeakyMLP` or [`LeakyConv`][] the weights); what is to stay
        goes through `jax.lax.stop_gradient`. Their dtype is the dtype of the solve.
    - `task`: the data, a [`Task`][] or, for networks of several outputs, a [`ClassTask`][].
    - `t1`: the time to integrate to, positive.
    - `loss`: a function `loss(predictions, targets)` of the outputs and targets of one sample, such
        as `optax.softmax_cross_entropy`, which returns one number; half the squared norm of their
        difference by default.
    - `saveat`: what to save, a `diffrax.SaveAt` of `t0`, `t1`, `ts` or `steps`; the end only by
        default.

    **Other arguments:**

    - `solver`: a Diffrax solver; `Tsit5` by default.
    - `stepsize_controller`: a Diffrax controller; by default a `PIDController` with
        `pcoeff = 0.3`, `icoeff = 0.4`, `rtol = 1e-4` and `atol = 1e-4` times the smallest
        Frobenius norm of the initial weights that are not zero.
        Near ReLU a smooth error estimate is foiled by the samples that cross kinks: there
        `rtol = 1e-3` takes 100 steps where 1e-4 takes 450 (MNIST 7x7, epsilon = 1, to t = 60).
    - `adjoint`: a Diffrax adjoint; `RecursiveCheckpointAdjoint` by default. To differentiate
        forward (`jax.jvp`) pass `ForwardMode()`.
    - `progress_meter`: a Diffrax progress meter, such as [`ProgressBar`][]; none by default.
    - `max_steps`: the largest number of solver steps.
    - `devices`: devices of this process to share the samples out over. By default all CPU devices
        there are (`jax.config.update("jax_num_cpu_devices", n)` before JAX is used makes one of
        each core), but for a start that is traced or with `jax_default_device`; otherwise
        one device.
    - `throw`: raise if the solve does not get to `t1`; otherwise what was computed is kept and
        `Trajectory.result` says why.

    **Returns:**

    A [`Trajectory`][].

    **Raises:**

    `ValueError` naming the argument; with `throw`, `RuntimeError` saying at which time the solve
    stopped.
    """
    problem = pose(net, task, loss)
    t1 = _validate.number("t1", t1, 0, open_low=True).astype(problem.dtype)
    if max_steps is not None:
        max_steps = _validate.integer("max_steps", max_steps, 1)
    blocks = problem.blocks(samples_mesh(devices, net, t1))

    def solve(weights, model):
        found = solve_flow(
            weights,
            model,
            blocks,
            t1=t1,
            saveat=saveat,
            solver=solver,
            stepsize_controller=stepsize_controller,
            adjoint=adjoint,
            progress_meter=progress_meter,
            max_steps=max_steps,
        )
        ends = (found.reached, found.stats, found.result)
        return problem.trajectory(found.ts, found.weights, *ends), problem.weights(found.end)

    trajectory, end = run_on_mesh(solve, problem.parameters, problem.model, mesh=blocks.mesh)
    result = trajectory.result
    if not is_concrete(trajectory):
        return result.error_if(trajectory, result != RESULTS.successful) if throw else trajectory
    if result == RESULTS.successful:
        return trajectory
    if throw:
        raise RuntimeError(
            f"gradient_flow stopped at t = {float(trajectory.reached):.6g} of {float(t1):.6g} "
            f"after {int(trajectory.stats['num_steps'])} steps: {RESULTS[result].strip()} "
            "With throw=False what was computed is kept."
        )
    return _trim(trajectory, end)
