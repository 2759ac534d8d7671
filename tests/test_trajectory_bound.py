import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest
from helpers import assert_close

from nlbound_jax import RESULTS, bounds

pytestmark = [pytest.mark.float64, pytest.mark.quick]

A, F, X = np.array([0.5, 0.4]), np.array(0.8), np.array([0.02, 0.03])
BASE = {"epsilon": 0.2, "gamma": 0.5, "dim": 49, "num_samples": 60000}


def evaluate(**changes):
    return bounds.trajectory_bound(A, F, X, **(BASE | changes))


@pytest.mark.parametrize("kappa", [1, 2])
def test_terms_by_hand(kappa):
    terms = evaluate(kappa=kappa, train_risk=0.2, cells=7)
    q = (0.8 + 0.02) * (0.4 + 0.03) - 0.8 * 0.4
    assert_close(terms.distance, q, rtol=1e-12)
    assert_close(terms.deviation, (2 if kappa == 1 else 2 * 0.1) * q / 0.5, rtol=1e-12)
    capacity = np.sqrt((kappa * 32 * 49 * np.log(2) + np.log(7 / 0.01)) / 120000)
    assert_close(terms.capacity, capacity, rtol=1e-12)
    assert_close(terms.value, 0.2 + capacity + terms.deviation, rtol=1e-12)


def test_three_layers():
    terms = bounds.trajectory_bound(np.array([0.5, 0.4, 0.3]), F, np.array([0.1, 0.2, 0.3]), **BASE)
    q = 0.9 * 0.6 * 0.6 - 0.8 * 0.4 * 0.3
    assert_close(terms.distance, q, rtol=1e-12)
    assert_close(terms.deviation, 2 * (1 - 0.9**2) * q / 0.5, rtol=1e-12)


@pytest.mark.parametrize("kappa", [1, 2])
def test_several_classes_by_hand(kappa):
    terms = evaluate(kappa=kappa, classes=3, train_risk=0.2, cells=7)
    q = (0.8 + 0.02) * (0.4 + 0.03) - 0.8 * 0.4
    assert_close(terms.deviation, (2 if kappa == 1 else 2 * 0.1) * 2**0.5 * q / 0.5, rtol=1e-12)
    capacity = np.sqrt((kappa * 32 * 3 * 49 * np.log(2) + np.log(7 / 0.01)) / 120000)
    assert_close(terms.capacity, capacity, rtol=1e-12)


def margin(f, y):
    return f[y] - np.delete(f, y).max()


def test_a_margin_of_several_classes_is_sqrt_2_lipschitz():
    rng = np.random.default_rng(0)
    worst = 0.0
    for _ in range(2000):
        classes = rng.integers(2, 6)
        f, far = rng.normal(size=(2, classes)) * 10 ** rng.uniform(-1, 1, size=(2, 1))
        y = rng.integers(classes)
        moved = abs(margin(f + far, y) - margin(f, y))
        worst = max(worst, moved / np.linalg.norm(far))
    assert 1.2 < worst <= 2**0.5 * (1 + 1e-12)
    # No smaller constant will do.
    f, far = np.array([1.0, 0.0, -3.0]), np.array([-1.0, 1.0, 0.0])
    assert_close(margin(f, 0) - margin(f + far, 0), 2**0.5 * np.linalg.norm(far), rtol=1e-12)


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("depth", [2, 3])
def test_the_distance_of_outputs_for_any_inputs(outputs, depth):
    """In root mean square over raw inputs, and at every single one."""
    rng = np.random.default_rng(depth)
    for _ in range(100):
        x = rng.normal(size=(4, 30)) * 10 ** rng.uniform(-1, 1, size=(4, 1)) + rng.normal(
            size=(4, 1)
        )
        sizes = [4] + [3] * (depth - 1) + [outputs]
        v = [rng.normal(size=s) for s in zip(sizes[1:], sizes[:-1], strict=True)]
        spread = 10 ** rng.uniform(-2, 0.5)
        w = [m + spread * rng.normal(size=m.shape) for m in v]
        epsilon, both = rng.uniform(), []
        for weights in (w, v):
            h = x
            for layer in weights[:-1]:
                z = layer @ h
                h = np.where(z < 0, (1 - epsilon) * z, z)
            both.append(weights[-1] @ h)
        gap = np.linalg.norm(both[0] - both[1], axis=0)
        norms = np.array([np.linalg.norm(m, 2) for m in v])
        far = np.array([np.linalg.norm(a - b) for a, b in zip(w, v, strict=True)])
        seen, moved = (np.linalg.norm(m @ x) / x.shape[1] ** 0.5 for m in (v[0], w[0] - v[0]))
        inner = jnp.asarray(np.concatenate([[moved], far[1:]]))
        given = jnp.asarray(norms), jnp.asarray(seen), inner
        assert np.sqrt(np.mean(gap**2)) <= float(bounds.output_distance(*given)) * (1 + 1e-12)
        pointwise = bounds.output_distance(given[0], given[0][0], jnp.asarray(far))
        assert (gap <= np.linalg.norm(x, axis=0) * float(pointwise) * (1 + 1e-12)).all()


