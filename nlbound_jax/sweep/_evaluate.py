"""What is kept of the flows of a piece: risks, bounds and checks."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .. import checks
from ..report import Settings
from ..report._ladder import Run, theorem_rows, trajectory_rows
from ..report._report import _order
from ..report._split import entry, held_out_trace, prepare
from ..report._train import Risks
from ..tasks import Task
from ._config import SweepConfig
from ._ensemble import Trained, measure, split
from ._flows import Along, Devices, follow, make_lane, on_host, outcome, train_together
from ._layout import Layout, Piece
from ._variables import FLAGS, HOLDS, all_check_names, check_names

Arrays = dict[str, np.ndarray]


class Reports:
    """Works through pieces of reports; `bounds` are the names along their dimension."""

    def __init__(self, config: SweepConfig, layout: Layout, devices: Devices, bounds: list[str]):
        self.config, self.layout, self.devices = config, layout, devices
        self.bounds = bounds
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
            inputs = [None if one is None else _trained(one) for one in flows]
            runs = self._runs(flows, inputs, task)
            for place, one, run, flow, code in zip(places, ended, runs, flows, codes, strict=True):
                at = _within(piece, place, self.flow_axes)
                arrays["result"][at] = FLAGS.index(code)
                if one is not None:
                    arrays["num_steps"][at], arrays["reached"][at] = one.num_steps, one.reached
                if run is None or flow is None:
                    continue
                self._keep_risks(arrays, at, run, flow.valid)
                if "checks" in self.config.keep and code == "successful":
                    self._keep_checks(arrays, at, run)
            if "bounds" in self.config.keep:
                self._keep_bounds(piece, arrays, flows, runs, inputs, task)
        return {name: codes.count(name) for name in dict.fromkeys(codes)}

    def _runs(self, flows: list[Along | None], inputs: list[Trained | None], task: Task):
        """The flows with the risks along the way."""
        dtype = next((one.epsilon.dtype for one in inputs if one is not None), None)

        def samples(x, y) -> Any:
            return (jnp.asarray(x.T, dtype), jnp.asarray(y, dtype))

        def make() -> Any:
            has = task.x_test is not None and task.y_test is not None
            return samples(task.x, task.y), samples(task.x_test, task.y_test) if has else None

        shared = self.devices.hold(f"samples {dtype}", make) if dtype is not None else None
        found = self.devices.map(measure, inputs, shared)
        runs: list[Run | None] = []
        for flow, risks in zip(flows, found, strict=True):
            if flow is None or risks is None:
                runs.append(None)
                continue
            lane, (train_set, test_set) = flow.lane, risks
            train, margin, ramp = (jnp.asarray(values) for values in train_set)
            test = None if test_set is None else jnp.asarray(test_set[0])
            measured = Risks(train, margin, ramp, test)
            where = (flow.trajectory, flow.reference, flow.gammas, measured)
            runs.append(Run(task, lane.settings, lane.net, *where))
        return runs

    def _keep_risks(self, arrays: Arrays, at: tuple[int, ...], run: Run, valid: int) -> None:
        named = {"t": run.trajectory.ts, "scale": run.reference.scale}
        named |= {"train_risk": run.risks.train, "test_risk": run.risks.test}
        for name, values in named.items():
            if values is None:
                continue
            values = np.asarray(values)
            if "trajectory" in self.config.keep:
                arrays[name][at][:valid] = values[:valid]
            if f"final_{name}" in arrays:
                arrays[f"final_{name}"][at] = values[valid - 1]

    def _keep_checks(self, arrays: Arrays, at: tuple[int, ...], run: Run) -> None:
        names, ts = all_check_names(self.config), np.asarray(run.trajectory.ts, float)
        try:
            measured = checks.measure(
                run.start, run.task, ts, central=False, max_steps=run.settings.max_steps
            )
        except RuntimeError:  # a flow in float64 did not get to its end
            return
        found = checks.evaluate(measured)
        for name in check_names(run.settings.depth):
            check, j = found[name], names.index(name)
            arrays["slack"][at][j] = check.slack.min()
            arrays["holds"][at][j] = HOLDS.index("holds" if check.holds else "fails")

    def _keep_bounds(self, piece: Piece, arrays: Arrays, flows, runs, inputs, task: Task) -> None:
        trace, scored = held_out_trace(task), {}
        for after in self.layout.places(piece, self.layout.after):
            for i, (flow, run) in enumerate(zip(flows, runs, strict=True)):
                if run is None:
                    continue
                place = flow.lane.place | after
                settings = self.config.report_settings(self.config.options(place))
                delta = settings.delta
                if delta not in scored:
                    scored[delta] = self._split(inputs, task, settings)
                at = _within(piece, place, tuple(self.layout.sizes))
                run = run._replace(settings=settings)
                rows = _rows(run, scored[delta][i], trace, flow.valid)
                for name, found in rows.items():
                    _put(arrays, (*at, self.bounds.index(name)), found)

    def _split(self, inputs: list[Trained | None], task: Task, settings: Settings) -> list[Any]:
        """The split bound of every lane; it depends on delta, but not on kappa or p."""
        dtype, delta = settings.dtype, settings.delta

        def make() -> Any:
            return prepare(task, jnp.dtype(dtype), delta), jnp.asarray(delta, float)

        shared = self.devices.hold(f"inputs {dtype} {delta!r}", make)
        return self.devices.map(split, inputs, shared)


def _within(piece: Piece, place: dict[str, int], axes: tuple[str, ...]) -> tuple[int, ...]:
    return tuple(place[n] - piece.slices[n].start for n in axes)


def _trained(flow: Along) -> Trained:
    trajectory, reference = flow.trajectory, flow.reference
    dtype = trajectory.weights[0].dtype
    arrays = Trained(
        weights=trajectory.weights,
        epsilon=trajectory.epsilon,
        gammas=jnp.asarray(flow.gammas, dtype),
        reference=reference.weights,
        envelope=reference.envelope,
    )
    return jax.tree.map(np.asarray, arrays)


def _rows(run: Run, scored: Any, trace: float | None, valid: int) -> dict[str, list[list[Any]]]:
    """The entries of every bound as a report has them, by time."""
    ratios = len(run.settings.ratios)
    tables = [theorem_rows(run, reading) for reading in ("printed", "repaired")]
    tables += [trajectory_rows(run, measured=measured) for measured in (False, True)]
    rows = {
        table[0]["bound"]: [table[i * ratios : (i + 1) * ratios] for i in range(valid)]
        for table in tables
    }
    ts, test = np.asarray(run.trajectory.ts), run.risks.test
    test = None if test is None else np.asarray(test)
    for name, one in scored.items():
        rows[name] = []
        for i in range(valid):
            row = entry(name, one, trace, run.settings.depth, i)
            row["t"] = float(ts[i])
            row["test_risk"] = None if test is None else float(test[i])
            rows[name].append([row])
    return rows


def _put(arrays: Arrays, at: tuple[int, ...], rows: list[list[dict[str, Any]]]) -> None:
    """The best entry at every time, and the best of them."""
    over_time = [min(cells, key=_order) for cells in rows]
    arrays["value_over_time"][at][: len(rows)] = [row["value"] for row in over_time]
    best = min(over_time, key=_order)
    term = best.get("train_smoothed_ramp_risk", best["train_margin_risk"])
    named = {"value": best["value"], "best_t": best["t"], "best_gamma": best["gamma"]}
    named |= {"capacity": best["capacity"], "deviation": best["deviation"], "train_term": term}
    for name, value in named.items():
        arrays[name][at] = value
    if best["test_risk"] is not None:
        arrays["best_test_risk"][at] = best["test_risk"]
    arrays["bound_result"][at] = FLAGS.index(best["result"])
