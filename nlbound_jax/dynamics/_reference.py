"""The reference network: linear, trained the same way, integrated without a pass over the data."""

from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .. import _validate
from .._forward import end_to_end
from .._results import RESULTS
from .._types import AnyArray, Numeric, Weights
from ..networks import LeakyMLP, check_network
from ._envelope import EnvelopeSlopes, envelope_field, envelope_slopes
from ._state import Solve
from ._steps import begin, march
from ._trajectory import is_concrete

RTOL = 1e-9
MAX_STEPS = 10_000
# For L >= 3 the envelope may blow up in finite time. Where a distance exceeds this multiple of
# the largest norm (or of 1) its solve ends, and nothing is claimed from there on.
BLOWN = 30.0


class ReferenceTrajectory(eqx.Module):
    """The reference network V along its flow, and how far the leaky network can be from it.

    **Attributes:**

    - `ts`: the times, `(times,)`.
    - `linear_map`: $\\omega V_L \\cdots V_1$, `(times d)`.
    - `norms`: $a_l = \\|V_l\\|$, `(times layers)`.
    - `frobenius`: $\\|V_l\\|_F$, `(times layers)`; the first is F.
    - `residual`: $\\|q - \\omega V_L \\cdots V_1\\|$, `(times,)`.
    - `envelope`: $x_l \\ge \\|W_l - V_l\\|_F$, `(times layers)`, `+inf` from its blow-up on; `None`
        if it was not asked for.
    - `weights`: the $V_l$, `(times out in)` each.
    - `result`: how the solve ended; entries that were not reached are `inf`.
    """

    ts: Float[Array, " times"]
    linear_map: Float[Array, "times d"]
    norms: Float[Array, "times layers"]
    frobenius: Float[Array, "times layers"]
    residual: Float[Array, " times"]
    envelope: Float[Array, "times layers"] | None
    weights: tuple[Float[Array, "times _out _in"], ...]
    result: RESULTS

    @property
    def scale(self) -> Float[Array, " times"]:
        """$\\|\\omega V_L \\cdots V_1\\|$, the size of the reference network's outputs."""
        return jnp.linalg.norm(self.linear_map, axis=-1)


def _basis(rows: Float[Array, "k d"]) -> Float[Array, "d r"] | None:
    """An orthonormal basis of the span of the rows; `None` where it is the whole space."""
    count, d = rows.shape
    if _validate.is_traced(rows):  # the rank would be a shape
        return jnp.linalg.qr(rows.T)[0] if count < d else None
    # Each row by itself at unit length: q and the small weights count alike.
    sizes = jnp.linalg.norm(rows, axis=1, keepdims=True)
    _, values, axes = jnp.linalg.svd(rows / jnp.where(sizes > 0, sizes, 1), full_matrices=False)
    rank = max(1, int(jnp.sum(values > 1e-13 * values[0])))
    return axes[:rank].T if rank < d else None


def reduce_coordinates(
    weights: Weights, target: Float[Array, " d"]
) -> tuple[Weights, Float[Array, " r"], list[Float[Array, "_full _r"] | None]]:
    """V and q in orthonormal bases of subspaces that the flow never leaves; a basis is `None`
    where its subspace is the whole space.

    Inputs: the span of the rows of $V_1(0)$ and q. The hidden layer at L = 2: the span of the
    columns of $V_1(0)$ and the row $V_2(0)$. For rank-one initialization $V_1$ is then 2 x 2.
    """
    first, *rest = weights
    inputs = _basis(jnp.concatenate([first, target[None]]))
    if inputs is not None:
        first, target = first @ inputs, target @ inputs
    hidden = _basis(jnp.concatenate([first.T, rest[0]])) if len(rest) == 1 else None
    if hidden is not None:
        first, rest = hidden.T @ first, [rest[0] @ hidden]
    return (first, *rest), target, [inputs, hidden]


def spectral_norm(w: Float[Array, "out in"]) -> Float[Array, ""]:
    """$\\|W\\|$ by the largest eigenvalue of the smaller Gram matrix."""
    if min(w.shape) == 1:
        return jnp.linalg.norm(w)
    gram = w @ w.T if w.shape[0] <= w.shape[1] else w.T @ w
    return jnp.sqrt(jnp.maximum(jnp.linalg.eigvalsh(gram)[-1], 0.0))


def _norms(weights: Weights) -> Float[Array, " layers"]:
    return jnp.stack([spectral_norm(w) for w in weights])


