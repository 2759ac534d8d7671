"""Tasks from `.npz` files, in Python and on the command line."""

import json

import numpy as np
import pytest
from helpers import assert_close
from typer.testing import CliRunner

from nlbound_jax import Settings, checks, ladder, report, tasks
from nlbound_jax.cli._app import app
from nlbound_jax.ladder import _ladder
from nlbound_jax.report import load_run, save_run

pytestmark = pytest.mark.float64

RNG = np.random.default_rng(0)
# The shapes of the small data set of `test_tfds.py`, so that a report compiles once for both.
IMAGES = RNG.integers(0, 256, (260, 2, 2, 1), dtype=np.uint8)
FLAT = IMAGES.reshape(260, 4)
LABELS = np.where(FLAT[:, 0] + 60 * RNG.normal(size=260) > 128, "yes", "no")
TRAIN = {"x": IMAGES[:200], "y": LABELS[:200]}
BOTH = {**TRAIN, "x_test": IMAGES[200:], "y_test": LABELS[200:]}


def invoke(*args):
    return CliRunner().invoke(app, [str(a) for a in args])


@pytest.fixture
def path(tmp_path):
    np.savez(tmp_path / "data.npz", **BOTH)
    return tmp_path / "data.npz"


def test_a_file_is_its_arrays_flattened(path, tmp_path):
    task = tasks.from_npz(path, norm_bound=510, components=3)
    held_out = (FLAT[:200], LABELS[:200], FLAT[200:], LABELS[200:])
    direct = tasks.from_arrays(*held_out, norm_bound=510, components=3)
    assert (task.x == direct.x).all()
    assert (task.y == direct.y).all()
    assert (task.x_test == direct.x_test).all()
    assert (task.norm_bound, task.name) == (1.0, "data.npz")
    np.savez_compressed(tmp_path / "alone.npz", **TRAIN)
    alone = tasks.from_npz(str(tmp_path / "alone.npz"))
    assert alone.x_test is None
    assert alone.norm_bound is None


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint64", "float16", "float32", "longdouble"])
def test_inputs_of_any_real_dtype(tmp_path, dtype):
    x = (RNG.normal(size=(40, 3)) > 0).astype(dtype)
    np.savez(tmp_path / "data.npz", x=x, y=np.arange(40) % 2 == 0)
    task = tasks.from_npz(tmp_path / "data.npz")
    assert task.x.dtype == np.float64
    assert_close(task.x.T @ task.x / 40, np.eye(3), rtol=0, atol=1e-12)


def _cut(path):
    path.write_bytes(path.read_bytes()[:-30])


def _flip(path):
    text = bytearray(path.read_bytes())
    text[200] ^= 1
    path.write_bytes(text)


def _save(**arrays):
    return lambda path: np.savez(path, **arrays)


NAN = TRAIN["x"].astype(float)
NAN[3, 1] = np.nan
BAD = [
    (lambda path: path.unlink(), "`path` must be an .npz file, got '{}': No such file"),
    (_cut, "`path` must be an .npz file, got '{}': it is damaged, cut short"),
    (_flip, "`path` must be an .npz file, got '{}': it is damaged"),
    (lambda path: path.write_text("x,y"), "`path` must be an .npz file, got '{}': it is damaged,"),
    (lambda path: path.write_bytes(b""), "`path` must be an .npz file, got '{}': it is damaged,"),
    (
        _save(x=np.array([{}, {}]), y=LABELS[:2]),
        "`path` must be an .npz file, got '{}': it holds Python objects.",
    ),
    (_save(x=FLAT), "`path` must hold the arrays x, y and perhaps x_test, y_test, got x in '{}'."),
    (_save(**TRAIN, weight=LABELS), "perhaps x_test, y_test, got x, y, weight in '{}'."),
    (_save(**TRAIN, x_test=FLAT), "`x_test` and `y_test` must be given together, got only one"),
    (_save(x=FLAT[0], y=LABELS), "`x` must be a non-empty array (samples, features), got"),
    (
        _save(x=FLAT, y=np.arange(260)),
        "`y` must have exactly two classes, got 260 (class_task takes several), in '{}'.",
    ),
    (_save(**{**TRAIN, "x": NAN}), "`x` must be finite, got nan at index (3, 2), in '{}'."),
    (_save(x=FLAT + 1j, y=LABELS), "`x` must be an array of numbers, got dtype complex128, in"),
]


