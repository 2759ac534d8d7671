import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import EqualSteps, assert_close, small_task, traced_anew
from scipy.integrate import solve_ivp

from nlbound_jax import RESULTS, dynamics, networks
from nlbound_jax.dynamics import _engine, _pieces, make_blocks, negative_gradient

TASK = small_task()
TIGHT = diffrax.PIDController(rtol=1e-10, atol=1e-12)
KEY = jax.random.key(1)


def make(depth=2, epsilon=0.3, beta=0.3, dtype="float64", task=TASK):
    return networks.initialize(KEY, task.rank, 6, depth, epsilon=epsilon, beta=beta, dtype=dtype)


def numpy_loss(weights, epsilon, task):
    h = task.x.T
    for w in weights[:-1]:
        z = w @ h
        h = np.where(z < 0, (1 - epsilon) * z, z)
    return np.sum((task.y - (weights[-1] @ h)[0]) ** 2) / (2 * task.num_samples)


def numpy_field(flat, shapes, epsilon, task):
    """The negative gradient by hand-written backpropagation."""
    sizes = np.cumsum([a * b for a, b in shapes])[:-1]
    ws = [p.reshape(s) for p, s in zip(np.split(flat, sizes), shapes, strict=True)]
    hs, slopes = [task.x.T], []
    for w in ws[:-1]:
        z = w @ hs[-1]
        slopes.append(np.where(z < 0, 1 - epsilon, 1.0))
        hs.append(z * slopes[-1])
    delta = (task.y - ws[-1] @ hs[-1]) / task.num_samples
    out = []
    for level in reversed(range(len(ws))):
        out.append(delta @ hs[level].T)
        if level:
            delta = (ws[level].T @ delta) * slopes[level - 1]
    return np.concatenate([g.ravel() for g in reversed(out)])