def test_kl_is_never_looser_and_is_the_inequality():
    risks = np.linspace(0, 0.9, 10)
    counting, kl = (evaluate(train_risk=risks, method=m) for m in ("counting", "kl"))
    assert (kl.value <= counting.value + 1e-12).all()
    half = float(kl.deviation[0]) / 2
    exponent = (2 * 32 * 49 * np.log(2) + np.log(100)) / 60000
    inverse = bounds.kl_inverse(np.minimum(1, risks + half), exponent)
    assert_close(kl.value, inverse + half, rtol=1e-9)


def test_an_infinite_distance_is_no_bound():
    distances = np.stack([X, [np.inf, np.inf]])
    terms = bounds.trajectory_bound(
        np.stack([A, A]), np.stack([F, F]), distances, train_risk=0.1, method="kl", **BASE
    )
    assert np.isfinite(terms.value[0])
    assert np.isinf(terms.value[1])
    assert (np.asarray(terms.result == RESULTS.blow_up) == [False, True]).all()


def test_kl_inverse_against_mpmath():
    rng = np.random.default_rng(0)
    p = np.concatenate([[0.0, 0.0, 1.0, 0.5], rng.uniform(size=30)])
    c = np.concatenate([[0.1, 1e-8, 0.3, 0.0], 10 ** rng.uniform(-6, 0.5, size=30)])
    values = np.asarray(bounds.kl_inverse(p, c))
    assert_close(values[0], 1 - np.exp(-0.1), rtol=1e-12)
    assert_close(values[2], 1.0)
    assert_close(values[3], 0.5, rtol=0, atol=1e-8)
    for a, b, value in zip(p[4:], c[4:], values[4:], strict=True):
        with mp.workdps(40):
            a, b, value = mp.mpf(a), mp.mpf(b), mp.mpf(value)

            def kl(q, a=a):
                return a * mp.log(a / q) + (1 - a) * mp.log((1 - a) / (1 - q))

            root = mp.findroot(lambda q, b=b: kl(q) - b, (value, a + (1 - a) * 0.999), tol=1e-40,
                               solver="anderson", verify=False)  # fmt: skip
            assert abs(value - root) < 1e-9 * root


def test_bad_arguments_get_one_line(no_type_checks):
    for name, value, allowed in (
        ("epsilon", 2.0, r"in \[0, 1\]"),
        ("gamma", 0.0, "positive and finite"),
        ("kappa", 3, "one of 1, 2"),
        ("classes", 0, "an integer of at least 1"),
        ("method", "vc", "one of 'counting', 'kl'"),
        ("train_risk", 1.5, r"in \[0, 1\]"),
    ):
        with pytest.raises(ValueError, match=f"`{name}` must be {allowed}, got"):
            evaluate(**{name: value})
    with pytest.raises(ValueError, match="`train_risk` must be given with method='kl'"):
        evaluate(method="kl")
    with pytest.raises(ValueError, match="`distances` must be at least 0"):
        bounds.trajectory_bound(A, F, -X, **BASE)
    with pytest.raises(ValueError, match="`norms`, `frobenius` and `distances` must have shapes"):
        bounds.trajectory_bound(A, F, X[:1], **BASE)
    with pytest.raises(ValueError, match=r"`p` must be in \[0, 1\], got 2"):
        bounds.kl_inverse(2.0, 0.1)
