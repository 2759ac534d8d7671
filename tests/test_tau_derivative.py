import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close, small_task, traced_anew
from scipy.integrate import solve_ivp

from nlbound_jax import RESULTS, dynamics, networks, tasks
from nlbound_jax.dynamics import _engine, _tau_derivative

pytestmark = pytest.mark.float64

TASK = small_task(m=60, d=3)
# So few samples and so short a time that no pre-activation changes its sign (asserted).
CALM, SHORT = small_task(seed=8, m=6, d=3), 0.05
# What several tests share is compiled once.
SHARP = diffrax.PIDController(1e-10, 1e-12)
FINE = {
    "stepsize_controller": diffrax.PIDController(1e-10, 1e-12, dtmax=2e-3),
    "max_steps": 20_000,
}
KEY = jax.random.key(1)


def make(depth=2, epsilon=0.3, beta=0.6, dtype="float64", task=TASK, width=5):
    return networks.initialize(
        KEY, task.rank, width, depth, epsilon=epsilon, beta=beta, dtype=dtype
    )


def at(ts):
    return diffrax.SaveAt(ts=np.asarray(ts, float))


def flow(net, epsilon, **options):
    moved = eqx.tree_at(lambda n: n.epsilon, net, jnp.asarray(epsilon, net.epsilon.dtype))
    return dynamics.gradient_flow(moved, TASK, **options).weights


def relative(a, b):
    """The largest distance over time of two derivatives over the size of the second."""
    a, b = (np.asarray(v, float) for v in (a, b))
    assert a.shape == b.shape
    return np.max(np.linalg.norm(a - b, axis=(1, 2))) / np.max(np.linalg.norm(b, axis=(1, 2)))


# Numbers independent of the library: the variational equation by hand


def variational(t, state, shapes, epsilon, task):
    """(W, D) -> (f, df/dW D + df/deps), every activation pattern as it is at W."""
    sizes = np.cumsum([a * b for a, b in shapes])
    parts = np.split(state, [*sizes, *(sizes[-1] + sizes[:-1])])
    ws, ds = (
        [p.reshape(s) for p, s in zip(half, shapes, strict=True)]
        for half in (parts[: len(shapes)], parts[len(shapes) :])
    )
    hs, dhs, slopes, dslopes = [task.x.T], [np.zeros_like(task.x.T)], [], []
    for w, d in zip(ws[:-1], ds[:-1], strict=True):
        z, dz = w @ hs[-1], d @ hs[-1] + w @ dhs[-1]
        slopes.append(np.where(z < 0, 1 - epsilon, 1.0))
        dslopes.append(np.where(z < 0, -1.0, 0.0))
        hs.append(slopes[-1] * z)
        dhs.append(slopes[-1] * dz + dslopes[-1] * z)
    delta = (task.y - ws[-1] @ hs[-1]) / task.num_samples
    ddelta = -(ds[-1] @ hs[-1] + ws[-1] @ dhs[-1]) / task.num_samples
    field, tangent = [], []
    for level in reversed(range(len(ws))):
        field.insert(0, delta @ hs[level].T)
        tangent.insert(0, ddelta @ hs[level].T + delta @ dhs[level].T)
        if level:
            back, dback = ws[level].T @ delta, ds[level].T @ delta + ws[level].T @ ddelta
            delta = back * slopes[level - 1]
            ddelta = dback * slopes[level - 1] + back * dslopes[level - 1]
    return np.concatenate([v.ravel() for v in field + tangent])


@pytest.mark.parametrize(("depth", "epsilon"), [(2, 0.3), (3, 0.5)])
def test_frozen_solves_the_variational_equation(depth, epsilon):
    """Against SciPy on the joint system (W, D), with crossings and at depth 3."""
    net = make(depth, epsilon)
    ts = np.array([0.5, 1.5])
    run = dynamics.tau_derivative(
        net, TASK, t1=1.5, saveat=at(ts), central=False, finite_difference=False, **FINE
    )
    shapes = [w.shape for w in net.weights]
    start = np.concatenate([np.asarray(w).ravel() for w in net.weights])
    start = np.concatenate([start, np.zeros_like(start)])
    arguments = (shapes, epsilon, TASK)
    options = {"rtol": 1e-8, "atol": 1e-10, "max_step": 0.01, "args": arguments}
    end = solve_ivp(variational, (0, 1.5), start, "DOP853", t_eval=ts, **options).y.T
    actual = np.concatenate([np.asarray(w).reshape(2, -1) for w in run.weights + run.frozen], 1)
    assert int(run.crossings[0]) > 0
    assert_close(actual, end, rtol=0, atol=1e-4 * np.abs(end).max())
    assert run.central is None
    assert run.gap is None
    assert set(run.norms) == {"frozen"}


