import dataclasses
import json
import pickle
import subprocess
import sys
import zipfile

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nlbound_jax import RESULTS, Settings, dynamics, ladder, report, tasks
from nlbound_jax._results import outcome, outcome_name, outcome_names
from nlbound_jax.report import load_run, save_run

pytestmark = pytest.mark.float64

REFUSED = "^`path` must be a run saved by `save_run`, got '.*{name}': {reason}[^\n]*\\.$"


@pytest.fixture(scope="module")
def task():
    return tasks.mnist(7, 3)


@pytest.fixture(scope="module")
def made(task):
    """A report with one bound only: they take most of the time and are not saved."""
    settings = Settings(width=4, epsilon=0.3, beta=0.1, num_times=3, ratios=(1.0, 1 / 3))
    return report(task, settings, bounds=[ladder.PrintedTheorem52Bound()])


@pytest.fixture
def path(made, task, tmp_path):
    save_run(made, task, tmp_path / "run.npz")
    return tmp_path / "run.npz"


def assert_same(one, two):
    """Equal to the bit, dtypes included."""
    assert jax.tree.structure(one) == jax.tree.structure(two)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        assert np.asarray(a).dtype == np.asarray(b).dtype
        assert np.asarray(a).shape == np.asarray(b).shape
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def test_an_outcome_has_a_number_a_name_and_a_sentence():
    for number, name in enumerate(outcome_names()):
        result = getattr(RESULTS, name)
        assert int(result._value) == number
        assert outcome_name(jax.tree.map(jnp.asarray, result)) == name
        assert outcome(result) == (RESULTS[result].strip() or "successful")
    assert {"successful", "max_steps_reached", "blow_up", "diverged"} <= set(outcome_names())


def test_the_round_trip_is_exact(made, task, path):
    run = load_run(path)
    assert_same(run.trajectory, made.trajectory)
    assert_same(run.network, made.network)
    assert_same(run.transform, task.transform)
    assert run.settings == made.settings
    assert run.task == made.task
    assert [p.name for p in path.parent.iterdir()] == ["run.npz"]  # nothing left beside it


def test_raw_images_are_predicted_as_the_report_does(made, task, path):
    images = tasks.load_mnist()["x_test"]
    assert images.dtype == np.uint8
    run = load_run(path)
    assert_same(run.predict(images), made.network.predict(task.transform(images)))
    assert_same(run.predict(images[7]), made.network.predict(task.transform(images[7])))
    risk = np.mean(np.asarray(run.predict(images)) != task.y_test)
    assert risk == pytest.approx(made.test_risk[-1], abs=1e-12)
    with pytest.raises(ValueError, match="^`x` must be square images"):
        run.predict(images[:, :3])


def test_a_float64_run_stays_one_where_x64_is_off(made, task, tmp_path):
    with jax.enable_x64(True):
        wide = jax.tree.map(
            lambda a: a.astype("float64") if eqx.is_inexact_array(a) else a, made.trajectory
        )
        # Below what float32 can hold.
        wide = eqx.tree_at(lambda t: t.weights[0], wide, wide.weights[0] * (1 + 2**-50) + 1e-300)
    other = dataclasses.replace(made, trajectory=wide)
    save_run(other, task, tmp_path / "wide.npz")
    with jax.enable_x64(False):
        run = load_run(tmp_path / "wide.npz")
        assert_same(run.trajectory, wide)
        labels = run.predict(tasks.load_mnist()["x_test"][:50])
    assert labels.dtype == np.float64
    with jax.enable_x64(True):
        assert_same(labels, wide.network().predict(task.x_test[:50]))


def test_a_run_that_stopped_early_says_so_after_loading(made, task, tmp_path):
    trajectory = dynamics.gradient_flow(made.start, task, t1=5.0, max_steps=3, throw=False)
    assert trajectory.result == RESULTS.max_steps_reached
    save_run(dataclasses.replace(made, trajectory=trajectory), task, tmp_path / "early.npz")
    run = load_run(tmp_path / "early.npz")
    assert run.trajectory.result == RESULTS.max_steps_reached
    assert_same(run.trajectory, trajectory)


def test_gradient_descent_and_a_new_folder(made, task, tmp_path):
    trajectory = dynamics.gradient_descent(made.start, task, 4, step_size=1e-3, save_every=2)
    path = tmp_path / "new" / "folder" / "gd"
    save_run(dataclasses.replace(made, trajectory=trajectory), task, str(path))
    run = load_run(str(path))
    assert_same(run.trajectory, trajectory)
    assert run.trajectory.stats == trajectory.stats


def test_nothing_is_pickled_and_numpy_alone_can_read_it(path, made):
    with np.load(path, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    header = json.loads(arrays["header"].tobytes())
    assert (header["format"], header["version"]) == ("nlbound_jax run", 1)
    assert header["settings"] == made.settings.as_dict()
    assert arrays["W1"].shape == (3, 4, 3)


def test_a_failed_save_leaves_the_old_file(made, task, path, monkeypatch):
    before = path.read_bytes()

    def fail(file, **arrays):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", fail)
    with pytest.raises(OSError, match="^[^\n]*run.npz' could not be written: No space left on de"):
        save_run(made, task, path)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["run.npz"]


def test_another_task_is_refused(made, tmp_path):
    with pytest.raises(ValueError, match="^`task` must be the one .* rank 3 .*, got 'mnist 7x7' w"):
        save_run(made, tasks.mnist(7, 2), tmp_path / "run.npz")
    assert not list(tmp_path.iterdir())


def test_a_folder_cannot_be_written_or_read_as_a_file(made, task, tmp_path):
    with pytest.raises(
        ValueError, match="^`path` must be a file that can be written, got '[^\n]*$"
    ):
        save_run(made, task, tmp_path)
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match=REFUSED.format(name="", reason="Is a directory")):
        load_run(tmp_path)


