"""Anchored bounds in reports and certificates: what the anchor may know, what a row is about."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close, small_data
from typer.testing import CliRunner

from nlbound_jax import Settings, bounds, certify, ladder, networks, report, tasks
from nlbound_jax.cli._app import app
from nlbound_jax.report import declared_split, plot, save, table, train_anchor

pytestmark = pytest.mark.float64

TASK = tasks.from_arrays(**small_data(m=400, test=100))
SMALL = Settings(width=4, beta=0.05, epsilon=0.3, num_times=3, dtype="float64")
ANCHORED = ("anchored", "anchored-one-draw", "anchor-test-bound")
RAW = TASK.transform.inverse(TASK.x)


@pytest.fixture(scope="module")
def made():
    return report(TASK, SMALL)


@pytest.fixture(scope="module")
def anchor():
    return train_anchor(TASK, declared_split(TASK, SMALL), SMALL)


def errors(net, x, y):
    return ~(np.asarray(net(x)) * y > 0)


def test_a_report_has_them_once_at_the_end(made):
    for name in ANCHORED:
        (row,) = made.over_time(name)
        assert row["t"] == float(made.trajectory.ts[-1])
        assert row["gamma"] is None
        assert_close(
            row["train_term"] + row["complexity"] + row["rest"], row["uncapped"], rtol=1e-12
        )
        assert row["assumes"] == []
        assert row["result"] == "successful"
    assert json.dumps(made.as_dict(), allow_nan=False)
    assert made.omitted.keys() == {"split-no-plug-in"}


def test_a_row_has_the_test_error_of_the_network_that_it_is_about(made):
    held_out = TASK.held_out
    for name in ANCHORED:
        row, net = made.at_end(name), made.certified[name]
        assert row["about"] != "the network"
        wrong = errors(net, np.asarray(held_out, float), TASK.y_test)
        # The held-out inputs are kept in single precision.
        assert abs(row["test_risk"] - wrong.mean()) <= 1 / len(wrong)
    assert made.at_end("split-a-posteriori")["about"] == "the network"
    text = [note.plain for note in table(made).renderables[1:]]
    assert sum("is about another network" in line for line in text) == len(ANCHORED)
    plot(made)


def test_the_certified_network_is_trained_on_the_whole_sample(made, anchor):
    """From the anchor's start it is the same training as that of the report, from another."""
    net = made.certified["anchored"]
    train = errors(net, RAW, TASK.y).mean()
    assert abs(train - made.train_risk[-1]) < 0.1
    whole, part = anchor.trained.weights, anchor.net.weights
    assert float(jnp.linalg.norm(whole[0] - part[0])) > 0


def test_the_rows_are_the_formulas(made, anchor):
    split, key = anchor.split, made_key()
    found = bounds.anchored_bound(
        split.x,
        split.y,
        anchor.trained.weights,
        anchor.net.weights,
        x_first=split.x_first,
        epsilon=SMALL.epsilon,
        key=key,
        delta=SMALL.delta,
    )
    row = made.at_end("anchored")
    assert_close(row["uncapped"], found.value, rtol=1e-6)
    assert_close(row["parts"]["divergence"], found.divergence, rtol=1e-6)
    wrong = errors(anchor.net, split.x, split.y)
    limit = bounds.binomial_upper(int(wrong.sum()), len(wrong), SMALL.delta)
    assert_close(made.at_end("anchor-test-bound")["uncapped"], limit, rtol=1e-9)
    drawn = made.at_end("anchored-one-draw")
    on_second = errors(made.certified["anchored-one-draw"], RAW[split.second], split.y)
    assert_close(drawn["train_term"], on_second.mean(), atol=1e-12)


def made_key():
    from nlbound_jax.report import bound_key

    return bound_key(SMALL)


def test_the_anchor_knows_nothing_of_the_second_part(anchor):
    """Neither its labels nor how long the whole sample trains."""
    second = anchor.split.second
    y = TASK.y.copy()
    y[second] = -y[second]
    target = y @ TASK.x / len(y)
    other = dataclasses.replace(TASK, y=y, target=target, alignment=float(np.linalg.norm(target)))
    again = train_anchor(other, declared_split(other, SMALL), SMALL)
    for w, v in zip(anchor.net.weights, again.net.weights, strict=True):
        np.testing.assert_array_equal(w, v)
    moved = zip(anchor.trained.weights, again.trained.weights, strict=True)
    assert any(np.any(np.asarray(w != v)) for w, v in moved)