def moving_kink():
    """d = n = 1, x = +-1 equally often, mean label 1 on x = -1 and 1 - tau - e on x = +1, with
    (tau, e) = (0.5, 0.05); w_1 starts at beta e/2 and crosses 0, where both samples have their
    kink, at a time that depends on tau like 1/e."""
    x = np.concatenate([-np.ones(40), np.ones(40)])[:, None]
    y = np.concatenate([np.ones(40 + 29), -np.ones(11)])
    task = tasks.from_arrays(x, y)
    assert_close(task.x, x)
    beta, tau, e = 0.1, 0.5, 0.05
    weights = (jnp.array([[beta * e / 2]]), jnp.array([[beta]]))
    return networks.LeakyMLP(weights, jnp.array(tau)), task


def saltation(net, task):
    """The time of the crossing and, at 1.2 times it, the state with the frozen and with the true
    derivative: the latter jumps by -(f_+ - f_-) dt_c/dtau, dt_c/dtau = -(dw_1/dtau)/(dw_1/dt)."""
    arguments = ([(1, 1), (1, 1)], float(net.epsilon), task)
    options = {"method": "DOP853", "rtol": 1e-10, "atol": 1e-12, "args": arguments}

    def kink(t, y, *_):
        return y[0]

    kink.terminal = True
    start = np.array([*(w.item() for w in net.weights), 0.0, 0.0])
    first = solve_ivp(variational, (0, 5), start, events=kink, **options)
    crossing, state = first.t[-1], first.y[:, -1]
    after, before = (
        variational(0, np.array([w, *state[1:]]), *arguments)[:2] for w in (-1e-15, 1e-15)
    )
    state[0] = -1e-15
    jumped = state.copy()
    jumped[2:] -= (after - before) * (-state[2] / before[0])
    span = (crossing, 1.2 * crossing)
    return crossing, *(solve_ivp(variational, span, s, **options).y[:, -1] for s in (state, jumped))


def test_a_moving_kink_is_missed_by_the_frozen_derivative():
    net, task = moving_kink()
    crossing, frozen, true = saltation(net, task)
    assert crossing == pytest.approx(0.997, abs=1e-3)
    t1 = 1.2 * crossing
    run = dynamics.tau_derivative(net, task, t1=t1, saveat=at([0.9 * crossing, t1]), **FINE)
    assert run.crossings.tolist() == [0, 80]
    for level in range(2):
        assert_close(run.weights[level][1, 0], true[level : level + 1], rtol=1e-6)
        assert_close(run.frozen[level][1, 0], frozen[2 + level : 3 + level], rtol=1e-6)
        assert_close(run.central[level][1, 0], true[2 + level : 3 + level], rtol=1e-3)
    assert float(run.norms["central"][1, 0]) == pytest.approx(0.767, abs=2e-3)
    assert float(run.norms["frozen"][1, 0]) < 0.1
    gap, error = np.asarray(run.gap), np.asarray(run.error)
    assert_close(gap[1], np.abs(frozen - true)[2:], rtol=1e-3)
    assert gap[1, 0] > 100 * error[1, 0]
    assert (gap[0] < 1e-6).all()


@pytest.mark.parametrize(("depth", "epsilon"), [(2, 0.2), (3, 0.2), (2, 1.0), (3, 0.0)])
def test_frozen_is_central_where_no_kink_is_crossed(depth, epsilon):
    """Also at 0 and 1, where the quotient is one-sided. The solves are right to some 1e-9, their
    quotients over a step of 5e-4 to 1e-5 (its truncation is a tenth of that)."""
    run = dynamics.tau_derivative(
        make(depth, epsilon, beta=1.0, task=CALM),
        CALM,
        t1=SHORT,
        saveat=at(np.linspace(0, SHORT, 6)),
        stepsize_controller=SHARP,
    )
    assert int(run.crossings[-1]) == 0
    for frozen, central in zip(run.frozen, run.central, strict=True):
        assert relative(frozen, central) < 1e-5
        assert float(jnp.max(jnp.abs(central))) > 1e-3
    assert float(jnp.max(run.gap)) < 1e-5


def test_at_a_linear_network_no_kink_matters():
    """At tau = 0 the field has no jump: frozen is true although samples cross, and it is the
    limit of the finite difference. With steps so short that D is right, too."""
    options = {"t1": 1.5, "saveat": at([0.5, 1.5]), **FINE}
    linear = dynamics.tau_derivative(make(3, 0.0), TASK, **options)
    small = dynamics.tau_derivative(make(3, 1e-4), TASK, central=False, **options)
    bent = dynamics.tau_derivative(make(3, 0.5), TASK, finite_difference=False, **options)
    for level in range(3):
        assert relative(linear.frozen[level], linear.central[level]) < 2e-3
        assert relative(small.finite_difference[level], linear.frozen[level]) < 2e-3
        assert relative(bent.frozen[level], bent.central[level]) > 2e-2
        assert_close(linear.finite_difference[level], linear.frozen[level])
    assert int(linear.crossings[0]) > 0
    assert int(bent.crossings[0]) > 0