def _reference_field(weights: Weights, omega, target) -> tuple[Weights, Float[Array, ""]]:
    # Products from the left, V_L ... V_{l+1}, and from the right, V_{l-1} ... V_1 r.
    left = [jnp.ones((1, 1), target.dtype)]
    for w in weights[:0:-1]:
        left.append(left[-1] @ w)
    residual = target - omega * (left[-1] @ weights[0])[0]
    right = [residual]
    for w in weights[:-1]:
        right.append(w @ right[-1])
    pairs = zip(left[::-1], right, strict=True)
    return tuple(omega * jnp.outer(a[0], b) for a, b in pairs), jnp.linalg.norm(residual)


def is_blown(distances, norms, depth: int):
    """Whether the envelope counts as blown up; at L = 2 it never does."""
    limit = BLOWN * jnp.maximum(1.0, jnp.max(norms)) if depth > 2 else jnp.inf
    return jnp.max(distances) > limit


@eqx.filter_jit
def _solve(
    start: Weights,
    target,
    ts,
    slope: EnvelopeSlopes,
    initial_residual,
    unit,
    envelope: bool,
    concrete: bool,
) -> tuple[Any, RESULTS]:
    """V over its smallest norm and the envelope over `unit`, so that one tolerance fits both. What
    is `concrete` is solved without a check of `ts` by the host, if nothing is to stop it."""
    alignment = jnp.linalg.norm(target)
    smallest = jnp.min(jnp.stack([jnp.linalg.norm(w) for w in start]))

    def field(t, state, args):
        scaled, far = state
        weights = tuple(w * smallest for w in scaled)
        moving, residual = _reference_field(weights, slope.omega, target)
        moving = tuple(w / smallest for w in moving)
        if not envelope:
            return moving, far
        first = jnp.linalg.norm(weights[0])
        rates = envelope_field(
            jnp.maximum(far, 0.0) * unit,
            _norms(weights),
            first,
            residual,
            alignment,
            initial_residual,
            slope,
        )
        return moving, rates / unit

    def blown(t, state, args, **kwargs):
        return is_blown(state[1] * unit, _norms(state[0]) * smallest, slope.depth)

    term, solver = diffrax.ODETerm(field), diffrax.Tsit5()
    controller = diffrax.PIDController(rtol=RTOL, atol=RTOL)
    y0 = tuple(w / smallest for w in start), jnp.zeros(slope.depth if envelope else 0)
    stops = envelope and slope.depth > 2
    if concrete and not stops:
        solve = Solve(term, None, ts[-1], ts, solver, controller)
        state, ended = march(begin(y0, solve), solve, jnp.asarray(MAX_STEPS))
        weights, far = state.saved
    else:
        solution = diffrax.diffeqsolve(
            term,
            solver,
            t0=0.0,
            t1=ts[-1],
            dt0=None,
            y0=y0,
            saveat=diffrax.SaveAt(ts=ts),
            stepsize_controller=controller,
            max_steps=MAX_STEPS,
            throw=False,
            event=diffrax.Event(blown) if stops else None,
        )
        (weights, far), ended = solution.ys, solution.result  # pyright: ignore
    result = (tuple(w * smallest for w in weights), far * unit)
    return result, RESULTS.promote(ended)


