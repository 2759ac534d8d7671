"""The reference network: linear, trained the same way, integrated without a pass over the data."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .. import _validate
from .._results import RESULTS
from .._types import AnyArray, Numeric, Weights
from ..networks import LeakyMLP, check_network
from ._envelope import EnvelopeSlopes, envelope_slopes
from ._linear import layer_norms
from ._reference_solve import Envelope, measure_reference, solve_reference
from ._statistic import (
    Coordinates,
    Statistic,
    check_data,
    check_driver,
    check_label_size,
    reduce_coordinates,
)
from ._trajectory import is_concrete


class ReferenceTrajectory(eqx.Module):
    """The reference network V along its training, and how far the leaky network can be from it.

    **Attributes:**

    - `ts`: the times, `(times,)`.
    - `linear_map`: $\\omega V_L \\cdots V_1$, `(times d)`, or `(times K d)` for a target of K rows.
    - `norms`: $a_l = \\|V_l\\|$, `(times layers)`.
    - `frobenius`: $\\|V_l\\|_F$, `(times layers)`; the first is F.
    - `residual`: $\\|q - \\omega V_L \\cdots V_1\\|$, `(times,)`; with a second moment
        $\\|(q - \\omega V_L \\cdots V_1 \\Sigma) \\Sigma^{-1/2}\\|_F$.
    - `envelope`: $x_l \\ge \\|W_l - V_l\\|_F$, `(times layers)`, `+inf` from its blow-up on; `None`
        if it was not asked for.
    - `weights`: the $V_l$, `(times out in)` each.
    - `result`: how training ended; entries that were not reached are `inf`.
    - `weighted_frobenius`: $\\|V_1 \\Sigma^{1/2}\\|_F$, `(times,)`; `None` without a second moment.
    - `weighted_envelope`: $\\tilde x \\ge \\|(W_1 - V_1) \\Sigma^{1/2}\\|_F$, `(times,)`, `None`
        likewise. With these two in the place of F and $x_1$ a deviation is one over the raw inputs.
    - `second_moment`: $\\Sigma$; `None` if it is the identity.
    """

    ts: Float[Array, " times"]
    linear_map: Float[Array, "times *outputs d"]
    norms: Float[Array, "times layers"]
    frobenius: Float[Array, "times layers"]
    residual: Float[Array, " times"]
    envelope: Float[Array, "times layers"] | None
    weights: tuple[Float[Array, "times _out _in"], ...]
    result: RESULTS
    weighted_frobenius: Float[Array, " times"] | None = None
    weighted_envelope: Float[Array, " times"] | None = None
    second_moment: Float[Array, "d d"] | None = None

    @property
    def scale(self) -> Float[Array, " times"]:
        """$\\|\\omega V_L \\cdots V_1\\|_F$, the size of the reference network's outputs; with a
        second moment $\\|\\omega V_L \\cdots V_1 \\Sigma^{1/2}\\|_F$."""
        if self.second_moment is None:
            return jnp.sqrt(jnp.sum(self.linear_map**2, axis=tuple(range(1, self.linear_map.ndim))))
        reached = jnp.isfinite(self.linear_map)
        rows = jnp.where(reached, self.linear_map, 0.0)
        squares = jnp.einsum("...i,ij,...j->...", rows, self.second_moment, rows)
        total = jnp.sum(squares.reshape(squares.shape[0], -1), axis=1)
        whole = reached.reshape(squares.shape[0], -1).all(axis=1)
        return jnp.where(whole, jnp.sqrt(jnp.maximum(total, 0.0)), jnp.inf)


class Problem(eqx.Module):
    """What the training of a reference network starts from, in coordinates in which it is small.

    **Attributes:**

    - `weights`, `statistic`, `coordinates`: out of [`reduce_coordinates`][].
    - `slope`: of the leaky network.
    - `loss`: a bound on the root mean square of $y - f_W$ at the start.
    - `second_moment`: as given.
    - `single`: whether the target came as a vector.
    """

    weights: Weights
    statistic: Statistic
    coordinates: Coordinates
    slope: EnvelopeSlopes
    loss: Float[Array, ""]
    second_moment: Float[Array, "d d"] | None
    single: bool = eqx.field(static=True)

    def trajectory(
        self,
        ts: Float[Array, " times"],
        weights: tuple[Float[Array, "times _out _in"], ...],
        far: Envelope | None,
        result: RESULTS,
    ) -> ReferenceTrajectory:
        """What is told of V and its envelope at the saved times."""
        found, far = measure_reference(weights, far, self.statistic, self.slope)
        linear_map, inputs = found.linear_map, self.coordinates.inputs
        if inputs is not None:
            reached = jnp.isfinite(linear_map).all(axis=(1, 2), keepdims=True)
            linear_map = jnp.where(reached, linear_map, 0.0) @ inputs.T
            linear_map = jnp.where(reached, linear_map, jnp.inf)
        raw = self.second_moment is not None
        return ReferenceTrajectory(
            ts,
            linear_map[:, 0] if self.single else linear_map,
            found.norms,
            found.frobenius,
            found.residual,
            None if far is None else far.layers,
            self.coordinates.restore(weights),
            result,
            found.weighted if raw else None,
            far.inner if raw and far is not None else None,
            self.second_moment,
        )


def pose_reference(
    net: LeakyMLP,
    target: AnyArray,
    *,
    second_moment: AnyArray | None,
    label_size: Numeric | None,
    driver: Any,
    initial_residual: Numeric | None,
    envelope: bool,
) -> Problem:
    """The problem, its arguments checked."""
    net = check_network("net", net, one_output=False)
    shape = (net.weights[-1].shape[0], net.weights[0].shape[1])
    given, moment = check_data("target", target, second_moment, shape)
    nu = _validate.number("label_size", shape[0] ** 0.5 if label_size is None else label_size, 0)
    driver = check_driver(driver, shape)
    start = tuple(w.astype(float) for w in net.weights)
    small, statistic, coordinates = reduce_coordinates(start, given, moment, nu, driver)
    if envelope:
        check_label_size(nu, statistic)
    first = jnp.linalg.norm(statistic.weigh(small[0]))
    loss = nu + first * jnp.prod(layer_norms(start)[1:])
    if initial_residual is not None:
        given_loss = _validate.number("initial_residual", initial_residual, 0)
        if envelope:
            _check_residual(given_loss, loss)
        loss = given_loss
    slope = envelope_slopes(net.epsilon.astype(float), net.depth)
    return Problem(small, statistic, coordinates, slope, loss, moment, np.ndim(target) == 1)


def _check_residual(given: Float[Array, ""], most: Float[Array, ""]) -> None:
    """Raise where labels of this size cannot be so far from the outputs at the start."""
    if not is_concrete((given, most)):
        return
    if float(given) > float(most) * (1 + 1e-4):
        raise ValueError(
            f"`initial_residual` must be at most {float(most):.6g}, the root mean square of the "
            f"labels (`label_size`) and a bound on that of the outputs, got {float(given):g}."
        )


def _stopped(ts, weights: Any, result: RESULTS) -> str:
    """One line on a solve that did not get to its end."""
    reached = np.isfinite(np.asarray(weights[0])).all(axis=(1, 2))
    last = float(np.max(np.asarray(ts)[reached], initial=0.0))
    why = RESULTS[result].strip().partition(".")[0]  # then Diffrax tells of its own arguments
    return (
        f"reference_flow, the flow of the linear reference network, stopped after t = {last:.6g} "
        f"of {float(ts[-1]):.6g}: {why}."
    )


def reference_flow(
    net: LeakyMLP,
    target: Float[AnyArray, "*outputs d"],
    ts: Float[AnyArray, " times"],
    *,
    second_moment: Float[AnyArray, "d d"] | None = None,
    label_size: Numeric | None = None,
    driver: tuple[Any, Any] | None = None,
    envelope: bool = True,
    initial_residual: Numeric | None = None,
    throw: bool = False,
) -> ReferenceTrajectory:
    """The flow of the reference network: linear, slope $\\sigma = 1 - \\epsilon/2$, same start.

    $\\dot V_l = \\omega (V_L \\cdots V_{l+1})^\\top r\\, (V_{l-1} \\cdots V_1)^\\top$ with
    $r = q - \\omega V_L \\cdots V_1 \\Sigma$ and $\\omega = \\sigma^{L-1}$. It sees the data only
    through q and $\\Sigma$. With it the envelope $x_l \\ge \\|W_l - V_l\\|_F$, $x_l(0) = 0$, which
    bounds how far the leaky network that is trained from the same start on
    $\\frac{1}{2m} \\|Y - f_W(X)\\|_F^2$ can be; it needs neither the data nor Assumption 5.1.

    **Main arguments:**

    - `net`: the leaky network at time 0.
    - `target`: $q = Y X^\\top / m$, `(d,)` or, for K outputs, `(K d)`; of a [`Task`][] it is
        `task.target`.
    - `ts`: the times to save, increasing, `(times,)`.

    **Other arguments:**

    - `second_moment`: $\\Sigma = X X^\\top / m$, `(d d)`, for inputs that are not whitened; by
        default the identity. Its eigenvalues below rounding are taken for 0.
    - `label_size`: $\\nu$, the root mean square $\\|Y\\|_F / \\sqrt m$ of the labels or more: 1 for
        a label of $\\pm 1$ and for one-hot ones, $\\sqrt K$ for K labels of $\\pm 1$. By default
        $\\sqrt K$, which covers both.
    - `driver`: a target and a second moment (or `None` for the identity) that V is moved by in the
        place of these: rounded ones, or of inputs outside the sample. The envelope pays for it.
    - `envelope`: whether to integrate the envelope as well.
    - `initial_residual`: the root mean square of $y - f(x)$ over the training set at time 0; by
        default the bound $\\nu + \\|W_1(0) \\Sigma^{1/2}\\|_F \\prod_{j \\ge 2} \\|W_j(0)\\|$.
    - `throw`: raise if the solve of V does not get to the last time; otherwise what it reached is
        kept and `result` says why. An envelope that blows up is no failure.

    **Returns:**

    A [`ReferenceTrajectory`][].

    **Raises:**

    `ValueError` naming the argument, or if `jax_enable_x64` is not set: it needs float64; with
    `throw`, `RuntimeError` saying after which time the solve stopped.
    """
    _validate.needs_x64("reference_flow")
    envelope, throw = _validate.flag("envelope", envelope), _validate.flag("throw", throw)
    ts = _validate.real("ts", ts, 0)
    if ts.ndim != 1 or not ts.shape[0]:
        raise ValueError(f"`ts` must be increasing times (times,), got shape {ts.shape}.")
    if not _validate.is_traced(ts) and (np.diff(np.asarray(ts)) < 0).any():
        raise ValueError("`ts` must be increasing, got times that are not.")
    problem = pose_reference(
        net,
        target,
        second_moment=second_moment,
        label_size=label_size,
        driver=driver,
        initial_residual=initial_residual,
        envelope=envelope,
    )
    # The sources of the envelope are of the size of epsilon times a weight norm.
    norms = layer_norms(problem.weights)
    bent = problem.slope.half > 0
    unit = jnp.max(norms) * jnp.where(bent, 2 * problem.slope.half, 1.0)
    # V by itself, so that it goes on where the envelope has blown up; at L = 2 it never does.
    at_once = envelope and problem.slope.depth == 2
    given = (problem.weights, problem.statistic, ts, problem.slope, problem.loss, unit)
    concrete = is_concrete(given)
    (weights, far), result = solve_reference(*given, at_once, concrete)
    failed = is_concrete((weights, result)) and result != RESULTS.successful
    if failed and at_once:  # a large envelope may have stopped V: V by itself
        (weights, _), result = solve_reference(*given, False, concrete)
        failed = result != RESULTS.successful
    if failed and throw:
        raise RuntimeError(_stopped(ts, weights, result))
    if envelope and not at_once:
        (_, far), _ = solve_reference(*given, True, concrete)
    return problem.trajectory(ts, weights, far if envelope else None, result)
