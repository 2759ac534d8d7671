"""Bounds along a run."""

import functools
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from .. import _validate
from ..networks import LeakyMLP, check_network
from ..tasks import Task
from ._anchor import Anchor
from ._bound import AbstractBound
from ._run import Along, Run
from ._snapshot import Samples, Snapshot, has_held_out, samples_of
from ._terms import Terms


def numbers_as_arrays(bounds: Sequence[AbstractBound]) -> tuple[AbstractBound, ...]:
    """The bounds with arrays in place of Python's numbers, so that a new number does not
    recompile. What picks code is to be static.

    **Arguments:**

    - `bounds`: bounds of the ladder.

    **Returns:**

    A tuple of bounds.
    """

    def as_array(leaf: Any) -> Any:
        number = isinstance(leaf, int | float) and not isinstance(leaf, bool)
        return jnp.asarray(leaf, float) if number else leaf

    return jax.tree.map(as_array, tuple(bounds))


def evaluate_along(
    along: Along, shared: tuple[tuple[AbstractBound, ...], Samples, Float[Array, ""]]
) -> dict[str, Terms]:
    """Every bound at every time, and those that are made once at the last one, as a function of
    arrays: to be compiled, and mapped over runs.

    **Arguments:**

    - `along`: the arrays of a run.
    - `shared`: the bounds out of [`numbers_as_arrays`][], the training set, and delta.

    **Returns:**

    A [`Terms`][] by name, a leading axis of times in every array.
    """
    bounds, samples, delta = shared

    def of(chosen: list[AbstractBound], now: Any) -> dict[str, Terms]:
        at = along.snapshot(now, samples).measured()
        return {bound.name: bound(at, delta) for bound in chosen}

    terms: dict[str, Terms] = {}
    times, changing = along.ts.shape[0], along.changing()
    for over_time, part in ((True, slice(times)), (False, slice(times - 1, times))):
        chosen = [bound for bound in bounds if bound.over_time == over_time]
        if chosen:
            now = jax.tree.map(lambda leaf, part=part: leaf[part], changing)
            with _validate.trusted():
                terms |= jax.lax.map(functools.partial(of, chosen), now)
    return terms


_evaluate = eqx.filter_jit(evaluate_along)


@eqx.filter_jit
def _evaluate_one(bounds, net: LeakyMLP, samples: Samples, delta, key) -> dict[str, Terms]:
    with _validate.trusted():
        at = Snapshot(net, samples, key=key).measured()
        return {bound.name: bound(at, delta) for bound in bounds}


# What is known of a network at a time of a run.
ALONG_A_RUN = ("t", "start", "reference", "envelope", "gammas", "cells", "key")


def known_of(
    task: Task, *, depth: int, along: bool, anchored: bool = False, flow: bool = True
) -> tuple[str, ...]:
    """What is known of a network on this task, by the names of `AbstractBound.needs`.

    **Arguments:**

    - `task`: the data.
    - `depth`: of the network.
    - `along`: whether it is known along its training; otherwise its weights alone.
    - `anchored`: whether there is an [`Anchor`][].
    - `flow`: whether that training is gradient flow; otherwise it makes steps.

    **Returns:**

    Names of what a [`Snapshot`][] holds.
    """
    known: list[str] = list(ALONG_A_RUN) if along else []
    if along and flow:
        known.append("flow")
    if has_held_out(task):
        known.append("held_out")
    if anchored:
        known += ["anchor", "key"]
    if anchored and along:
        known.append("anchor_reference")
    if depth == 2:
        known.append("one_hidden_layer")
    return tuple(known)


def applicable(
    bounds: Iterable[AbstractBound], known: Collection[str]
) -> tuple[AbstractBound, ...]:
    """The bounds whose needs are met.

    **Arguments:**

    - `bounds`: bounds of the ladder.
    - `known`: out of [`known_of`][].

    **Returns:**

    A tuple of bounds.
    """
    return tuple(bound for bound in bounds if set(known).issuperset(bound.needs))


def checked_bounds(
    bounds: Sequence[AbstractBound], known: Collection[str]
) -> tuple[AbstractBound, ...]:
    """The argument `bounds` of a public function, checked.

    **Arguments:**

    - `bounds`: at least one bound; no two of the same name.
    - `known`: out of [`known_of`][].

    **Returns:**

    A tuple of bounds, the needs of all of which are met.

    **Raises:**

    `ValueError` naming `bounds`.
    """
    if not isinstance(bounds, Sequence) or isinstance(bounds, str) or not bounds:
        raise ValueError(
            "`bounds` must be a sequence of at least one bound of nlbound_jax.ladder, "
            f"got {_validate.shown(bounds)}."
        )
    for bound in bounds:
        _validate.instance("bounds", bound, AbstractBound)
        lacking = [name for name in bound.needs if name not in known]
        if lacking:
            raise ValueError(
                f"`bounds` must need what is known here, got {bound.name!r}, which needs "
                f"{', '.join(lacking)} as well."
            )
    names = [bound.name for bound in bounds]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"`bounds` must have every name once, got {twice!r} twice.")
    return tuple(bounds)