@pytest.mark.parametrize(("spoil", "message"), BAD, ids=range(len(BAD)))
def test_a_bad_file_gets_one_line(path, spoil, message):
    spoil(path)
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (the message is compared below)
        tasks.from_npz(path)
    assert message.format(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    result = invoke("report", "--dataset", path)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == f"nlbound: {caught.value}\n".replace("`path`", "`--dataset`")


def test_report_on_a_file(path, monkeypatch):
    monkeypatch.setattr(_ladder, "OURS", ())  # most of the time
    args = ["--dataset", path, "--norm-bound", 510, "--width", 4, "--end-time", 1, "--json"]
    result = invoke("report", *args)
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)["task"]
    assert (found["name"], found["norm_bound"]) == ("data.npz", 1.0)
    assert (found["num_samples"], found["num_test"], found["rank"]) == (200, 60, 4)


def mixed_units(path):
    x = RNG.normal(size=(60, 3)) * np.asarray([1e8, 1.0, 1.0])
    np.savez(path, x=x, y=x[:, 1] > 0)
    return x, x[:, 1] > 0


def test_scaled_columns_of_a_file(tmp_path):
    x, y = mixed_units(tmp_path / "data.npz")
    np.savez(tmp_path / "weights.npz", W1=RNG.normal(size=(4, 3)), W2=RNG.normal(size=(1, 4)))
    args = ["certify", tmp_path / "weights.npz", "--epsilon", 1]
    result = invoke(*args, "--dataset", tmp_path / "data.npz", "--scale", "columns")
    assert "data.npz: m = 60, d = 3" in result.stdout, result.output
    spec = tasks.DataSpec(dataset=str(tmp_path / "data.npz"), scale="columns")
    assert (tasks.load_task(spec).x == tasks.from_arrays(x, y, scale="columns").x).all()
    result = invoke("report", "--scale", "columns")
    assert result.stderr == "nlbound: `--scale` must be left out with mnist, got 'columns'.\n"


def test_a_saved_run_on_scaled_columns(tmp_path):
    x, y = mixed_units(tmp_path / "data.npz")
    task = tasks.from_npz(tmp_path / "data.npz", scale="columns")
    settings = Settings(width=2, num_times=1, end_time=0.5, beta=0.5, epsilon=0.1)
    made = report(task, settings, bounds=[ladder.RepairedTheorem52Bound()])
    save_run(made, task, tmp_path / "run.npz")
    run = load_run(tmp_path / "run.npz")
    assert np.array_equal(run.transform.columns, task.transform.columns)
    assert np.array_equal(run.transform(x), task.transform(x))
    assert np.array_equal(run.transform.inverse(task.x), task.transform.inverse(task.x))
    assert np.array_equal(run.predict(x), made.network.predict(task.transform(x)))


def test_check_takes_the_file(path, monkeypatch):
    def measure(net, task, *args, **options):
        raise ValueError(f"{task.name} with {net.weights[0].shape}")

    monkeypatch.setattr(checks, "measure", measure)  # it takes a while, whatever the data
    result = invoke("check", "--dataset", path, "--components", 3, "--width", 5)
    assert result.stderr == "nlbound: data.npz with (5, 3)\n"


def test_certify_on_a_file_without_test_data(tmp_path):
    np.savez(tmp_path / "data.npz", **TRAIN)
    np.savez(tmp_path / "weights.npz", W1=RNG.normal(size=(3, 4)), W2=RNG.normal(size=(1, 3)))
    args = ["certify", tmp_path / "weights.npz", "--epsilon", 1]
    result = invoke(*args, "--dataset", tmp_path / "data.npz")
    assert result.exit_code == 0, result.output
    assert "data.npz: m = 200, d = 4" in result.stdout
    assert "no test data\nsplit-a-posteriori: test error <= " in result.stdout
    assert "test inputs" not in result.stdout


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--side", 7], "`--side` must be left out with {}, got '7'."),
        (["--data-dir", "x"], "`--data-dir` must be left out with {}, got 'x'."),
        (["--positive", "yes"], "`--positive` must be left out with {}, got 'yes'."),
        (["--components", 9], "`--components` must be an integer in [1, 4], got 9."),
        (
            ["--seeds", 0, "--scale", "columns"],
            "`--seeds` must be an integer of at least 1, got 0.",
        ),
        (["--norm-bound", 1], "`--norm-bound` must be at least the largest norm in `x`"),
    ],
)
def test_options_that_do_not_fit_a_file(path, args, message):
    result = invoke("report", "--dataset", path, *args)
    assert (result.exit_code, result.stdout) == (2, "")
    assert len(result.stderr.strip().splitlines()) == 1
    assert message.format(path) in result.stderr
