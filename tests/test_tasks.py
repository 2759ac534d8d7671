import numpy as np
import pytest
from helpers import assert_close, small_task

from nlbound_jax import tasks

pytestmark = pytest.mark.float64

RNG = np.random.default_rng(0)
X = RNG.normal(size=(30, 3))
Y = np.where(X[:, 0] + 0.3 * RNG.normal(size=30) > 0, 1, -1)


@pytest.mark.parametrize(
    ("side", "rank", "alignment", "error"),
    [
        (7, 49, 0.633, 0.192),
        (14, 188, 0.711, 0.150),
        pytest.param(28, 712, 0.729, 0.137, marks=pytest.mark.slow),
    ],
)
def test_mnist_facts(side, rank, alignment, error):
    task = tasks.mnist(side)
    assert (task.rank, task.num_samples, len(task.y_test)) == (rank, 60000, 10000)
    assert round(task.alignment, 3) == alignment
    assert round(float(np.mean((task.x @ task.target) * task.y < 0)), 3) == error
    moment = task.x.T @ task.x / task.num_samples
    assert_close(moment, np.eye(rank), rtol=0, atol=1e-9)
    assert (np.diff(task.spectrum) <= 0).all()


def test_mnist_agrees_with_a_direct_computation(mnist7):
    raw = tasks.load_mnist()
    x = np.zeros((60000, 7, 7))
    for i in range(4):
        for j in range(4):
            x += raw["x_train"][:, i::4, j::4] / 16
    x = x.reshape(-1, 49) / 255 / 7
    assert np.linalg.norm(x, axis=1).max() <= 1
    # Principal coordinates up to sign, from the Gram matrix.
    values, vectors = np.linalg.eigh(x.T @ x / 60000)
    assert_close(mnist7.spectrum, values[::-1], rtol=1e-8)
    whitened = np.abs(x[:50] @ vectors[:, ::-1] / np.sqrt(values[::-1]))
    assert_close(np.abs(mnist7.x[:50]), whitened, rtol=1e-6, atol=1e-6)
    assert (mnist7.y == np.where(raw["y_train"] >= 5, 1, -1)).all()
    assert_close(mnist7.transform(raw["x_test"]), mnist7.x_test)
    assert_close(mnist7.transform(raw["x_test"][3]), mnist7.x_test[3], rtol=1e-9, atol=1e-12)


def test_mnist_components_and_digits(mnist7):
    leading = tasks.mnist(7, components=5)
    assert_close(leading.x, mnist7.x[:, :5])
    ones = tasks.mnist(7, positive=(1,), negative=(7,))
    raw = tasks.load_mnist()["y_train"]
    assert ones.num_samples == np.isin(raw, (1, 7)).sum()
    assert (ones.y == 1).sum() == (raw == 1).sum()


def test_whitening_does_not_depend_on_scale_or_layout():
    one = tasks.from_arrays(X, Y)
    other = tasks.from_arrays(np.asfortranarray(1e-6 * X), Y)
    assert_close(other.x, one.x, rtol=1e-9)
    assert one.norm_bound is None
    assert np.linalg.norm(X / one.transform.scale, axis=1).max() == pytest.approx(1)


def test_rank_deficient_data_is_whitened_in_its_span():
    task = tasks.from_arrays(np.hstack([X, X[:, :1] + X[:, 1:2], np.zeros((30, 1))]), Y)
    assert task.rank == 3
    assert_close(task.x.T @ task.x / 30, np.eye(3), rtol=0, atol=1e-12)


def test_labels_of_any_two_classes():
    for labels in (Y > 0, np.where(Y > 0, "yes", "no"), Y + 7, Y.astype(np.float32)):
        assert (tasks.from_arrays(X, labels).y == Y).all()
    held_out = tasks.from_arrays(X, Y, X[:4], Y[:4])
    assert_close(held_out.x_test, held_out.x[:4])


def test_transform_is_the_training_sets():
    task = small_task()
    x = RNG.normal(size=(5, 4))
    assert_close(task.transform(x)[2], task.transform(x[2]), rtol=1e-9)
    with pytest.raises(ValueError, match=r"`x` must have 4 features .* got shape \(5, 3\)"):
        task.transform(x[:, :3])


NAN = X.copy()
NAN[4, 1] = np.nan
BAD = [
    (lambda: tasks.mnist(8), "`side` must be one of 7, 14, 28, got 8"),
    (lambda: tasks.mnist(7, components=50), r"`components` must be an integer in \[1, 49\], got"),
    (lambda: tasks.mnist(7, positive=()), "`positive` must be a non-empty set of digits 0 to 9"),
    (lambda: tasks.mnist(7, positive=(11,)), "`positive` must be a non-empty set of digits"),
    (lambda: tasks.mnist(7, negative=(5,)), "`positive` and `negative` must be disjoint"),
    (lambda: tasks.from_arrays(NAN, Y), r"`x` must be finite, got nan at index \(4, 1\)"),
    (lambda: tasks.from_arrays(X[0], Y), r"`x` must be a non-empty array \(samples, features\)"),
    (lambda: tasks.from_arrays(X[:0], Y[:0]), "`x` must be a non-empty array"),
    (lambda: tasks.from_arrays(X.astype(str), Y), "`x` must be an array of numbers, got dtype"),
    (lambda: tasks.from_arrays(0 * X, Y), "`x` must have a non-zero sample"),
    (lambda: tasks.from_arrays(X, Y[:-1]), r"`y` must have shape \(30,\), got \(29,\)"),
    (lambda: tasks.from_arrays(X, np.ones(30)), "`y` must have exactly two classes, got 1"),
    (lambda: tasks.from_arrays(X, np.arange(30)), "`y` must have exactly two classes, got 30"),
    (lambda: tasks.from_arrays(X, np.full(30, None)), "`y` must be numbers, booleans or strings"),
    (lambda: tasks.from_arrays(X, Y, X), "`x_test` and `y_test` must be given together"),
    (lambda: tasks.from_arrays(X, Y, X[:, :2], Y), "`x_test` must have 3 features like `x`, got 2"),
    (lambda: tasks.from_arrays(X, Y, X, 3 * Y), "`y_test` must have the classes of `y`, got"),
    (lambda: tasks.from_arrays(X, Y, norm_bound=1e-3), "`norm_bound` must be at least the largest"),
    (lambda: tasks.from_arrays(X, Y, norm_bound=-1), "`norm_bound` must be positive and finite"),
    (lambda: tasks.from_arrays(X, Y, cut=2), r"`cut` must be in \[0, 1\), got 2"),
    (lambda: tasks.mnist(7).transform(np.zeros((2, 9, 9))), "`x` must be square images"),
]


@pytest.mark.parametrize(("call", "message"), BAD, ids=[message for _, message in BAD])
def test_bad_data_gets_one_line(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
