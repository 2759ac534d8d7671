"""What is known of a network at one point of training."""

import functools
from typing import Any, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from .._results import RESULTS, explained
from ..bounds import HeldOutWhitening, held_out_whitening
from ..networks import LeakyMLP, in_units
from ..tasks import Task
from ._anchor import Anchor, Anchored, anchored
from ._terms import Terms

# The share of delta that bounds the second moments where nothing is plugged in.
MOMENT_SHARE = 0.1

_Scalar = Float[Array, ""]


class Samples(eqx.Module):
    """The training set as the bounds need it: samples in columns, in the dtype of the network.

    **Attributes:**

    - `x`, `y`: whitened inputs `(d m)` and labels `(m,)`.
    - `norms`: $\\|\\tilde x_i\\|$, `(m,)`.
    - `spectrum`: eigenvalues of $\\Sigma_X$, `(d,)`.
    - `alignment`: s.
    - `matrix`: raw inputs to whitened ones, `(features d)`.
    - `held_out`: the whitening by held-out inputs, or `None`.
    - `moment_share`: the share of $\\delta$ that its second moments have spent: a bound that uses
        it has the rest.
    - `anchor`: the second part of the sample and the anchor, an [`Anchored`][], or `None`.
    """

    x: Float[Array, "d m"]
    y: Float[Array, " m"]
    norms: Float[Array, " m"]
    spectrum: Float[Array, " d"]
    alignment: _Scalar
    matrix: Float[Array, "features d"]
    held_out: HeldOutWhitening | None
    anchor: Anchored | None = None
    moment_share: float = eqx.field(static=True, default=MOMENT_SHARE)

    @property
    def dim(self) -> int:
        """d."""
        return self.x.shape[0]

    @property
    def num_samples(self) -> int:
        """m."""
        return self.x.shape[1]


def has_held_out(task: Task) -> bool:
    """Whether a task has what the bounds without a plug-in need: test inputs, a bound on the norm
    known beforehand, and a whitening that kept all of the training set. If `components` or `cut`
    dropped a direction, the raw inputs cannot be had back: what is left is a projection that the
    sample chose, and its second moment says nothing of a new input's.

    **Arguments:**

    - `task`: the data.

    **Returns:**

    A bool.
    """
    known = task.held_out is not None and task.norm_bound is not None
    return known and task.keeps_all


def samples_of(
    task: Task, dtype: Any, delta: float, *, held_out: bool = True, anchor: Anchor | None = None
) -> Samples:
    """The training set of a task as the bounds need it.

    **Arguments:**

    - `task`: the data.
    - `dtype`: of the network.
    - `delta`: one minus the confidence of each bound.
    - `held_out`: whether to whiten by the held-out inputs as well, if there are any: it costs
        a pass over them.
    - `anchor`: out of [`anchor_of`][], of a split of this task.

    **Returns:**

    A [`Samples`][].
    """
    whitening = None
    if held_out and has_held_out(task):
        inputs, norm_bound = cast("tuple[np.ndarray, float]", (task.held_out, task.norm_bound))
        whitening = held_out_whitening(
            task.transform.inverse(task.x),
            inputs,
            norm_bound=norm_bound,
            delta=MOMENT_SHARE * delta,
        )
    return Samples(
        x=jnp.asarray(task.x.T, dtype),
        y=jnp.asarray(task.y, dtype),
        norms=jnp.asarray(np.linalg.norm(task.x, axis=1), dtype),
        spectrum=jnp.asarray(task.spectrum, float),
        alignment=jnp.asarray(min(task.alignment, 1.0)),  # rounding may lift it above
        matrix=jnp.asarray(task.transform.matrix, float),
        held_out=whitening,
        anchor=None if anchor is None else anchored(anchor, task),
    )


class Start(eqx.Module):
    """The network at time 0 and its norms. They are measured, since rounding may lift a norm just
    above the beta that was asked for.

    **Attributes:**

    - `net`: the network.
    - `norms`: $\\|W_l(0)\\|$, `(layers,)`.
    - `frobenius`: $\\|W_1(0)\\|_F$.
    """

    net: LeakyMLP
    norms: Float[Array, " layers"]
    frobenius: _Scalar


