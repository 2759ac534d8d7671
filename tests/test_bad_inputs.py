"""Odd inputs: each gets its one line, or works as a direct computation says."""

import dataclasses
from pathlib import Path

import bad_inputs
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from bad_inputs import SETTINGS, WORKS, X, Y, message_of, table
from helpers import assert_close

from nlbound_jax import Settings, bounds, certify, networks, report, tasks

CASES = [case for cases in bad_inputs.GROUPS.values() for case in cases]


@pytest.mark.parametrize("case", CASES, ids=[case.given for case in CASES])
@pytest.mark.quick
def test_a_bad_input_gets_one_line(no_type_checks, case):
    with pytest.raises(ValueError, match=".") as caught:
        case.call()
    assert str(caught.value) == message_of(case)


@pytest.mark.quick
def test_the_table_in_the_readme_is_this_one():
    assert len(CASES) + len(WORKS) >= 60
    assert (Path(__file__).parent / "README.md").read_text().endswith("\n\n" + table())


def direct(x, y):
    """Spectrum, target's norm and rank from the Gram matrix in NumPy."""
    x = np.asarray(x, float) / np.abs(np.asarray(x, float)).max()
    x = x / np.linalg.norm(x, axis=1).max()
    values, vectors = np.linalg.eigh(x.T @ x / len(x))
    kept = values > 1e-12 * values.max()
    whitened = x @ (vectors[:, kept] / np.sqrt(values[kept]))
    return values[kept][::-1], np.linalg.norm(np.asarray(y, float) @ whitened / len(x))


ODD = {
    "copies": (np.hstack([X, X, X[:, :1] + X[:, 1:2], 0 * X]), Y, 3),
    "a constant feature": (np.hstack([X, np.ones((40, 1))]), Y, 4),
    "only constants": (np.ones((40, 3)), Y, 1),
    "every sample twice": (np.vstack([X, X]), np.hstack([Y, Y]), 3),
    "fewer samples than features": (np.random.default_rng(3).normal(size=(5, 12)), Y[:5], 5),
    "some zeros": (np.vstack([X, 0 * X[:5]]), np.hstack([Y, np.ones(5, int)]), 3),
    "one feature": (X[:, :1], Y, 1),
    "two samples": (X[:2], np.array([1, -1]), 2),
}


@pytest.mark.parametrize("name", ODD)
def test_degenerate_data_is_whitened_in_its_span(name):
    x, y, rank = ODD[name]
    task = tasks.from_arrays(x, y)
    spectrum, alignment = direct(x, y)
    assert task.rank == rank <= task.num_features == x.shape[1]
    assert_close(task.spectrum, spectrum, rtol=1e-9)
    assert_close(task.condition_number, np.sqrt(spectrum[0] / spectrum[-1]), rtol=1e-9)
    assert_close(task.alignment, alignment, rtol=1e-9)
    assert_close(task.x.T @ task.x / len(x), np.eye(rank), rtol=0, atol=1e-12)


@pytest.mark.float64
@pytest.mark.parametrize(
    "name",
    [
        "fewer samples than features",
        pytest.param("only constants", marks=pytest.mark.slow),
        pytest.param("two samples", marks=pytest.mark.slow),
    ],
)
def test_a_report_on_degenerate_data_has_no_nan(name):
    x, y, _ = ODD[name]
    task = tasks.from_arrays(x, y)
    made = report(task, SETTINGS)
    rows = made.rows()
    assert np.isfinite([row["value"] for row in rows]).all()
    assert np.isfinite([row["train_margin_risk"] for row in rows if row["gamma"]]).all()
    assert 0 <= certify(made.network, task)["split-a-posteriori"]["train_ramp_risk"] <= 1


@pytest.mark.float64
def test_nothing_to_learn_with_an_end_time():
    task = tasks.from_arrays([[1.0], [-1.0], [1.0], [-1.0]], [1, 1, 0, 0])
    assert task.alignment == 0
    settings = Settings(width=3, num_times=2, beta=0.05, epsilon=0.1, end_time=2.0)
    made = report(task, dataclasses.replace(settings, anchor_fraction=0.0))
    assert {row["value"] for row in made.rows()} == {1.0}


@pytest.mark.parametrize("scale", [1e-300, 1e-200, 1e-150, 1e150, 1e200, 1e300])
def test_any_scale_is_the_same_task(scale):
    assert_close(tasks.from_arrays(scale * X, Y).x, tasks.from_arrays(X, Y).x, rtol=1e-9)


BYTES = (20 * X + 100).clip(0, 255).astype(np.uint8)
LAYOUTS = {
    "float16": X.astype(np.float16),
    "float32": X.astype(np.float32),
    "long double": X.astype(np.longdouble),
    "uint8": BYTES,
    "uint64": BYTES.astype(np.uint64) * 2**50,
    "bool": X > 0,
    "lists": X.tolist(),
    "Fortran": np.asfortranarray(X),
    "strided": np.repeat(np.hstack([X, X]), 2, axis=0)[::2, :3],
    "read-only": np.broadcast_to(X[:, :, None], (40, 3, 1))[:, :, 0],
    "jax": jnp.asarray(X),
}


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.quick
def test_any_dtype_and_layout_is_as_its_values(name):
    data = LAYOUTS[name]
    expected = tasks.from_arrays(np.array(np.asarray(data), float), Y)
    assert_close(tasks.from_arrays(data, Y).x, expected.x, rtol=1e-12)


