"""How the trained weights depend on the slope: three derivatives that kinks tell apart."""

from collections.abc import Sequence
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from .. import _validate
from .._forward import leaky_relu
from .._results import RESULTS
from .._types import Numeric, Weights, WeightsOverTime
from ..networks import LeakyMLP, check_network
from ..tasks import Task
from ._devices import run_on_mesh, samples_mesh
from ._engine import check_saves, default_controller, solve_flow
from ._field import Blocks, make_blocks, sum_over_blocks
from ._trajectory import is_concrete

_Scalar = Float[Array, ""]
_PerLayer = Float[Array, "times layers"]
# The one-sided quotient spans two steps and must stay within [0, 1] from every slope.
LARGEST_STEP = 0.25
# Of the flows; tighter than that of `gradient_flow`, since differences magnify the error.
RTOL = 1e-5
# One for all flows: what was compiled for one is used again.
CHECKPOINTS = diffrax.RecursiveCheckpointAdjoint()


def _norms(weights: WeightsOverTime) -> _PerLayer:
    return jnp.stack([jnp.linalg.norm(w, axis=(1, 2)) for w in weights], axis=-1)


def _distance(a: WeightsOverTime, b: WeightsOverTime) -> _PerLayer:
    """$\\|A_l - B_l\\|_F$; `inf` where an entry is `inf`."""
    norms = _norms(jax.tree.map(jnp.subtract, a, b))
    return jnp.where(jnp.isnan(norms), jnp.inf, norms)  # inf - inf


class TauDerivative(eqx.Module):
    """The derivatives of the trained weights in tau, one minus the negative slope.

    **Attributes:**

    - `ts`: the saved times, `(times,)`.
    - `epsilon`: the slope parameter tau at which the derivatives are taken.
    - `weights`: the flow $W_l^\\tau(t)$; it and the next three are tuples of `(times out in)`.
    - `frozen`: $\\partial W_l/\\partial\\tau$ at frozen activation patterns.
    - `central`: the true $dW_l/d\\tau$, a difference quotient; or `None`.
    - `finite_difference`: $(W_l^\\tau - W_l^0)/\\tau$, or `None`.
    - `crossings`: how many pairs of a training sample and a hidden unit, of all hidden layers,
        have had, at this or an earlier saved time, a pre-activation on the other side of 0
        ($z < 0$ against $z \\ge 0$) than at t = 0; `(times,)`. A pair that comes back still
        counts, but between two saved times is not seen.
    - `step`: the h of `central`, or `None`.
    - `error`: an estimate of $\\|\\cdot\\|_F$ of the error of `central`, `(times layers)`:
        $\\frac43 \\|D(h) - D(h/2)\\|_F$, truncation and the solver's tolerance together; or `None`.
    - `result`: how the solves ended, a member of `RESULTS`. What a solve did not reach is `inf`.
    """

    ts: Float[Array, " times"]
    epsilon: _Scalar
    weights: WeightsOverTime
    frozen: WeightsOverTime
    central: WeightsOverTime | None
    finite_difference: WeightsOverTime | None
    crossings: Int[Array, " times"]
    step: _Scalar | None
    error: _PerLayer | None
    result: RESULTS

    @property
    def norms(self) -> dict[str, _PerLayer]:
        """Frobenius norms `(times layers)` of each derivative there is, by its name."""
        kinds = {name: getattr(self, name) for name in ("frozen", "central", "finite_difference")}
        return {name: _norms(kind) for name, kind in kinds.items() if kind is not None}

    @property
    def gap(self) -> _PerLayer | None:
        """$\\|\\text{frozen} - \\text{central}\\|_F$, `(times layers)`: what the kinks that move
        contribute, down to `error` and the error of `frozen`; `None` without `central`."""
        return None if self.central is None else _distance(self.frozen, self.central)


