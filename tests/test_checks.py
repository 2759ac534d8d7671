"""Every inequality by brute force, and on the data for which statements of the paper fail."""

import json

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import test_envelope
from helpers import assert_close, numpy_network, small_task
from typer.testing import CliRunner

from nlbound_jax import RESULTS, bounds, checks, dynamics, networks
from nlbound_jax.checks import _counterexamples, _measure
from nlbound_jax.cli._app import app

pytestmark = pytest.mark.float64

# (depth, d, width, m, t1), 64 problems each
SHAPES = [
    (2, 1, 1, 8, 6.0),
    (2, 4, 8, 60, 5.0),
    (2, 8, 16, 400, 4.0),
    (3, 2, 4, 30, 3.0),
    (4, 3, 6, 60, 2.0),
]
COUNT = 64
FALSE_AS_PRINTED = {"assumption-5.1", "projected-residual", "conjecture-e.1"}


@pytest.fixture(scope="module")
def run():
    task = small_task()
    net = networks.initialize(jax.random.key(0), 4, 5, 2, epsilon=0.3, beta=0.2)
    return checks.measure(net, task, np.linspace(0, 4, 5)[1:])


def test_the_claimed_names_are_known_beforehand(run):
    claimed = [check.name for check in checks.evaluate(run).checks if check.claimed]
    assert claimed == checks.claimed_names(2)


def measured_batch(shape, seed):
    """The problems of the envelope's test as [`Measured`][]s; those whose training stopped early
    are left out."""
    ts = jnp.linspace(0, shape[-1], 4)[1:]
    batch = jax.tree.map(lambda a: a[:COUNT], test_envelope.problems(shape, seed))

    def solve(problem):
        weights, epsilon, x, y, _ = problem
        trained = test_envelope.train(weights, epsilon, x, y, ts)
        start = jnp.sqrt(jnp.mean((y - test_envelope.outputs(weights, epsilon, x)) ** 2))
        target = x @ y / y.size
        net = networks.LeakyMLP(weights, epsilon)
        straight = networks.LeakyMLP(weights, jnp.zeros(()))
        reference = dynamics.reference_flow(net, target, ts, initial_residual=start)
        linear = dynamics.reference_flow(straight, target, ts, envelope=False).weights
        zeros = jax.tree.map(jnp.zeros_like, linear)
        sides = _measure._sides(trained, reference.weights, linear, zeros, epsilon, x, y, target)
        return trained, reference, sides, start

    # One after the other: under `vmap` every step of each would wait for the slowest.
    found = jax.jit(lambda batch: jax.lax.map(solve, batch))(batch)
    weights, epsilons, xs, ys, _ = batch
    for i in range(COUNT):

        def one(tree, i=i):
            return jax.tree.map(lambda a: a[i], tree)

        trained, reference, sides, start = one(found)
        if not np.isfinite(np.asarray(trained[0])).all():
            yield None
            continue
        net = networks.LeakyMLP(one(weights), epsilons[i])
        task = _counterexamples.white_task(np.asarray(xs[i]).T, np.asarray(ys[i]))
        frozen = jax.tree.map(jnp.zeros_like, trained)
        derivative = dynamics.TauDerivative(
            ts=ts,
            epsilon=epsilons[i],
            weights=trained,
            frozen=frozen,
            central=None,
            finite_difference=None,
            crossings=jnp.zeros(3, int),
            step=None,
            error=None,
            result=RESULTS.successful,
        )
        yield checks.Measured(task, net, derivative, reference, sides, float(start))


@pytest.mark.parametrize(
    "shape",
    [pytest.param(s, marks=() if s == SHAPES[1] else pytest.mark.slow) for s in SHAPES],
    ids=str,
)
def test_claimed_inequalities_hold_on_random_problems(shape):
    smallest, done = {}, 0
    for run in measured_batch(shape, seed=100 + SHAPES.index(shape)):
        if run is None:
            continue
        done += 1
        for check in checks.evaluate(run).checks:
            if check.claimed:
                # The trainer of this test has a relative tolerance of 1e-6.
                allowed = check.bound * (1 + 2e-5) + 1e-8
                assert (check.measured <= allowed).all(), (check.equation, check.slack)
                slack = (check.bound + 1e-8) / (np.maximum(check.measured, 0) + 1e-8)
                smallest[check.name] = min(smallest.get(check.name, np.inf), slack.min())
    print(f"{shape}: {done} of {COUNT} finished; smallest slack")
    print({name: round(float(slack), 4) for name, slack in smallest.items()})
    assert done > 0.5 * COUNT
    assert min(smallest.values()) < 1.01  # a bound that is never met would show nothing


