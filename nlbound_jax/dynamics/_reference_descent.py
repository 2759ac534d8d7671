"""The reference network trained by finite steps, and the envelope of that."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .. import _validate
from .._results import RESULTS, where
from .._types import AnyArray, Numeric, Weights
from ..networks import LeakyMLP
from ._envelope import EnvelopeSlopes
from ._lemma import envelope_rates
from ._linear import layer_norms, reference_motion, reference_sizes
from ._loss_steps import loss_after_step
from ._reference import ReferenceTrajectory, pose_reference
from ._reference_solve import Envelope, no_distance
from ._statistic import Statistic

# From this distance on nothing is claimed: the squares of the next would be beyond the doubles.
LARGEST = 1e50

_Scalar = Float[Array, ""]


class Method(NamedTuple):
    """A linear method: $M_+ = \\mu M + \\nu (G - w W)$ and $W_+ = W + \\eta (\\alpha (G - w W) +
    \\beta M)$.

    **Attributes:**

    - `momentum`, `fresh`: $\\mu$ and $\\nu$.
    - `gradient`, `trace`: $\\alpha$ and $\\beta$.
    - `weight_decay`: w.
    """

    momentum: _Scalar
    fresh: _Scalar
    gradient: _Scalar
    trace: _Scalar
    weight_decay: _Scalar


class _State(NamedTuple):
    """Where a run is: V and its trace, the envelope of both, and whether that has blown up."""

    weights: Weights
    moments: Weights
    far: Envelope
    far_moments: Envelope
    blown: Array


class _Run(eqx.Module):
    """What a run is made of."""

    statistic: Statistic
    slope: EnvelopeSlopes
    momentum: _Scalar
    dampening: _Scalar
    weight_decay: _Scalar
    nesterov: bool = eqx.field(static=True)
    has_momentum: bool = eqx.field(static=True)
    descends: bool = eqx.field(static=True)
    envelope: bool = eqx.field(static=True)

    def method(self, count: Array) -> Method:
        """The method of a step: as in PyTorch, the first gradient is not dampened."""
        one = jnp.ones_like(self.momentum)
        if not self.has_momentum:
            return Method(0 * one, one, one, 0 * one, self.weight_decay)
        fresh = jnp.where(count > 0, 1 - self.dampening, 1.0)
        if self.nesterov:
            gradient, trace = 1 + self.momentum * fresh, self.momentum**2
        else:
            gradient, trace = fresh, self.momentum
        return Method(self.momentum, fresh, gradient, trace, self.weight_decay)

    def step(self, state: _State, count: Array, eta: _Scalar) -> _State:
        """One step of V and of the envelope."""
        use = self.method(count)
        moving, pieces, defect = reference_motion(state.weights, self.slope.omega, self.statistic)

        def carry(w, m, g):
            g = g - use.weight_decay * w
            return w + eta * (use.gradient * g + use.trace * m), use.momentum * m + use.fresh * g

        moved = [carry(*a) for a in zip(state.weights, state.moments, moving, strict=True)]
        weights, moments = (tuple(parts) for parts in zip(*moved, strict=True))
        if not self.envelope:
            return state._replace(weights=weights, moments=moments)
        sizes = reference_sizes(state.weights, pieces, self.statistic)
        far, old = state.far, state.far_moments
        rates = envelope_rates(far.layers, far.inner, sizes, self.slope, far.loss)
        kept = jnp.abs(1 - eta * use.gradient * use.weight_decay)

        # Coefficients by their moduli: what the two runs differ by moves as the runs do.
        def widen(x, p, g):
            x_next = kept * x + eta * (use.gradient * g + use.trace * p)
            return x_next, use.momentum * p + use.fresh * (g + use.weight_decay * x)

        layers, p_layers = widen(far.layers, old.layers, rates.layers + defect[:-1])
        rate = jnp.full_like(far.weighted, rates.weighted + defect[-1])
        weighted, p_weighted = widen(far.weighted, old.weighted, rate)
        wider = Envelope(layers, weighted, far.loss)
        if self.descends:
            size = jnp.linalg.norm(jnp.stack([jnp.linalg.norm(m) for m in moving]) + defect[:-1])
            bound = size + jnp.linalg.norm(rates.layers)
            loss = self.loss(state, wider, weights, rates.terms.ell, eta, bound)
            wider = Envelope(layers, weighted, loss)
        fine = [jnp.all(x < LARGEST) for x in (layers, weighted, p_layers, p_weighted)]
        blown = state.blown | ~jnp.stack(fine).all()
        return _State(weights, moments, wider, Envelope(p_layers, p_weighted, old.loss), blown)

    def loss(self, state: _State, wider: Envelope, weights: Weights, ell, eta, bound) -> _Scalar:
        """The bound on the loss after the step."""
        pairs = ((state.weights, state.far), (weights, wider))
        upper = [_upper(w, far, self.statistic) for w, far in pairs]
        behind, first = (jnp.maximum(a, b) for a, b in zip(*upper, strict=True))
        roots = self.statistic.roots
        kappa = jnp.ones_like(ell) if roots is None else jnp.max(roots)
        epsilon = 2 * self.slope.half
        return loss_after_step(ell, eta, behind, first, kappa, bound, epsilon)


def _upper(weights: Weights, far: Envelope, statistic: Statistic):
    """The largest norms of W's layers behind the first, and of $W_1 \\Sigma^{1/2}$ in Frobenius
    norm."""
    norms = layer_norms(weights[1:]) + far.layers[1:]
    return norms, jnp.linalg.norm(statistic.weigh(weights[0])) + far.inner


@eqx.filter_jit
def _descend(start: Weights, run: _Run, etas: Float[Array, "saves every"], loss: _Scalar):
    """All steps, and what is saved of them."""
    depth = len(start)

    def step(state: _State, given):
        return run.step(state, *given), None

    def save(state: _State, given):
        state, _ = jax.lax.scan(step, state, given)
        return state, (state.weights, state.far, state.blown)

    zeros = jax.tree.map(jnp.zeros_like, start)
    nowhere = no_distance(depth, run.statistic, loss)
    state = _State(start, zeros, nowhere, nowhere, jnp.asarray(False))
    counts = jnp.arange(etas.size).reshape(etas.shape)
    _, (weights, far, blown) = jax.lax.scan(save, state, (counts, etas))
    far = jax.tree.map(
        lambda x: jnp.where(blown.reshape(-1, *(1,) * (x.ndim - 1)), jnp.inf, x), far
    )
    return weights, far


def _step_sizes(
    step_size: Float[Array, ""], schedule: Callable[[Any], Any] | None, num_steps: int
) -> Float[Array, " steps"]:
    if schedule is None:
        return jnp.full(num_steps, step_size)
    if not callable(schedule):
        raise ValueError(
            "`schedule` must be a function of the number of a step, from 0, got "
            f"{_validate.shown(schedule)}."
        )
    factors = jax.vmap(lambda count: jnp.asarray(schedule(count), float))(jnp.arange(num_steps))
    factors = _validate.real("schedule", factors, 0)
    if factors.shape != (num_steps,):
        raise ValueError(f"`schedule` must give single numbers, got shape {factors.shape[1:]}.")
    return step_size * factors


def reference_descent(
    net: LeakyMLP,
    target: Float[AnyArray, "*outputs d"],
    num_steps: int,
    *,
    step_size: Numeric,
    momentum: Numeric = 0.0,
    nesterov: bool = False,
    dampening: Numeric = 0.0,
    weight_decay: Numeric = 0.0,
    schedule: Callable[[Any], Any] | None = None,
    second_moment: Float[AnyArray, "d d"] | None = None,
    label_size: Numeric | None = None,
    driver: tuple[Any, Any] | None = None,
    envelope: bool = True,
    initial_residual: Numeric | None = None,
    save_every: int | None = None,
) -> ReferenceTrajectory:
    """The reference network trained by full-batch gradient descent, perhaps with momentum, and how
    far the leaky network that is trained in the same way can be from it, at every step, whatever
    the step size and whether or not the loss descends.

    The methods are those of
    `optax.chain(optax.add_decayed_weights(weight_decay), optax.sgd(schedule, momentum, nesterov))`
    and of `torch.optim.SGD` (which has the dampening; weight decay is added to the gradient, before
    the momentum). With $R_l$ as in [`reference_flow`][], w the weight decay and $\\tau$ the
    dampening, from the second step on, a step is

    $U = R - w V$, $M \\leftarrow \\mu M + (1 - \\tau) U$ and then $V \\leftarrow V + \\eta M$, with
    `nesterov` $V \\leftarrow V + \\eta (U + \\mu M)$, without momentum $V \\leftarrow V + \\eta U$.

    **Main arguments:**

    - `net`: the leaky network at the start.
    - `target`: $q = Y X^\\top / m$, as for [`reference_flow`][].
    - `num_steps`: the number of steps.
    - `step_size`: the learning rate $\\eta$.

    **Other arguments:**

    - `momentum`: $\\mu$, in [0, 1].
    - `nesterov`: whether to use Nesterov's momentum.
    - `dampening`: $\\tau$, in [0, 1]; Optax has none.
    - `weight_decay`: w, at least 0.
    - `schedule`: a function of the number of a step, from 0, that `step_size` is multiplied by: an
        Optax schedule, with `step_size=1.0`.
    - `second_moment`, `label_size`, `driver`, `envelope`: as for [`reference_flow`][].
    - `initial_residual`: the root mean square of $y - f(x)$ over the training set at the start, as
        for [`reference_flow`][]; with momentum or weight decay it is of no use.
    - `save_every`: save every so many steps, a divisor of `num_steps`; the end only by default.

    **Returns:**

    A [`ReferenceTrajectory`][]; its `ts` are the sums of the step sizes. `result` is `diverged` if
    V is not finite at the end.

    **Raises:**

    `ValueError` naming the argument, or if `jax_enable_x64` is not set: it needs float64.
    """
    _validate.needs_x64("reference_descent")
    envelope, nesterov = _validate.flag("envelope", envelope), _validate.flag("nesterov", nesterov)
    num_steps = _validate.integer("num_steps", num_steps, 1)
    save_every = num_steps if save_every is None else save_every
    save_every = _validate.integer("save_every", save_every, 1, num_steps)
    if num_steps % save_every:
        raise ValueError(f"`save_every` must divide num_steps = {num_steps}, got {save_every}.")
    eta = _validate.number("step_size", step_size, 0, open_low=True)
    momentum = _validate.number("momentum", momentum, 0, 1)
    dampening = _validate.number("dampening", dampening, 0, 1)
    decay = _validate.number("weight_decay", weight_decay, 0)
    problem = pose_reference(
        net,
        target,
        second_moment=second_moment,
        label_size=label_size,
        driver=driver,
        initial_residual=initial_residual,
        envelope=envelope,
    )
    etas = _step_sizes(eta, schedule, num_steps).reshape(-1, save_every)
    # Which proofs hold is a matter of what is switched on, and so of the program; what JAX traces
    # is taken to be on.
    has_momentum, has_decay = (_validate.is_traced(n) or bool(n > 0) for n in (momentum, decay))
    run = _Run(
        problem.statistic,
        problem.slope,
        momentum,
        dampening,
        decay,
        nesterov,
        has_momentum,
        descends=not has_momentum and not has_decay,
        envelope=envelope,
    )
    loss = problem.loss if run.descends else jnp.full_like(problem.loss, jnp.inf)
    weights, far = _descend(problem.weights, run, etas, loss)
    finite = jnp.stack([jnp.isfinite(w[-1]).all() for w in weights]).all()
    result = where(finite, RESULTS.successful, RESULTS.diverged)
    ts = jnp.cumsum(etas.sum(axis=1))
    if schedule is None:
        ts = eta * (save_every * jnp.arange(1, len(etas) + 1)).astype(float)
    return problem.trajectory(ts, weights, far if envelope else None, result)
