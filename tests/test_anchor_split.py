"""The split of a task: exact maps between coordinates, and nothing of S2 where it must not be."""

import jax
import numpy as np
import pytest
from helpers import numpy_network, small_data

from nlbound_jax import tasks

pytestmark = pytest.mark.float64
KEY = jax.random.key(5)


def data(m=200, features=6, seed=0, test=60):
    return small_data(seed, m, features, test)


def odd_data():
    """A constant feature, one that is zero and one that only few samples have; the test inputs
    leave the span of the training set."""
    parts = data()
    x, x_test = parts["x"].copy(), parts["x_test"].copy()
    x[:, 1], x[:, 2], x[:, 3] = 1.5, 0.0, 0.0
    x[:3, 3] = 2.0
    x_test[:, 1] = 1.5
    return parts | {"x": x, "x_test": x_test}


CASES = {
    "plain": lambda: (tasks.from_arrays(**data()), data()),
    "odd": lambda: (tasks.from_arrays(**odd_data()), odd_data()),
    "columns": lambda: (tasks.from_arrays(**odd_data(), scale="columns"), odd_data()),
    "few": lambda: (tasks.from_arrays(**data(7, 12)), data(7, 12)),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("epsilon", [0.0, 0.3, 1.0])
def test_a_network_is_the_same_function_in_all_coordinates(case, epsilon):
    """Trained on the full task, on the anchor's or on raw features; at training and test inputs,
    also outside the span of S1."""
    task, raw = CASES[case]()
    split = tasks.split(task, key=KEY)
    rng = np.random.default_rng(1)
    last = rng.normal(size=(1, 5))
    inputs = {
        "x": raw["x"][split.second],
        "x_first": raw["x"][split.first],
        "x_test": raw["x_test"],
    }
    d = split.x.shape[1]
    assert split.x.shape[1] == raw["x"].shape[1] == task.num_features
    sources = [(task, task.rank), (split.anchor, split.anchor.rank), (None, d)]
    for source, size in sources:
        first = rng.normal(size=(5, size))
        carried = split.from_raw(first) if source is None else split.from_task(first, source)
        for name, given in inputs.items():
            own = given / task.transform.scale if source is None else source.transform(given)
            expected = numpy_network((first, last), epsilon, own)
            found = numpy_network((carried, last), epsilon, getattr(split, name))
            # Test inputs outside the span are known in single precision.
            error = 1e-11 if name != "x_test" or task.rank == task.num_features else 1e-5
            size_ = np.abs(own) @ np.abs(first).T @ np.abs(last).T
            assert (np.abs(found - expected) <= error * (1 + size_[:, 0])).all(), name
    assert np.array_equal(split.y, np.where(raw["y"][split.second] == 1, 1.0, -1.0))
    assert np.abs(split.transform(raw["x"][split.second]) - split.x).max() < 1e-9 * (
        1 + np.abs(split.x).max()
    )


def test_the_way_back_is_the_inverse():
    task, _ = CASES["plain"]()
    split = tasks.split(task, key=KEY)
    first = np.random.default_rng(2).normal(size=(3, 4, task.rank))
    for other in (task, split.anchor, *split.subsamples()):
        there = split.from_task(first, other)
        assert there.shape == (3, 4, 6)
        assert np.abs(split.to_task(there, other) - first).max() < 1e-10


def test_the_parts_are_a_random_partition():
    task, raw = CASES["plain"]()
    split = tasks.split(task, key=KEY, fraction=0.3)
    assert len(split.first) == 60
    assert sorted([*split.first, *split.second]) == list(range(200))
    assert list(split.first) != sorted(split.first)
    again = tasks.split(task, key=KEY, fraction=0.3)
    assert np.array_equal(again.first, split.first)
    other = tasks.split(task, key=jax.random.key(6), fraction=0.3)
    assert not np.array_equal(other.first, split.first)
    assert np.abs(split.anchor.x.T @ split.anchor.x / 60 - np.eye(6)).max() < 1e-12
    expected = split.anchor.transform(raw["x"][split.first])
    assert np.abs(expected - split.anchor.x).max() < 1e-12


@pytest.mark.parametrize("scale", ["norm", "columns"])
def test_nothing_of_s1_depends_on_s2(scale):
    """Other inputs and permuted labels in S2: the anchor's task, the map to the coordinates, the
    dimension and the subsamples stay, but for the rounding of another scale."""
    raw = data()
    split = tasks.split(tasks.from_arrays(**raw, scale=scale), key=KEY)
    rng = np.random.default_rng(3)
    x, y = raw["x"].copy(), raw["y"].copy()
    x[split.second] = 3 * rng.normal(size=(len(split.second), 6)) + 1
    y[split.second] = rng.permutation(y[split.second])
    changed = tasks.split(tasks.from_arrays(**raw | {"x": x, "y": y}, scale=scale), key=KEY)
    assert changed.x.shape == split.x.shape
    assert np.array_equal(changed.y_first, split.y_first)
    pairs = [(changed.anchor, split.anchor)]
    pairs += list(zip(changed.subsamples(), split.subsamples(), strict=True))
    for one, other in pairs:
        assert np.array_equal(one.y, other.y)
        assert np.abs(one.x - other.x).max() < 1e-9
        assert np.abs(one.target - other.target).max() < 1e-10
    assert np.abs(changed.x_first - split.x_first).max() < 1e-9
    assert np.abs(changed.x_test - split.x_test).max() < 1e-8
    assert not np.allclose(changed.x, split.x)


def test_subsamples_are_halves_of_s1():
    task, _ = CASES["odd"]()
    split = tasks.split(task, key=KEY)
    parts = split.subsamples()
    assert [p.num_samples for p in parts] == [50, 50, 50, 50]
    for a, b in ((0, 1), (2, 3)):
        labels = np.sort(np.concatenate([parts[a].y, parts[b].y]))
        assert np.array_equal(labels, np.sort(split.y_first))


def test_a_task_that_dropped_directions_is_refused():
    with pytest.raises(ValueError, match="`task` must keep every direction"):
        tasks.split(tasks.from_arrays(**data(), components=3), key=KEY)
    with pytest.warns(UserWarning, match="whitening kept"):
        scaled = tasks.from_arrays(**data() | {"x": data()["x"] * 10.0 ** -np.arange(0, 12, 2)})
    with pytest.raises(ValueError, match="`task` must keep every direction"):
        tasks.split(scaled, key=KEY)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"fraction": 0.0}, "fraction"),
        ({"fraction": 0.001}, "fraction"),
        ({"ridge": 0.0}, "ridge"),
        ({"key": 3}, "key"),
        ({"task": None}, "task"),
    ],
)
def test_what_is_wrong_is_named(no_type_checks, change, named):
    with pytest.raises(ValueError, match=f"`{named}` must"):
        tasks.split(**{"task": CASES["plain"]()[0], "key": KEY} | change)


def test_matrices_that_do_not_fit_are_refused(no_type_checks):
    task, _ = CASES["plain"]()
    split = tasks.split(task, key=KEY)
    for call in (
        split.from_raw,
        lambda w: split.from_task(w, task),
        lambda w: split.to_task(w, task),
    ):
        for wrong in (np.ones((2, 5)), np.ones(6), np.full((2, 6), np.nan)):
            with pytest.raises(ValueError, match="`first` must"):
                call(wrong)
    with pytest.raises(ValueError, match="`task` must have 6 raw features"):
        split.from_task(np.ones((2, 4)), tasks.from_arrays(**data(features=4)))
