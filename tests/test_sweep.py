"""Sweeps: configuration, pieces, results, failures, and what happens to a damaged store.

Bounds are in float64 and flows in float32 whatever JAX's default is, so in float32 only the numbers
are looked at again.
"""

import dataclasses
import functools
import itertools
import json
import math
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
import xarray as xr
from helpers import EqualSteps, assert_close, small_task

import nlbound_jax
from nlbound_jax import Settings, bounds, checks, tasks
from nlbound_jax.report import _train
from nlbound_jax.sweep import SweepConfig, _ensemble, parse_shard, sweep_status
from nlbound_jax.sweep._layout import Layout, share
from nlbound_jax.sweep._variables import FLAGS

WIDTH, TIMES = 5, 3
# Numbers of lanes of a piece that do not fill the devices, and an axis that shares the flows.
CONFIG = {
    "axes": {"epsilon": [0.001, 0.01, 0.03, 0.1], "kappa": [1, 2], "seed": [0, 1, 2]},
    "settings": {"width": WIDTH, "num_times": TIMES, "end_time": 4.0, "anchor_fraction": 0.0},
    "compute": {"chunk": 3},
}
NAMES = ["theorem-5.2-printed", "theorem-5.2-repaired", "trajectory", "trajectory-measured"]
NAMES += ["split-a-priori", "split-wholly-a-priori", "split-a-posteriori"]