def test_a_missing_file(tmp_path):
    with pytest.raises(ValueError, match=REFUSED.format(name="no.npz", reason="No such file")):
        load_run(tmp_path / "no.npz")


def test_every_truncation_is_refused(path):
    whole = path.read_bytes()
    cuts = [0, 1, 4, len(whole) - 1, *np.linspace(5, len(whole) - 2, 60, dtype=int)]
    for cut in cuts:
        path.write_bytes(whole[:cut])
        with pytest.raises(ValueError, match=REFUSED.format(name="run.npz", reason="it is dam")):
            load_run(path)


def test_a_flipped_byte_is_refused_or_changes_nothing(path):
    """A zip has bytes that say nothing (dates, for one); all others are refused, in one line."""
    whole, good = path.read_bytes(), load_run(path)
    rng = np.random.default_rng(0)
    refused = kept = 0
    places = rng.choice(len(whole), size=300, replace=False)
    directory = whole.index(b"PK\x01\x02")
    flips = [*places, *range(directory, len(whole), 3)]
    for i in flips:
        path.write_bytes(whole[:i] + bytes([whole[i] ^ (1 << rng.integers(8))]) + whole[i + 1 :])
        try:
            run = load_run(path)
        except ValueError as error:
            refused += str(path) in str(error) and "\n" not in str(error)
        else:
            kept += 1
            assert_same((run.trajectory, run.transform), (good.trajectory, good.transform))
    assert refused + kept == len(flips)
    assert refused > 250


def edit(path, **changes):
    """The file with some of its arrays replaced; `None` leaves one out."""
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files} | changes
    np.savez(path, **{name: a for name, a in arrays.items() if a is not None})


def edit_header(path, **changes):
    with np.load(path) as archive:
        header = json.loads(archive["header"].tobytes()) | changes
    edit(path, header=np.frombuffer(json.dumps(header).encode(), np.uint8))


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_another_version_is_refused(path, version):
    edit_header(path, version=version)
    reason = f"it has version {version!r}, this library reads 1"
    with pytest.raises(ValueError, match=REFUSED.format(name="run.npz", reason=reason)):
        load_run(path)


@pytest.mark.parametrize(
    "header",
    [None, np.zeros(3), np.frombuffer(b"[1]", np.uint8), np.frombuffer(b"{}", np.uint8)],
    ids=["none", "zeros", "list", "empty"],
)
def test_a_foreign_archive_is_refused(path, header):
    edit(path, header=header)
    reason = "it was not written by"
    with pytest.raises(ValueError, match=REFUSED.format(name="run.npz", reason=reason)):
        load_run(path)


def test_other_files_are_refused(path):
    match = REFUSED.format(name="run.npz", reason="it is damaged, cut short, or no .npz")
    np.save(path.with_suffix(".npy"), np.zeros(3))
    path.with_suffix(".npy").rename(path)
    with pytest.raises(ValueError, match=match):
        load_run(path)
    path.write_bytes(pickle.dumps({"W1": 1}))
    with pytest.raises(ValueError, match=match):
        load_run(path)
    np.savez(path, header=np.array([{"pickled": 1}], dtype=object))
    with pytest.raises(ValueError, match=match):
        load_run(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("letter.txt", "not ours")
    with pytest.raises(ValueError, match=REFUSED.format(name="run.npz", reason="it ")):
        load_run(path)


@pytest.mark.parametrize(
    "change",
    [
        {"W1": None},
        {"W1": np.zeros((3, 4, 2))},
        {"W2": np.zeros((2, 1, 4))},
        {"W2": np.zeros((3, 1, 5))},
        {"W2": np.zeros((3, 1, 4), int)},
        {"ts": np.zeros((3, 1))},
        {"epsilon": np.zeros(1)},
        {"matrix": np.zeros((49, 2))},
    ],
    ids=lambda change: "-".join(change),
)
def test_arrays_that_do_not_fit_together_are_refused(path, change):
    edit(path, **change)
    reason = "its content does not fit together"
    with pytest.raises(ValueError, match=REFUSED.format(name="run.npz", reason=reason)):
        load_run(path)


@pytest.mark.parametrize(
    "change",
    [
        {"settings": {"width": 4}},
        {"settings": {"width": 0, "ratios": [1.0]}},
        {"settings": {"colour": 1, "ratios": [1.0]}},
        {"transform": {"scale": "1", "side": 7}},
        {"result": "no such"},
        {"depth": 1},
        {"depth": "2"},
        {"stats": 3},
    ],
    ids=str,
)
def test_a_header_that_does_not_fit_is_refused(path, change):
    edit_header(path, **change)
    reason = "its content does not fit together"
    with pytest.raises(ValueError, match=REFUSED.format(name="run.npz", reason=reason)):
        load_run(path)


def test_a_fresh_process_predicts_in_one_line(made, task, path):
    code = (
        "import sys; from nlbound_jax import tasks; from nlbound_jax.report import load_run; "
        "images = tasks.load_mnist()['x_test'][:20]; "
        "print(*load_run(sys.argv[1]).predict(images).astype(int).tolist())"
    )
    command = [sys.executable, "-c", code, str(path)]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    expected = made.network.predict(jnp.asarray(task.x_test[:20]))
    assert [int(word) for word in out.split()] == expected.astype(int).tolist()
