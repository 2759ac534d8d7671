"""The envelope of gradient flow on inputs that are not whitened and for several outputs, against
leaky networks that SciPy integrates; and of a reference network moved by other statistics."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from brute_descent import batch, distance, error_and_gradient, problem, rms, square_root, train
from helpers import assert_close
from scipy.integrate import solve_ivp

from nlbound_jax import dynamics, networks
from nlbound_jax.dynamics import _reference, _reference_solve

pytestmark = pytest.mark.float64

# (depth, outputs, d, width, m), the end, whether the inputs are raw
CASES = [
    ((2, 1, 1, 1, 6), 3.0, True),
    ((2, 1, 3, 4, 25), 3.0, True),
    ((2, 3, 3, 4, 25), 2.0, True),
    ((2, 3, 2, 4, 20), 3.0, False),
    ((3, 2, 3, 4, 20), 1.5, True),
    ((3, 1, 3, 4, 20), 1.5, False),
]
# Of SciPy's solver, relatively: every kink that a sample crosses costs it steps.
RTOL = 1e-5


def network(weights, epsilon):
    return networks.LeakyMLP(tuple(jnp.asarray(w) for w in weights), jnp.asarray(epsilon))


def flow(weights, epsilon, x, y, ts):
    """The weights of the leaky network at `ts`, `(times out in)` each, and its losses."""
    shapes = [w.shape for w in weights]
    ends = np.cumsum([w.size for w in weights])

    def unpack(flat):
        parts = np.split(flat, ends[:-1])
        return tuple(p.reshape(1, *s) for p, s in zip(parts, shapes, strict=True))

    def field(t, flat):
        moves = error_and_gradient(unpack(flat), np.array([epsilon]), x[None], y[None])[1]
        return np.concatenate([g.ravel() for g in moves])

    start = np.concatenate([w.ravel() for w in weights])
    size = np.abs(start).max()
    found = solve_ivp(field, (0, ts[-1]), start, t_eval=ts, rtol=RTOL, atol=RTOL * size / 10)
    assert found.success
    steps = [unpack(flat) for flat in found.y.T]
    losses = [
        rms(error_and_gradient(w, np.array([epsilon]), x[None], y[None])[0])[0] for w in steps
    ]
    return [np.concatenate([w[i] for w in steps]) for i in range(len(weights))], np.array(losses)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_flow_stays_within_the_envelope(case):
    shape, end, raw = case
    rng = np.random.default_rng(shape[0] + shape[1])
    ts, tight = np.linspace(end / 6, end, 6), []
    for _ in range(4):
        weights, epsilon, x, y = problem(rng, shape, raw=raw)
        weights = tuple(0.5 * w / np.linalg.norm(w, 2) for w in weights)
        moment = x @ x.T / shape[-1]
        x = x / np.linalg.norm(moment, 2) ** 0.5 if raw else x
        moment = x @ x.T / shape[-1]
        start = rms(error_and_gradient([w[None] for w in weights], np.array([epsilon]), x[None],
                                       y[None])[0])[0]  # fmt: skip
        found = dynamics.reference_flow(
            network(weights, epsilon),
            y @ x.T / shape[-1],
            ts,
            second_moment=moment if raw else None,
            label_size=shape[1] ** 0.5,
            initial_residual=start,
        )
        w, losses = flow(weights, epsilon, x, y, ts)
        far = np.asarray(found.envelope)
        for i in range(shape[0]):
            gap = distance(w[i], found.weights[i])
            assert (gap <= far[:, i] + 1e-4).all()
            tight.append(gap[0] / far[0, i])
        if raw:
            root = square_root(moment[None])[0]
            gap = distance(w[0] @ root, np.asarray(found.weights[0]) @ root)
            assert (gap <= np.asarray(found.weighted_envelope) + 1e-4).all()
            assert found.weighted_frobenius is not None
            assert_close(found.weighted_frobenius,
                         np.linalg.norm(np.asarray(found.weights[0]) @ root, axis=(1, 2)),
                         rtol=1e-9)  # fmt: skip
        assert np.isfinite(far[:2]).all()
        assert (losses <= start * (1 + 1e-4)).all()
    print(case, "measured over bound at first", np.round(tight, 3))


@pytest.mark.parametrize("case", CASES[1:5], ids=str)
def test_the_reference_network_is_the_linear_one(case):
    """Without a bend it is the network itself, in all its numbers."""
    shape, end, raw = case
    rng = np.random.default_rng(7)
    weights, _, x, y = problem(rng, shape, raw=raw)
    weights = tuple(0.5 * w / np.linalg.norm(w, 2) for w in weights)
    x = x / np.linalg.norm(x @ x.T / shape[-1], 2) ** 0.5 if raw else x
    moment = x @ x.T / shape[-1]
    ts = np.linspace(0, end, 4)[1:]
    found = dynamics.reference_flow(
        network(weights, 0.0),
        y @ x.T / shape[-1],
        ts,
        second_moment=moment if raw else None,
        label_size=shape[1] ** 0.5,
    )
    w, losses = flow(weights, 0.0, x, y, ts)
    for i in range(shape[0]):
        assert_close(found.weights[i], w[i], rtol=0, atol=1e-4)
    assert (np.asarray(found.envelope) == 0).all()
    linear = w[-1]
    for layer in w[-2::-1]:
        linear = linear @ layer
    assert_close(found.linear_map, linear.reshape(found.linear_map.shape), rtol=0, atol=1e-3)
    out = linear @ x
    assert_close(found.scale, np.sqrt((out**2).sum(axis=(1, 2)) / shape[-1]), rtol=1e-3)
    # All of the loss: what is left of the target, and what no linear function can tell.
    white = np.linalg.lstsq(x.T, y.T, rcond=None)[0].T @ x
    rest = ((y - white) ** 2).sum() / shape[-1]
    assert_close(found.residual, np.sqrt(losses**2 - rest), rtol=1e-3, atol=1e-3)


def test_raw_and_white_inputs_agree_where_they_are_the_same():
    rng = np.random.default_rng(0)
    weights, epsilon, x, y = problem(rng, (2, 2, 3, 4, 30), raw=False, epsilon=0.2)
    weights = tuple(0.4 * w / np.linalg.norm(w, 2) for w in weights)
    net, target, ts = network(weights, epsilon), y @ x.T / 30, np.linspace(0.5, 2, 3)
    white = dynamics.reference_flow(net, target, ts, label_size=2**0.5)
    raw = dynamics.reference_flow(net, target, ts, second_moment=np.eye(3), label_size=2**0.5)
    for name in ("linear_map", "norms", "frobenius", "residual", "envelope", "scale"):
        assert_close(getattr(raw, name), getattr(white, name), rtol=1e-6)
    assert_close(raw.weighted_envelope, white.envelope[:, 0], rtol=1e-6)


@pytest.mark.parametrize("depth", [2, 3])
def test_the_loss_is_bounded_by_the_least_bound_so_far(depth):
    """The state of the solve beside the distances."""
    rng = np.random.default_rng(depth)
    ts, shape, fell = np.linspace(0.2, 3, 8), (depth, 1, 2, 3, 20), []
    for _ in range(4):
        weights, epsilon, x, y = problem(rng, shape, raw=False)
        weights = tuple(0.6 * w / np.linalg.norm(w, 2) for w in weights)
        net = network(weights, epsilon)
        made = _reference.pose_reference(
            net, y @ x.T / 20, second_moment=None, label_size=1.0, driver=None,
            initial_residual=None, envelope=True,
        )  # fmt: skip
        (_, far), _ = _reference_solve.solve_reference(
            made.weights, made.statistic, jnp.asarray(ts), made.slope, made.loss, jnp.asarray(1.0),
            True, True,
        )  # fmt: skip
        _, losses = flow(weights, epsilon, x, y, ts)
        reached = np.isfinite(np.asarray(far.loss))
        known = np.asarray(far.loss)[reached]
        assert reached[0]
        assert (losses[reached] <= known * (1 + 1e-4)).all()
        assert (np.diff(known) <= 1e-9).all()
        fell.append(known[-1] < float(made.loss) * 0.99)
    assert any(fell)


def driven(rng, shape, raw, count):
    """Problems, and statistics beside the true ones: of another sample, or rounded."""
    weights, epsilon, x, y = batch(rng, count, shape, raw=raw)
    m = x.shape[2]
    other = x + 0.3 * rng.normal(size=x.shape)
    moment = other @ np.swapaxes(other, 1, 2) / m
    target = np.round(y @ np.swapaxes(x, 1, 2) / m, 1)
    return weights, epsilon, x, y, target, moment


@pytest.mark.parametrize("held_out", [False, True])
@pytest.mark.parametrize("raw", [False, True])
def test_a_driver_of_its_own_is_paid_for(raw, held_out):
    shape, steps, count = (3, 2, 3, 4, 20), 20, 60
    rng = np.random.default_rng(1)
    weights, epsilon, x, y, target, moment = driven(rng, shape, raw, count)
    eta = 0.3 / np.maximum(1, np.linalg.norm(x, 2, axis=(1, 2)) ** 2 / 20)

    def run(w, epsilon, x, y, target, moment, eta):
        m = x.shape[1]
        own = (x @ x.T / m if raw else None, moment if held_out else None)
        driver = (target, moment if held_out else None)
        net = networks.LeakyMLP(w, epsilon)
        options = {"second_moment": own[0], "label_size": 2.0, "driver": driver}
        return dynamics.reference_descent(
            net, y @ x.T / m, steps, step_size=eta, save_every=1, momentum=0.5, **options
        )

    given = jax.tree.map(jnp.asarray, (weights, epsilon, x, y, target, moment, eta))
    found = jax.jit(jax.vmap(run))(*given)
    start = weights
    white = np.broadcast_to(np.eye(3), moment.shape)
    sigma = ((1 - epsilon / 2) ** 2)[:, None, None]

    def gradient(v):
        first, second, third = v
        product = sigma * (third @ second @ first)
        left = target - product @ (moment if held_out else white)
        t = [np.swapaxes(a, 1, 2) for a in v]
        return (
            sigma * (t[1] @ t[2] @ left),
            sigma * (t[2] @ left @ t[0]),
            sigma * (left @ t[0] @ t[1]),
        )

    reference = train(start, gradient, np.broadcast_to(eta, (steps, count)), momentum=0.5)
    trained = train(
        start,
        lambda w: error_and_gradient(w, epsilon, x, y)[1],
        np.broadcast_to(eta, (steps, count)),
        momentum=0.5,
    )
    far = np.asarray(found.envelope)
    for i in range(3):
        v = np.stack([r[i] for r in reference], axis=1)
        w = np.stack([r[i] for r in trained], axis=1)
        assert_close(found.weights[i], v, rtol=0, atol=1e-10 * np.abs(v).max())
        fine = np.isfinite(far[..., i])
        assert fine.mean() > 0.5
        assert (distance(w, v)[fine] <= far[..., i][fine] * (1 + 1e-9) + 1e-12).all()
    # Without a bend all of the distance is the driver's.
    assert (far[np.isfinite(far)] > 0).all()


def test_a_driver_of_the_flow_moves_the_reference_network():
    rng = np.random.default_rng(2)
    weights, _, x, y = problem(rng, (2, 1, 3, 4, 30), raw=True, epsilon=0.0)
    weights = tuple(0.4 * w / np.linalg.norm(w, 2) for w in weights)
    x = x / np.linalg.norm(x @ x.T / 30, 2) ** 0.5
    net, target, moment = network(weights, 0.0), (y @ x.T / 30)[0], x @ x.T / 30
    other = (0.9 * target + 0.01, moment + 0.05 * np.eye(3))
    ts = np.linspace(0.5, 2, 3)
    exact = dynamics.reference_flow(net, target, ts, second_moment=moment)
    alone = dynamics.reference_flow(net, other[0], ts, second_moment=other[1], label_size=2.0)
    found = dynamics.reference_flow(net, target, ts, second_moment=moment, driver=other)
    assert exact.envelope is not None
    assert (np.asarray(exact.envelope) == 0).all()
    for i in range(2):
        assert_close(found.weights[i], alone.weights[i], rtol=0, atol=1e-7)
        gap = distance(exact.weights[i], found.weights[i])
        assert (gap > 1e-4).all()
        assert (gap <= np.asarray(found.envelope)[:, i]).all()
        assert (gap[0] > 0.3 * np.asarray(found.envelope)[0, i]).all()


@pytest.mark.parametrize("raw", [False, True])
def test_an_envelope_is_never_not_a_number(raw):
    """Also where everything is beyond what the doubles hold."""
    rng = np.random.default_rng(5)
    for depth in (2, 3):
        weights, _, x, y = problem(rng, (depth, 2, 2, 3, 10), raw=raw, epsilon=1.0)
        weights = tuple(2 * w / np.linalg.norm(w, 2) for w in weights)
        x = x / np.linalg.norm(x @ x.T / 10, 2) ** 0.5 if raw else x
        options = {"second_moment": x @ x.T / 10 if raw else None, "label_size": 2**0.5}
        net, target = network(weights, 1.0), y @ x.T / 10
        found = dynamics.reference_flow(net, target, np.array([0.1, 5.0, 100.0]), **options)
        steps = dynamics.reference_descent(
            net, target, 60, step_size=5.0, momentum=0.9, save_every=20, **options
        )
        for made in (found, steps):
            far = np.asarray(made.envelope)
            assert not np.isnan(far).any()
            assert (far >= 0).all()
            assert np.isinf(np.asarray(steps.envelope)[-1]).all()


def test_labels_of_several_outputs_count_as_signs_unless_said_otherwise():
    """A network of 8 outputs, labels -1 that no linear function tells of: with labels of size 1 the
    envelope of one step was 2.2 times too small."""
    outputs, step = 8, 1e-3
    x, y = np.array([[1.0, -1.0]]), -np.ones((outputs, 2))
    weights = (np.array([[0.5]]), np.full((outputs, 1), 0.5))
    net = network(tuple(map(jnp.asarray, weights)), jnp.asarray(1.0))
    found = dynamics.reference_descent(net, y @ x.T / 2, 1, step_size=step)
    z = weights[0] @ x
    error = y - weights[1] @ np.maximum(z, 0)
    slopes = (z >= 0).astype(float)
    moved = weights[0] + step * ((weights[1].T @ error) * slopes) @ x.T / 2
    assert abs(moved - np.asarray(found.weights[0][-1])) <= found.envelope[-1, 0]
    one = dynamics.reference_descent(net, y @ x.T / 2, 1, step_size=step, label_size=1.0)
    assert abs(moved - np.asarray(one.weights[0][-1])) > one.envelope[-1, 0]


def test_labels_too_small_for_the_residual_get_one_line(no_type_checks):
    net = network((jnp.full((1, 1), 0.5), jnp.full((1, 1), 0.5)), jnp.asarray(1.0))
    with pytest.raises(ValueError, match=r"`initial_residual` must be at most 1\.25, .*, got 3\."):
        dynamics.reference_flow(net, jnp.zeros(1), [1.0], initial_residual=3.0)
