import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close, numpy_network, oracle_u_log_v
from scipy.integrate import solve_ivp

from nlbound_jax import checks
from nlbound_jax.checks import _counterexamples as counterexamples

pytestmark = pytest.mark.float64

EPSILONS = [0.001, 0.3, 0.7, 1.0]


@pytest.fixture(scope="module", autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module")
def found(float64):
    return {c.name: c for c in checks.counterexamples()}


def three(value):
    return f"{value:.3g}"


def limit(epsilon):
    """Where w = w_1 w_2 stops on the two points."""
    return epsilon / (1 + (1 - epsilon) ** 2)


# Numbers independent of the library: the flow (Eq. 4) in NumPy, by SciPy


def field(weights, epsilon, x, y):
    """The negative gradients of a network with L = 2; x is (samples d)."""
    first, second = weights
    z = x @ first.T
    slope = np.where(z < 0, 1 - epsilon, 1.0)
    residual = (y - (slope * z) @ second[0]) / len(y)
    return (slope * np.outer(residual, second[0])).T @ x, (residual @ (slope * z))[None]


def flow(weights, epsilon, x, y, t):
    split = weights[0].size

    def right(_, state):
        pair = state[:split].reshape(weights[0].shape), state[split:][None]
        return np.concatenate([g.ravel() for g in field(pair, epsilon, x, y)])

    start = np.concatenate([w.ravel() for w in weights])
    end = solve_ivp(right, (0, t), start, rtol=1e-10, atol=1e-11).y[:, -1]
    return end[:split].reshape(weights[0].shape), end[split:][None]


def pieces(epsilon, t):
    """w_1 at time t and the time of the crossing, for the two points with mean labels 1 and 0.45.

    Piecewise smooth: the crossing is an event, and each side is integrated with its own formula.
    """

    def right(slope_minus, slope_plus):
        def rates(_, w):
            residuals = 1 + slope_minus * w[0] * w[1], 0.45 - slope_plus * w[0] * w[1]
            pull = (slope_plus * residuals[1] - slope_minus * residuals[0]) / 2
            return [w[1] * pull, w[0] * pull]

        return rates

    def crosses(_, w):
        return w[0]

    crosses.terminal = True
    options = {"method": "DOP853", "rtol": 1e-12, "atol": 1e-14}
    before = solve_ivp(
        right(1 - epsilon, 1.0), (0, t), [0.0025, 0.1], events=crosses, dense_output=True, **options
    )
    if before.status == 0:
        return before.y[0, -1], math.inf
    after = solve_ivp(right(1.0, 1 - epsilon), (before.t[-1], t), [0.0, before.y[1, -1]], **options)
    return after.y[0, -1], before.t[-1]


# All of them


def test_all_fail_and_their_repairs_hold(found):
    names = [
        "lost-rho",
        "moving-kink",
        "assumption-5.1",
        "conjecture-e.1",
        "rising-loss",
        "naive-envelope",
    ]
    assert list(found) == names
    for c in found.values():
        assert not c.holds
        assert c.measured > c.bound
        assert c.ratio == (c.measured / c.bound if c.bound else math.inf)
        steps = c.name in names[4:]
        assert c.ratio > (1.2 if steps else 1.7)
        assert ("step" if steps else "t = ") in c.setting
        assert ("A.1" if steps else "Eq. ") in c.statement
    for name in (*names[:3], names[5]):
        assert found[name].repaired_measured < found[name].repaired
    for name in ("conjecture-e.1", "rising-loss"):
        assert found[name].repaired is None


def test_a_statement_that_holds_would_say_so():
    words = {"name": "n", "statement": "s", "setting": "x"}
    held = counterexamples.result_of(1.0, 2.0, **words)
    assert (held.holds, held.ratio) == (True, 0.5)
    assert counterexamples.result_of(-1.0, 0.0, **words).ratio == -math.inf
    assert counterexamples.result_of(-1.0, 0.0, **words).holds


# Lemma 7.1: the lost rho


def gaussian_problem():
    """The problem of `lost_rho` built anew, with other Gaussian inputs, whitened by an SVD."""
    g = np.random.default_rng(7).standard_normal((3000, 49))
    left, _, right = np.linalg.svd(g, full_matrices=False)
    g = left @ right * np.sqrt(3000)
    return (0.1 * np.eye(49), np.full((1, 49), -0.1 / 7)), np.concatenate([g, -g]), np.ones(6000)


def test_eq_60_lost_rho(found):
    c = found["lost-rho"]
    assert three(c.measured) == "0.0278"
    assert three(c.bound) == "0.0157"
    assert three(c.repaired) == "0.0767"
    # The change of the gradient in each of the 49 hidden units, to first order in t.
    assert_close(np.array(c.measured), 7 * 0.1 * 0.1 * math.sqrt(2 / math.pi) / 2, rtol=0.01)


def test_lost_rho_is_no_matter_of_kinks_or_of_the_sample(found):
    """The true derivative by central differences in SciPy, on other inputs."""
    weights, x, y = gaussian_problem()
    epsilon, h = 1e-4, 5e-5
    assert_close(x.T @ x / 6000, np.eye(49), rtol=1e-12, atol=1e-12)
    above, below, here, linear = (
        flow(weights, e, x, y, 0.1)[1] for e in (epsilon + h, epsilon - h, epsilon, 0.0)
    )
    true = np.linalg.norm(above - below) / (2 * h)
    assert_close(np.array(true), found["lost-rho"].measured, rtol=0.005)
    assert true > 1.7 * found["lost-rho"].bound
    quotient = np.linalg.norm(here - linear) / epsilon
    assert_close(np.array(quotient), found["lost-rho"].repaired_measured, rtol=0.005)


@pytest.mark.parametrize(
    ("name", "numbers"),
    [("lost-rho", (0.1, 1e-4, 0.1, 7.0, 0.0)), ("moving-kink", (None, 0.5, 0.1, 1.0, 0.275))],
)
def test_eq_10_v_of_the_counterexamples(found, name, numbers):
    """v against mpmath: (t, epsilon, beta, rho, s) as in the README, so with s by hand."""
    t, *rest = numbers
    t = 1.2 * pieces(0.5, 2.0)[1] if t is None else t
    for bound, reading in ((found[name].bound, "printed"), (found[name].repaired, "repaired")):
        expected = math.exp(oracle_u_log_v(2, t, *rest, reading)[1])
        assert_close(np.array(bound), expected, rtol=1e-8)


# Lemma 7.1: kinks that move


def test_eq_53_moving_kink(found):
    c = found["moving-kink"]
    assert three(c.measured) == "0.767"
    assert three(c.bound) == "0.278"
    assert three(c.repaired) == "0.226"
    assert f"{c.repaired_measured:.3f}" == "0.046"
    assert c.measured > c.repaired
    assert "crossing at 0.997" in c.setting


def test_moving_kink_against_piecewise_flows(found):
    """Each side of the crossing with its own smooth formula, the crossing as an event."""
    c = found["moving-kink"]
    _, crossing = pieces(0.5, 2.0)
    assert three(crossing) == "0.997"
    t, h = 1.2 * crossing, 1e-5
    (above, later), (below, sooner) = (pieces(e, t) for e in (0.5 + h, 0.5 - h))
    assert_close(np.array((above - below) / (2 * h)), c.measured, rtol=1e-4)
    here, linear = pieces(0.5, t)[0], pieces(0.0, t)[0]
    assert_close(np.array(abs(here - linear) / 0.5), c.repaired_measured, rtol=1e-6)
    # Its time moves by about 1/0.05 a unit of tau.
    assert 10 < (later - sooner) / (2 * h) < 40


def test_moving_kink_is_all_that_the_proof_forgets(found):
    """At the same time the derivative at frozen patterns is below v; behind the crossing the true
    one is larger by (rate before - rate behind) dt_c/dtau, to first order in 0.2 t_c."""
    c = found["moving-kink"]
    _, crossing = pieces(0.5, 2.0)
    x = np.array([[-1.0], [1.0]])
    task = counterexamples.white_task(np.repeat(x, 40, 0), np.r_[np.ones(69), -np.ones(11)])

    def first(tau, t):
        net = counterexamples.scalar_network(0.0025, 0.1, 0.5)
        net = eqx.tree_at(lambda n: n.epsilon, net, tau)
        return counterexamples._run(net, task, t).weights[0].squeeze()

    one = jnp.asarray(1.0)
    _, frozen = jax.jvp(lambda tau: first(tau, 1.2 * crossing), (0.5 * one,), (one,))
    assert abs(float(frozen)) < c.repaired
    h, after = 1e-7, crossing + 1e-4
    jump = (pieces(0.5 + h, after)[0] - pieces(0.5 - h, after)[0]) / (2 * h)
    before = (pieces(0.5 + h, crossing - 1e-4)[0] - pieces(0.5 - h, crossing - 1e-4)[0]) / (2 * h)
    # The rates at w_1 = 0 with w_2 = 0.1: -0.05 / 2 * 0.1 before, -0.775 / 2 * 0.1 behind.
    sensitivity = (pieces(0.5 + h, 2.0)[1] - pieces(0.5 - h, 2.0)[1]) / (2 * h)
    assert_close(np.array(jump - before), 0.725 / 2 * 0.1 * sensitivity, rtol=0.01)


# Assumption 5.1 and Conjecture E.1


@pytest.mark.parametrize("epsilon", EPSILONS)
def test_eq_52_assumption_5_1(epsilon):
    """The limit, (1 - eps/2) eps / (1 + (1-eps)^2), and the start, (1 - eps/2) beta^2."""
    c = counterexamples.assumption_5_1(epsilon)
    assert_close(np.array(c.measured), (1 - epsilon / 2) * limit(epsilon), rtol=1e-7)
    assert_close(np.array(c.bound), (1 - epsilon / 2) * epsilon / 100, rtol=1e-10)
    assert not c.holds
    assert c.repaired_measured == c.measured
    assert_close(np.array(c.repaired), 1 + epsilon / 100, rtol=1e-12)


def test_assumption_5_1_against_scipy():
    """At a time where the limit is not reached by far, for the flow and for the formula of w."""
    epsilon, beta, t = 0.6, 0.1 * math.sqrt(0.6), 7.0
    x, y = np.array([[-1.0], [1.0]]), np.ones(2)
    pair = flow((np.array([[beta]]), np.array([[beta]])), epsilon, x, y, t)
    norm = abs((y - numpy_network(pair, epsilon, x)) @ x[:, 0]) / 2
    growth = limit(epsilon) / beta**2 - 1
    logistic = limit(epsilon) / (1 + growth * math.exp(-epsilon * t))
    assert logistic < 0.7 * limit(epsilon)
    assert_close(np.array(norm), (1 - epsilon / 2) * logistic, rtol=1e-8)
    _, net, task, _ = counterexamples._two_points(epsilon)
    late = counterexamples._run(net, task, t).network()
    assert_close(np.asarray(late.weights), np.stack(pair), rtol=1e-7)


@pytest.mark.parametrize("epsilon", EPSILONS)
def test_conjecture_e_1(epsilon):
    """The sum, 2 sigma^2 w^2 [(1 + (1-eps)^2) w - eps], is smallest at 2/3 of the limit of w."""
    c = counterexamples.conjecture_e_1(epsilon)
    w = 2 / 3 * limit(epsilon)
    smallest = 2 * (1 - epsilon / 2) ** 2 * w**2 * ((1 + (1 - epsilon) ** 2) * w - epsilon)
    assert_close(np.array(c.measured), -smallest, rtol=1e-4)
    assert c.bound == 0
    assert c.ratio == math.inf
    assert not c.holds


def test_conjecture_e_1_is_the_growth_of_the_projected_loss(found):
    """-sum_l tr[grad^X_l grad_l^T] by differences of the two losses, written out in NumPy, and as
    the rate at which the projected loss grows along the flow in SciPy."""
    c = found["conjecture-e.1"]
    assert three(c.measured) == "0.0741"  # 2/27
    t = float(c.setting.rsplit("t = ", 1)[1].rstrip("."))
    x, y, start = np.array([[-1.0], [1.0]]), np.ones(2), np.array([[0.1]])

    def residual(w):
        return y - numpy_network([np.array([[v]]) for v in w], 1.0, x)

    losses = (
        lambda w: ((residual(w) @ x) ** 2).sum() / (2 * 2),
        lambda w: (residual(w) ** 2).sum() / (2 * 2),
    )
    weights = np.array([w.item() for w in flow((start, start), 1.0, x, y, t)])
    steps = 1e-6 * np.eye(2)
    projected, plain = (
        np.array([(loss(weights + s) - loss(weights - s)) / 2e-6 for s in steps]) for loss in losses
    )
    assert_close(np.array(-projected @ plain), c.measured, rtol=1e-5)
    later, sooner = (
        losses[0](np.array([w.item() for w in flow((start, start), 1.0, x, y, t + s)]))
        for s in (1e-3, -1e-3)
    )
    assert_close(np.array((later - sooner) / 2e-3), c.measured, rtol=1e-5)


# At the door


@pytest.mark.parametrize("build", ["assumption_5_1", "conjecture_e_1"])
@pytest.mark.parametrize("epsilon", [0.0, -0.1, 1.5, math.nan])
def test_epsilon_is_checked(build, epsilon):
    with pytest.raises(ValueError, match=r"`epsilon` must be in \(0, 1\], got"):
        getattr(counterexamples, build)(epsilon)


@pytest.mark.parametrize(
    "build",
    [
        *("lost_rho", "moving_kink", "assumption_5_1", "conjecture_e_1", "counterexamples"),
        *("rising_loss", "naive_envelope"),
    ],
)
def test_float32_is_refused(build):
    name = "lost_rho" if build == "counterexamples" else build
    with jax.enable_x64(False), pytest.raises(ValueError, match=f"`{name}` must run in float64"):
        getattr(checks, build)()


@pytest.mark.parametrize("step_size", [0.0, -1.0, 2.0, math.nan])
def test_step_size_is_checked(step_size):
    with pytest.raises(ValueError, match=r"`step_size` must be in \[1e-06, 1\], got"):
        checks.rising_loss(step_size)


def test_plain_numbers_and_the_same_on_every_call(found):
    again = counterexamples.lost_rho()
    assert eqx.tree_equal(again, found["lost-rho"])
    leaves = [leaf for c in found.values() for leaf in jax.tree.leaves(c)]
    assert len(leaves) == 6 * 7 + 4 * 2
    assert all(type(leaf) in (str, float, bool) for leaf in leaves)


# Finite steps


def descend(weights, epsilon, x, y, step_size, num_steps):
    """Gradient descent of a network with L = 2 in NumPy: the weights before each step and after the
    last, and the losses there."""
    path = [weights]
    for _ in range(num_steps):
        weights = [
            w + step_size * g for w, g in zip(weights, field(weights, epsilon, x, y), strict=True)
        ]
        path.append(weights)
    outputs = [numpy_network(w, epsilon, x) for w in path]
    return path, [np.mean((y - f) ** 2) / 2 for f in outputs]


@pytest.mark.parametrize("step_size", [1e-3, 0.1, 0.5])
def test_the_loss_rises_at_every_step_size(step_size):
    found = checks.rising_loss(step_size)
    weights = [np.array([[1e-12]]), np.array([[1.0]])]
    _, losses = descend(weights, 1.0, np.array([[1.0], [-1.0]]), -np.ones(2), step_size, 1)
    assert_close([found.bound, found.measured], losses, rtol=1e-9)
    assert not found.holds
    # A quarter of the step, to first order.
    assert abs((found.measured - found.bound) / step_size - 0.25) < step_size


def test_euler_steps_of_the_flow_envelope_are_no_bound(found):
    one = found["naive-envelope"]
    start = [np.array([[4.5]]), np.array([[0.2]])]
    (*_, last), losses = descend(start, 1.0, np.ones((1, 1)), np.ones(1), 0.25, 5)
    assert_close(np.sqrt(2 * np.array(losses[:4])), [0.1, 0.408, 1.657, 6.527], rtol=1e-2)
    linear = np.array([4.5, 0.2])
    for _ in range(5):
        left = 1 - linear.prod() / 2
        linear = linear + 0.25 * left * linear[::-1] / 2
    assert_close(one.measured, abs(last[0][0, 0] - linear[0]), rtol=1e-9)
    assert 112 < one.ratio < 113
    assert one.repaired_measured < one.repaired
