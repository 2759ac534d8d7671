"""`compare`: our bounds beside the classical ones, in Python and on the command line."""

import json
import math
import re

import jax
import numpy as np
import pytest
from helpers import assert_close, small_data, small_task
from typer.testing import CliRunner

from nlbound_jax import Settings, ladder, report
from nlbound_jax.bounds import classical
from nlbound_jax.cli._app import app
from nlbound_jax.ladder import _ladder
from nlbound_jax.report import compare, comparison_table, plot_comparison, save_comparison

pytestmark = pytest.mark.float64

CLASSICAL = [bound.name for bound in ladder.CLASSICAL]
TASK = small_task(m=400, test=200)
SMALL = Settings(width=6, beta=0.05, epsilon=0.05, num_times=5)
DIRECT = {"epsilon": 0.05, "delta": SMALL.delta, "precision_bits": SMALL.precision_bits}


@pytest.fixture(scope="module")
def made():
    return compare(TASK, SMALL, epsilons=(0.5,), times=3, steps=20)


@pytest.fixture(scope="module")
def reported():
    return report(TASK, SMALL)


def test_there_is_one_row_for_each_bound(made, reported):
    names = [row["bound"] for row in made.rows]
    assert names == [*reported.names(), *CLASSICAL]
    assert [row["ours"] for row in made.rows] == [n in reported.names() for n in names]
    for row in made.rows:
        parts = row["train_term"] + row["complexity"] + row["rest"]
        if math.isfinite(row["uncapped"]):
            assert_close(row["uncapped"], parts, rtol=1e-9)
        assert row["t"] == float(reported.trajectory.ts[-1])
        assert row["best_uncapped"] <= row["uncapped"]
        assert row["source"]
    assert not made["pac-bayes-gaussian"]["deterministic"]
    with pytest.raises(ValueError, match="^`bound` must be one of 'theorem-5.2-printed', .*'vcc'"):
        made["vcc"]


def test_classical_rows_agree_with_direct_calls(made, reported):
    """With the draws, which have a key of their own, as well."""
    key = jax.random.fold_in(jax.random.key(SMALL.seed), 1)
    args = (reported.network.weights, reported.start.weights, TASK.x, TASK.y)
    found = classical.all_bounds(*args, **DIRECT, key=key, steps=20)
    assert len(found) == len(CLASSICAL)
    for name, bound in found.items():
        row = made[name.replace("_", "-")]
        assert_close(row["uncapped"], float(bound.value), rtol=1e-6)
        assert_close(row["train_term"], float(bound.train_risk), rtol=1e-6)
        assert_close(row["rest"], float(bound.confidence), rtol=1e-6)
        assert (row["gamma"] is None) == (bound.gamma is None)
        assert (row["a_priori"], row["source"]) == (bound.a_priori, bound.source)
        assert row["deterministic"] == bound.deterministic
        # Beyond the samples, which all rows assume, and the plug-in, which is of the whitening.
        assumed = [a for a in bound.assumes if not a.startswith("the samples are iid")]
        assert [a for a in row["assumes"] if not a.startswith("Sigma_X")] == assumed


def test_the_best_time_is_the_best_of_direct_calls(made, reported):
    curve = next(c for c in made.over_time if c["bound"] == "frobenius")
    ts = [float(t) for t in reported.trajectory.ts]
    assert len(curve["t"]) == 3
    assert curve["t"][-1] == ts[-1]
    for t, value in zip(curve["t"], curve["uncapped"], strict=True):
        net = reported.trajectory.network(ts.index(t))
        found = classical.all_bounds(net.weights, None, TASK.x, TASK.y, **DIRECT)["frobenius"]
        assert_close(value, float(found.value), rtol=1e-6)
    row = made["frobenius"]
    assert row["best_uncapped"] == min(curve["uncapped"])
    assert row["best_t"] == curve["t"][int(np.argmin(curve["uncapped"]))]


def test_our_rows_agree_with_the_report(made, reported):
    for name in reported.names():
        row, end = made[name], reported.at_end(name)
        assert_close(row["value"], end["value"], rtol=1e-9)
        assert_close(min(1.0, row["best_uncapped"]), reported.best(name)["value"], rtol=1e-9)
        assert (row["a_priori"], row["assumes"]) == (end["a_priori"], end["assumes"])


def test_a_value_above_1_is_not_capped(made):
    row = made["vc"]
    assert row["uncapped"] > 1.2
    printed = next(c for c in made.over_time if c["bound"] == "theorem-5.2-printed")
    assert max(printed["uncapped"]) > 1


def test_only_what_needs_it_plugs_in_the_second_moment(made):
    """The class of all first layers is the same before and after whitening."""
    plugged = {
        row["bound"] for row in made.rows if "Sigma_X plugged in for Sigma" in row["assumes"]
    }
    iid_alone = {"vc", "anchored", "anchored-a-priori", "anchored-one-draw", "anchor-test-bound"}
    assert {row["bound"] for row in made.rows} - plugged == iid_alone