@pytest.mark.parametrize("depth", [2, 3, 4])
@pytest.mark.parametrize("epsilon", [0.0, 0.3, 1.0])
@pytest.mark.quick
def test_eq_4_gradient_against_central_differences(depth, epsilon):
    net = make(depth, epsilon, beta=0.9)
    field = negative_gradient(net.weights, net.epsilon, make_blocks(TASK, "float64"))
    rng = np.random.default_rng(depth)
    for level, gradient in enumerate(field):
        direction = rng.normal(size=gradient.shape)

        def loss(step, level=level, direction=direction):
            ws = [np.asarray(w) for w in net.weights]
            ws[level] = ws[level] + step * direction
            return numpy_loss(ws, epsilon, TASK)

        slope = -(loss(1e-6) - loss(-1e-6)) / 2e-6
        assert_close(jnp.sum(gradient * direction), slope, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("samples", [1, 999, 1000, 1001, 2500])
def test_blocks_of_any_number_of_samples(samples):
    task = small_task(seed=5, m=max(samples, 3), d=3)
    net = make(task=task)
    shapes = [w.shape for w in net.weights]
    flat = np.concatenate([np.asarray(w).ravel() for w in net.weights])
    field = negative_gradient(net.weights, net.epsilon, make_blocks(task, "float64"))
    expected = numpy_field(flat, shapes, 0.3, task)
    actual = jnp.concatenate([g.ravel() for g in field])
    atol = 1e-14 if actual.dtype == np.float64 else 1e-8
    assert_close(actual, expected, rtol=1e-10, atol=atol)


@pytest.mark.parametrize("largest", [1, 7, 120, 1000])
def test_blocks_of_any_size_are_the_same_data(largest):
    net = make()
    blocks = make_blocks(TASK, "float64", largest=largest)
    assert blocks.x.shape[2] <= largest
    both = (blocks, make_blocks(TASK, "float64"))
    field, whole = (negative_gradient(net.weights, net.epsilon, b) for b in both)
    for a, b in zip(field, whole, strict=True):
        assert_close(a, b, rtol=1e-12, atol=1e-14 if a.dtype == np.float64 else 1e-8)
    with pytest.raises(ValueError, match="`largest` must be an integer of at least 1, got 0"):
        make_blocks(TASK, "float64", largest=0)


@pytest.mark.parametrize(
    ("depth", "epsilon", "t1"), [(2, 0.3, 6.0), (2, 1.0, 2.0), (3, 0.1, 6.0), (4, 0.5, 6.0)]
)
@pytest.mark.quick
def test_flow_against_scipy(depth, epsilon, t1):
    """Both solvers at rtol 1e-7; the kinks that samples cross leave them some 2e-5 apart."""
    net = make(depth, epsilon)
    ts = np.linspace(0, t1, 5)
    controller = diffrax.PIDController(rtol=1e-7, atol=1e-8)
    shapes = [w.shape for w in net.weights]
    flat = np.concatenate([np.asarray(w).ravel() for w in net.weights])
    expected = solve_ivp(
        lambda t, y: numpy_field(y, shapes, epsilon, TASK),
        (0, t1),
        flat,
        method="DOP853",
        t_eval=ts,
        rtol=1e-7,
        atol=1e-8,
    )
    run = dynamics.gradient_flow(
        net,
        TASK,
        t1=t1,
        saveat=diffrax.SaveAt(ts=ts),
        stepsize_controller=controller,
        max_steps=20_000,
    )
    actual = np.concatenate([np.asarray(w).reshape(5, -1) for w in run.weights], axis=1)
    assert_close(actual, expected.y.T, rtol=0, atol=5e-5)
    assert run.result == RESULTS.successful


def aligned(beta, epsilon=0.0):
    """The aligned start of Saxe et al.: W_1 = beta u q^T / s, W_2 = beta u^T."""
    u = np.array([0.6, 0.0, 0.8])
    first = beta * np.outer(u, TASK.target / TASK.alignment)
    return networks.LeakyMLP((jnp.asarray(first), jnp.asarray(beta * u[None])), jnp.array(epsilon))


@pytest.mark.float64
def test_eq_14_closed_form_of_the_linear_flow():
    beta, s = 0.05, TASK.alignment
    ts = np.linspace(0.5, 20, 7)
    run = dynamics.gradient_flow(
        aligned(beta), TASK, t1=20.0, saveat=diffrax.SaveAt(ts=ts), stepsize_controller=TIGHT
    )
    squared = s * np.exp(2 * s * ts) / (np.exp(2 * s * ts) - 1 + s / beta**2)
    for w in run.weights:
        norms = np.linalg.norm(np.asarray(w), axis=(1, 2))
        assert_close(norms**2, squared, rtol=1e-8)


@pytest.mark.float64
def test_epsilon_zero_is_the_reference_flow():
    net = make(3, 0.0)
    ts = np.linspace(1, 8, 4)
    run = dynamics.gradient_flow(
        net, TASK, t1=8.0, saveat=diffrax.SaveAt(ts=ts), stepsize_controller=TIGHT
    )
    reference = dynamics.reference_flow(net, TASK.target, ts)
    product = run.weights[2] @ run.weights[1] @ run.weights[0]
    assert_close(reference.linear_map, product[:, 0], rtol=1e-6, atol=1e-8)
    assert_close(reference.scale, np.linalg.norm(product[:, 0], axis=1), rtol=1e-6)


@pytest.mark.float64
def test_reference_flow_has_slope_sigma():
    """omega V_2 V_1 of an aligned start solves the linear flow of beta omega^(1/2)."""
    beta, s, epsilon = 0.05, TASK.alignment, 0.6
    omega = 1 - epsilon / 2
    ts = np.linspace(0.5, 20, 5)
    clock = 2 * s * omega * ts
    expected = s * np.exp(clock) / (np.exp(clock) - 1 + s / (omega * beta**2))
    reference = dynamics.reference_flow(aligned(beta, epsilon), TASK.target, ts)
    assert_close(reference.scale, expected, rtol=1e-7)


def test_default_tolerance_follows_the_initialization():
    """At beta = 1e-6 the linear growth of the start is resolved, not lost below atol."""
    beta, s = 1e-6, TASK.alignment
    run = dynamics.gradient_flow(aligned(beta), TASK, t1=2.0)
    expected = beta * np.exp(s * 2.0)
    assert_close(np.linalg.norm(np.asarray(run.weights[0][-1])), expected, rtol=1e-4)


def test_float32_flow_is_near_the_float64_flow():
    """At a tolerance at which the samples that cross kinks leave less than is allowed: at 1e-5
    they leave 2e-4 in either precision."""

    def flow(dtype):
        controller = diffrax.PIDController(rtol=1e-7, atol=1e-8)
        net = make(dtype=dtype)
        return dynamics.gradient_flow(net, TASK, t1=2.0, stepsize_controller=controller)

    low, high = flow("float32"), flow("float64")
    for a, b in zip(low.weights, high.weights, strict=True):
        assert a.dtype == "float32"
        assert_close(a, b, rtol=0, atol=1e-4)


@pytest.mark.float64
def test_derivative_in_epsilon_by_jvp_against_central_differences():
    """No sample crosses a kink in this time (asserted), so both agree."""
    step, task = 1e-5, small_task(seed=4, m=6, d=3)
    net = make(2, 0.2, beta=1.0, task=task)
    ts = np.linspace(0, 0.05, 11)

    def flow(epsilon):
        moved = eqx.tree_at(lambda n: n.epsilon, net, epsilon)
        return dynamics.gradient_flow(
            moved,
            task,
            t1=0.05,
            saveat=diffrax.SaveAt(ts=ts),
            stepsize_controller=TIGHT,
            adjoint=diffrax.ForwardMode(),
        )

    def final(epsilon):
        return flow(epsilon).weights[0][-1]

    for epsilon in (0.2 - step, 0.2 + step):
        first_layer = np.asarray(flow(jnp.array(epsilon)).weights[0])
        signs = np.sign(first_layer @ task.x.T)
        assert (signs == signs[0]).all()
    _, tangent = jax.jvp(final, (jnp.array(0.2),), (jnp.array(1.0),))
    difference = (final(jnp.array(0.2 + step)) - final(jnp.array(0.2 - step))) / (2 * step)
    assert_close(tangent, difference, rtol=1e-5, atol=1e-8)
    assert float(jnp.max(jnp.abs(tangent))) > 1e-4


def test_a_solve_that_stops_says_when_and_keeps_what_it_has():
    net = make()
    with pytest.raises(RuntimeError, match=r"gradient_flow stopped at t = [\d.]+ of 6 after 4 "):
        dynamics.gradient_flow(net, TASK, t1=6.0, max_steps=4)
    ts = np.linspace(0, 6, 61)
    run = dynamics.gradient_flow(
        net, TASK, t1=6.0, saveat=diffrax.SaveAt(ts=ts), max_steps=4, throw=False
    )
    assert run.result != RESULTS.successful
    assert 0 < float(run.reached) == float(run.ts[-1]) < 6
    assert all(jnp.isfinite(w).all() and len(w) == len(run.ts) for w in run.weights)
    # Two solves of one flow, each right to some ten times the controller's tolerance.
    again = dynamics.gradient_flow(net, TASK, t1=float(run.reached))
    for one, other in zip(run.weights, again.weights, strict=True):
        gap = np.linalg.norm(np.asarray(one[-1]) - np.asarray(other[-1]))
        assert gap < 10 * _engine.RTOL * np.linalg.norm(np.asarray(other[-1]))
    assert "maximum number of solver steps" in run.to_xarray().attrs["result"]


@pytest.mark.quick
def test_jit_and_vmap():
    """With the steps fixed: three compilations may round an adaptive one to three lengths."""
    net = make()
    steps = diffrax.StepTo(jnp.linspace(0.0, 2.0, 17))

    def final(epsilon):
        moved = eqx.tree_at(lambda n: n.epsilon, net, epsilon)
        run = dynamics.gradient_flow(moved, TASK, t1=2.0, stepsize_controller=steps)
        return run.weights[0][-1]

    jitted, epsilons = jax.jit(final), jnp.array([0.1, 0.7])
    batched = jax.jit(jax.vmap(final))(epsilons)
    for epsilon, w in zip(epsilons, batched, strict=True):
        expected = final(epsilon)
        atol = 1e-10 if expected.dtype == "float64" else 1e-6
        assert_close(jitted(epsilon), expected, rtol=1e-9, atol=atol)
        assert_close(w, expected, rtol=1e-9, atol=atol)


@pytest.mark.parametrize("traced", [False, True])
def test_a_new_number_does_not_recompile(monkeypatch, traced):
    traces = []
    module = _engine if traced else _pieces
    original = _engine.negative_gradient

    def counting(*args):
        traces.append(1)
        return original(*args)

    monkeypatch.setattr(_engine, "negative_gradient", counting)
    for name in ("_solve",) if traced else ("_begin", "steps"):
        traced_anew(monkeypatch, module, name)
    if traced:  # else the flow is solved in pieces
        monkeypatch.setattr(_engine, "is_concrete", lambda tree: False)
    dynamics.gradient_flow(make(2, 0.1, 0.2), TASK, t1=1.0)
    once = len(traces)
    assert once > 0
    for epsilon, beta, t1 in ((0.2, 0.1, 2.0), (1, 0.3, 1), (0.0, 0.5, 0.5)):
        dynamics.gradient_flow(make(2, epsilon, beta), TASK, t1=t1)
    assert len(traces) == once


def test_trajectory_holds_networks_and_labels():
    ts = np.array([0.5, 1.0])
    run = dynamics.gradient_flow(make(), TASK, t1=1.0, saveat=diffrax.SaveAt(ts=ts))
    data = run.to_xarray()
    assert data["W1"].dims == ("t", "unit_1", "unit_0")
    assert_close(data["W2"].sel(t=1.0).values, run.network().weights[1])
    assert run.network(0).epsilon == run.epsilon


@pytest.mark.float64
@pytest.mark.quick
def test_bad_arguments_get_one_line(no_type_checks):
    net = make()
    for t1 in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match="`t1` must be positive and finite, got"):
            dynamics.gradient_flow(net, TASK, t1=t1)
    with pytest.raises(ValueError, match="`net` must take the task's 3 inputs, got 4"):
        dynamics.gradient_flow(net, small_task(d=3), t1=1.0)
    for saveat in (diffrax.SaveAt(dense=True), diffrax.SaveAt(t1=True, fn=lambda t, y, a: 0)):
        with pytest.raises(ValueError, match="`saveat` must be a diffrax.SaveAt of t0, t1"):
            dynamics.gradient_flow(net, TASK, t1=1.0, saveat=saveat)
    with pytest.raises(ValueError, match=r"`saveat.ts` must lie in \[0, t1\] = \[0, 1\], got"):
        dynamics.gradient_flow(net, TASK, t1=1.0, saveat=diffrax.SaveAt(ts=[0.5, 1.5]))
    with pytest.raises(ValueError, match="`ts` must be finite and at least 0, got -1"):
        dynamics.reference_flow(net, TASK.target, np.array([-1.0]))


