"""What is kept of the flows of a piece: risks, bounds and checks."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .. import checks, ladder
from ..ladder import AbstractBound, Run, Terms
from ..tasks import Task
from ._config import SweepConfig
from ._flows import Devices, Followed, follow, make_lane, on_host, outcome, train_together
from ._layout import Layout, Piece
from ._variables import FLAGS, HOLDS, all_check_names

Arrays = dict[str, np.ndarray]


class Reports:
    """Works through pieces of reports; `bounds` are those along their dimension."""

    def __init__(
        self,
        config: SweepConfig,
        layout: Layout,
        devices: Devices,
        bounds: Sequence[AbstractBound],
    ):
        self.config, self.layout, self.devices = config, layout, devices
        self.bounds = tuple(bounds)
        self.flow_axes = tuple(n for n in layout.sizes if n not in layout.after)

    def fill(self, piece: Piece, task: Task, arrays: Arrays) -> dict[str, int]:
        """Fill the arrays of a piece, and count how its flows ended."""
        self.devices.use(task)
        outer = {n: piece.slices[n].start for n in self.layout.outer}
        places = [outer | lane for lane in self.layout.places(piece, self.layout.lanes)]
        with jax.enable_x64(True), on_host():
            lanes = [make_lane(self.config, place, task) for place in places]
            ended = train_together(lanes, task, self.devices)
            codes = [outcome(lane, one) for lane, one in zip(lanes, ended, strict=True)]
            flows = [follow(lane, one, task) for lane, one in zip(lanes, ended, strict=True)]
            # The network got to its end, the reference network did not.
            lost = [f is None and c == "successful" for f, c in zip(flows, codes, strict=True)]
            codes = ["internal_error" if one else c for one, c in zip(lost, codes, strict=True)]
            # Plain arrays, all of one shape: what the devices share out.
            along = [None if flow is None else _on_host(flow.run) for flow in flows]
            risks = self._risks(along, task)
            for place, one, flow, risk, code in zip(
                places, ended, flows, risks, codes, strict=True
            ):
                at = _within(piece, place, self.flow_axes)
                arrays["result"][at] = FLAGS.index(code)
                if one is not None:
                    arrays["num_steps"][at], arrays["reached"][at] = one.num_steps, one.reached
                if flow is None:
                    continue
                self._keep_risks(arrays, at, flow, risk)
                if "checks" in self.config.keep and code == "successful":
                    self._keep_checks(arrays, at, flow)
            if "bounds" in self.config.keep:
                self._keep_bounds(piece, arrays, flows, along, risks, task)
        return {name: codes.count(name) for name in dict.fromkeys(codes)}

    def _risks(self, along: list[Any], task: Task) -> list[Any]:
        """Train and test error of every lane over time; the latter `None` without test data."""
        dtype = next((one.epsilon.dtype for one in along if one is not None), None)

        def make() -> Any:
            return ladder.labelled_sets(task, dtype)

        shared = None if dtype is None else self.devices.hold(f"samples {dtype}", make)
        return self.devices.map(_errors, along, shared)

    def _keep_risks(self, arrays: Arrays, at: tuple[int, ...], flow: Followed, risk: Any) -> None:
        train, test = risk
        named = {"t": flow.run.trajectory.ts, "scale": flow.run.scale}
        named |= {"train_risk": train, "test_risk": test}
        for name, values in named.items():
            if values is None:
                continue
            values = np.asarray(values)
            if "trajectory" in self.config.keep:
                arrays[name][at][: flow.valid] = values[: flow.valid]
            if f"final_{name}" in arrays:
                arrays[f"final_{name}"][at] = values[flow.valid - 1]

    def _keep_checks(self, arrays: Arrays, at: tuple[int, ...], flow: Followed) -> None:
        run, settings = flow.run, flow.lane.settings
        names, ts = all_check_names(self.config), np.asarray(run.trajectory.ts, float)
        try:
            measured = checks.measure(
                run.start, run.task, ts, central=False, max_steps=settings.max_steps
            )
        except RuntimeError:  # a flow in float64 did not get to its end
            return
        inequalities = checks.evaluate(measured)
        for name in checks.claimed_names(settings.depth):
            check, j = inequalities[name], names.index(name)
            arrays["slack"][at][j] = check.slack.min()
            arrays["holds"][at][j] = HOLDS.index("holds" if check.holds else "fails")

    def _keep_bounds(self, piece: Piece, arrays: Arrays, flows, along, risks, task: Task) -> None:
        # What enters the bounds alone shares the flows, and every bound is evaluated once for the
        # numbers that it depends on.
        known: dict[Any, list[Any]] = {}
        names = [bound.name for bound in self.bounds]
        for after in self.layout.places(piece, self.layout.after):
            options = self.config.options({n: piece.slices[n].start for n in self.layout.outer})
            options |= self.config.options(after)
            settings = self.config.report_settings(options)
            flow = settings.dynamics == "flow"
            known_here = ladder.known_of(task, depth=settings.depth, along=True, flow=flow)
            bounds = ladder.applicable(self.bounds, known_here)
            bounds = ladder.configured(bounds, **settings.bound_numbers)
            delta = settings.delta
            new = [bound for bound in bounds if (bound, delta) not in known]
            terms = self._evaluate(new, along, task, settings.dtype, delta) if new else []
            for bound in new:
                known[bound, delta] = [lane and lane[bound.name] for lane in terms]
            for i, (flow, risk) in enumerate(zip(flows, risks, strict=True)):
                if flow is None:
                    continue
                at = _within(piece, flow.lane.place | after, tuple(self.layout.sizes))
                for bound in bounds:
                    terms = known[bound, delta][i].at(slice(flow.valid))
                    # What is made once is at the last of the valid times.
                    first = flow.valid - len(terms.t)
                    test = None if risk[1] is None else risk[1][first:]
                    _put(arrays, (*at, names.index(bound.name)), terms, test, first)

    def _evaluate(self, bounds, along: list[Any], task: Task, dtype: str, delta: float) -> list:
        """The terms of the bounds for every lane."""
        held_out = any("held_out" in bound.needs for bound in bounds)

        def make() -> Any:
            return ladder.prepared(bounds, task, jnp.dtype(dtype), delta)[1:]

        samples, level = self.devices.hold(f"inputs {dtype} {delta!r} {held_out}", make)
        numbers = self.devices.replicate(ladder.numbers_as_arrays(bounds))
        return self.devices.map(ladder.evaluate_along, along, (numbers, samples, level))


def _errors(along: Any, shared: Any) -> tuple[Any, Any]:
    def of(data: Any) -> Any:
        return ladder.error_over_time(along.weights, along.epsilon, *data)

    train_set, test_set = shared
    return of(train_set), None if test_set is None else of(test_set)


def _on_host(run: Run) -> Any:
    along = run.along()
    return jax.tree.map(np.asarray, along)


def _within(piece: Piece, place: dict[str, int], axes: tuple[str, ...]) -> tuple[int, ...]:
    return tuple(place[n] - piece.slices[n].start for n in axes)


def _put(arrays: Arrays, at: tuple[int, ...], terms: Terms, test_risk: Any, first: int) -> None:
    """The best margin at every time, `first` being the index of the first, and the best of them."""
    time, margin = terms.best_cell()
    capped = np.min(terms.order[0], axis=1)
    arrays["value_over_time"][at][first : first + len(capped)] = capped
    best = terms.at(time, margin)
    named = {"value": capped[time], "best_t": best.t, "best_gamma": best.gamma}
    for name in ("train_term", "complexity", "rest"):
        named[name] = getattr(best, name)
    for name, value in named.items():
        arrays[name][at] = value
    if test_risk is not None:
        arrays["best_test_risk"][at] = test_risk[time]
    arrays["bound_result"][at] = 1 + int(best.result._value)  # pyright: ignore
