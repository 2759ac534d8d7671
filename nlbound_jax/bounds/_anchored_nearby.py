"""A network that is not yet trained, in the anchored bound: what it can be at most."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from .. import _validate
from .._products import product_gap
from .._types import AnyArray, Weights
from ._anchored_noise import Noise, Parts, in_deviations, parts_of, unit_of

_Scalar = Float[Array, ""]

_ROUNDINGS = 1e-9  # of a norm that was computed, or given


class Nearby(eqx.Module):
    """What is known of a network W before it is trained: weights V near which it will be, such as
    those of the reference network, and how near.

    **Attributes:**

    - `weights`: $V_1$ `(width r)`, in the coordinates in which W is trained, and $V_2$ `(1 width)`.
    - `distances`: $x_l \\ge \\|W_l - V_l\\|_F$, `(2,)`, such as those of the envelope.
    - `matrix`: A, `(r d)`: a first-layer matrix in these coordinates times A acts on $\\hat x$.
    - `stretch`: $\\|A\\|$ (spectral) or more; computed if `None`.
    """

    weights: Weights
    distances: Float[AnyArray, "2"]
    matrix: Float[AnyArray, "r d"]
    stretch: Float[AnyArray, ""] | None = None

    def at_least_its_stretch(self) -> _Scalar:
        """$\\|A\\|$ or more.

        **Returns:**

        A number.
        """
        if self.stretch is not None:
            return jnp.asarray(self.stretch, float)
        return jnp.linalg.norm(jnp.asarray(self.matrix, float), 2)

    def over(self, root: Float[Array, " d"]) -> "Nearby":
        """The same in the metric $Q = \\text{diag}(\\text{root}^2)$.

        **Arguments:**

        - `root`: positive, `(d,)`.

        **Returns:**

        A [`Nearby`][] whose stretch is computed anew.
        """
        return Nearby(self.weights, self.distances, self.matrix / root[None])


class Reach(eqx.Module):
    """A [`Nearby`][] in the units of a problem.

    **Attributes:**

    - `net`: the parts of V on $\\hat x$, in the units of W.
    - `anchor`: those of the anchor, over the unit, none of its units zero.
    - `linear`: at least the distance of the linear parts of W and V on $\\hat x$.
    - `bend`: $\\epsilon/2$, by which a distance of units is multiplied.
    - `rows`, `last`: $\\|A\\| \\|V_{1k}\\|$ and $|V_{2k}|$, `(width,)`.
    - `distances`: $\\|A\\| x_1$ and $x_2$; zero where they are not finite.
    - `finite`: whether they are.
    - `differences`: in how many units at most the sign of W differs from the anchor's.
    """

    net: Parts
    anchor: Parts
    linear: _Scalar
    bend: _Scalar
    rows: Float[Array, " width"]
    last: Float[Array, " width"]
    distances: Float[Array, "2"]
    finite: Array
    differences: Int[Array, ""]


def reach_of(near: Nearby, weights: Weights, anchor: Parts, epsilon: _Scalar) -> Reach:
    """What is known of W in its units; `anchor` is over the problem's unit."""
    units = [unit_of(w.astype(float)) for w in weights]
    first, last = (w / unit for w, unit in zip(near.weights, units, strict=True))
    # Before any square: the matrix and the first layer may have opposite scales.
    stretch = near.at_least_its_stretch() * (1 + _ROUNDINGS)
    far = near.distances / jnp.stack(units) * jnp.stack([stretch, jnp.ones_like(stretch)])
    finite = jnp.isfinite(far).all()
    x = jnp.where(finite, far, 0.0)
    parts = parts_of((first @ near.matrix, last), epsilon)
    # Its sign also where its unit is zero: that of W may not be.
    net = Parts(parts.linear, parts.units, jnp.sign(last[0]))
    stretched, gains = stretch * first, jnp.abs(last[0])
    norms = [jnp.linalg.norm(stretched, 2), jnp.linalg.norm(last)]
    # To turn units over, W_2 must move by as much as they are.
    same = net.signs == anchor.signs
    squares = jnp.cumsum(jnp.sort(jnp.where(same, gains**2, jnp.inf)))
    turned = jnp.minimum(jnp.sum(squares <= x[1] ** 2) + jnp.sum(~same), len(gains))
    turned = jnp.where(finite, turned, len(gains))
    return Reach(
        net=net,
        anchor=anchor,
        linear=(1 - epsilon / 2) * product_gap(norms, list(x)),
        bend=epsilon / 2,
        rows=jnp.linalg.norm(stretched, axis=1),
        last=gains,
        distances=x,
        finite=finite,
        differences=jnp.where(epsilon > 0, turned, 0),  # without units there are no signs
    )


