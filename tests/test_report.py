import dataclasses
import json

import jax
import numpy as np
import pytest
from helpers import assert_close, numpy_network, small_task

from nlbound_jax import Settings, bounds, dynamics, ladder, report
from nlbound_jax.report import plot, save, table

pytestmark = pytest.mark.float64

TASK = small_task(m=400, test=200)  # the shapes of `test_split_report.py` and `test_compare.py`
# Bounds around an anchor, and what a report saves for them, have a file of their own.
SMALL = Settings(width=6, beta=0.05, epsilon=0.05, num_times=5, anchor_fraction=0.0)


@pytest.fixture(scope="module")
def made():
    return report(TASK, SMALL)


def cells(made, bound):
    return [row for row in made.rows() if row["bound"] == bound]


@pytest.mark.quick
def test_every_entry_has_the_keys_of_the_schema(made):
    keys = {"bound", "t", "gamma", "train_term", "complexity", "rest", "uncapped", "value"}
    keys |= {"train_margin_risk", "train_ramp_risk", "test_risk", "a_priori", "deterministic"}
    keys |= {"assumes", "source", "about", "numbers", "result", "parts"}
    assert {"theorem-5.2-printed", "theorem-5.2-repaired"} <= set(made.names())
    for row in made.rows():
        assert keys == set(row)
        assert 0 < row["value"] <= 1
        assert row["uncapped"] == row["train_term"] + row["complexity"] + row["rest"]
        assert row["train_ramp_risk"] <= row["train_margin_risk"]
    assert len(cells(made, "theorem-5.2-printed")) == SMALL.cells == 30


@pytest.mark.parametrize("reading", ["printed", "repaired"])
@pytest.mark.float64
@pytest.mark.quick
def test_entries_agree_with_a_direct_computation(made, reading):
    """Risks by NumPy on the trained weights, terms from `theorem_5_2` on single numbers."""
    for row in cells(made, f"theorem-5.2-{reading}")[::4]:
        i = [float(t) for t in made.trajectory.ts].index(row["t"])
        weights = [np.asarray(w[i], float) for w in made.trajectory.weights]
        margin = TASK.y * numpy_network(weights, 0.05, TASK.x)
        test = TASK.y_test * numpy_network(weights, 0.05, TASK.x_test)
        gamma = row["gamma"]
        assert np.min(np.abs(made.scale[i] / gamma / SMALL.ratios - 1)) < 1e-9
        assert_close(row["train_margin_risk"], np.mean(margin < gamma), rtol=0, atol=1e-9)
        ramp = np.clip(1 - margin / gamma, 0, 1)
        assert_close(row["train_ramp_risk"], ramp.mean(), rtol=1e-4)
        assert_close(row["test_risk"], np.mean(test < 0), rtol=0, atol=1e-9)
        start = made.start.weights
        spectral = [np.linalg.norm(np.asarray(w, float), 2) for w in start]
        terms = bounds.theorem_5_2(
            row["t"],
            depth=2,
            epsilon=float(made.start.epsilon),
            beta=max(spectral),
            gamma=gamma,
            stable_rank_root=np.linalg.norm(np.asarray(start[0], float)) / spectral[0],
            alignment=TASK.alignment,
            dim=4,
            num_samples=400,
            cells=30,
            reading=reading,
        )
        assert_close(row["rest"], terms.deviation, rtol=1e-9)
        assert_close(row["complexity"], terms.capacity, rtol=1e-9)
        value = row["train_margin_risk"] + row["complexity"] + row["rest"]
        assert_close(row["value"], min(1.0, value), rtol=1e-9)


def test_gamma_is_relative_to_the_reference_network(made):
    with jax.enable_x64(True):
        ts = np.asarray(made.trajectory.ts, float)
        # At L = 2 the reference shares its steps with the envelope, which starts from it.
        residual = ladder.root_mean_square_residual(made.start, TASK)
        reference = dynamics.reference_flow(made.start, TASK.target, ts, initial_residual=residual)
        assert_close(made.scale, reference.scale)


def test_best_and_end(made):
    rows = cells(made, "theorem-5.2-printed")
    assert made.best("theorem-5.2-printed")["value"] == min(r["value"] for r in rows)
    end = made.at_end("theorem-5.2-printed")
    assert end["t"] == max(r["t"] for r in rows) == float(made.trajectory.ts[-1])