def prepared(
    bounds: Sequence[AbstractBound],
    task: Task,
    dtype: Any,
    delta: float,
    anchor: Anchor | None = None,
) -> tuple[tuple[AbstractBound, ...], Samples, Float[Array, ""]]:
    """What [`evaluate_along`][] takes beside the arrays of a run.

    **Arguments:**

    - `bounds`: bounds of the ladder.
    - `task`: the data.
    - `dtype`: of the networks.
    - `delta`: one minus the confidence of each bound by itself.
    - `anchor`: an [`Anchor`][], or `None`.

    **Returns:**

    The bounds with arrays for numbers, the training set as they need it, and delta.
    """
    held_out = any("held_out" in bound.needs for bound in bounds)
    if not any("anchor" in bound.needs for bound in bounds):
        anchor = None
    samples = samples_of(task, dtype, delta, held_out=held_out, anchor=anchor)
    return numbers_as_arrays(bounds), samples, jnp.asarray(delta, float)


def evaluate_run(
    bounds: Sequence[AbstractBound],
    run: Run,
    delta: float,
    *,
    times: Any = None,
    dtype: Any = None,
) -> dict[str, Terms]:
    """Every bound at every time of a run, in one compiled program; those that are made once, at
    the last time.

    **Arguments:**

    - `bounds`: bounds of the ladder, all of whose needs the run meets.
    - `run`: a [`Run`][].
    - `delta`: one minus the confidence of each bound by itself.

    **Other arguments:**

    - `times`: indices of the times; all by default.
    - `dtype`: in which networks are evaluated on the samples; that of the run by default.

    **Returns:**

    A [`Terms`][] of NumPy arrays for each name, a leading axis of times in each.

    **Raises:**

    `ValueError` naming the argument, or if `jax_enable_x64` is not set.
    """
    _validate.needs_x64("evaluate_run")
    delta = _validate.scalar("delta", delta, 0, 1, open_low=True, open_high=True)
    lacking = {"envelope": run.reference.envelope is None, "key": run.key is None}
    lacking["anchor_reference"] = run.anchor is None or run.anchor.reference is None
    depth, anchored = run.start.depth, run.anchor is not None
    known = known_of(run.task, depth=depth, along=True, anchored=anchored, flow=run.flow)
    known = [name for name in known if not lacking.get(name)]
    bounds = checked_bounds(bounds, known)
    along = run.along()
    if times is not None:
        along = along.at(np.asarray(times))
    if dtype is not None:
        weights = tuple(w.astype(dtype) for w in along.weights)
        along = eqx.tree_at(
            lambda a: (a.weights, a.epsilon), along, (weights, along.epsilon.astype(dtype))
        )
    shared = prepared(bounds, run.task, along.weights[0].dtype, delta, run.anchor)
    terms = jax.tree.map(np.asarray, _evaluate(along, shared))
    return {bound.name: terms[bound.name] for bound in bounds}


def evaluate_network(
    bounds: Sequence[AbstractBound],
    net: LeakyMLP,
    task: Task,
    delta: float,
    *,
    anchor: Anchor | None = None,
    key: PRNGKeyArray | None = None,
) -> dict[str, Terms]:
    """Bounds on a network of whose training nothing is known.

    **Arguments:**

    - `bounds`: bounds of the ladder whose needs such a network meets.
    - `net`: the network, on whitened inputs.
    - `task`: the data.
    - `delta`: one minus the confidence of each bound by itself.

    **Other arguments:**

    - `anchor`: an [`Anchor`][], for the anchored bounds.
    - `key`: for bounds that draw at random, which nothing else has used: with an anchor
        `jax.random.key(0)` if `None`.

    **Returns:**

    A [`Terms`][] of NumPy arrays for each name, `(k,)` each.

    **Raises:**

    `ValueError` naming the argument, or if `jax_enable_x64` is not set.
    """
    _validate.needs_x64("evaluate_network")
    net, task = check_network("net", net), _validate.instance("task", task, Task)
    delta = _validate.scalar("delta", delta, 0, 1, open_low=True, open_high=True)
    known = known_of(task, depth=net.depth, along=False, anchored=anchor is not None)
    bounds = checked_bounds(bounds, known)
    if anchor is not None and key is None:
        key = jax.random.key(0)
    numbers, samples, level = prepared(bounds, task, net.weights[0].dtype, delta, anchor)
    terms = jax.tree.map(np.asarray, _evaluate_one(numbers, net, samples, level, key))
    return {bound.name: terms[bound.name] for bound in bounds}