class _Flows(eqx.Module):
    """The flow from one start as a function of epsilon."""

    weights: Weights
    blocks: Blocks
    options: dict[str, Any]

    def __call__(self, epsilon: _Scalar, adjoint: diffrax.AbstractAdjoint = CHECKPOINTS):
        """The weights, and (saved times, time reached, steps, result)."""
        found = solve_flow(self.weights, epsilon, self.blocks, adjoint=adjoint, **self.options)
        return found.weights, (found.ts, found.reached, found.stats["num_steps"], found.result)


@eqx.filter_jit
def _frozen(flows: _Flows, epsilon: _Scalar):
    """The flow, its derivative along epsilon through the solve, and how it ended."""

    def flow(epsilon):
        return flows(epsilon, diffrax.ForwardMode())

    return jax.jvp(flow, (epsilon,), (jnp.ones_like(epsilon),), has_aux=True)


@eqx.filter_jit
def _count_crossings(
    start: Weights, weights: WeightsOverTime, epsilon: _Scalar, blocks: Blocks
) -> Int[Array, " times"]:
    # A time that was not reached adds no crossing.
    weights = jax.tree.map(lambda w, s: jnp.where(jnp.isfinite(w), w, s), weights, start)

    def below(weights, epsilon, x) -> Bool[Array, "hidden block"]:
        h, signs = x, []
        for w in weights[:-1]:
            z = w @ h
            signs.append(z < 0)
            h = leaky_relu(z, epsilon)
        return jnp.concatenate(signs)

    def of_block(start, weights, epsilon, x, y):
        first = below(start, epsilon, x)

        def step(changed, weights):
            changed = changed | (below(weights, epsilon, x) != first)
            return changed, jnp.sum(changed)

        return jax.lax.scan(step, jnp.zeros_like(first), weights)[1]

    return sum_over_blocks(of_block, blocks, start, weights, epsilon)


def _default_step(controller: diffrax.AbstractStepSizeController, epsilon: _Scalar):
    """The cube root of the solver's rtol balances $h^2$ against rtol/h. Near 0 and 1 it shrinks
    by up to 4, so as to stay central: a one-sided quotient has four times the noise."""
    while hasattr(controller, "controller"):  # one that clips another
        controller = controller.controller  # pyright: ignore
    rtol = getattr(controller, "rtol", RTOL)
    least = jnp.finfo(epsilon.dtype).eps ** 0.4
    step = jnp.clip(jnp.cbrt(jnp.asarray(rtol, epsilon.dtype)), least, LARGEST_STEP)
    room = jnp.minimum(epsilon, 1 - epsilon)
    return jnp.where((room < step) & (room >= step / 4), room, step)


def _nodes(epsilon: _Scalar, step: _Scalar):
    """Slopes `(4,)` and coefficients of $W^{\\text{slope}} - W^\\tau$, over h, in D(h) and D(h/2).

    Central: tau -+ h, tau -+ h/2. One-sided, of second order: tau +- (h/2, h, 2h), one unused.
    """
    central = (epsilon >= step) & (epsilon + step <= 1)
    sign = jnp.where(epsilon < 0.5, 1, -1).astype(epsilon.dtype)

    def pick(*pair):
        middle, side = (jnp.asarray(values, epsilon.dtype) for values in pair)
        return jnp.where(central, middle, sign * side)

    offsets = pick([-1.0, 1.0, -0.5, 0.5], [2.0, 1.0, 0.5, 0.0])
    coarse = pick([-0.5, 0.5, 0.0, 0.0], [-0.5, 2.0, 0.0, 0.0])
    fine = pick([0.0, 0.0, -1.0, 1.0], [0.0, -1.0, 4.0, 0.0])
    return jnp.clip(epsilon + step * offsets, 0.0, 1.0), coarse / step, fine / step


def _quotient(weights: WeightsOverTime, ts, runs, factors) -> WeightsOverTime:
    """$\\sum_i c_i (W^i - W)$; `inf` where a flow has not come as far as `ts`."""
    total = jax.tree.map(jnp.zeros_like, weights)
    reached = jnp.isfinite(ts)
    for (other, (other_ts, *_)), factor in zip(runs, factors, strict=True):
        reached = reached & (other_ts == ts)
        total = jax.tree.map(lambda t, o, w, c=factor: t + c * (o - w), total, other, weights)
    return jax.tree.map(lambda t: jnp.where(reached[:, None, None], t, jnp.inf), total)