def farthest(reach: Reach, noise: Noise) -> tuple[_Scalar, _Scalar]:
    """At least $\\|a l_W - l_0\\|^2/S_0^2$ and $\\sum_k \\|a u_k - u_{0k}\\|^2 / \\sigma_k^2$ with
    the factor a."""
    factor, sigma, (x1, x2) = noise.factor, noise.units, reach.distances
    straight = jnp.linalg.norm(factor * reach.net.linear - reach.anchor.linear)
    straight = straight + factor * reach.linear
    moved = jnp.linalg.norm(factor * reach.net.units - reach.anchor.units, axis=1)
    own, others = (jnp.linalg.norm(p.units, axis=1) for p in (reach.net, reach.anchor))
    same = reach.net.signs == reach.anchor.signs
    # Where V has the other sign, W may have either.
    moved = jnp.where(same, moved, jnp.maximum(factor * own, others))
    bent = jnp.linalg.norm(in_deviations(moved, sigma))
    trained = jnp.max(in_deviations(reach.last, sigma)) * x1
    trained = trained + jnp.max(in_deviations(reach.rows, sigma)) * x2 + x1 * x2 / jnp.min(sigma)
    # Without nonlinear parts there is no noise on them either.
    trained = jnp.where(reach.bend > 0, factor * reach.bend * trained, 0.0)
    found = in_deviations(straight, noise.linear) ** 2, (bent + trained) ** 2
    return tuple(jnp.where(reach.finite, value, jnp.inf) for value in found)  # pyright: ignore


def checked_nearby(near: Nearby, width: int, dim: int) -> Nearby:
    """What was given of a network, in float64."""
    _validate.instance("near", near, Nearby)
    matrix = _validate.real("near.matrix", near.matrix)
    if matrix.ndim != 2 or matrix.shape[1] != dim:
        raise ValueError(f"`near.matrix` must have shape (r, {dim}), got {matrix.shape}.")
    weights = _validate.matrices("near.weights", near.weights)
    shapes = [(width, matrix.shape[0]), (1, width)]
    if [w.shape for w in weights] != shapes:
        raise ValueError(
            f"`near.weights` must have shapes {shapes}, got {[w.shape for w in weights]}."
        )
    _validate.finite("near.weights", weights)
    far = _validate.at_least_zero("near.distances", near.distances)
    if far.shape != (2,):
        raise ValueError(f"`near.distances` must have shape (2,), got {far.shape}.")
    weights = tuple(jnp.asarray(w, float) for w in weights)
    checked = Nearby(weights, jnp.asarray(far, float), jnp.asarray(matrix, float))
    if near.stretch is None:
        return Nearby(*_fields(checked), checked.at_least_its_stretch())
    stretch = _validate.number("near.stretch", near.stretch, 0)
    if not any(map(_validate.is_traced, (stretch, matrix))):
        least = float(checked.at_least_its_stretch())
        if float(stretch) < least * (1 - _ROUNDINGS / 2):
            raise ValueError(
                f"`near.stretch` must be at least the spectral norm {least:g} of `near.matrix`, "
                f"got {float(stretch):g}."
            )
    return Nearby(*_fields(checked), stretch)


def _fields(near: Nearby):
    return near.weights, near.distances, near.matrix