def save_npz(path):
    """The task of the tests as a file."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(150, 3)) * np.arange(1, 4)
    y = np.where(x[:, 0] + x[:, 2] + rng.normal(size=150) > 0.3, 1, -1)
    np.savez(path, x=x[:110], y=y[:110], x_test=x[110:], y_test=y[110:])
    return Path(path)


def with_settings(config=CONFIG, axes=None, compute=None, **settings):
    """`config` with other settings."""
    return {
        "axes": config["axes"] if axes is None else axes,
        "settings": config["settings"] | settings,
        "compute": config["compute"] | (compute or {}),
    }


@pytest.fixture(scope="session")
def npz(tmp_path_factory):
    return save_npz(tmp_path_factory.mktemp("data") / "data.npz")


@pytest.fixture(scope="session")
def config(npz):
    return with_settings(dataset=str(npz))


@pytest.fixture(scope="session")
def whole(config, tmp_path_factory):
    """An uninterrupted sweep by one process."""
    path = tmp_path_factory.mktemp("sweep") / "whole.zarr"
    nlbound_jax.sweep(config, path)
    return path


@pytest.fixture
def copy(whole, tmp_path):
    return Path(shutil.copytree(whole, tmp_path / "copy.zarr"))


def chunks(path):
    """Every file of the arrays of a store, byte for byte."""
    files = [f for f in path.rglob("*") if f.is_file() and f.parent.name != ".pieces"]
    return {str(f.relative_to(path)): f.read_bytes() for f in files}


def marks(path):
    """When each piece was completed, to the nanosecond."""
    return {f.name: f.stat().st_mtime_ns for f in (path / ".pieces").glob("*.json")}


def assert_same_store(one, other):
    assert len(marks(one)) == len(marks(other))
    left, right = chunks(one), chunks(other)
    assert left.keys() == right.keys()
    assert not [name for name in left if left[name] != right[name]]


# --- Configuration


@pytest.mark.quick
@pytest.mark.float64
def test_a_byte_order_mark_is_read_over(tmp_path):
    toml = tmp_path / "sweep.toml"
    toml.write_bytes(b"\xef\xbb\xbf[axes]\nepsilon = [0.1, 0.2]\n")
    assert SweepConfig.load(toml).axes == {"epsilon": (0.1, 0.2)}


@pytest.mark.quick
@pytest.mark.float64
def test_a_start_that_its_dtype_cannot_hold_is_named_before_any_work():
    with pytest.raises(
        ValueError, match=r"^`axes.beta` must be in \[9.86e-32, 3.44e\+10\] at depth 2 in"
    ):
        SweepConfig({"beta": [1e-3, 1e-40]})
    with pytest.raises(
        ValueError, match=r"^`settings.beta` must be in \[3.14e-16, 2.1e\+06\] at depth"
    ):
        SweepConfig({"depth": [2, 3]}, {"beta": 1e-20})
    with pytest.raises(ValueError, match=r"^`settings.end_time` must be in .* in float32"):
        SweepConfig({"depth": [2, 3]}, {"end_time": 1e39})
    SweepConfig({"beta": [1e-40]}, {"dtype": "float64"})


@pytest.mark.quick
@pytest.mark.float64
def test_a_toml_file_is_what_its_mapping_is(tmp_path):
    path = tmp_path / "sweep.toml"
    path.write_text(
        "[axes]\n"
        'epsilon = {start = 1e-3, stop = 1, num = 4, scale = "log"}\n'
        "seed = {start = 0, stop = 6, num = 4}\n"
        'init = ["default", "rank-one"]\n'
        "beta = [1, 0.5]\n"
        "[settings]\nwidth = 8\nratios = [1, 10]\n"
        '[compute]\nkeep = ["bounds"]\nchunk = 5\n'
    )
    made = SweepConfig.load(path)
    assert_close(made.axes["epsilon"], [1e-3, 1e-2, 1e-1, 1.0])
    assert made.axes["seed"] == (0, 2, 4, 6)
    assert made.axes["beta"] == (1.0, 0.5)
    assert isinstance(made.axes["beta"][0], float)
    assert made.settings == {"width": 8, "ratios": (1.0, 10.0)}
    assert (made.chunk, made.keep, made.mode) == (5, ("bounds",), "report")
    again = SweepConfig.load(
        {
            "axes": made.axes,
            "settings": {"width": 8, "ratios": [1, 10]},
            "compute": {"keep": ["bounds"], "chunk": 5},
        }
    )
    assert made == again == SweepConfig.load(made)
    options = made.options({"epsilon": 1, "seed": 2, "init": 1, "beta": 0})
    settings = made.report_settings(options)
    assert (settings.seed, settings.init, settings.width) == (4, "rank-one", 8)
    assert made.as_dict()["settings"]["rtol"] == Settings.rtol


EPSILON = {"epsilon": [0.1]}
BAD = [
    ({}, {}, {}, "`axes` must have at least one entry, got none."),
    ({"epsilon": [0.1, 1.3]}, {}, {}, "`axes.epsilon` must be in [0, 1], got 1.3."),
    ({"momentum": [0, 0.9]}, {}, {}, "`axes.momentum` must be left out unless `settings.dynamic"),
    ({"nesterov": [True]}, {}, {}, "`axes.nesterov` must be left out: give `settings.nesterov`."),
    ({"epsilon": []}, {}, {}, "`axes.epsilon` must be a list of values or {start, stop, num, sc"),
    ({"epsilon": 0.1}, {}, {}, "`axes.epsilon` must be a list of values or {start, stop, num, sc"),
    ({"epsilon": ["a"]}, {}, {}, "`axes.epsilon` must be"),
    ({"epsilon": [0.1, 0.1]}, {}, {}, "`axes.epsilon` must have every value once, got 0.1 twice."),
    ({"epsilon": {"start": 0, "stop": 1}}, {}, {}, "`axes.epsilon.num` must be given."),
    ({"epsilon": {"start": 0, "stop": 1, "num": 0}}, {}, {}, "`axes.epsilon.num` must be an int"),
    ({"epsilon": {"from": 0}}, {}, {}, "`axes.epsilon` must be {start, stop, num, scale}, got the"),
    (
        {"epsilon": {"start": 0, "stop": 1, "num": 3, "scale": "log"}},
        {},
        {},
        "`axes.epsilon` must have a positive start and stop with scale log.",
    ),
    (
        {"epsilon": {"start": 0, "stop": 1, "num": 3, "scale": "cubic"}},
        {},
        {},
        "`axes.epsilon.scale` must be one of 'linear', 'log', got 'cubic'.",
    ),
    ({"seed": {"start": 0, "stop": 1, "num": 4}}, {}, {}, "`axes.seed` must have integers, got"),
    ({"seed": [-1]}, {}, {}, "`axes.seed` must be an integer in [0, 4294967295], got -1."),
    ({"depth": [2, 1]}, {}, {}, "`axes.depth` must be an integer of at least 2, got 1."),
    ({"init": ["zero"]}, {}, {}, "`axes.init` must be one of 'default', 'rank-one', got 'zero'."),
    ({"side": [0]}, {}, {}, "`axes.side` must be an integer of at least 1, got 0."),
    ({"norm_bound": [-1.0]}, {}, {}, "`axes.norm_bound` must be positive and finite, got -1."),
    ({"dataset": [3]}, {}, {}, "`axes.dataset` must be a text, got 3."),
    ({"ratios": [1.0]}, {}, {}, "`axes.ratios` must be left out: give `settings.ratios`."),
    ({"num_times": [2]}, {}, {}, "`axes.num_times` must be left out: give `settings.num_times`."),
    ({"slope": [0.1]}, {}, {}, "`axes.slope` must be one of dataset, side, components, positive, "),
    ({"gamma": [0.1]}, {}, {}, '`axes.gamma` must be left out unless `compute.mode = "theory"`.'),
    (EPSILON, {"epsilon": 0.1}, {}, "`settings.epsilon` must be left out with `axes.epsilon`."),
    (EPSILON, {"width": 0}, {}, "`settings.width` must be an integer of at least 1, got 0."),
    (EPSILON, {"ratios": 3}, {}, "`settings.ratios` must be a list of numbers, got 3."),
    (EPSILON, {"end_time": 0}, {}, "`settings.end_time` must be positive and finite, got 0."),
    (EPSILON, {"colour": 1}, {}, "`settings.colour` must be one of "),
    (EPSILON, {}, {"mode": "fast"}, "`compute.mode` must be one of 'report', 'theory', got 'fast"),
    (EPSILON, {}, {"keep": ["all"]}, "`compute.keep` must be one of 'trajectory', 'bounds', 'chec"),
    (EPSILON, {}, {"keep": []}, "`compute.keep` must be a list out of trajectory, bounds, checks."),
    (EPSILON, {}, {"chunk": 0}, "`compute.chunk` must be an integer of at least 1, got 0."),
    (EPSILON, {}, {"lanes": 2}, "`compute.lanes` must be one of mode, keep, chunk."),
    (EPSILON, {}, {"mode": "theory"}, "`settings.t` must be given, or `axes.t`."),
    (EPSILON, {"t": 1.0}, {"mode": "theory"}, "`settings.gamma` must be given, or `axes.gamma`."),
    (EPSILON, {"seed": 1}, {"mode": "theory"}, "`settings.seed` must be left out unless"),
    ({"t": [-1.0]}, {"gamma": 1.0}, {"mode": "theory"}, "`axes.t` must be finite and at least 0, "),
    (
        {"t": [1.0]},
        {"gamma": 1.0, "reading": "new"},
        {"mode": "theory"},
        "`settings.reading` must be one of 'printed', 'repaired', got 'new'.",
    ),
]


@pytest.mark.parametrize(("axes", "settings", "compute", "message"), BAD)
@pytest.mark.quick
@pytest.mark.float64
def test_a_bad_entry_is_named_before_any_work(axes, settings, compute, message, tmp_path):
    tables = {"axes": axes, "settings": settings, "compute": compute}
    with pytest.raises(ValueError, match="`") as error:
        nlbound_jax.sweep(tables, tmp_path / "out.zarr")
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.float64
def test_other_bad_arguments_are_named(tmp_path, config, npz):
    out, task = tmp_path / "out.zarr", small_task()
    named = [
        ({"config": tmp_path / "none.toml"}, "`config` must be a TOML file, got"),
        ({"config": {"axis": {}}}, "`config` must be one of 'axes', 'settings', 'compute', got"),
        ({"config": {"axes": [1]}}, "`axes` must be a table, got [1]."),
        ({"shard": (2, 2)}, "`shard` must be (i, n) with 0 <= i < n, got (2, 2)."),
        ({"task": task}, "`settings.dataset` must be left out with `task`."),
        ({"config": with_settings(dataset="no.npz")}, "`settings.dataset` must be an .npz file"),
        ({"config": with_settings(dataset="cifar")}, "`settings.dataset` must be mnist, tfds:NAME"),
        (
            {"config": with_settings(config, axes={"components": [2, 9]})},
            "`axes.components` must be an integer in [1, 3], got 9.",
        ),
        ({"config": with_settings(config, side=7)}, "`settings.side` must be left out with"),
    ]
    (tmp_path / "broken.toml").write_text("[axes\n")
    named.append(({"config": tmp_path / "broken.toml"}, "`config` must be a TOML file, got"))
    for arguments, message in named:
        with pytest.raises(ValueError, match="`") as error:
            nlbound_jax.sweep(**{"config": config, "out": out} | arguments)
        assert str(error.value).startswith(message)
    assert not out.exists()
    for text in ("3", "0/2", "3/2", "a/b", "1/2/3"):
        with pytest.raises(ValueError, match="^`shard` must be i/n with 1 <= i <= n"):
            parse_shard(text)
    assert parse_shard("3/16") == (2, 16)


# --- Pieces


@pytest.mark.parametrize("chunk", [1, 2, 3, 5, 16, 100])
@pytest.mark.quick
@pytest.mark.float64
def test_pieces_cover_every_place_once_and_fill_one_chunk(chunk):
    axes = {"epsilon": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7], "depth": [2, 3], "kappa": [1, 2]}
    axes |= {"seed": list(range(5)), "side": [7, 14], "beta": [0.1, 0.2, 0.3]}
    config = SweepConfig(axes, chunk=chunk)
    layout = Layout(config)
    seen = np.zeros(config.shape, int)
    sides = []
    for number in range(layout.num_pieces):
        piece = layout.piece(number)
        seen[tuple(piece.slices[name] for name in axes)] += 1
        assert 1 <= layout.num_lanes(piece) <= layout.capacity <= chunk
        for name, block in piece.blocks.items():
            assert piece.slices[name].start == block * layout.blocks[name]
        sides.append(piece.slices["side"].start)
    assert (seen == 1).all()
    assert sides == sorted(sides)  # the data changes as seldom as can be
    assert layout.num_flows == math.prod(config.shape) // 2
    for count in (1, 3, 200):
        parts = [list(share(layout.num_pieces, i, count)) for i in range(count)]
        assert sorted(itertools.chain(*parts)) == list(range(layout.num_pieces))


# --- Results


@functools.cache
def one_report(path, epsilon, seed, kappa, **settings):
    known = {**CONFIG["settings"], "epsilon": epsilon, "seed": seed, "kappa": kappa}
    return nlbound_jax.report(tasks.from_npz(path), Settings(**{**known, **settings}))


@pytest.fixture
def equal_steps(monkeypatch):
    """Flows of sweeps and reports with steps of 0.25. What was traced before keeps its steps: a
    test gives `max_steps` a value of its own."""
    controller = EqualSteps(0.25)
    monkeypatch.setattr(_ensemble, "pi_controller", lambda rtol, atol: controller)
    monkeypatch.setattr(_train, "default_controller", lambda weights, rtol: controller)


# Two compilations of an adaptive solve have their weights right to about 1e-3: one or two of the
# 110 and 40 samples lie so near a margin.
NEAR = 1 / 110 + 1 / 40


def assert_near_store(one, other):
    """The stores of two programs for the same flows."""
    assert len(marks(one)) == len(marks(other))
    left, right = (xr.open_zarr(path, chunks=None).load() for path in (one, other))
    assert left.coords.equals(right.coords)
    for name in ("t", "result", "bound_result"):
        assert left[name].equals(right[name]), name
    for name in ("train_risk", "test_risk", "value", "value_over_time"):
        assert_close(left[name], right[name], rtol=0, atol=NEAR)


def assert_near_report(cell, made):
    """A place of a sweep and a report: two programs for one flow."""
    assert np.array_equal(cell["t"], np.asarray(made.trajectory.ts))
    assert_close(cell["train_risk"], made.train_risk, rtol=0, atol=NEAR)
    assert_close(cell["test_risk"], made.test_risk, rtol=0, atol=NEAR)
    assert_close(cell["scale"], made.scale, rtol=1e-5)
    assert list(cell["bound"].values) == made.names()
    for name in made.names():
        over_time = [row["value"] for row in made.over_time(name)]
        found = cell["value_over_time"].sel(bound=name)
        assert_close(found, over_time, rtol=0, atol=NEAR)


# Of float32 over some hundred operations that depend on each other.
ROUNDINGS = 5e-5


def assert_is_report(cell, made):
    """A place of a sweep has the numbers of a report with the same steps, up to roundings."""
    count = len(made.trajectory.ts)
    assert np.array_equal(cell["t"][:count], np.asarray(made.trajectory.ts))
    assert np.array_equal(cell["train_risk"][:count], made.train_risk)
    assert np.array_equal(cell["test_risk"][:count], made.test_risk)
    assert float(cell["final_test_risk"]) == made.test_risk[-1]
    assert int(cell["num_steps"]) == int(made.trajectory.stats["num_steps"])
    assert float(cell["reached"]) == float(made.trajectory.reached)
    assert_close(cell["scale"][:count], made.scale, rtol=ROUNDINGS)
    for name in ("t", "train_risk", "value_over_time"):
        assert np.isnan(cell[name][..., count:]).all()
    assert list(cell["bound"].values) == made.names()
    for name in made.names():
        found, best = cell.sel(bound=name), made.best(name)
        expected = {
            "value": best["value"],
            "best_t": best["t"],
            "best_gamma": best["gamma"],
            "train_term": best["train_term"],
            "complexity": best["complexity"],
            "rest": best["rest"],
            "best_test_risk": best["test_risk"],
        }
        for key, value in expected.items():
            assert_close(found[key], value, rtol=ROUNDINGS)
        over_time = [row["value"] for row in made.over_time(name)]
        assert_close(found["value_over_time"][:count], over_time, rtol=ROUNDINGS)
        assert FLAGS[int(found["bound_result"])] == best["result"]


def test_a_sweep_has_the_numbers_of_the_reports(whole, npz):
    data = xr.open_zarr(whole, chunks=None).load()
    assert data["value"].dims == ("epsilon", "kappa", "seed", "bound")
    assert data["t"].dims == ("epsilon", "seed", "time")  # kappa shares the flow
    assert (data["result"] == FLAGS.index("successful")).all()
    for epsilon, kappa, seed in [(0.001, 1, 0), (0.03, 2, 2), (0.1, 2, 1)]:
        cell = data.sel(epsilon=epsilon, kappa=kappa, seed=seed)
        assert_near_report(cell, one_report(npz, epsilon, seed, kappa))


@pytest.mark.float64
def test_the_store_says_what_it_is(whole, npz):
    data = xr.open_zarr(whole, chunks=None)
    assert list(data["bound"].values) == NAMES
    assert data["epsilon"].attrs["units"] == "1 - negative slope"
    assert data["value"].attrs["units"] == "fraction misclassified"
    assert data["result"].attrs["flag_meanings"].split()[:2] == ["missing", "successful"]
    for name, value in dataclasses.asdict(Settings()).items():
        if name not in (*CONFIG["axes"], *CONFIG["settings"]):
            assert data.attrs[name] == (list(value) if isinstance(value, tuple) else value), name
    assert data.attrs["width"] == WIDTH
    assert (data.attrs["task"], data.attrs["num_samples"]) == ("data.npz", 110)
    assert {"jax", "nlbound_jax"} <= json.loads(data.attrs["versions"]).keys()
    # One chunk a piece.
    assert data["value"].encoding["chunks"] == (1, 2, 3, len(NAMES))
    assert len(marks(whole)) == 4
    found = sweep_status(whole)
    assert (found.pieces, found.pieces_done, found.flows, found.flows_done) == (4, 4, 12, 12)
    assert found.failed == {}
    assert found.config["axes"]["epsilon"] == CONFIG["axes"]["epsilon"]


def stopping(config):
    """Three lanes of equal steps: to the end, stopped after the last but one saved time, stopped
    before."""
    axes = {"seed": [0], "end_time": [0.5, 4.0, 9.0], "epsilon": [0.1]}
    few = with_settings(config, axes=axes, max_steps=14)
    del few["settings"]["end_time"]
    return few


def test_a_lane_that_fails_is_recorded_and_the_others_go_on(npz, config, equal_steps, tmp_path):
    events = []
    data = nlbound_jax.sweep(stopping(config), tmp_path / "few.zarr", progress=events.append)
    found = [FLAGS[int(code)] for code in data["result"].squeeze()]
    assert found == ["successful", "max_steps_reached", "max_steps_reached"]
    for end in (0.5, 4.0):
        cell = data.sel(seed=0, end_time=end, epsilon=0.1)
        assert_is_report(cell, one_report(npz, 0.1, 0, 2, end_time=end, max_steps=14))
    t, reached = data["t"].values.squeeze(), data["reached"].values.squeeze()
    assert t[1, -1] == reached[1] == reached[2] == 3.5
    early = t[2]
    last = int(np.isfinite(early).sum()) - 1
    assert last < TIMES - 1  # some times are missing, and the last one is where it stopped
    assert early[last] == reached[2]
    assert np.isnan(early[last + 1 :]).all()
    over_time = data["value_over_time"].values.squeeze()[2]
    assert np.isfinite(over_time[:, : last + 1]).all()
    assert np.isnan(over_time[:, last + 1 :]).all()
    assert [e.pieces_done for e in events] == [0, 1]
    assert events[-1].failed == {"max_steps_reached": 2}
    assert events[-1].remaining == 0


@pytest.mark.slow
@pytest.mark.float64
def test_a_lane_that_stopped_early_has_the_numbers_of_its_report(
    npz, config, equal_steps, tmp_path
):
    data = nlbound_jax.sweep(stopping(config), tmp_path / "few.zarr")
    made = one_report(npz, 0.1, 0, 2, end_time=9.0, max_steps=14)
    assert len(made.trajectory.ts) < TIMES
    assert_is_report(data.sel(seed=0, end_time=9.0, epsilon=0.1), made)


@pytest.mark.float64
def test_a_network_that_begins_beyond_its_end_is_recorded(npz, config, tmp_path):
    late = with_settings(config, {"beta": [0.001, 0.9]}, compute={"keep": ["trajectory"]})
    del late["settings"]["end_time"]
    data = nlbound_jax.sweep(late, tmp_path / "late.zarr")
    assert [FLAGS[int(code)] for code in data["result"]] == ["successful", "no_learning_time"]
    assert np.isnan(data["t"][1]).all()
    assert "value" not in data


@pytest.mark.float64
def test_gradient_descent_and_its_divergence(npz, config, tmp_path):
    settings = {"dynamics": "gd", "end_time": 0.5}
    axes = {"beta": [0.01, 100.0], "kappa": [1, 2], "seed": [0, 2]}
    gd = with_settings(config, axes, epsilon=0.1, **settings)
    data = nlbound_jax.sweep(gd, tmp_path / "gd.zarr")
    assert [FLAGS[int(code)] for code in data["result"][:, 0]] == ["successful", "diverged"]
    for seed, kappa in [(0, 2), (2, 1)]:
        made = one_report(npz, 0.1, seed, kappa, beta=0.01, **settings)
        assert_is_report(data.sel(beta=0.01, seed=seed, kappa=kappa), made)
    assert np.isnan(data["value"][1]).all()


@pytest.mark.float64
def test_steps_and_momentum_are_axes(npz, config, tmp_path):
    """Lanes that have fewer saves than others, and bounds that need gradient flow left out."""
    settings = {"dynamics": "gd", "end_time": 1.0}
    axes = {"step_size": [0.1, 0.6], "momentum": [0.0, 0.9]}
    gd = with_settings(config, axes, epsilon=0.1, kappa=2, seed=0, beta=0.05, **settings)
    data = nlbound_jax.sweep(gd, tmp_path / "gd.zarr")
    assert (data["result"] == FLAGS.index("successful")).all()
    for step_size, momentum in itertools.product(*axes.values()):
        known = {"step_size": step_size, "momentum": momentum, "beta": 0.05}
        made = one_report(npz, 0.1, 0, 2, **known, **settings)
        assert list(data["bound"].values) == made.names()
        assert not [name for name in made.names() if name.startswith("theorem")]
        lane = data.sel(step_size=step_size, momentum=momentum)
        saves = len(made.trajectory.ts)
        assert saves == min(TIMES, round(np.ceil(1 / step_size)))
        assert_close(lane["t"][:saves], np.asarray(made.trajectory.ts, float))
        assert np.isnan(lane["t"][saves:]).all()
        for name in made.names():
            assert_close(lane.sel(bound=name)["value"], made.best(name)["value"], rtol=1e-6)


@pytest.mark.slow
@pytest.mark.float64
def test_float64_and_a_task_of_ones_own(equal_steps, tmp_path):
    task = small_task(m=60, d=3)
    axes = {"seed": [0, 1], "delta": [0.01, 0.1]}
    config = with_settings(axes=axes, dtype="float64", max_steps=40)
    data = nlbound_jax.sweep(config, tmp_path / "out.zarr", task=task)
    assert "dataset" not in data.attrs
    for seed, delta in itertools.product([0, 1], [0.01, 0.1]):
        known = {**CONFIG["settings"], "dtype": "float64", "seed": seed, "delta": delta}
        known["max_steps"] = 40
        made = nlbound_jax.report(task, Settings(**known))
        assert_is_report(data.sel(seed=seed, delta=delta), made)


@pytest.mark.float32
def test_float64_is_refused_without_x64(tmp_path, config):
    with pytest.raises(ValueError, match="^`dtype='float64'` must run in float64"):
        nlbound_jax.sweep(with_settings(config, dtype="float64"), tmp_path / "out.zarr")


@pytest.mark.slow
@pytest.mark.float64
def test_axes_of_data_and_shapes(npz, config, equal_steps, tmp_path):
    axes = {"width": [3, 4], "seed": [0, 1], "components": [2, 3], "init": ["default", "rank-one"]}
    wide = with_settings(config, axes, epsilon=0.1, max_steps=41)
    del wide["settings"]["width"]
    data = nlbound_jax.sweep(wide, tmp_path / "out.zarr")
    assert data["rank"].dims == ("components",)
    assert data["rank"].values.tolist() == [2, 3]
    for components, width, init in itertools.product([2, 3], [3, 4], ["default", "rank-one"]):
        task = tasks.from_npz(npz, components=components)
        known = {**CONFIG["settings"], "epsilon": 0.1, "seed": 1, "init": init, "width": width}
        known["max_steps"] = 41
        made = nlbound_jax.report(task, Settings(**known))
        cell = data.sel(width=width, seed=1, components=components, init=init)
        assert_is_report(cell, made)


@pytest.mark.slow
@pytest.mark.float64
@pytest.mark.parametrize("depth", [2, 3])
def test_checks_on_request(depth, tmp_path):
    task = small_task(m=60, d=3)
    compute = {"keep": ["checks"], "chunk": 2}
    config = with_settings(axes={"seed": [0, 1]}, compute=compute, depth=depth, beta=0.1)
    data = nlbound_jax.sweep(config, tmp_path / "out.zarr", task=task)
    made = nlbound_jax.report(task, Settings(depth=depth, beta=0.1, seed=1, **CONFIG["settings"]))
    ts = np.asarray(made.trajectory.ts, float)
    run = checks.measure(made.start, task, ts, central=False)
    claimed = [check for check in checks.evaluate(run).checks if check.claimed]
    assert [check.name for check in claimed] == checks.claimed_names(depth)
    assert list(data["check"].values) == checks.claimed_names(depth)
    assert_close(data["slack"][1], [check.slack.min() for check in claimed], rtol=1e-6)
    assert (data["holds"] == 2).all()


THEORY = {
    "axes": {
        "t": [0.5, 3.0, 40.0],
        "reading": ["printed", "repaired"],
        "epsilon": {"start": 1e-3, "stop": 1.0, "num": 5, "scale": "log"},
        "gamma": [1e-6, 1e-2],
    },
    "settings": {"depth": 3, "beta": 0.05, "stable_rank_root": 2.0, "train_risk": 0.1},
    "compute": {"mode": "theory", "chunk": 7},
}


@pytest.mark.quick
@pytest.mark.float64
def test_the_theory_alone_has_the_numbers_of_a_grid(tmp_path):
    data = nlbound_jax.sweep(THEORY, tmp_path / "theory.zarr")
    assert data.attrs["depth"] == 3
    axes = SweepConfig.load(THEORY).axes
    numbers = {name: list(axes[name]) for name in ("t", "epsilon", "gamma")}
    for reading in ("printed", "repaired"):
        known = {"alignment": 0.633, "dim": 49, "num_samples": 60000, **THEORY["settings"]}
        with jax.enable_x64(True):
            expected = bounds.grid(**numbers, **known, reading=reading)
        found = data.sel(reading=reading)
        for name in ("u", "log_v", "capacity", "deviation", "penalty", "value"):
            assert_close(found[name], expected[name], rtol=1e-12)
        assert np.array_equal(found["result"], expected["result"] + 1)
    assert (data["result"] == 2).any()
    assert sweep_status(tmp_path / "theory.zarr").failed.keys() == {"blow_up"}


# --- Resuming


@pytest.mark.float64
def test_what_is_complete_is_not_computed_again(copy, config, whole):
    before = marks(copy)
    nlbound_jax.sweep(config, copy)
    assert marks(copy) == before
    assert_same_store(copy, whole)


@pytest.mark.parametrize("damage", ["cut", "no chunk", "other bits", "cut mark", "no mark"])
@pytest.mark.float64
def test_a_half_written_piece_is_computed_again(damage, copy, config, whole):
    before = marks(copy)
    chunk, mark = copy / "value" / "2.0.0.0", copy / ".pieces" / "2.json"
    if damage == "cut":
        chunk.write_bytes(chunk.read_bytes()[:40])
    elif damage == "no chunk":
        chunk.unlink()
    elif damage == "other bits":
        chunk.write_bytes((copy / "value" / "1.0.0.0").read_bytes())
    elif damage == "cut mark":
        mark.write_bytes(mark.read_bytes()[:20])
    else:
        mark.unlink()
    (copy / "value" / "2.0.0.0123.partial").write_bytes(b"half of a chunk")
    nlbound_jax.sweep(config, copy)
    after = marks(copy)
    assert {name for name in after if after[name] != before.get(name)} == {"2.json"}
    assert_same_store(copy, whole)


@pytest.mark.float64
def test_a_store_of_another_configuration_is_refused(copy, config, npz, tmp_path):
    before = chunks(copy)
    other = [
        (with_settings(config, width=9), "`settings.width` must be as in .*, 5, got 9.$"),
        (with_settings(config, compute={"chunk": 4}), "`compute.chunk` must be as in .*, 3, got 4"),
        (
            with_settings(config, compute={"keep": ["bounds"]}),
            "`compute.keep` must be as in .*, .'trajectory', 'bounds'., got .'bounds'.",
        ),
        (
            with_settings(config, axes=CONFIG["axes"] | {"seed": [0, 1, 3]}),
            r"`axes.seed` must be as in .*, \[0, 1, 2\], got \[0, 1, 3\].$",
        ),
        (
            with_settings(config, axes={"epsilon": CONFIG["axes"]["epsilon"], "seed": [0, 1, 2]}),
            "`settings.kappa` must be as in .*, None, got 2.$",
        ),
    ]
    for tables, message in other:
        with pytest.raises(ValueError, match="^" + message):
            nlbound_jax.sweep(tables, copy)
    with np.load(npz) as arrays:
        changed = dict(arrays)
    changed["y"] = np.roll(changed["y"], 1)
    kept = npz.read_bytes()
    try:
        np.savez(npz, **changed)
        with pytest.raises(ValueError, match="^`settings.dataset` must name the data that"):
            nlbound_jax.sweep(config, copy)
    finally:
        npz.write_bytes(kept)
    assert chunks(copy) == before
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match="^`out` must be the store of a sweep or a path that"):
        nlbound_jax.sweep(config, tmp_path / "folder")
    with pytest.raises(ValueError, match="^`store` must be the store of a sweep, got"):
        sweep_status(tmp_path / "folder")


@pytest.mark.float64
def test_shards_fill_one_store(config, whole, tmp_path):
    out = tmp_path / "shards.zarr"
    first = nlbound_jax.sweep(config, out, shard=(1, 2))
    assert sorted(marks(out)) == ["1.json", "3.json"]
    assert (first["result"][[0, 2]] == FLAGS.index("missing")).all()
    assert np.isnan(first["value"][[0, 2]]).all()
    assert not np.isnan(first["value"][[1, 3]]).any()
    nlbound_jax.sweep(config, out, shard=(0, 2))
    assert_same_store(out, whole)
    devices = f"cpu x {jax.local_device_count()}"
    assert sweep_status(out).processes.keys() == {f"shard {i}/2 on {devices}" for i in (1, 2)}