def _true_derivative(flows: _Flows, weights: WeightsOverTime, ts, epsilon: _Scalar, h: _Scalar):
    """D(h), the estimate of its error, and how the flows at the other slopes ended."""
    nodes = list(zip(*_nodes(epsilon, h), strict=True))
    if is_concrete((epsilon, h)):
        nodes = [n for n in nodes if n[1] != 0 or n[2] != 0]
    slopes, coarse, fine = zip(*nodes, strict=True)
    runs = [flows(slope) for slope in slopes]
    derivative = _quotient(weights, ts, runs, coarse)
    error = _distance(derivative, _quotient(weights, ts, runs, fine)) * 4 / 3
    return derivative, error, [(s, run[1]) for s, run in zip(slopes, runs, strict=True)]


def _outcome(runs, t1: _Scalar, throw: bool) -> RESULTS:
    """The first outcome that is not a success; with `throw` raised where that is possible."""
    combined = runs[0][1][3]
    for epsilon, (_, reached, steps, result) in runs:
        if throw and is_concrete((result, reached)) and result != RESULTS.successful:
            raise RuntimeError(
                f"tau_derivative: the flow at epsilon = {float(epsilon):.6g} stopped at "
                f"t = {float(reached):.6g} of {float(t1):.6g} after {int(steps)} steps: "
                f"{RESULTS[result].strip()} With throw=False what was computed is kept."
            )
        combined = RESULTS.where(combined == RESULTS.successful, result, combined)  # pyright: ignore
    return combined


def _number(name: str, value: Numeric, dtype, high: float = np.inf) -> _Scalar:
    return _validate.number(name, value, 0, high, open_low=True).astype(dtype)


