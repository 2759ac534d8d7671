"""The solve of the reference network's flow and of its envelope."""

from typing import Any, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._results import RESULTS
from .._types import Weights
from ._envelope import EnvelopeSlopes
from ._lemma import envelope_rates
from ._linear import Pieces, layer_norms, reference_motion, reference_sizes
from ._state import Solve
from ._statistic import Statistic
from ._steps import begin, march

RTOL = 1e-9
MAX_STEPS = 10_000
# For L >= 3 the envelope may blow up in finite time. Where a distance exceeds this multiple of
# the largest norm (or of 1) its solve ends, and nothing is claimed from there on.
BLOWN = 30.0
# How fast the least bound on the loss so far is followed, in units of the field's own rates: any
# positive number is right, and with a larger one the solver takes smaller steps.
FOLLOW = 3.0

_Scalar = Float[Array, ""]


class Envelope(NamedTuple):
    """Where an envelope is: every entry bounds what it is named after.

    **Attributes:**

    - `layers`: $x_l \\ge \\|W_l - V_l\\|_F$.
    - `weighted`: $\\tilde x \\ge \\|(W_1 - V_1) \\Sigma^{1/2}\\|_F$, `(1,)`; none if $\\Sigma = I$.
    - `loss`: $\\lambda$, at least the smallest bound on the root mean square of $y - f_W$ so far.
    """

    layers: Float[Array, "... layers"]
    weighted: Float[Array, "... one"]
    loss: Float[Array, "..."]

    @property
    def inner(self) -> Float[Array, "..."]:
        """$\\tilde x$, which is $x_1$ if $\\Sigma = I$."""
        return (self.weighted if self.weighted.shape[-1] else self.layers)[..., 0]


def no_distance(depth: int, statistic: Statistic, loss: _Scalar) -> Envelope:
    """The envelope at the start."""
    weighted = jnp.zeros(0 if statistic.roots is None else 1)
    return Envelope(jnp.zeros(depth), weighted, jnp.asarray(loss, float))


def is_blown(distances, norms, depth: int):
    """Whether the envelope counts as blown up; at L = 2 it never does."""
    limit = BLOWN * jnp.maximum(1.0, jnp.max(norms)) if depth > 2 else jnp.inf
    return jnp.max(distances) > limit


def _pace(norms, pieces: Pieces, statistic: Statistic, omega) -> _Scalar:
    """The rates of the reference network, from above: how fast it learns, and how fast what is left
    to learn decays. Not of the distances or the loss: the proof (Theorem 16) needs a function of
    time."""
    size, depth = jnp.max(norms), norms.shape[0]
    kappa = 1.0 if statistic.roots is None else jnp.max(statistic.roots)
    decay = (omega * kappa * size ** (depth - 1)) ** 2
    return omega * jnp.linalg.norm(pieces.pulled[0]) * size ** (depth - 2) + decay


@eqx.filter_jit
def solve_reference(
    start: Weights,
    statistic: Statistic,
    ts,
    slope: EnvelopeSlopes,
    initial_residual,
    unit,
    envelope: bool,
    concrete: bool,
) -> tuple[Any, RESULTS]:
    """V over its smallest norm and the envelope over `unit`, so that one tolerance fits both. What
    is `concrete` is solved without a check of `ts` by the host, if nothing is to stop it."""
    smallest = jnp.min(jnp.stack([jnp.linalg.norm(w) for w in start]))

    def field(t, state, args):
        scaled, far = state
        weights = tuple(w * smallest for w in scaled)
        moving, pieces, defect = reference_motion(weights, slope.omega, statistic)
        moving = tuple(m / smallest for m in moving)
        if not envelope:
            return moving, far
        sizes = reference_sizes(weights, pieces, statistic)
        layers = jnp.maximum(far.layers, 0.0) * unit
        inner = jnp.maximum(far.inner, 0.0) * unit
        rates = envelope_rates(layers, inner, sizes, slope, far.loss)
        pace = FOLLOW * _pace(sizes.norms, pieces, statistic, slope.omega)
        weighted = jnp.full_like(far.weighted, rates.weighted + defect[-1])
        return moving, Envelope(
            (rates.layers + defect[:-1]) / unit,
            weighted / unit,
            -pace * jnp.maximum(far.loss - rates.loss, 0.0),
        )

    def blown(t, state, args, **kwargs):
        return is_blown(state[1].layers * unit, layer_norms(state[0]) * smallest, slope.depth)

    term, solver = diffrax.ODETerm(field), diffrax.Tsit5()
    controller = diffrax.PIDController(rtol=RTOL, atol=RTOL)
    far = no_distance(slope.depth, statistic, initial_residual) if envelope else jnp.zeros(0)
    y0 = tuple(w / smallest for w in start), far
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
    weights = tuple(w * smallest for w in weights)
    if envelope:
        far = Envelope(far.layers * unit, far.weighted * unit, far.loss)
    return (weights, far), RESULTS.promote(ended)


class Measures(NamedTuple):
    """Norms of the reference network over time."""

    norms: Float[Array, "times layers"]
    frobenius: Float[Array, "times layers"]
    weighted: Float[Array, " times"]
    linear_map: Float[Array, "times outputs r"]
    residual: Float[Array, " times"]
    scale: Float[Array, " times"]


@eqx.filter_jit
def measure_reference(
    weights, far: Envelope | None, statistic: Statistic, slope: EnvelopeSlopes
) -> tuple[Measures, Envelope | None]:
    """Norms, linear map and residual at the saved times; `inf` where V was not reached, and for the
    distances from where the envelope has blown."""
    unreached = ~jnp.isfinite(weights[0]).all(axis=(1, 2))
    for w in weights[1:]:
        unreached = unreached | ~jnp.isfinite(w).all(axis=(1, 2))

    def one(weights) -> Measures:
        linear_map = weights[-1]
        for w in weights[-2::-1]:
            linear_map = linear_map @ w
        linear_map = slope.omega * linear_map
        frobenius = jnp.stack([jnp.linalg.norm(w) for w in weights])
        seen = statistic.weigh(linear_map)
        return Measures(
            layer_norms(weights),
            frobenius,
            jnp.linalg.norm(statistic.weigh(weights[0])),
            linear_map,
            jnp.linalg.norm(statistic.target - seen),
            jnp.linalg.norm(seen),
        )

    finite = tuple(jnp.where(unreached[:, None, None], 0.0, w) for w in weights)
    found = jax.vmap(one)(finite)

    def where(mask, values):
        return jnp.where(mask.reshape(-1, *(1,) * (values.ndim - 1)), jnp.inf, values)

    if far is not None:
        blown = jax.vmap(lambda x, a: is_blown(x, a, slope.depth))(far.layers, found.norms)
        # What is not a number is no bound.
        known = jnp.isfinite(far.layers).all(axis=1) & jnp.isfinite(far.weighted).all(axis=1)
        blown = jnp.cumsum(blown | ~known | unreached) > 0
        far = jax.tree.map(lambda x: where(blown, jnp.maximum(x, 0.0)), far)
    return jax.tree.map(lambda values: where(unreached, values), found), far