@pytest.mark.quick
def test_left_sides_agree_with_numpy(run):
    i, epsilon, task = 2, 0.3, run.task
    w = [np.asarray(a[i]) for a in run.derivative.weights]
    v = [np.asarray(a[i]) for a in run.reference.weights]
    out, other = numpy_network(w, epsilon, task.x), numpy_network(v, epsilon, task.x)
    straight = 0.85 * (w[1] @ w[0])[0]
    reference = 0.85 * (v[1] @ v[0])[0]
    error = task.y - out

    def rms(a):
        return np.sqrt(np.mean(a**2))

    sides = run.sides
    assert_close(sides.residual[i], rms(error), rtol=1e-9)
    assert_close(sides.projected[i], np.linalg.norm(task.x.T @ error) / 120, rtol=1e-9)
    assert_close(sides.nonlinear[i], rms(out - task.x @ straight), rtol=1e-9)
    assert_close(sides.output_gap[i], rms(out - other), rtol=1e-9)
    bent = out - task.x @ straight - other + task.x @ reference
    assert_close(sides.bent_gap[i], rms(bent), rtol=1e-9)
    assert_close(sides.linear_gap[i], np.linalg.norm(straight - reference), rtol=1e-9)
    assert_close(sides.linear_size[i], np.linalg.norm(straight), rtol=1e-9)
    for level in range(2):
        gap = np.linalg.norm(w[level] - v[level])
        assert_close(sides.distance[i, level], gap, rtol=1e-9)
        assert_close(sides.spectral[i, level], np.linalg.norm(w[level], 2), rtol=1e-9)
    linear = dynamics.gradient_flow(
        networks.LeakyMLP(run.net.weights, jnp.zeros(())),
        task,
        t1=float(run.derivative.ts[i]),
        stepsize_controller=diffrax.PIDController(rtol=1e-9, atol=1e-12),
    ).network()
    w0 = [np.asarray(a) for a in linear.weights]
    assert_close(sides.difference[i, 0], np.linalg.norm(w[0] - w0[0]) / epsilon, rtol=1e-3)
    # Eq. 25 by least squares.
    rest = out - numpy_network(w0, epsilon, task.x)
    fit, *_ = np.linalg.lstsq(task.x, rest, rcond=None)
    left = rest - task.x @ fit
    assert_close(sides.proxy_gap[i], rms(left), rtol=1e-2)
    pointwise = np.max(np.abs(left) / np.linalg.norm(task.x, axis=1))
    assert_close(sides.proxy_pointwise[i], pointwise, rtol=1e-2)


def test_the_alignment_of_gradients_is_a_cosine_by_finite_differences(run):
    w = [np.asarray(a[1]) for a in run.derivative.weights]
    task = run.task

    def losses(w):
        error = task.y - numpy_network(w, 0.3, task.x)
        return np.mean(error**2) / 2, np.sum((task.x.T @ error / 120) ** 2) / 2

    gradients = np.zeros((2, sum(a.size for a in w)))
    flat = np.concatenate([a.ravel() for a in w])
    for k in range(len(flat)):
        values = []
        for sign in (1, -1):
            moved = flat.copy()
            moved[k] += sign * 1e-6
            parts = np.split(moved, np.cumsum([a.size for a in w])[:-1])
            values.append(losses([p.reshape(a.shape) for p, a in zip(parts, w, strict=True)]))
        gradients[:, k] = (np.array(values[0]) - np.array(values[1])) / 2e-6
    one, two = gradients
    cosine = one @ two / np.linalg.norm(one) / np.linalg.norm(two)
    assert_close(run.sides.alignment[1], cosine, rtol=1e-5)


@pytest.mark.quick
def test_a_run_gives_a_table_json_and_a_picture(run):
    found = checks.evaluate(run)
    assert found.hold
    data = found.to_xarray()
    assert list(data["check"].values) == found.names()
    assert data["slack"].shape == (len(found.checks), 4)
    check = found["envelope-1"]
    assert_close(data["slack"].sel(check="envelope-1"), check.bound / check.measured)
    rows = found.as_dict()["checks"]
    keys = {"name", "equation", "claimed", "measured", "bound", "slack", "holds"}
    assert all(keys <= set(row) for row in rows)
    json.dumps(rows, allow_nan=False)
    slack = next(row["slack"] for row in rows if row["name"] == "envelope-1")
    assert_close(slack, check.slack.min())
    panels = checks.plot_slack(found).axes
    assert sum(len(p.lines) for p in panels) == len(found.checks) + 2
    assert panels[0].get_yscale() == "log"
    with pytest.raises(ValueError, match="`name` must be one of"):
        found["no"]


@pytest.mark.slow
def test_deeper_networks_and_a_linear_one():
    task = small_task()
    net = networks.initialize(jax.random.key(0), 4, 5, 3, epsilon=0.2, beta=0.4)
    found = checks.evaluate(checks.measure(net, task, np.array([0.5, 1.0]), central=False))
    assert found.hold
    assert "true-printed" not in found.names()
    assert {"envelope-3", "path-2"} <= set(found.names())
    linear = networks.initialize(jax.random.key(0), 4, 5, 2, epsilon=0.0, beta=0.2)
    found = checks.evaluate(checks.measure(linear, task, np.array([0.5, 1.0]), central=False))
    assert found.hold
    assert (found["nonlinear-deviation"].bound == 0).all()
    assert (found["nonlinear"].bound == 0).all()