def tau_derivative(
    net: LeakyMLP,
    task: Task,
    *,
    t1: Numeric,
    saveat: diffrax.SaveAt | None = None,
    solver: diffrax.AbstractSolver | None = None,
    stepsize_controller: diffrax.AbstractStepSizeController | None = None,
    central: bool = True,
    finite_difference: bool = True,
    step: Numeric | None = None,
    progress_meter: diffrax.AbstractProgressMeter | None = None,
    max_steps: int | None = 4096,
    devices: Sequence[Any] | None = None,
    throw: bool = True,
) -> TauDerivative:
    """The derivative of the trained weights in tau, where the negative slope is $1 - \\tau$ and
    the start W(0) does not move, in the three senses that Lemma 7.1 ($\\|dW_l/d\\tau\\| \\le v$;
    Golikov, TMLR 12/2024) has to do with. With $\\dot W = f(W, \\tau)$ the flow (Eq. 4):

    - `frozen`, by `jax.jvp` through the solve, is what the lemma's proof differentiates:
      $\\dot D = \\partial_W f\\, D + \\partial_\\tau f$, $D(0) = 0$, every sample's activation
      pattern held fixed. It misses kinks that move: where a pre-activation crosses 0, at
      $t_c(\\tau)$, $f$ jumps by $\\Delta f = O(\\tau)$ and $dW/d\\tau$ by
      $-\\Delta f\\, dt_c/d\\tau$. The solver's tolerance holds for W, not for D, whose right
      side jumps even at tau = 0: there a `dtmax` in the controller makes D more exact.
    - `central`, $dW/d\\tau$ itself, from whole flows: $D(h) = (W^{\\tau+h} - W^{\\tau-h})/2h$ or,
      if a slope is not in [0, 1], $\\pm(4 W^{\\tau \\pm h} - W^{\\tau \\pm 2h} - 3 W^\\tau)/2h$.
      It smears a crossing that comes at t for a slope within h of tau; `error` shows it.
    - `finite_difference`, $(W^\\tau - W^0)/\\tau$ with the linear network $W^0$, is what the
      repaired theorem bounds. At tau = 0 it is its limit `frozen`, the true right derivative,
      since f does not jump there. Its noise is about the solver's tolerance over tau.

    The first two agree until the first crossing; from there on the true derivative, not the
    frozen one, may exceed $v$. They cost 2 to 2.5 flows, 4 flows and 1 flow.

    Of any module, along another hyperparameter: [`hyperparameter_derivative`][].

    **Main arguments:**

    - `net`: the network at time 0; tau is its `epsilon`. Its dtype is the dtype of the solves.
    - `task`: the data.
    - `t1`: the time to integrate to, positive.
    - `saveat`: what to save, a `diffrax.SaveAt` of `t0`, `t1` or `ts`; the end only by default.

    **Other arguments:**

    - `solver`, `stepsize_controller`, `max_steps`, `devices`: as for [`gradient_flow`][], of every
        flow; but the controller by default with `rtol = 1e-5`, since differences of flows magnify
        their error.
    - `central`, `finite_difference`: whether to compute it.
    - `step`: the h of `central`, in (0, 0.25]; by default the cube root of the controller's
        `rtol` (of 1e-5 if it has none), up to four times smaller near 0 and 1 to stay central.
    - `progress_meter`: a Diffrax progress meter, for each flow in turn; none by default.
    - `throw`: raise if a solve does not get to `t1`; otherwise what was not reached is `inf`.

    **Returns:**

    A [`TauDerivative`][].

    **Raises:**

    `ValueError` naming the argument; with `throw`, `RuntimeError` saying which flow stopped when.
    """
    net = check_network("net", net, _validate.instance("task", task, Task).rank)
    dtype = net.weights[0].dtype
    t1 = _number("t1", t1, dtype)
    central = _validate.flag("central", central)
    finite_difference = _validate.flag("finite_difference", finite_difference)
    if max_steps is not None:
        max_steps = _validate.integer("max_steps", max_steps, 1)
    saves = check_saves(saveat, t1)
    if saves.subs.steps:  # pyright: ignore
        raise ValueError("`saveat` must have no steps: they differ from slope to slope.")
    epsilon = _validate.real("net.epsilon", net.epsilon, 0, 1).astype(dtype)
    if stepsize_controller is None:
        stepsize_controller = default_controller(net.weights, RTOL)
    h = _default_step(stepsize_controller, epsilon)
    h = h if step is None else _number("step", step, dtype, LARGEST_STEP)
    options = {"t1": t1, "saveat": saves, "stepsize_controller": stepsize_controller}
    options |= {"solver": solver, "progress_meter": progress_meter, "max_steps": max_steps}
    blocks = make_blocks(task, dtype, samples_mesh(devices, net, t1, h))

    def derive(weights, epsilon, h):
        flows = _Flows(weights, blocks, options)
        weights, tangent, end = _frozen(flows, epsilon)
        ts, zero, runs = end[0], jnp.zeros_like(epsilon), [(epsilon, end)]
        frozen = jax.tree.map(lambda w, d: jnp.where(jnp.isfinite(w), d, jnp.inf), weights, tangent)
        true = error = ratio = None
        if central:
            true, error, others = _true_derivative(flows, weights, ts, epsilon, h)
            runs += others
        if finite_difference:
            linear = flows(zero)
            runs.append((zero, linear[1]))
            ratio = _quotient(weights, ts, [linear], [-1 / jnp.where(epsilon > 0, epsilon, 1)])
            ratio = jax.tree.map(lambda r, f: jnp.where(epsilon > 0, r, f), ratio, frozen)
        crossings = _count_crossings(flows.weights, weights, epsilon, blocks)
        result = _outcome(runs, t1, throw)
        kinds, h = (weights, frozen, true, ratio), h if central else None
        return TauDerivative(ts, net.epsilon, *kinds, crossings, h, error, result)

    out = run_on_mesh(derive, net.weights, epsilon, h, mesh=blocks.mesh)
    if throw and not is_concrete(out):
        return out.result.error_if(out, out.result != RESULTS.successful)
    return out
