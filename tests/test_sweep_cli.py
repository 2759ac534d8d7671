"""`nlbound sweep`, `nlbound sweep status` and `nlbound figure heatmap`."""

import json

import numpy as np
import pytest
import xarray as xr
from matplotlib.collections import QuadMesh
from test_sweep import THEORY, config, npz, whole  # noqa: F401
from test_sweep_processes import write_toml
from typer.testing import CliRunner

import nlbound_jax
from nlbound_jax import figures
from nlbound_jax.cli._app import app
from nlbound_jax.cli._sweep import duration

pytestmark = pytest.mark.float64

PNG = b"\x89PNG\r\n\x1a\n"


def invoke(*args):
    return CliRunner().invoke(app, [str(a) for a in args])


@pytest.fixture(scope="module")
def theory(tmp_path_factory):
    path = tmp_path_factory.mktemp("theory") / "theory.zarr"
    nlbound_jax.sweep(THEORY, path)
    return path


@pytest.mark.quick
def test_the_command_makes_continues_and_tells(tmp_path):
    out = tmp_path / "new" / "theory.zarr"
    axes = {"t": [1.0, 2.0], "beta": [0.1, 0.2, 0.3]}
    tables = {"axes": axes, "settings": {"gamma": 0.1}, "compute": {"mode": "theory", "chunk": 2}}
    toml = write_toml(tmp_path / "sweep.toml", tables)
    first = invoke("sweep", "--config", toml, "--out", out, "--shard", "2/2")
    assert first.exit_code == 0, first.output
    assert first.stderr == ""  # no progress where there is no terminal
    status = json.loads(invoke("sweep", "status", out, "--json").stdout)
    assert (status["pieces"], status["pieces_done"], status["flows_done"]) == (4, 2, 2)
    assert invoke("sweep", "--config", toml, "--out", out).exit_code == 0
    text = invoke("sweep", "status", out).stdout
    assert "t 2, beta 3" in text
    assert "6 of 6 cells done, 4 of 4 pieces" in text
    assert not np.isnan(xr.open_zarr(out, chunks=None)["penalty"]).any()


BAD = [
    (["sweep"], "`--config` must be given."),
    (["sweep", "--config", "TOML"], "`--out` must be given."),
    (["sweep", "status"], "`STORE` must be given: nlbound sweep status STORE."),
    (["sweep", "status", "none"], "`STORE` must be the store of a sweep, got 'none'."),
    (
        ["sweep", "--config", "none", "--out", "OUT"],
        "`--config` must be a TOML file, got 'none': No",
    ),
    (["sweep", "--config", "TOML", "--out", "OUT"], "`axes.epsilon` must be in [0, 1], got 2."),
    (
        ["sweep", "--config", "TOML", "--out", "OUT", "--shard", "4/3"],
        "`--shard` must be i/n with 1",
    ),
    (
        ["sweep", "--config", "TOML", "--out", "OUT", "--shard", "1/2", "--distributed"],
        "`--shard` must be left out with several processes under one runtime.",
    ),
    (["figure", "heatmap"], "`STORE` must be given: nlbound figure heatmap STORE --x A --y B."),
    (["figure", "heatmap", "STORE", "--x", "t"], "`--y` must be given: nlbound figure heatmap"),
    (["figure", "heatmap", "none", "--x", "t", "--y", "t"], "`STORE` must be a Zarr store, got"),
    (["figure", "1", "STORE"], "`STORE` must be left out with 1, got"),
    (
        ["figure", "heatmap", "STORE", "--x", "t", "--y", "z"],
        "`--y` must be one of 'reading', 'eps",
    ),
    (
        ["figure", "heatmap", "STORE", "--x", "t", "--y", "t"],
        "`--y` must be one of 'reading', 'eps",
    ),
    (
        ["figure", "heatmap", "STORE", "--x", "t", "--y", "epsilon", "--at", "gamma=3"],
        "`--at` must name a value of gamma (1e-06, 0.01), got '3'.",
    ),
    (
        ["figure", "heatmap", "STORE", "--x", "t", "--y", "epsilon", "--at", "gamma"],
        "`--at` must be axis=value, got 'gamma'.",
    ),
    (
        ["figure", "heatmap", "STORE", "--x", "t", "--y", "epsilon", "--variable", "w"],
        "`--variable` must be one of 'capacity', ",
    ),
]


@pytest.mark.parametrize(("args", "message"), BAD)
def test_bad_input_is_one_line_and_status_2(args, message, theory, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    toml = write_toml(tmp_path / "sweep.toml", {"axes": {"epsilon": [2.0]}})
    known = {"TOML": toml, "OUT": tmp_path / "out.zarr", "STORE": theory}
    result = invoke(*(known.get(a, a) for a in args))
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith(f"nlbound: {message}"), result.stderr
    assert result.stderr.count("\n") == 1
    assert sorted(p.name for p in tmp_path.iterdir()) in (["sweep.toml"], ["out", "sweep.toml"])


def test_the_heatmap_command_draws_a_sweep(whole, tmp_path):  # noqa: F811
    arguments = ["--x", "epsilon", "--y", "seed", "--bound", "trajectory", "--at", "kappa=2"]
    result = invoke("figure", "heatmap", whole, *arguments, "--out", tmp_path)
    assert result.exit_code == 0, result.output
    assert result.stdout.strip() == str(tmp_path / "heatmap.png")
    assert (tmp_path / "heatmap.png").read_bytes().startswith(PNG)


def mesh_of(figure):
    return next(c for c in figure.axes[0].collections if isinstance(c, QuadMesh))


def test_a_heatmap_shows_the_numbers(whole):  # noqa: F811
    data = xr.open_zarr(whole, chunks=None).load()
    drawn = figures.heatmap(data, "epsilon", "seed", at={"kappa": 1})
    expected = data["value"].sel(kappa=1, bound="split-a-priori").transpose("seed", "epsilon")
    assert np.array_equal(mesh_of(drawn).get_array(), expected)
    assert drawn.axes[0].get_xscale() == "log"
    assert drawn.axes[0].get_yscale() == "linear"
    assert "split-a-priori, kappa = 1" in drawn.axes[0].get_title()
    drawn = figures.heatmap(data, "seed", "kappa", bound="trajectory", reduce="max")
    expected = data["value"].sel(bound="trajectory").max("epsilon").transpose("kappa", "seed")
    assert np.array_equal(mesh_of(drawn).get_array(), expected)
    assert "max over epsilon" in drawn.axes[0].get_title()
    steps = figures.heatmap(data, "epsilon", "seed", variable="num_steps")
    assert np.array_equal(mesh_of(steps).get_array(), data["num_steps"].T)


@pytest.mark.quick
def test_a_heatmap_leaves_out_what_is_missing_and_caps_what_is_infinite(theory):
    data = xr.open_zarr(theory, chunks=None).load()
    data["value"][0, 0, 0, 0] = np.nan
    data["value"][-1, 0, 0, 0] = np.inf
    drawn = figures.heatmap(data, "t", "epsilon", at={"reading": "printed", "gamma": 1e-6})
    shown = mesh_of(drawn).get_array()
    assert shown.mask.sum() == 1
    assert shown.mask[0, 0]
    assert mesh_of(drawn).get_clim()[1] == 1
    one = figures.heatmap(data.isel(t=[0]), "t", "reading", at={"gamma": 0.01})
    assert [t.get_text() for t in one.axes[0].get_yticklabels()] == ["printed", "repaired"]


def test_durations_are_read_as_a_clock():
    assert [duration(s) for s in (0.4, 61, 3600 * 25 + 5)] == ["0:00:00", "0:01:01", "25:00:05"]
