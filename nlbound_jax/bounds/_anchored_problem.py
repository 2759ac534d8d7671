"""Two networks, an anchor and one near it, as the anchored bound needs them; cells and their
divergence."""

from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._forward import outputs
from ._anchored_nearby import Nearby, Reach, farthest, reach_of
from ._anchored_noise import Noise, Parts, Sample, in_deviations, in_units, over, parts_of

# Of |x|: below it its square loses digits.
_SMALLEST = 1e-140

_Scalar = Float[Array, ""]


class Problem(eqx.Module):
    """A network and an anchor in one metric, over the unit.

    **Attributes:**

    - `sample`: the network on S2.
    - `net`, `anchor`: their parts; where a sign differs the anchor's unit is zero.
    - `shapes`: $\\sqrt{r_k / \\sum r}$, `(shapes width)`.
    - `nonlinear`: 1, or 0 if epsilon is 0 and there is no nonlinear part.
    - `reach`: what was known of the network before it was trained, where the divergence is to be
        known before as well, or `None`.
    """

    sample: Sample
    net: Parts
    anchor: Parts
    shapes: Float[Array, "shapes width"]
    nonlinear: _Scalar
    reach: Reach | None = None


class Cell(NamedTuple):
    """One cell of the grid, or several with a leading axis."""

    linear: Array
    nonlinear: Array
    kappa: Array
    kappa_nonlinear: Array
    level: Array
    form: Array
    bump: Array
    shape: Array
    margin: Array


def _closest(problem: Problem, linear, units):
    """The factor of W, or of what is known of it, that brings it closest to the anchor in a
    metric."""
    net, anchor = problem.net, problem.anchor
    if problem.reach is not None:
        net, anchor = problem.reach.net, problem.reach.anchor

    def product(a: Parts, b: Parts):
        straight = jnp.sum((a.linear / linear) * (b.linear / linear))
        spread = units[:, None]
        return straight + jnp.sum(over(a.units, spread) * over(b.units, spread))

    own, both = product(net, net), product(net, anchor)
    factor = both / jnp.where(own > 0, own, 1.0)
    return jnp.where((own > 0) & (factor > 0), factor, 1.0)


def noise_of(problem: Problem, cell: Cell, tail: float) -> Noise:
    units = cell.nonlinear * problem.nonlinear * problem.shapes[cell.shape]
    scale = jnp.sqrt(cell.kappa), jnp.sqrt(cell.kappa_nonlinear)
    return Noise(
        factor=_closest(problem, scale[0] * cell.linear, scale[1] * units),
        linear=cell.linear,
        units=units,
        level=cell.level,
        form=cell.form,
        bump=cell.bump,
        tail=jnp.asarray(tail),
        margin=cell.margin,
    )


def divergence_of(problem: Problem, cell: Cell, noise: Noise):
    """KL, from the differences themselves, or from what they can be at most; where they turn out
    to be larger than that, from themselves: no solver's error makes the bound a false one."""
    net, anchor = problem.net, problem.anchor
    width, dim = net.units.shape
    straight = in_deviations(noise.factor * net.linear - anchor.linear, noise.linear)
    bent = in_deviations(noise.factor * net.units - anchor.units, noise.units[:, None])
    straight, bent = jnp.sum(straight**2), jnp.sum(bent**2)
    if problem.reach is not None:
        most = farthest(problem.reach, noise)
        straight, bent = jnp.maximum(straight, most[0]), jnp.maximum(bent, most[1])
    wide = straight / cell.kappa + bent / cell.kappa_nonlinear

    def free(kappa):
        return jnp.log(kappa) + 1 / kappa - 1

    count = problem.nonlinear * width * dim
    return (dim * free(cell.kappa) + count * free(cell.kappa_nonlinear) + wide) / 2


def problem_of(
    x, y, x_first, weights, anchor, shapes, epsilon, near: Nearby | None = None
) -> tuple[Problem, Array]:
    """The two networks over the unit, and in how many units they differ in sign, or may differ."""
    trained = weights
    weights, anchor = in_units(weights), in_units(anchor)
    centre = parts_of(anchor, epsilon)
    net = parts_of(weights, epsilon, centre.signs)
    same = net.signs == centre.signs
    sizes = jnp.linalg.norm(x_first, axis=1)
    on_first = over(outputs(anchor, x_first.T, epsilon), sizes)
    unit = jnp.sqrt(jnp.mean(on_first**2))
    unit = jnp.where(jnp.isfinite(unit) & (unit > 0), unit, 1.0)
    if shapes is None:
        size = jnp.linalg.norm(centre.units, axis=1)
        shapes = floored(size)[None]
    shapes = shapes / jnp.max(shapes, axis=1, keepdims=True)  # first, as the sum may overflow
    shapes = jnp.sqrt(shapes / jnp.sum(shapes, axis=1, keepdims=True))
    q = jnp.linalg.norm(x, axis=1)
    seen = (q > _SMALLEST) & jnp.isfinite(q)
    # By a forward pass: an output that is zero is zero there, and an error.
    margin = over(y * outputs(anchor, x.T, epsilon), q) / unit
    sample = Sample(
        y=y,
        anchor=jnp.where(jnp.isnan(margin) | ~seen, -jnp.inf, margin),
        seen=seen,
        output=over(y * outputs(weights, x.T, epsilon), q),
        bends=over(jnp.abs(x @ net.units.T), q[:, None]),
        signs=net.signs,
    )
    centre = Parts(centre.linear / unit, centre.units / unit, centre.signs)
    nonlinear = jnp.where(epsilon > 0, 1.0, 0.0)
    reach = None if near is None else reach_of(near, trained, centre, epsilon)
    near_net = Parts(centre.linear, jnp.where(same[:, None], centre.units, 0.0), centre.signs)
    differences = jnp.sum(~same)
    if reach is not None:
        differences = jnp.maximum(differences, reach.differences)
    return Problem(sample, net, near_net, shapes, nonlinear, reach), differences


def floored(sizes: Float[Array, "*shapes width"]) -> Float[Array, "*shapes width"]:
    """At least a fifth of the mean, and all alike where all are zero."""
    mean = jnp.mean(sizes, axis=-1, keepdims=True)
    return jnp.where(mean > 0, jnp.maximum(sizes, 0.2 * mean), 1.0)