def test_both_start_as_the_same_function(monkeypatch):
    from nlbound_jax.report import _anchor

    starts = []

    def kept(net, part, settings, t1, **options):
        starts.append((net, part))
        return train(net, part, settings, t1, **options)

    train = _anchor.train_network
    monkeypatch.setattr(_anchor, "train_network", kept)
    split = declared_split(TASK, SMALL)
    train_anchor(TASK, split, SMALL)
    (first, one), (second, two) = starts
    inputs = TASK.held_out * TASK.transform.scale
    assert_close(first(one.transform(inputs)), second(two.transform(inputs)), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"anchor_fraction": 0.0}, "`anchor_fraction` must be positive"),
        ({"depth": 3, "beta": 0.5}, "it needs depth 2, not 3"),
    ],
)
def test_what_is_left_out_is_said(changes, reason):
    made = report(TASK, dataclasses.replace(SMALL, **changes))
    assert reason in made.omitted["anchored"]
    assert "anchored" not in made.names()
    assert ("anchor-test-bound" in made.names()) == ("depth" in changes)
    assert any(reason in note.plain for note in table(made).renderables[1:])
    assert made.as_dict()["omitted"] == made.omitted


def test_a_task_that_dropped_directions_has_no_anchor():
    data = small_data(m=400)
    task = tasks.from_arrays(data["x"], data["y"], components=2)
    made = report(task, SMALL)
    assert "`components`" in made.omitted["anchored"]
    with pytest.raises(ValueError, match="`bounds` must be without anchored ones, as there is no"):
        report(task, SMALL, bounds=[ladder.AnchoredAPosteriori()])


def test_certify_takes_an_anchor(anchor, no_type_checks):
    """Nets of other trainings, as `certify` takes them; what it certifies is the network itself."""
    net = networks.LeakyMLP(
        tuple(jnp.asarray(w) for w in anchor.on_raw(anchor.trained).weights),
        anchor.trained.epsilon,
    )
    own = ladder.Anchor(anchor.split, anchor.net)
    found = certify(net, TASK, inputs="raw", anchor=own)
    assert set(ANCHORED) < {row["bound"] for row in found.rows}
    assert found["anchored"]["about"] == "the network"
    assert found["anchored"]["test_risk"] == found.test_risk
    assert "anchored" not in found.certified
    with_twin = certify(net, TASK, inputs="raw", anchor=anchor)
    assert_close(with_twin["anchored"]["uncapped"], found["anchored"]["uncapped"], rtol=1e-6)
    other = certify(net, TASK, inputs="raw", anchor=own, key=jax.random.key(5))
    draws = [c.certified["anchored-one-draw"].weights[0] for c in (found, other)]
    assert bool(jnp.any(draws[0] != draws[1]))
    with pytest.raises(ValueError, match="`anchor` must be"):
        certify(net, TASK, inputs="raw", anchor=net)


def test_the_command_certifies_with_an_anchor(made, anchor, tmp_path):
    """What a report saved is what the command reads."""
    save(made, tmp_path)
    data = small_data(m=400, test=100)
    np.savez(tmp_path / "data.npz", **data)
    options = ["--dataset", str(tmp_path / "data.npz"), "--epsilon", "0.3", "--json"]
    weights = [str(tmp_path / "anchored.npz"), "--anchor", str(tmp_path / "anchor-test-bound.npz")]
    result = CliRunner().invoke(app, ["certify", *weights, *options])
    assert result.exit_code == 0, result.output
    rows = {row["bound"]: row for row in json.loads(result.stdout)["bounds"]}
    of_report = made.at_end("anchor-test-bound")["uncapped"]
    assert_close(rows["anchor-test-bound"]["uncapped"], of_report, rtol=1e-9)
    # The draws have another key.
    assert abs(rows["anchored"]["uncapped"] - made.at_end("anchored")["uncapped"]) < 0.02
    result = CliRunner().invoke(app, ["certify", weights[0], *options, "--anchor", "none.npz"])
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert "`--anchor`" in result.stderr