def test_without_a_sweep_and_without_draws(reported):
    less = compare(TASK, SMALL, epsilons=(), times=1, steps=None)
    assert less.over_epsilon == []
    assert "pac-bayes-gaussian" not in [row["bound"] for row in less.rows]
    assert all(row["best_t"] == row["t"] for row in less.rows if not row["ours"])
    assert len(plot_comparison(less).axes) == 1


def test_the_sweep_holds_both_slopes(made):
    assert [p["epsilon"] for p in made.over_epsilon] == [0.05, 0.5]
    assert made.over_epsilon[0]["rows"] == made.rows
    other = report(TASK, Settings(width=6, beta=0.05, epsilon=0.5, num_times=5))
    rows = {row["bound"]: row for row in made.over_epsilon[1]["rows"]}
    end = other.at_end("split-a-posteriori")["value"]
    assert_close(rows["split-a-posteriori"]["value"], end, rtol=1e-9)
    assert_close(made.over_epsilon[1]["test_risk"], float(other.test_risk[-1]), rtol=1e-9)
    assert made.over_epsilon[1]["result"] == "successful"


def test_json_is_plain_and_complete(made, tmp_path):
    save_comparison(made, tmp_path / "new")
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["compare.json", "compare.png"]
    data = json.loads((tmp_path / "new" / "compare.json").read_text())
    assert data == made.as_dict()
    assert [row["bound"] for row in data["bounds"]] == [row["bound"] for row in made.rows]
    assert data["settings"]["epsilon"] == 0.05
    assert len(data["over_epsilon"]) == 2
    assert set(data["bounds"][0]) == set(made.rows[0])


def test_the_picture_shows_what_it_says(made):
    left, right = plot_comparison(made).axes
    assert left.get_yscale() == right.get_yscale() == right.get_xscale() == "log"
    assert left.get_xscale() == "linear"
    lines = {line.get_label(): line for line in left.get_lines()}
    for curve in made.over_time:
        assert lines[curve["bound"]].get_xdata().tolist() == curve["t"]
        assert lines[curve["bound"]].get_ydata().tolist() == curve["uncapped"]
    test = lines["true test error of the network"].get_ydata()
    assert np.array_equal(test, made.report.test_risk)
    assert set(lines["random guess"].get_ydata()) == {0.5}
    over = {line.get_label(): line for line in right.get_lines()}
    for name in (row["bound"] for row in made.rows):
        assert over[name].get_xdata().tolist() == [0.05, 0.5]
        assert over[name].get_ydata()[0] == made[name]["best_uncapped"]
        assert (over[name].get_linestyle() == "--") == (name in CLASSICAL)
    low = min(np.min(line.get_ydata()) for line in (*left.get_lines(), *right.get_lines()))
    assert left.get_ylim()[0] < low


def test_the_table_has_a_row_for_each_bound_and_a_line_for_each_letter(made):
    grid, *notes = comparison_table(made).renderables
    assert grid.row_count == len(made.rows)
    letters = [line.plain[0] for line in notes if re.match(r"[A-Z]: ", line.plain)]
    assert letters == list("ABCDEFG")[: len(letters)]
    used = {c for cell in grid.columns[3].cells for c in cell.split() if c != "-"}
    assert used == set(letters)


BAD = [
    ({"epsilons": (2.0,)}, r"`epsilons` must be in \[0, 1\], got 2."),
    ({"times": 0}, "`times` must be an integer of at least 1, got 0."),
    ({"steps": -1}, "`steps` must be an integer of at least 0, got -1."),
]


@pytest.mark.parametrize(("options", "message"), BAD, ids=[str(o) for o, _ in BAD])
def test_bad_arguments_get_one_line(options, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        compare(TASK, SMALL, **options)


def invoke(*args):
    return CliRunner().invoke(app, ["compare", *(str(a) for a in args)])


def test_the_command_on_a_file(tmp_path, monkeypatch):
    monkeypatch.setattr(_ladder, "OURS", ladder.OURS[:2])  # the others take most of the time
    np.savez(tmp_path / "data.npz", **small_data(m=400, test=200))
    args = ["--dataset", tmp_path / "data.npz", "--width", 6, "--end-time", 1, "--quick"]
    result = invoke(*args, "--out", tmp_path / "out", "--json")
    assert result.exit_code == 0, result.output
    data = json.loads(result.stdout)
    assert data == json.loads((tmp_path / "out" / "compare.json").read_text())
    assert (data["task"]["name"], data["over_epsilon"]) == ("data.npz", [])
    assert "pac-bayes-gaussian" not in [row["bound"] for row in data["bounds"]]
    assert result.stderr == "epsilon = 0.001 ...\n"
    shown = invoke(*args)
    assert "path-norm-l2" in shown.stdout
    assert "random guess 0.5" in shown.stdout


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--epsilon", 1.3], "`--epsilon` must be in [0, 1], got 1.3."),
        (["--dataset", "x"], "`--dataset` must be mnist, tfds:NAME or FILE.npz, got 'x'."),
        (["--out", "/proc/none"], "`--out` must be a folder that can be written, got '/proc/none'"),
    ],
)
def test_bad_options_get_one_line_and_status_2(args, message):
    result = invoke(*args)
    assert (result.exit_code, result.stdout) == (2, "")
    assert len(result.stderr.strip().splitlines()) == 1
    assert message in result.stderr