@pytest.mark.quick
def test_json_is_plain_and_complete(made, tmp_path):
    save(made, tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["report.json", "report.png"]
    data = json.loads((tmp_path / "report.json").read_text())
    assert data == made.as_dict()
    assert set(data) == {
        "schema",
        "versions",
        "task",
        "settings",
        "bounds",
        "omitted",
        "trajectory",
    }
    assert data["settings"] == SMALL.as_dict()
    assert data["task"]["alignment"] == TASK.alignment
    assert data["trajectory"]["result"] == "successful"
    assert len(data["trajectory"]["t"]) == 5
    assert (tmp_path / "report.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


@pytest.mark.float64
@pytest.mark.slow
def test_numbers_that_are_not_finite_become_null_with_a_reason():
    """At depth 3 the bound on the weights blows up long before t = 60."""
    made = report(TASK, Settings(width=4, depth=3, beta=0.3, end_time=60.0, num_times=3))
    rows = made.as_dict()["bounds"]
    end = [row for row in rows if row["bound"] == "theorem-5.2-repaired"][-1]
    assert end["value"] == 1.0
    assert end["rest"] is None
    assert end["uncapped"] is None
    assert end["result"] == "blow_up"


@pytest.mark.quick
def test_the_picture_shows_what_it_says(made):
    left, right = plot(made).axes
    lines = {line.get_label(): line for line in left.lines}
    values = [row["value"] for row in made.over_time("theorem-5.2-repaired")]
    assert_close(lines["theorem-5.2-repaired"].get_ydata(), values)
    assert_close(lines["true test error"].get_ydata(), made.test_risk)
    assert lines["random guess"].get_ydata()[0] == 0.5
    assert left.get_xlabel()
    assert right.get_title()


@pytest.mark.quick
def test_the_table_has_a_best_and_an_end_for_each_bound(made):
    grid = table(made).renderables[0]
    assert grid.row_count == sum(1 + bound.over_time for bound in made.bounds)


@pytest.mark.float64
def test_small_steps_report_nearly_the_same(made):
    """But for what needs gradient flow."""
    other = report(TASK, dataclasses.replace(SMALL, dynamics="gd"))
    assert other.names() == [name for name in made.names() if not name.startswith("theorem")]
    for name in other.names():
        one, two = (r.at_end(name) for r in (made, other))
        assert abs(one["t"] - two["t"]) < 0.01
        assert abs(one["train_ramp_risk"] - two["train_ramp_risk"]) < 0.02
        assert abs(one["value"] - two["value"]) < 0.02


def test_without_test_data():
    from nlbound_jax import tasks

    made = report(tasks.from_arrays(TASK.x, TASK.y), SMALL)
    assert made.test_risk is None
    assert made.rows()[0]["test_risk"] is None
    plot(made)
    table(made)


@pytest.mark.float64
@pytest.mark.slow
def test_a_run_that_stops_early_keeps_what_it_has():
    made = report(TASK, Settings(width=6, epsilon=0.5, beta=0.05, num_times=40, max_steps=4))
    assert "maximum number of solver steps" in made.as_dict()["trajectory"]["result"]
    assert len(made.trajectory.ts) < 40
    assert max(row["t"] for row in made.rows()) == float(made.trajectory.reached)


BAD = {
    "width": (0, "an integer of at least 1"),
    "depth": (1, "an integer of at least 2"),
    "epsilon": (-0.1, r"in \[0, 1\]"),
    "beta": (0, "positive and finite"),
    "init": ("zeros", "one of 'default', 'rank-one'"),
    "kappa": (3, "one of 1, 2"),
    "delta": (0, r"in \(0, 1\)"),
    "precision_bits": (0, "an integer of at least 1"),
    "seed": (-1, r"an integer in \[0, 4294967295\]"),
    "until": (1.0, r"in \(0, 1\)"),
    "end_time": (0.0, "positive and finite"),
    "dynamics": ("sgd", "one of 'flow', 'gd'"),
    "step_size": (0.0, "positive and finite"),
    "momentum": (1.0, r"in \[0, 1\)"),
    "nesterov": ("yes", "one of True, False"),
    "dtype": ("float16", "one of 'float32', 'float64'"),
    "ratios": ((-1,), "positive and finite"),
    "num_times": (0, "an integer of at least 1"),
    "max_steps": (0, "an integer of at least 1"),
    "rtol": (0, r"in \(0, 1\)"),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.quick
def test_bad_settings_get_one_line(no_type_checks, name):
    value, allowed = BAD[name]
    with pytest.raises(ValueError, match=f"^`{name}` must be {allowed}, got [^\n]*$"):
        Settings(**{name: value})


def test_data_with_nothing_to_learn_says_so():
    from nlbound_jax import tasks

    x = np.array([[1.0], [-1.0], [1.0], [-1.0]])
    task = tasks.from_arrays(x, [1, 1, -1, -1])
    with pytest.raises(ValueError, match="`task` must have labels that correlate .* `end_time`"):
        report(task, SMALL)


@pytest.mark.parametrize(
    ("settings", "low", "high"),
    [
        ({}, 0.33, 0.375),
        ({"epsilon": 0.01}, 0.50, 0.58),
        ({"epsilon": 0.01, "init": "rank-one"}, 0.42, 0.50),
    ],
)
@pytest.mark.float64
def test_theorem_5_2_on_mnist(mnist7, optimized, settings, low, high):
    made = report(mnist7, Settings(**settings, anchor_fraction=0.0))
    assert low < made.best("theorem-5.2-printed")["value"] < high
    assert made.test_risk[-1] == pytest.approx(0.184, abs=0.004)