@eqx.filter_jit
def _measure(weights, distances, target, slope: EnvelopeSlopes):
    """Norms, linear map and residual at the saved times; `inf` where the envelope has blown."""
    unreached = ~jnp.isfinite(weights[0]).all(axis=(1, 2))

    def one(weights):
        linear_map = slope.omega * end_to_end(weights)
        frobenius = jnp.stack([jnp.linalg.norm(w) for w in weights])
        return _norms(weights), frobenius, linear_map, jnp.linalg.norm(target - linear_map)

    finite = tuple(jnp.where(unreached[:, None, None], 0.0, w) for w in weights)
    norms, frobenius, linear_map, residual = jax.vmap(one)(finite)

    def reached(values):
        mask = unreached.reshape(-1, *(1,) * (values.ndim - 1))
        return jnp.where(mask, jnp.inf, values)

    if distances.shape[1]:
        blown = jax.vmap(lambda x, a: is_blown(x, a, slope.depth))(distances, norms)
        blown = jnp.cumsum(blown) > 0
        distances = jnp.where(blown[:, None], jnp.inf, jnp.maximum(distances, 0.0))
    return jax.tree.map(reached, (norms, frobenius, linear_map, residual, distances))


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
    target: Float[AnyArray, " d"],
    ts: Float[AnyArray, " times"],
    *,
    envelope: bool = True,
    initial_residual: Numeric | None = None,
    throw: bool = False,
) -> ReferenceTrajectory:
    """The flow of the reference network: linear, slope $\\sigma = 1 - \\epsilon/2$, same start.

    $\\dot V_l = \\omega (V_L \\cdots V_{l+1})^\\top r\\, (V_{l-1} \\cdots V_1)^\\top$ with
    $r = q - \\omega V_L \\cdots V_1$ and $\\omega = \\sigma^{L-1}$. It sees the data only
    through q. With it the envelope $x_l \\ge \\|W_l - V_l\\|_F$, $x_l(0) = 0$, which bounds how
    far the leaky network that is trained from the same start can be; it needs neither the data
    nor Assumption 5.1.

    **Main arguments:**

    - `net`: the leaky network at time 0.
    - `target`: $q = Y \\tilde X^\\top / m$, `(d,)` (`task.target`).
    - `ts`: the times to save, increasing, `(times,)`.

    **Other arguments:**

    - `envelope`: whether to integrate the envelope as well.
    - `initial_residual`: the root mean square of $y - f(\\tilde x)$ over the training set at
        time 0; by default the bound $1 + \\|W_1(0)\\|_F \\prod_{j \\ge 2} \\|W_j(0)\\|$.
    - `throw`: raise if the solve of V does not get to the last time; otherwise what it reached is
        kept and `result` says why. An envelope that blows up is no failure.

    **Returns:**

    A [`ReferenceTrajectory`][].

    **Raises:**

    `ValueError` naming the argument, or if `jax_enable_x64` is not set: it needs float64; with
    `throw`, `RuntimeError` saying after which time the solve stopped.
    """
    _validate.needs_x64("reference_flow")
    net, envelope = check_network("net", net), _validate.flag("envelope", envelope)
    throw = _validate.flag("throw", throw)
    ts = _validate.real("ts", ts, 0)
    if ts.ndim != 1 or not ts.shape[0]:
        raise ValueError(f"`ts` must be increasing times (times,), got shape {ts.shape}.")
    if not _validate.is_traced(ts) and (np.diff(np.asarray(ts)) < 0).any():
        raise ValueError("`ts` must be increasing, got times that are not.")
    target = _validate.real("target", target)
    if target.shape != net.weights[0].shape[1:]:
        raise ValueError(
            f"`target` must have shape {net.weights[0].shape[1:]}, got {target.shape}."
        )
    start = tuple(w.astype(float) for w in net.weights)
    slope = envelope_slopes(net.epsilon.astype(float), net.depth)
    norms = _norms(start)
    if initial_residual is None:
        ell = 1 + jnp.linalg.norm(start[0]) * jnp.prod(norms[1:])
    else:
        ell = _validate.number("initial_residual", initial_residual, 0)
    # The sources of the envelope are of the size of epsilon times a weight norm.
    unit = jnp.max(norms) * jnp.where(net.epsilon > 0, net.epsilon, 1.0).astype(float)
    small, reduced, (inputs, hidden) = reduce_coordinates(start, target)
    # V by itself, so that it goes on where the envelope has blown up; at L = 2 it never does.
    at_once = envelope and net.depth == 2
    given = (small, reduced, ts, slope, ell, unit)
    concrete = is_concrete(given)
    (weights, distances), result = _solve(*given, at_once, concrete)
    failed = is_concrete((weights, result)) and result != RESULTS.successful
    if failed and at_once:  # a large envelope may have stopped V: V by itself
        (weights, _), result = _solve(*given, False, concrete)
        failed = result != RESULTS.successful
    if failed and throw:
        raise RuntimeError(_stopped(ts, weights, result))
    if envelope and not at_once:
        (_, distances), _ = _solve(*given, True, concrete)
    measured = _measure(weights, distances, reduced, slope)
    norms, frobenius, linear_map, residual, distances = measured
    if hidden is not None:
        weights = (hidden @ weights[0], weights[1] @ hidden.T)
    if inputs is not None:
        reached = jnp.isfinite(linear_map).all(axis=-1, keepdims=True)
        linear_map = jnp.where(reached, jnp.where(reached, linear_map, 0.0) @ inputs.T, jnp.inf)
        weights = (weights[0] @ inputs.T, *weights[1:])
    return ReferenceTrajectory(
        ts, linear_map, norms, frobenius, residual, distances if envelope else None, weights, result
    )