@pytest.mark.float64
def test_mnist_takes_some_twenty_steps(mnist7, optimized):
    net = networks.initialize(
        jax.random.key(0), 49, 64, 2, epsilon=0.001, beta=0.001, dtype="float32"
    )
    t1 = dynamics.learning_time(0.9, depth=2, alignment=mnist7.alignment, beta=0.001)
    run = dynamics.gradient_flow(net, mnist7, t1=t1)
    assert float(t1) == pytest.approx(12.28, abs=0.01)
    assert int(run.stats["num_steps"]) <= 24
    margins = np.asarray(run.network()(mnist7.x_test)) * mnist7.y_test
    assert np.mean(margins < 0) == pytest.approx(0.184, abs=0.004)


@pytest.mark.slow
def test_gradient_descent_of_the_paper_ends_near_the_flow(mnist7, optimized):
    net = networks.initialize(
        jax.random.key(0), 49, 64, 2, epsilon=0.001, beta=0.001, dtype="float32"
    )
    flow = dynamics.gradient_flow(net, mnist7, t1=12.28)
    descent = dynamics.gradient_descent(net, mnist7, 12280)
    for a, b in zip(flow.weights, descent.weights, strict=True):
        a, b = np.asarray(a[-1], float), np.asarray(b[-1], float)
        assert np.linalg.norm(a - b) < 1e-3 * np.linalg.norm(b)


@pytest.mark.quick
@pytest.mark.parametrize("traced", [False, True])
def test_steps_that_lead_astray_are_no_success(traced):
    """Euler steps far beyond what is stable."""
    net, options = make(2, 0.1, 0.5), {"t1": 4e4, "solver": diffrax.Euler(), "throw": False}
    options["stepsize_controller"] = EqualSteps(400.0)

    def train(net):
        return dynamics.gradient_flow(net, TASK, **options)

    run = (jax.jit(train) if traced else train)(net)
    assert run.result == RESULTS.diverged
    if not traced:
        with pytest.raises(RuntimeError, match="Training diverged: the weights are not finite"):
            dynamics.gradient_flow(net, TASK, **options | {"throw": True})
