"""How the trained parameters of any module depend on what is held fixed in training."""

from collections.abc import Callable, Sequence
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .. import _validate
from .._modules import among
from .._results import RESULTS
from .._types import Numeric, ParametersOverTime
from ..tasks import ClassTask, Task
from ._devices import run_on_mesh, samples_mesh
from ._engine import check_saves, default_controller, solve_flow
from ._model import Model, first_line
from ._problem import pose
from ._tau_derivative import RTOL
from ._trajectory import is_concrete


class HyperparameterDerivative(eqx.Module):
    """The derivative of the trained parameters along arrays that are held fixed in training.

    **Attributes:**

    - `ts`: the saved times, `(times,)`.
    - `weights`: the flow, as in a [`Trajectory`][]: an array `(times ...)` for each parameter that
        is trained, `None` for the rest.
    - `frozen`: their derivative, a tree like `weights`.
    - `reached`: the time at which the solve ended.
    - `result`: how it ended, a member of `RESULTS`. What it did not reach is `inf`.
    """

    ts: Float[Array, " times"]
    weights: ParametersOverTime
    frozen: ParametersOverTime
    reached: Float[Array, ""]
    result: RESULTS


def _named(net: Any, where: Any) -> tuple[Any, list[Array]]:
    """What `where` returns, and its arrays, each of them a leaf of `net`."""
    if not callable(where):
        raise ValueError(
            f"`where` must be a function where(net) -> arrays of net, got {_validate.shown(where)}."
        )
    try:
        named = where(net)
    except Exception as error:
        raise ValueError(
            f"`where` must return floating arrays that are leaves of `net`, got {first_line(error)}"
        ) from error
    arrays, leaves = jax.tree.leaves(named), jax.tree.leaves(net)
    fit = len({id(array) for array in arrays}) == len(arrays) > 0
    fit = fit and all(among(array, leaves) and isinstance(array, jax.Array) for array in arrays)
    if not fit or not all(jnp.issubdtype(array.dtype, jnp.floating) for array in arrays):
        raise ValueError(
            "`where` must return floating arrays of JAX that are leaves of `net`, each once, got "
            f"{_validate.shown(named)}."
        )
    _validate.finite("net", arrays)
    return named, arrays


def _directions(tangent: Any, named: Any, arrays: list[Array]) -> list[Array]:
    """The direction in which each array moves."""
    if tangent is None:
        return [jnp.ones_like(array) for array in arrays]
    if eqx.is_array(named):
        given = [tangent]
    elif jax.tree.structure(tangent) == jax.tree.structure(named):
        given = jax.tree.leaves(tangent)
    else:
        raise ValueError(
            "`tangent` must be a tree like what `where` returns, "
            f"{jax.tree.structure(named)}, got {jax.tree.structure(tangent)}."
        )
    found = [_validate.real("tangent", value) for value in given]
    shapes, expected = ([a.shape for a in tree] for tree in (found, arrays))
    if shapes != expected:
        raise ValueError(
            f"`tangent` must have the shape of what `where` returns, {_listed(expected)}, got "
            f"{_listed(shapes)}."
        )
    return [t.astype(array.dtype) for t, array in zip(found, arrays, strict=True)]


def _listed(shapes: list[tuple[int, ...]]) -> str:
    return " and ".join(map(str, shapes))


@eqx.filter_jit
def _along(held: PyTree, direction: PyTree, parameters, rest, loss, blocks, options) -> Any:
    """The flow, its derivative along `direction` through the solve, and how it ended."""

    def flow(held):
        model = Model(eqx.combine(held, rest), loss)
        adjoint = diffrax.ForwardMode()
        found = solve_flow(parameters, model, blocks, adjoint=adjoint, **options)
        return found.weights, (found.ts, found.reached, found.stats["num_steps"], found.result)

    return jax.jvp(flow, (held,), (direction,), has_aux=True)