@pytest.mark.parametrize("epsilon", [0.3, 1.0])
def test_quotients_are_those_of_whole_flows(epsilon, capsys):
    """`finite_difference` and `central` against calls of `gradient_flow`; a user's step."""
    net = make(2, epsilon)
    times = {"t1": 1.0, "saveat": at([0.5, 1.0]), **FINE}
    run = dynamics.tau_derivative(
        net, TASK, step=0.05, progress_meter=diffrax.TextProgressMeter(), **times
    )
    assert capsys.readouterr().out.count("100.00%") == (6 if epsilon < 1 else 5)
    here, zero = flow(net, epsilon, **times), flow(net, 0.0, **times)

    def quotient(h):
        if epsilon < 1:
            below, above = (flow(net, epsilon + s, **times) for s in (-h, h))
            return [(b - a) / (2 * h) for a, b in zip(below, above, strict=True)]
        near, far = (flow(net, epsilon - s, **times) for s in (h, 2 * h))
        triples = zip(here, near, far, strict=True)
        return [(3 * w - 4 * n + f) / (2 * h) for w, n, f in triples]

    expected, finer = quotient(0.05), quotient(0.025)
    assert float(run.step) == 0.05
    for level in range(2):
        ratio = (here[level] - zero[level]) / epsilon
        assert_close(run.weights[level], here[level], rtol=1e-6, atol=1e-8)
        assert_close(run.finite_difference[level], ratio, rtol=1e-5, atol=1e-6)
        assert_close(run.central[level], expected[level], rtol=1e-5, atol=1e-6)
        error = 4 / 3 * np.linalg.norm(expected[level] - finer[level], axis=(1, 2))
        assert_close(run.error[:, level], error, rtol=1e-4, atol=1e-9)
        assert (error > 1e-5).all()
        assert_close(
            run.norms["finite_difference"][:, level], np.linalg.norm(ratio, axis=(1, 2)), rtol=1e-4
        )


@pytest.mark.slow
def test_error_covers_what_another_step_and_precision_give():
    times = {"t1": 2.0, "saveat": at([1.0, 2.0])}
    low = dynamics.tau_derivative(make(2, 0.5, dtype="float32"), TASK, **times)
    high = dynamics.tau_derivative(make(2, 0.5), TASK, step=2e-3, **FINE, **times)
    assert float(low.step) == pytest.approx(1e-5 ** (1 / 3), rel=1e-5)
    for level in range(2):
        for kind in (low.frozen, low.central, low.finite_difference):
            assert kind[level].dtype == "float32"
        assert relative(low.frozen[level], high.frozen[level]) < 5e-2
        gap = np.asarray(low.central[level], float) - np.asarray(high.central[level])
        gap = np.linalg.norm(gap, axis=(1, 2))
        bound = np.asarray(low.error, float)[:, level] + np.asarray(high.error)[:, level]
        assert (gap <= bound).all()
        assert (bound < 0.5 * np.asarray(high.norms["central"])[:, level]).all()


@pytest.mark.parametrize(
    ("epsilon", "rtol", "expected"),
    [(0.5, 1e-6, 1e-2), (0.004, 1e-6, 0.004), (0.002, 1e-6, 1e-2), (0.996, 1e-6, 0.004)],
)
def test_default_step_stays_central_if_that_is_not_far(epsilon, rtol, expected):
    controller = diffrax.ClipStepSizeController(diffrax.PIDController(rtol=rtol, atol=rtol))
    step = _tau_derivative._default_step(controller, jnp.array(epsilon))
    assert float(step) == pytest.approx(expected, rel=1e-6)


def test_crossings_against_a_count_in_numpy():
    """Over several blocks of samples, all hidden layers, a pair that comes back included."""
    task = small_task(seed=3, m=1500, d=3)
    net = make(3, 0.6, task=task)
    run = dynamics.tau_derivative(
        net,
        task,
        t1=6.0,
        saveat=at(np.linspace(0, 6, 7)),
        central=False,
        finite_difference=False,
    )

    def below(weights):
        h, signs = task.x.T, []
        for w in weights[:-1]:
            z = np.asarray(w) @ h
            signs.append(z < 0)
            h = np.where(z < 0, 0.4 * z, z)
        return np.concatenate(signs)

    first = below(net.weights)
    moved = [below([w[i] for w in run.weights]) != first for i in range(7)]
    expected = [np.any(moved[: i + 1], axis=0).sum() for i in range(7)]
    assert run.crossings.tolist() == expected
    assert expected[0] == 0
    assert expected[-1] > moved[-1].sum() > 0