LABELS = {
    "bools": Y > 0,
    "ints": (Y + 7).astype(np.int16),
    "floats": Y.astype(np.float16),
    "strings": np.where(Y > 0, "yes", "no"),
    "bytes": np.where(Y > 0, b"yes", b"no"),
    "objects": np.where(Y > 0, "yes", "no").astype(object),
    "list": (Y > 0).tolist(),
    "uint64": np.where(Y > 0, 2**63, 0).astype(np.uint64),
}


@pytest.mark.parametrize("name", LABELS)
def test_labels_of_any_kind(name):
    assert (tasks.from_arrays(X, LABELS[name]).y == Y).all()


def test_a_test_set_of_one_sample_or_one_class():
    for samples in (X[:1], X[:5]):
        task = tasks.from_arrays(X, Y, samples, np.ones(len(samples)))
        assert (task.y_test == 1).all()
        assert_close(task.x_test, task.x[: len(samples)], rtol=1e-9)


# One of each family; `int4` and `uint4` are no numbers to NumPy either.
FOREIGN = ("bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e3m4", "float4_e2m1fn")
FOREIGN += ("float6_e2m3fn", "int4", "uint4", "int2")


@pytest.mark.parametrize("name", FOREIGN)
def test_numbers_of_types_that_numpy_does_not_have(no_type_checks, name):
    dtype = np.dtype(getattr(ml_dtypes, name))
    ones = (X > 0).astype(dtype)
    plain = tasks.from_arrays((X > 0).astype(float), Y)
    assert_close(tasks.from_arrays(ones, Y).x, plain.x, rtol=1e-12)
    assert_close(plain.transform(ones), plain.x, rtol=1e-12)
    assert (tasks.from_arrays(X, (Y > 0).astype(dtype)).y == Y).all()
    one = dtype.type(1)
    for given in (one, np.asarray([one]), [one]):
        assert_close(jnp.ravel(bounds.kl_inverse(given, 0.1)), jnp.ones(1), rtol=1e-6)
    assert float(tasks.from_arrays(X, Y, norm_bound=X.size * 1.0).norm_bound) == 1.0
    if "int" in name:
        assert tasks.from_arrays(X, Y, components=one).rank == 1
    else:
        with pytest.raises(ValueError, match="`components` must be an integer"):
            tasks.from_arrays(X, Y, components=one)


@pytest.mark.parametrize("name", ["bfloat16", "float8_e4m3fn", "int4"])
def test_jax_numbers_of_small_types(no_type_checks, name):
    one = jnp.asarray(1, name)
    for given in (one, [one], one[None]):
        assert_close(jnp.ravel(bounds.kl_inverse(given, 0.1)), jnp.ones(1), rtol=1e-6)
    with pytest.raises(ValueError, match=r"`delta` must be in \(0, 1\), got 1"):
        certify(bad_inputs.NET, bad_inputs.TASK, delta=one)


@pytest.mark.float32
def test_a_number_that_float32_rounds_out_of_its_interval():
    for beta in (1e-50, 1e-40):
        with pytest.raises(ValueError, match=r"^`beta` must be positive .* in float32, .* float64"):
            networks.initialize(jax.random.key(0), 3, 4, 2, epsilon=0.1, beta=beta)


def test_labels_as_a_column():
    task = tasks.from_arrays(X, Y[:, None], X, Y[:, None])
    assert (task.y == Y).all()
    assert (task.y_test == Y).all()


def mixed_units():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 11))
    y = np.where(x[:, 1] + 0.3 * rng.normal(size=200) > 0, 1, -1)
    return x * np.asarray([1e8] + [1.0] * 10), x, y


def test_features_of_very_different_units():
    x, same, y = mixed_units()
    with pytest.warns(UserWarning, match="whitening kept 1 of 11 directions: [^\n]*$") as caught:
        task = tasks.from_arrays(x, y)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert task.rank == 1
    columns = tasks.from_arrays(x, y, x[:5], y[:5], scale="columns")
    plain = tasks.from_arrays(same, y)
    assert columns.rank == 11
    assert_close(columns.alignment, plain.alignment, rtol=1e-9)
    # A rotation of the other's inputs.
    assert_close(columns.x @ columns.x.T, plain.x @ plain.x.T, rtol=1e-6, atol=1e-6)
    assert_close(columns.transform(x), columns.x, rtol=1e-12)
    assert_close(columns.x_test, columns.x[:5], rtol=1e-9)
    back = columns.transform.inverse(columns.x) * columns.transform.scale
    assert_close(back, x, rtol=1e-6)
    assert tasks.from_arrays(x, y, components=1).rank == 1  # asked for: no warning


def test_scaled_columns_of_less_than_full_rank():
    x, _, y = mixed_units()
    x = np.hstack([x, x[:, :1], 0 * x[:, :1]])  # a copy and a column of zeros
    task = tasks.from_arrays(x, y, scale="columns")
    assert (task.rank, task.num_features) == (11, 13)
    back = task.transform.inverse(task.x) * task.transform.scale
    assert_close(back[:, :12], x[:, :12], rtol=1e-6)
    assert (back[:, 12] == 0).all()
    assert np.linalg.norm(task.x * np.sqrt(task.spectrum), axis=1).max() <= 1 + 1e-9