def hyperparameter_derivative(
    net: eqx.Module,
    task: Task | ClassTask,
    *,
    where: Callable[..., Any],
    tangent: Any = None,
    t1: Numeric,
    loss: Callable[..., Any] | None = None,
    saveat: diffrax.SaveAt | None = None,
    solver: diffrax.AbstractSolver | None = None,
    stepsize_controller: diffrax.AbstractStepSizeController | None = None,
    progress_meter: diffrax.AbstractProgressMeter | None = None,
    max_steps: int | None = 4096,
    devices: Sequence[Any] | None = None,
    throw: bool = True,
) -> HyperparameterDerivative:
    """The derivative of the trained parameters of any module along an array that it holds fixed:
    the `frozen` of [`tau_derivative`][] for another hyperparameter than the slope of a
    [`LeakyMLP`][]. With $\\dot\\theta = f(\\theta, \\lambda)$ the gradient flow and
    $\\lambda = \\lambda_0 + s v$ it is $D = d\\theta/ds$ at s = 0:

    $\\dot D = \\partial_\\theta f\\, D + \\partial_\\lambda f\\, v$, $D(0) = 0$,

    by `jax.jvp` through the solve.

    ```python
    found = dynamics.hyperparameter_derivative(net, task, where=lambda net: net.slope, t1=1.0)
    ```

    What `where` names is held fixed in this flow and the start of the rest does not move: a
    derivative in the initial value of what is trained is another one (`jax.jvp` through
    [`gradient_flow`][] with `adjoint=diffrax.ForwardMode()`).

    It is the true derivative where the loss and the activations are smooth. Kinks, as of ReLU, do
    not move in it: there it holds only until the first pre-activation of a sample crosses one, see
    [`tau_derivative`][], and a difference quotient of two flows tells. The solver's tolerance holds
    for the parameters, not for D.

    **Main arguments:**

    - `net`: the module at time 0, as for [`gradient_flow`][]; of a `LeakyMLP` the weights are
        trained, and the gradient is taken by JAX.
    - `task`: the data, a [`Task`][] or a [`ClassTask`][].
    - `where`: a function `where(net)`, as that of `eqx.tree_at`, that returns floating arrays which
        are leaves of the module: one or a tree of several. An array that stands in several places
        moves in all of them.
    - `tangent`: v, the direction in which they move, of the structure and the shapes of what
        `where` returns; ones by default.
    - `t1`: the time to integrate to, positive.
    - `loss`: a function `loss(predictions, targets)` of one sample, as for [`gradient_flow`][].
    - `saveat`: what to save, a `diffrax.SaveAt` of `t0`, `t1` or `ts`; the end only by default.

    **Other arguments:**

    - `solver`, `stepsize_controller`, `progress_meter`, `max_steps`, `devices`: as for
        [`gradient_flow`][], but the controller by default with `rtol = 1e-5`.
    - `throw`: raise if the solve does not get to `t1`; otherwise what was not reached is `inf`.

    **Returns:**

    A [`HyperparameterDerivative`][].

    **Raises:**

    `ValueError` naming the argument; with `throw`, `RuntimeError` saying when the solve stopped.
    """
    if not isinstance(net, eqx.Module):
        raise ValueError(f"`net` must be an Equinox module, got {_validate.shown(net)}.")
    named, arrays = _named(net, where)
    problem = pose(net, task, loss, arrays)
    directions = _directions(tangent, named, arrays)
    t1 = _validate.number("t1", t1, 0, open_low=True).astype(problem.dtype)
    if max_steps is not None:
        max_steps = _validate.integer("max_steps", max_steps, 1)
    saves = check_saves(saveat, t1)
    if saves.subs.steps:  # pyright: ignore
        raise ValueError("`saveat` must be of t0, t1 or ts, got steps.")
    if stepsize_controller is None:
        stepsize_controller = default_controller(problem.parameters, RTOL)
    options = {"t1": t1, "saveat": saves, "stepsize_controller": stepsize_controller}
    options |= {"solver": solver, "progress_meter": progress_meter, "max_steps": max_steps}
    blocks = problem.blocks(samples_mesh(devices, net, t1, directions))
    model: Any = problem.model
    held, rest = eqx.partition(model.rest, lambda leaf: among(leaf, arrays))
    index = {id(array): i for i, array in enumerate(arrays)}
    direction = jax.tree.map(lambda array: directions[index[id(array)]], held)

    def derive(held, direction, parameters, rest):
        inputs = (held, direction, parameters, rest, model.loss)
        weights, frozen, end = _along(*inputs, blocks, options)
        frozen = jax.tree.map(lambda w, d: jnp.where(jnp.isfinite(w), d, jnp.inf), weights, frozen)
        ts, reached, steps, result = end
        weights, frozen = problem.weights(weights), problem.weights(frozen)
        return HyperparameterDerivative(ts, weights, frozen, reached, result), steps

    inputs = (held, direction, problem.parameters, rest)
    found, steps = run_on_mesh(derive, *inputs, mesh=blocks.mesh)
    if not throw:
        return found
    failed = found.result != RESULTS.successful
    if not is_concrete(found):
        return found.result.error_if(found, failed)
    if failed:
        raise RuntimeError(
            f"hyperparameter_derivative stopped at t = {float(found.reached):.6g} of "
            f"{float(t1):.6g} after {int(steps)} steps: {RESULTS[found.result].strip()} "
            "With throw=False what was computed is kept."
        )
    return found
