"""The split bound of a run or of any network, in its four versions."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .. import _validate, bounds
from .._results import RESULTS
from .._types import WeightsOverTime
from ..bounds import HeldOutWhitening, SplitBound, SplitGrid, SplitSizes
from ..networks import LeakyMLP
from ..tasks import Task
from ._ladder import PLUG_IN, Run

# The share of delta that bounds the second moments where nothing is plugged in.
MOMENT_SHARE = 0.1
NO_PLUG_IN = "test inputs (no labels) independent of the training set"
GRID = SplitGrid()


class Scored(NamedTuple):
    """A bound at one network and the risks at its margin, over time."""

    bound: SplitBound
    margin_risk: Float[Array, " times"]
    ramp_risk: Float[Array, " times"]


class Inputs(eqx.Module):
    """The training set as the split bound needs it: samples in columns, dtype of the network."""

    x: Float[Array, "d m"]
    y: Float[Array, " m"]
    norms: Float[Array, " m"]
    spectrum: Float[Array, " d"]
    held_out: HeldOutWhitening | None
    matrix: Float[Array, "features d"]


def prepare(task: Task, dtype: Any, delta: float) -> Inputs:
    """The [`Inputs`][] of a task; without held-out inputs or a norm known beforehand there is
    no version without the plug-in."""
    held_out = None
    if task.held_out is not None and task.norm_bound is not None:
        held_out = bounds.held_out_whitening(
            task.transform.inverse(task.x),
            task.held_out,
            norm_bound=task.norm_bound,
            delta=MOMENT_SHARE * delta,
        )
    return Inputs(
        x=jnp.asarray(task.x.T, dtype),
        y=jnp.asarray(task.y, dtype),
        norms=jnp.asarray(np.linalg.norm(task.x, axis=1), dtype),
        spectrum=jnp.asarray(task.spectrum, float),
        held_out=held_out,
        matrix=jnp.asarray(task.transform.matrix, float),
    )


def _plain_sizes(linear_norm, paths, dim: int) -> SplitSizes:
    root = jnp.sqrt(jnp.asarray(float(dim)))
    return SplitSizes(linear_norm, paths[None], root[None], root)


def _score(margins, input_norms, sizes: SplitSizes, numbers, dim: int, depth: int) -> Scored:
    gammas = bounds.split_gammas(margins)
    found = bounds.split_search(
        margins, input_norms, sizes, gammas, **numbers, dim=dim, depth=depth, grid=GRID
    )
    ratio = margins / found.gamma.astype(margins.dtype)
    ramp = jnp.mean(jnp.clip(1 - ratio, 0, 1), dtype=float)
    return Scored(found, jnp.mean(ratio < 1, dtype=float), ramp)


def margins_of(net: LeakyMLP, inputs: Inputs) -> Float[Array, " m"]:
    """$y_i f(x_i)$."""
    return inputs.y * net.features_first(inputs.x)


def a_posteriori(net: LeakyMLP, margins, inputs: Inputs, delta) -> dict[str, Scored]:
    """The versions that measure the network: with the plug-in and, if possible, without it."""
    depth, dim = net.depth, inputs.x.shape[0]
    weights = tuple(w.astype(float) for w in net.weights)
    epsilon = net.epsilon.astype(float)
    m = jnp.asarray(float(inputs.y.shape[0]))
    numbers = {"epsilon": epsilon, "num_samples": m, "delta": delta, "deviation": jnp.zeros(())}
    size = jnp.linalg.norm(bounds.linear_part(weights, epsilon))
    if depth == 2:
        metric = bounds.linear_metric(weights, epsilon, inputs.spectrum, GRID)
        ones = jnp.ones(len(GRID.metrics()[0]))
        sizes = SplitSizes(size, metric, ones, jnp.sqrt(jnp.asarray(float(dim))))
    else:
        sizes = _plain_sizes(size, bounds.path_norms(weights), dim)
    scored = {
        "split-a-posteriori": _score(margins, inputs.norms, sizes, numbers, dim, depth),
    }
    held_out = inputs.held_out
    if held_out is None:
        return scored
    numbers = {**numbers, "delta": delta * (1 - MOMENT_SHARE)}
    raw = (weights[0] @ inputs.matrix.T, *weights[1:])
    features = held_out.basis.shape[0]

    def at_ridge(args):
        ridge, norms = args
        sizes = held_out.sizes(raw, epsilon, ridge)
        return _score(margins, norms.astype(margins.dtype), sizes, numbers, features, depth)

    tried = jax.lax.map(at_ridge, (jnp.arange(held_out.ridges), held_out.input_norms))
    best = jnp.argmin(tried.bound.value)
    scored["split-no-plug-in"] = jax.tree.map(lambda leaf: leaf[best], tried)
    return scored


@eqx.filter_jit
def _over_time(
    weights: WeightsOverTime, reference: WeightsOverTime, far, epsilon, inputs: Inputs, delta
) -> dict[str, Scored]:
    """All versions at every time; `far` is the envelope, `(times layers)`."""
    dim, dtype = inputs.x.shape[0], weights[0].dtype

    def one(args):
        weights, reference, far = args
        net = LeakyMLP(weights, epsilon)
        margins, depth = margins_of(net, inputs), net.depth
        scored = a_posteriori(net, margins, inputs, delta)
        wide = epsilon.astype(float)
        linear, paths = bounds.norms_nearby(reference, far, wide)
        sizes = _plain_sizes(linear, paths, dim)
        numbers = {"epsilon": wide, "num_samples": jnp.asarray(float(inputs.y.shape[0]))}
        norms = jnp.stack([jnp.linalg.norm(v, 2) for v in reference])
        finite = jnp.isfinite(far).all()
        near = jnp.where(finite, far, 0.0)
        reach = bounds.output_distance(norms, jnp.linalg.norm(reference[0]), near)
        reach = jnp.where(finite, reach, jnp.inf)

        def a_priori(args):
            margins, deviation = args
            known = {**numbers, "delta": delta, "deviation": deviation}
            return _score(margins, inputs.norms, sizes, known, dim, depth)

        # The trained network as it is; the reference's weights at the distance Q.
        start = LeakyMLP(tuple(v.astype(dtype) for v in reference), epsilon)
        pair = jnp.stack([margins, margins_of(start, inputs)])
        both = jax.lax.map(a_priori, (pair, jnp.stack([jnp.zeros(()), reach])))
        first, wholly = (jax.tree.map(lambda leaf, i=i: leaf[i], both) for i in range(2))
        return {"split-a-priori": first, "split-wholly-a-priori": wholly, **scored}

    with _validate.trusted():
        return jax.lax.map(one, (weights, reference, far))


def held_out_trace(task: Task) -> float | None:
    """The mean of $\\|\\tilde x\\|^2$ over the test set; the plug-in takes it to be d."""
    if task.x_test is None:
        return None
    return float(np.mean(np.sum(task.x_test**2, axis=1)))


def assumptions(name: str) -> list[str]:
    """What a version assumes."""
    return [NO_PLUG_IN] if name == "split-no-plug-in" else [PLUG_IN]


def entry(
    name: str, scored: Scored, trace: float | None, depth: int, i: Any = ()
) -> dict[str, Any]:
    """The numbers of a report's row that belong to the bound alone, at index `i`; `trace` is
    that of the task."""
    bound = scored.bound

    def at(value):
        return float(np.asarray(value)[i])

    family = int(np.asarray(bound.family)[i])
    metric = name == "split-a-posteriori" and depth == 2
    thetas, exponents = GRID.metrics()
    blown = not bool(np.asarray(bound.result == RESULTS.successful)[i])
    parts = (bound.nonlinear, bound.smoothing, bound.deviation)
    return {
        "bound": name,
        "gamma": at(bound.gamma),
        "train_margin_risk": at(scored.margin_risk),
        "train_ramp_risk": at(scored.ramp_risk),
        "train_smoothed_ramp_risk": at(bound.train_risk),
        "capacity": at(bound.capacity),
        "deviation": sum(at(part) for part in parts),
        "complexity": at(bound.nonlinear),
        "smoothing": at(bound.smoothing),
        "proxy": at(bound.deviation),
        "value": min(1.0, at(bound.value)),
        "value_ramp": min(1.0, at(bound.value)),
        "noise": at(bound.noise),
        "linear": at(bound.linear),
        "paths": [float(p) for p in np.asarray(bound.paths)[i]],
        "theta": float(thetas[family]) if metric else 0.0,
        "exponent": GRID.exponents[exponents[family]] if metric else 0.0,
        "log_cells": at(bound.log_cells),
        "held_out_trace": trace,
        "a_priori": name in ("split-a-priori", "split-wholly-a-priori"),
        "assumes": assumptions(name),
        "result": "blow_up" if blown else "successful",
    }


def split_rows(run: Run) -> list[dict[str, Any]]:
    """The split bound at every time, in its best cell; the union over cells is paid for, and
    the margin costs nothing."""
    trajectory, reference = run.trajectory, run.reference
    dtype = trajectory.weights[0].dtype
    far = jnp.asarray(reference.envelope, float)
    scored = _over_time(
        trajectory.weights,
        tuple(jnp.asarray(v, float) for v in reference.weights),
        far,
        trajectory.epsilon,
        prepare(run.task, dtype, run.settings.delta),
        jnp.asarray(run.settings.delta, float),
    )
    ts, scale = np.asarray(trajectory.ts, float), np.asarray(reference.scale)
    test = None if run.risks.test is None else np.asarray(run.risks.test, float)
    order = ("split-a-priori", "split-wholly-a-priori", "split-a-posteriori", "split-no-plug-in")
    trace = held_out_trace(run.task)
    rows = []
    for name in (n for n in order if n in scored):
        for i in range(len(ts)):
            row = entry(name, scored[name], trace, run.settings.depth, i)
            row |= {
                "kappa": None,
                "ratio": float(scale[i] / row["gamma"]),
                "t": float(ts[i]),
                "test_risk": None if test is None else float(test[i]),
            }
            rows.append(row)
    return rows