@pytest.mark.quick
def test_a_claimed_inequality_that_fails_is_seen(run, monkeypatch):
    far = run.reference.envelope * 0.01
    broken = jax.tree.map(lambda a: a, run)
    object.__setattr__(broken.reference, "envelope", far)
    found = checks.evaluate(broken)
    assert not found["envelope-1"].holds
    assert not found.hold


TIGHT = diffrax.PIDController(rtol=1e-9, atol=1e-12)


def test_as_printed_fails_where_the_counterexamples_say():
    """The checks see what the constructions show, and the claimed ones hold on the same data."""
    x = np.repeat([[-1.0], [1.0]], 40, axis=0)
    _, net, _, _ = _counterexamples._two_points(1.0)
    task = _counterexamples.white_task(x, np.ones(80))  # the two points, forty times
    ts, options = np.array([2.0, 5.0, 30.0]), {"stepsize_controller": TIGHT}
    found = checks.evaluate(checks.measure(net, task, ts, central=False, **options))
    for name in FALSE_AS_PRINTED:
        assert not found[name].holds, name
    assert found.hold
    y = np.concatenate([np.ones(69), -np.ones(11)])
    net = _counterexamples.scalar_network(0.0025, 0.1, 0.5)
    task = _counterexamples.white_task(x, y)
    ts = np.array([0.4, 0.8, 1.197])
    found = checks.evaluate(checks.measure(net, task, ts, step=1e-4, **options))
    assert_close(found["true-printed"].measured[-1], 0.767, rtol=2e-3)
    assert_close(found["true-printed"].bound[-1], 0.278, rtol=2e-3)
    assert not found["true-printed"].holds
    assert found["frozen-printed"].holds
    assert found.hold
    assert found.crossings[-1] == 80


def test_measure_says_what_is_wrong():
    task = small_task()
    net = networks.initialize(jax.random.key(0), 4, 5, 2, epsilon=0.2, beta=0.4)
    for ts in ([1.0, 0.5], [0.0, 1.0], []):
        with pytest.raises(ValueError, match="`ts` must be"):
            checks.measure(net, task, np.array(ts))


RUN = CliRunner()


@pytest.mark.slow
def test_check_on_the_command_line(tmp_path):
    args = ["check", "--width", "4", "--end-time", "1", "--points", "2", "--no-central"]
    result = RUN.invoke(app, [*args, "--json", "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)["checks"]
    assert all(row["holds"] for row in rows if row["claimed"])
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == ["check.json", "check.png", "check.zarr"]
    bad = RUN.invoke(app, ["check", "--points", "0"])
    assert bad.exit_code == 2
    assert "`--points` must be an integer of at least 1, got 0." in bad.stderr


@pytest.mark.slow
def test_a_failed_claim_gives_status_1(monkeypatch):
    found = checks.evaluate

    def broken(run):
        result = found(run)
        check = result.checks[1]
        object.__setattr__(check, "bound", 0.5 * check.measured)
        return result

    monkeypatch.setattr(checks, "evaluate", broken)
    args = ["check", "--width", "4", "--end-time", "1", "--points", "2", "--no-central"]
    result = RUN.invoke(app, args)
    assert result.exit_code == 1
    assert "NO" in result.stdout


def test_counterexamples_on_the_command_line():
    result = RUN.invoke(app, ["check", "--counterexamples"])
    assert result.exit_code == 0
    for text in ("measured 0.0278, claimed bound 0.0157", "measured 0.767, claimed bound 0.278"):
        assert text in result.stdout
    found = json.loads(RUN.invoke(app, ["check", "--counterexamples", "--json"]).stdout)
    assert [row["holds"] for row in found["counterexamples"]] == [False] * 6


def test_rates_of_the_repaired_theorem_are_those_of_the_bounds(run):
    weights = [np.asarray(w) for w in run.net.weights]
    spectral = [np.linalg.norm(w, 2) for w in weights]
    terms = bounds.theorem_5_2(
        np.asarray(run.derivative.ts),
        depth=2,
        epsilon=0.3,
        beta=max(spectral),
        gamma=1.0,
        stable_rank_root=np.linalg.norm(weights[0]) / spectral[0],
        alignment=run.task.alignment,
        dim=4,
        num_samples=120,
        assumption_5_1=False,
    )
    found = checks.evaluate(run)
    assert_close(found["difference-repaired"].bound, terms.v, rtol=1e-9)
    assert_close(found["norms-repaired"].bound, terms.u, rtol=1e-9)