@pytest.mark.slow
def test_a_solve_that_stops_says_which_and_leaves_inf():
    """60 steps: enough for the linear network's flow, and not for one that crosses kinks."""
    options = {"stepsize_controller": SHARP, "max_steps": 60, "saveat": at([0, 0.01, 1.5])}
    options |= {"t1": 1.5, "finite_difference": False, "step": 0.25}
    message = r"the flow at epsilon = 0.3 stopped at t = [\d.]+ of 1.5 after 60 steps"
    with pytest.raises(RuntimeError, match=message):
        dynamics.tau_derivative(make(), TASK, **options)
    with pytest.raises(RuntimeError, match="the flow at epsilon = 0.5 stopped"):
        dynamics.tau_derivative(make(2, 0.0), TASK, **options)
    for epsilon in (0.3, 0.0):
        run = dynamics.tau_derivative(make(2, epsilon), TASK, throw=False, **options)
        assert run.result != RESULTS.successful
        assert jnp.isfinite(run.norms["frozen"][2]).all() == (epsilon == 0)
        for values in (run.norms["central"], run.gap, run.error):
            assert jnp.isfinite(values[:2]).all()
            assert (values[2] == jnp.inf).all()
        assert (run.crossings[2] == run.crossings[1]) == (epsilon > 0)


def test_bad_arguments_get_one_line(no_type_checks):
    net = make()
    for t1 in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match="`t1` must be positive and finite, got"):
            dynamics.tau_derivative(net, TASK, t1=t1)
    with pytest.raises(ValueError, match=r"`t1` must be a single number, got shape \(2,\)"):
        dynamics.tau_derivative(net, TASK, t1=[1.0, 2.0])
    for step in (0.0, -0.1, 0.3, np.nan):
        with pytest.raises(ValueError, match=r"`step` must be in \(0, 0.25\], got"):
            dynamics.tau_derivative(net, TASK, t1=1.0, step=step)
    with pytest.raises(ValueError, match="`net` must take the task's 4 inputs, got 3"):
        dynamics.tau_derivative(net, small_task(d=4), t1=1.0)
    with pytest.raises(ValueError, match="`saveat` must have no steps"):
        dynamics.tau_derivative(net, TASK, t1=1.0, saveat=diffrax.SaveAt(steps=True))
    with pytest.raises(ValueError, match="`saveat` must be a diffrax.SaveAt of t0, t1"):
        dynamics.tau_derivative(net, TASK, t1=1.0, saveat=diffrax.SaveAt(dense=True))
    with pytest.raises(ValueError, match=r"`saveat.ts` must lie in \[0, t1\] = \[0, 1\], got"):
        dynamics.tau_derivative(net, TASK, t1=1.0, saveat=at([0.5, 1.5]))
    wrong = networks.LeakyMLP(net.weights, jnp.array(1.3))
    with pytest.raises(ValueError, match=r"`net.epsilon` must be in \[0, 1\], got 1.3"):
        dynamics.tau_derivative(wrong, TASK, t1=1.0)


def test_a_new_number_does_not_recompile(monkeypatch):
    traces = []
    original = _engine.negative_gradient

    def counting(*args):
        traces.append(1)
        return original(*args)

    monkeypatch.setattr(_engine, "negative_gradient", counting)
    traced_anew(monkeypatch, _engine, "_solve")
    traced_anew(monkeypatch, _tau_derivative, "_frozen")
    for epsilon, step in ((0.3, 0.1), (0.05, 0.1)):  # central and one-sided
        dynamics.tau_derivative(make(2, epsilon), TASK, t1=1.0, step=step)
    once = len(traces)
    for epsilon, t1, step in ((0.4, 1.0, 0.1), (0, 0.5, 0.2), (1.0, 2, 0.2)):
        dynamics.tau_derivative(make(2, epsilon, 0.2), TASK, t1=t1, step=step)
    assert len(traces) == once > 0


@pytest.mark.slow
def test_works_under_jit():
    """With the steps fixed: two compilations may round an adaptive one to another length."""
    steps = diffrax.StepTo(jnp.linspace(0.0, 1.0, 33))
    options = {"t1": 1.0, "step": 0.1, "stepsize_controller": steps}

    @eqx.filter_jit
    def jitted(epsilon):
        net = eqx.tree_at(lambda n: n.epsilon, make(2), epsilon)
        return dynamics.tau_derivative(net, TASK, **options)

    for epsilon in (0.3, 0.05):
        run = dynamics.tau_derivative(make(2, epsilon), TASK, **options)
        again = jitted(run.epsilon)
        for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(run), strict=True):
            assert_close(np.asarray(a, float), np.asarray(b, float), rtol=1e-6, atol=1e-8)