def start_of(net: LeakyMLP) -> Start:
    """The network at time 0 and its norms, in float64.

    **Arguments:**

    - `net`: a [`LeakyMLP`][].

    **Returns:**

    A [`Start`][].
    """
    weights = [np.asarray(w, float) for w in net.weights]
    norms = jnp.asarray([np.linalg.norm(w, 2) for w in weights])
    return Start(net, norms, jnp.asarray(np.linalg.norm(weights[0])))


class Reference(eqx.Module):
    """The reference network V at one time: `weights`, `norms` $\\|V_l\\|$ and `frobenius`
    $\\|V_l\\|_F$, `(layers,)`, and the `envelope` $x_l \\ge \\|W_l - V_l\\|_F$, `(layers,)`, or
    `None`. Over time every array has a leading axis."""

    weights: tuple[Float[Array, "*times _out _in"], ...]
    norms: Float[Array, "*times layers"]
    frobenius: Float[Array, "*times layers"]
    envelope: Float[Array, "*times layers"] | None


class Snapshot(eqx.Module):
    """One network and what is known of it; `None` where something is not known.

    **Attributes:**

    - `net`: the network.
    - `data`: its training set, a [`Samples`][].
    - `t`: the time of training.
    - `start`: the network at time 0, a [`Start`][].
    - `reference`: the reference network at time t, a [`Reference`][].
    - `gammas`: margins fixed before the sample was seen, `(k,)`.
    - `cells`: how many cells (t, gamma) a bound that needs a union over them pays for.
    - `key`: for bounds that draw at random.
    - `anchor_reference`: the weights of the anchor's reference network on $\\hat x$, at the time of
        this point among its own.
    """

    net: LeakyMLP
    data: Samples
    t: _Scalar | None = None
    start: Start | None = None
    reference: Reference | None = None
    gammas: Float[Array, " k"] | None = None
    cells: _Scalar | None = None
    key: PRNGKeyArray | None = None
    anchor_reference: tuple[Float[Array, "_out _in"], ...] | None = None

    @property
    def envelope(self) -> Float[Array, " layers"] | None:
        """$x_l \\ge \\|W_l - V_l\\|_F$, if it is known."""
        return None if self.reference is None else self.reference.envelope

    @property
    def held_out(self) -> HeldOutWhitening | None:
        """The whitening by held-out inputs, if there are any."""
        return self.data.held_out

    @property
    def anchor(self) -> Anchored | None:
        """The second part of the sample and the anchor, if there is one."""
        return self.data.anchor

    @property
    def along(self) -> tuple[Any, Any, Any]:
        """`t`, `gammas` and `cells`, for a bound that needs them."""
        return self.t, self.gammas, self.cells

    @property
    def weights(self) -> tuple[Float[Array, "_out _in"], ...]:
        """The weights in float64."""
        return tuple(w.astype(float) for w in self.net.weights)

    @property
    def epsilon(self) -> _Scalar:
        """One minus the negative slope, in float64."""
        return self.net.epsilon.astype(float)

    # Kept, as every bound asks for them: XLA does not find out that they are the same.
    @functools.cached_property
    def relative(self) -> tuple[Float[Array, " m"], Float[Array, ""]]:
        """$y_i f(x_i)$ over a unit of the network's own, and the unit: see [`in_units`][]."""
        return self.relative_margins(self.net)

    @property
    def margins(self) -> Float[Array, " m"]:
        """$y_i f(x_i)$, in float64."""
        margins, unit = self.relative
        return margins.astype(float) * unit

    @functools.cached_property
    def _risks_at_gammas(self) -> tuple[Any, Any] | None:
        return None if self.gammas is None else self._risks(self.gammas)

    def measured(self) -> "Snapshot":
        """The same snapshot, its margins and risks measured now: before a bound asks for them
        inside a loop, where they would not outlive it.

        **Returns:**

        The snapshot itself.
        """
        _ = self.relative, self._risks_at_gammas
        return self

    def relative_margins(self, net: LeakyMLP) -> tuple[Float[Array, " m"], Float[Array, ""]]:
        """$y_i f(x_i)$ of a network over a unit of its own, in which nothing underflows.

        **Arguments:**

        - `net`: a [`LeakyMLP`][].

        **Returns:**

        The margins over the unit, `(m,)`, in the dtype of the data, and the unit in float64.
        """
        scaled, unit = in_units(net)
        scaled = jax.tree.map(lambda leaf: leaf.astype(self.data.y.dtype), scaled)
        return self.data.y * scaled.features_first(self.data.x), unit

    def margin_risk(self, gammas: Float[Array, " k"]) -> Float[Array, " k"]:
        """The share of the training set with $y f(x) < \\gamma$.

        **Arguments:**

        - `gammas`: margins, `(k,)`.

        **Returns:**

        The shares, `(k,)`; NaN where a margin is.
        """
        return self._known_risks(gammas)[0]

    def ramp_risk(self, gammas: Float[Array, " k"]) -> Float[Array, " k"]:
        """The mean of $\\min(1, \\max(0, 1 - y f(x) / \\gamma))$ over the training set.

        **Arguments:**

        - `gammas`: margins, `(k,)`.

        **Returns:**

        The means, `(k,)`; NaN where a margin is.
        """
        return self._known_risks(gammas)[1]

    def _known_risks(self, gammas) -> tuple[Any, Any]:
        known = self._risks_at_gammas if gammas is self.gammas else None
        return self._risks(gammas) if known is None else known

    def _risks(self, gammas) -> tuple[Any, Any]:
        # Margins are compared in the dtype of the network; counts are exact in float64.
        margins, unit = self.relative
        ratio = margins[None] / (gammas / unit).astype(margins.dtype)[:, None]
        # What is not known to be right (NaN, or a margin that underflows) counts as wrong.
        risk = jnp.mean(~(ratio >= 1), axis=-1, dtype=float)
        ramp = jnp.where(jnp.isnan(ratio), 1.0, jnp.clip(1 - ratio, 0, 1))
        ramp = jnp.mean(ramp, axis=-1, dtype=float)
        known = ~jnp.isnan(gammas)
        return jnp.where(known, risk, jnp.nan), jnp.where(known, ramp, jnp.nan)

    def terms(
        self,
        *,
        gamma: Float[Array, "..."] | None,
        train_term: Float[Array, "..."] | float,
        complexity: Float[Array, "..."] | float,
        rest: Float[Array, "..."] | float,
        result: RESULTS,
        parts: dict[str, Any],
        certified: tuple[Float[Array, "_out _in"], ...] | None = None,
    ) -> Terms:
        """What a bound says, and beside it the risks of the network at the bound's margins.

        **Arguments:**

        - `gamma`: the margins, `(k,)` or a number; `None` where the bound has none.
        - `train_term`, `complexity`, `rest`: numbers or `(k,)`; they add up to the bound.
        - `result`: a member of `RESULTS`, of such a shape.
        - `parts`: whatever the bound is made of, by its own names: numbers or `(k, ...)`.
        - `certified`: the weights of the network that the bound is about, where that is another.

        **Returns:**

        A [`Terms`][], every array `(k,)`.
        """
        if gamma is not self.gammas or gamma is None:
            gamma = jnp.atleast_1d(jnp.asarray(jnp.nan if gamma is None else gamma, float))

        def wide(value):
            value = jnp.asarray(value)
            return jnp.broadcast_to(value, gamma.shape + value.shape[1:])

        sums = (wide(train_term), wide(complexity), wide(rest))
        return Terms(
            gamma=gamma,
            train_term=sums[0],
            complexity=sums[1],
            rest=sums[2],
            margin_risk=self.margin_risk(gamma),
            ramp_risk=self.ramp_risk(gamma),
            result=explained(jax.tree.map(wide, result), sums[0] + sums[1] + sums[2]),
            parts={name: wide(part) for name, part in parts.items()},
            t=jnp.asarray(jnp.nan) if self.t is None else self.t,
            certified=None if certified is None else tuple(w[None] for w in certified),
        )
