"""The inequalities behind the trajectory bound and the split bound."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .._types import WeightsOverTime
from ..bounds import layer_factors, norms_nearby, output_distance, symmetrization_factor
from ..dynamics import ReferenceTrajectory, envelope_slopes, envelope_terms
from ._check import Check
from ._measure import Measured
from ._theorem import make


@eqx.filter_jit
def _known(reference: ReferenceTrajectory, epsilon, target, start) -> dict[str, jax.Array]:
    slope = envelope_slopes(epsilon, reference.norms.shape[1])
    alignment = jnp.linalg.norm(target)

    def one(x, a, first, residual):
        terms = envelope_terms(x, a, first, residual, alignment, start, slope)
        return {**terms._asdict(), "reach": output_distance(a, first, x)}

    x = reference.envelope
    assert x is not None
    blown = ~jnp.isfinite(x).all(axis=1)
    safe = jnp.where(blown[:, None], 0.0, x)
    bounds = jax.vmap(one)(safe, reference.norms, reference.frobenius[:, 0], reference.residual)
    bounds["bent"] = slope.bend * bounds["reach"]
    # ell and G keep a bound that needs no envelope.
    floor = {"ell": start, "gap": start + reference.residual}
    return {
        name: jnp.where(blown, floor.get(name, jnp.inf), value) for name, value in bounds.items()
    }


def _bounds(run: Measured) -> dict[str, np.ndarray]:
    """lin, non, ell, G, Q and c Q over time."""
    target, start = jnp.asarray(run.task.target), jnp.asarray(run.initial_residual)
    bounds = _known(run.reference, run.net.epsilon, target, start)
    return {name: np.asarray(value) for name, value in bounds.items()}


@eqx.filter_jit
def _a_priori(weights: WeightsOverTime, envelope, epsilon):
    """The bounds on $\\|l_W\\|$ and the totals over time."""
    return jax.vmap(lambda v, x: norms_nearby(v, x, epsilon))(weights, envelope)


def _size(run: Measured) -> np.ndarray:
    """The size of the network's outputs."""
    return np.asarray(run.sides.linear_size) + np.asarray(run.sides.nonlinear)


def envelope(run: Measured) -> list[Check]:
    """The envelope: the distance of every layer to the reference network, and the quantities that
    its proof bounds on the way.

    **Arguments:**

    - `run`: a [`Measured`][].

    **Returns:**

    A check for each layer, and for lin, non, ell and G.
    """
    bounds, sides = _bounds(run), run.sides
    far = np.asarray(run.reference.envelope)
    checks = [
        make(
            run,
            f"envelope-{level + 1}",
            f"Theorem 1: ||W_{level + 1} - V_{level + 1}||_F <= x_{level + 1}",
            np.asarray(sides.distance)[:, level],
            far[:, level],
            claimed=True,
            size=np.asarray(sides.frobenius)[:, level],
        )
        for level in range(run.net.depth)
    ]
    rows = [
        ("lin", "omega ||W_L...W_1 - V_L...V_1|| <= lin", sides.linear_gap, "lin"),
        ("non", "rms(N_W) <= non", sides.nonlinear, "non"),
        ("ell", "rms(Y - f_W) <= ell", sides.residual, "ell"),
        ("gradient-gap", "||r_W - r_V|| <= G", sides.gradient_gap, "gap"),
    ]
    for name, text, measured, key in rows:
        equation = f"Theorem 1: {text}"
        size = _size(run)
        checks.append(make(run, name, equation, measured, bounds[key], claimed=True, size=size))
    return checks


def deviations(run: Measured) -> list[Check]:
    """The deviations of the trajectory bound, in root mean square over the training set.

    **Arguments:**

    - `run`: a [`Measured`][].

    **Returns:**

    Two checks: Q and c Q.
    """
    bounds = _bounds(run)
    rows = [
        ("deviation", "rms(f_W - f_V) <= Q", run.sides.output_gap, "reach"),
        ("nonlinear-deviation", "rms(N_W - N_V) <= c Q", run.sides.bent_gap, "bent"),
    ]
    return [
        make(
            run,
            name,
            f"Proposition 3: {text}",
            measured,
            bounds[key],
            claimed=True,
            size=_size(run),
        )
        for name, text, measured, key in rows
    ]


def split_norms(run: Measured) -> list[Check]:
    """What the split bound knows a priori of the trained network.

    **Arguments:**

    - `run`: a [`Measured`][].

    **Returns:**

    Checks of $\\|l_W\\|$, of every total $p_j$, and of D in units of $1/\\gamma$.
    """
    epsilon, depth = run.net.epsilon, run.net.depth
    linear, paths = _a_priori(run.reference.weights, run.reference.envelope, epsilon)
    factors = np.asarray(layer_factors(epsilon, depth)) * float(epsilon)
    halved = float(symmetrization_factor(run.task.num_samples))
    factors = factors * halved * np.sqrt(run.task.rank / run.task.num_samples)
    measured, known = np.asarray(run.sides.paths), np.asarray(paths)
    text = "split bound, a priori:"
    checks = [
        make(
            run,
            "linear-size",
            f"{text} ||l_W|| <= B",
            run.sides.linear_size,
            linear,
            claimed=True,
        )
    ]
    for j in range(depth - 1):
        equation = f"{text} p_{j + 1} <= P_{j + 1}"
        name = f"path-{j + 1}"
        checks.append(make(run, name, equation, measured[:, j], known[:, j], claimed=True))
    with np.errstate(invalid="ignore"):  # 0 times inf at epsilon = 0
        bound = np.nan_to_num(known * factors, nan=0.0, posinf=np.inf).sum(axis=1)
    equation = f"{text} gamma D(W) <= gamma D"
    checks.append(make(run, "nonlinear", equation, measured @ factors, bound, claimed=True))
    return checks
