"""The bounds as objects: the numbers are those of the formulas, and of the code before them.

`data/stored_runs.npz` holds two short runs in float64 (L = 2 and L = 3) with their reference
networks, `data/stored_runs.json` what reports and the classical bounds said of them before there
was a room `ladder`: a run that is stored is the same on every machine.
"""

import ast
import json
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close, numpy_network

from nlbound_jax import RESULTS, Settings, bounds, dynamics, ladder, networks, tasks

pytestmark = pytest.mark.float64

FOLDER = Path(__file__).parent / "data"
ARRAYS = dict(np.load(FOLDER / "stored_runs.npz"))
STORED = json.loads((FOLDER / "stored_runs.json").read_text())
CASES = ("two", "three")
OURS = [bound.name for bound in ladder.default_bounds()]


def stored_task():
    numbers = STORED["task"]
    names = ("x", "y", "x_test", "y_test", "target", "spectrum", "held_out")
    return tasks.Task(
        **{name: ARRAYS[name] for name in names},
        alignment=numbers["alignment"],
        transform=tasks.Transform(ARRAYS["matrix"], numbers["scale"]),
        norm_bound=numbers["norm_bound"],
        name="stored",
    )


TASK = stored_task()


def settings_of(case):
    found = STORED["cases"][case]["settings"]
    return Settings(**{**found, "ratios": tuple(found["ratios"])})


def run_of(case):
    settings = settings_of(case)

    def arrays(letter):
        return tuple(jnp.asarray(ARRAYS[f"{case}.{letter}{i}"]) for i in range(settings.depth))

    ts, epsilon = jnp.asarray(ARRAYS[f"{case}.ts"]), jnp.asarray(settings.epsilon)
    successful = jax.tree.map(jnp.asarray, RESULTS.successful)
    start = networks.LeakyMLP(
        tuple(jnp.asarray(ARRAYS[f"{case}.start{i}"]) for i in range(settings.depth)), epsilon
    )
    stats = {"num_steps": 1}
    trajectory = dynamics.Trajectory(ts, arrays("W"), epsilon, ts[-1], stats, successful)
    names = ("linear_map", "norms", "frobenius", "residual", "envelope")
    reference = dynamics.ReferenceTrajectory(
        ts=ts,
        **{name: jnp.asarray(ARRAYS[f"{case}.{name}"]) for name in names},
        weights=arrays("V"),
        result=successful,
    )
    gammas = np.asarray(reference.scale)[:, None] / np.asarray(settings.ratios)
    key = jax.random.key(0)
    return ladder.Run(TASK, start, trajectory, reference, gammas, settings.cells, key)


@pytest.fixture(scope="module", params=CASES)
def evaluated(request):
    """Every bound of a stored run, and what was stored of it."""
    case = request.param
    settings = settings_of(case)
    chosen = [
        bound for bound in ladder.all_bounds() if bound.over_time and "anchor" not in bound.needs
    ]
    chosen = ladder.configured(chosen, **settings.bound_numbers)
    terms = ladder.evaluate_run(chosen, run_of(case), settings.delta)
    return chosen, terms, STORED["cases"][case]["rows"]


def cells(terms):
    return [terms.at(*cell) for cell in np.ndindex(terms.gamma.shape)]


def near(found, expected):
    assert_close(found, np.inf if expected is None else expected, rtol=1e-9)


def test_every_number_is_what_it_was(evaluated):
    chosen, terms, rows = evaluated
    for bound in chosen:
        before = [row for row in rows if row["bound"] == bound.name]
        now = cells(terms[bound.name])
        assert len(before) == len(now) > 0
        for row, one in zip(before, now, strict=True):
            near(one.t, row["t"])
            if row["gamma"] is None:
                assert np.isnan(one.gamma)
            else:
                near(one.gamma, row["gamma"])
            for name in ("train_term", "complexity", "rest"):
                near(getattr(one, name), row[name])
            if "value" in row:
                near(min(1.0, one.value), row["value"])
            if "train_ramp_risk" in row:
                near(one.margin_risk, row["train_margin_risk"])
                near(one.ramp_risk, row["train_ramp_risk"])
            for name, part in row.get("parts", {}).items():
                for a, b in zip(np.ravel(one.parts[name]), np.ravel(part), strict=True):
                    near(a, b)


def test_what_bounds_say_of_themselves_is_what_it_was(evaluated):
    chosen, _, rows = evaluated
    for bound in chosen:
        row = next(row for row in rows if row["bound"] == bound.name)
        assert bound.a_priori == row["a_priori"]
        if "assumes" in row:
            # That the training is a flow went without saying.
            now = [a for a in bound.assumes(TASK) if a != "exact gradient flow"]
            assert now == row["assumes"]
        if "source" in row:
            assert bound.source == row["source"]


def test_three_words_add_up_and_parts_keep_their_names(evaluated):
    _, terms, _ = evaluated
    for name, found in terms.items():
        total = found.train_term + found.complexity + found.rest
        assert np.array_equal(found.value, np.where(np.isnan(total), np.inf, total))
        if name.startswith("split"):
            parts = found.parts
            rest = parts["nonlinear"] + parts["smoothing"] + parts["deviation"]
            assert_close(found.rest, rest, rtol=1e-12)
        for part in found.parts.values():
            assert part.shape[:2] == found.gamma.shape


def test_risks_are_those_of_the_network_at_the_margin(evaluated):
    """Also where the train term is that of other weights."""
    _, terms, _ = evaluated
    for found in terms.values():
        known = ~np.isnan(found.gamma)
        assert (np.isnan(found.margin_risk) == ~known).all()
        assert (found.ramp_risk[known] <= found.margin_risk[known]).all()


@pytest.mark.parametrize("case", CASES)
def test_a_snapshot_counts_what_numpy_counts(case):
    run = run_of(case)
    samples = ladder.samples_of(TASK, float, 0.01, held_out=False)
    weights = tuple(w[-1] for w in run.trajectory.weights)
    at = ladder.Snapshot(networks.LeakyMLP(weights, run.trajectory.epsilon), samples)
    margins = TASK.y * numpy_network(weights, float(run.trajectory.epsilon), TASK.x)
    assert_close(at.margins, margins, rtol=1e-9)
    gammas = jnp.asarray([np.median(margins), jnp.nan])
    risk, ramp = at.margin_risk(gammas), at.ramp_risk(gammas)
    assert_close(risk[0], np.mean(margins < float(gammas[0])))
    assert_close(ramp[0], np.clip(1 - margins / float(gammas[0]), 0, 1).mean(), rtol=1e-9)
    assert np.isnan([risk[1], ramp[1]]).all()


class InLoop(ladder.AbstractBound):
    """Asks for the margins inside a loop first, as a bound of a user's own may."""

    name = "in-loop"
    needs = ("gammas",)
    a_priori = False
    source = "a test"
    cites = ()
    colour = "black"

    def assumes(self, data):
        return ()

    def __call__(self, at, delta):
        risks = jax.lax.map(lambda gamma: at.margin_risk(gamma[None])[0], at.gammas)
        return at.terms(
            gamma=at.gammas,
            train_term=risks,
            complexity=0.0,
            rest=0.0,
            result=RESULTS.successful,
            parts={"again": at.margin_risk(at.gammas)},
        )


def test_a_bound_may_loop_over_what_a_snapshot_knows():
    terms = ladder.evaluate_run([InLoop()], run_of("two"), 0.01)["in-loop"]
    for known in (terms.margin_risk, terms.parts["again"]):
        assert np.array_equal(terms.train_term, known)


def test_the_best_cell_is_the_smallest_and_where_all_are_vacuous_the_smallest_sum():
    """A time where nothing is known comes last."""
    shape = (3, 2)
    terms = ladder.Terms(
        gamma=np.ones(shape),
        train_term=np.asarray([[0.5, 0.2], [0.1, 0.1], [0.1, np.nan]]),
        complexity=np.asarray([[2.0, 3.0], [0.3, 0.2], [np.inf, 0.1]]),
        rest=np.zeros(shape),
        margin_risk=np.ones(shape),
        ramp_risk=np.ones(shape),
        result=RESULTS.successful,
        parts={},
        t=np.arange(3.0),
    )
    assert terms.best_margins()[:2].tolist() == [0, 1]
    assert terms.best_cell() == (1, 1)
    assert np.isinf(terms.value[2]).all()


def test_what_is_once_is_evaluated_at_the_end():
    run = run_of("two")
    once = [bound for bound in ladder.classical_bounds() if not bound.over_time]
    terms = ladder.evaluate_run(ladder.configured(once, steps=5), run, 0.01, dtype=float)
    assert terms["pac-bayes-gaussian"].t.tolist() == [float(run.trajectory.ts[-1])]
    some = ladder.evaluate_run(ladder.classical_bounds()[:1], run, 0.01, times=[0, 2])
    assert some["vc"].t.tolist() == np.asarray(run.trajectory.ts)[[0, 2]].tolist()


def test_a_new_number_does_not_recompile(monkeypatch):
    """The reading and kappa pick code; delta and the bits are numbers."""
    traces = []
    bound = ladder.RepairedTheorem52Bound

    def counted(self, at, delta):
        traces.append(self)
        return original(self, at, delta)

    original = bound.__call__
    monkeypatch.setattr(bound, "__call__", counted)
    run = run_of("two")
    for bits, delta in ((8, 0.3), (9, 0.2)):
        ladder.evaluate_run([bound(kappa=1, precision_bits=bits)], run, delta)
    assert len(traces) == 1


def test_bounds_need_what_they_say():
    """With less nothing is left out silently; with it each is evaluated."""
    bare = ladder.known_of(TASK, depth=2, along=False)
    assert bare == ("held_out", "one_hidden_layer")
    names = [bound.name for bound in ladder.applicable(ladder.default_bounds(), bare)]
    assert names == ["split-a-posteriori", "split-no-plug-in"]
    along = ladder.known_of(TASK, depth=2, along=True)
    left_out = set(OURS) - {b.name for b in ladder.applicable(ladder.default_bounds(), along)}
    assert left_out == {*(n for n in OURS if n.startswith("anchored")), "anchor-test-bound"}
    steps = ladder.known_of(TASK, depth=2, along=True, flow=False)
    left_out = set(along) - set(steps)
    assert left_out == {"flow"}
    applicable = {b.name for b in ladder.applicable(ladder.default_bounds(), along)}
    applicable -= {b.name for b in ladder.applicable(ladder.default_bounds(), steps)}
    assert applicable == {b.name for b in ladder.PAPER}
    along = ladder.known_of(TASK, depth=2, along=True, anchored=True)
    assert ladder.applicable(ladder.all_bounds(), along) == ladder.all_bounds()
    deep = ladder.known_of(TASK, depth=3, along=True, anchored=True)
    left_out = set(ladder.all_bounds()) - set(ladder.applicable(ladder.all_bounds(), deep))
    assert {b.name for b in left_out} == {"anchored", "anchored-a-priori"}


def test_the_reference_weights_are_bounded_at_the_distance_of_the_envelope():
    """Q of the wholly a priori bound against the mean distance of the outputs, by NumPy."""
    run, settings = run_of("two"), settings_of("two")
    terms = ladder.evaluate_run([ladder.SplitWhollyAPriori()], run, settings.delta)
    found = terms["split-wholly-a-priori"]
    for i in range(settings.num_times):
        ours, theirs = (
            numpy_network([np.asarray(w[i]) for w in weights], settings.epsilon, TASK.x)
            for weights in (run.trajectory.weights, run.reference.weights)
        )
        reach = found.parts["deviation"][i, 0] * found.gamma[i, 0]
        assert np.mean(np.abs(ours - theirs)) <= reach
    norms, frobenius = (np.asarray(getattr(run.reference, n)) for n in ("norms", "frobenius"))
    far = np.asarray(run.reference.envelope)
    q = bounds.output_distance(*(jnp.asarray(a) for a in (norms, frobenius[:, 0], far)))
    assert_close(found.parts["deviation"][:, 0] * found.gamma[:, 0], q, rtol=1e-9)


def test_no_name_of_a_bound_stands_in_the_upper_rooms():
    """They ask the objects: a string to compare with would miss a new bound."""
    names = {bound.name for bound in ladder.all_bounds()} - {"trajectory"}  # a word, and a key
    package = Path(ladder.__file__).parents[1]
    offenders = [
        f"{path.relative_to(package)}:{node.lineno} {node.value}"
        for room in ("report", "figures", "sweep", "cli")
        for path in sorted((package / room).glob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and node.value in names
    ]
    assert offenders == []


@pytest.mark.parametrize("spoil", [np.nan, 0.0], ids=["NaN", "zeros"])
def test_a_network_that_says_nothing_is_wrong(spoil):
    """Outputs that are NaN, or 0 with a margin that is 0 in float32: no sample counts as right."""
    net = networks.initialize(
        jax.random.key(0), TASK.rank, 4, 2, epsilon=0.1, beta=1.0, dtype="float32"
    )
    net = networks.LeakyMLP(tuple(spoil * w for w in net.weights), net.epsilon)
    samples = ladder.samples_of(TASK, "float32", 0.01, held_out=False)
    at = ladder.Snapshot(net, samples, gammas=jnp.asarray([1e-60, 1e-3]))
    assert at.margin_risk(at.gammas).tolist() == [1.0, 1.0]
    assert at.ramp_risk(at.gammas).tolist() == [1.0, 1.0]
    counting = [ladder.Counting(precision_bits=1)]
    if np.isnan(spoil):
        with pytest.raises(ValueError, match="`net` must be finite"):
            ladder.evaluate_network(counting, net, TASK, 0.01)
        weights = tuple(w[None] for w in net.weights)
        x, y = (jnp.asarray(a, jnp.float32) for a in (TASK.x.T, TASK.y))
        assert ladder.error_over_time(weights, net.epsilon, x, y).tolist() == [1.0]
    else:
        terms = ladder.evaluate_network(counting, net, TASK, 0.01)
        assert terms["counting"].train_term.tolist() == [1.0]


def test_a_snapshot_of_another_network_measures_that_one():
    samples = ladder.samples_of(TASK, float, 0.01, held_out=False)
    one, other = (
        networks.initialize(jax.random.key(i), TASK.rank, 4, 2, epsilon=0.1, beta=1.0)
        for i in (0, 1)
    )
    at = ladder.Snapshot(one, samples, gammas=jnp.asarray([0.1])).measured()
    new = eqx.tree_at(lambda snapshot: snapshot.net, at, other)
    direct = ladder.Snapshot(other, samples, gammas=jnp.asarray([0.1]))
    assert np.array_equal(new.margins, direct.margins)
    assert np.array_equal(new.margin_risk(new.gammas), direct.margin_risk(direct.gammas))


BAD = [
    (
        lambda: ladder.RepairedTheorem52Bound(precision_bits=0),
        "`precision_bits` must be finite and at least 1",
    ),
    (lambda: ladder.EnvelopeTrajectoryBound(kappa=3), "`kappa` must be one of 1, 2"),
    (lambda: ladder.Counting(precision_bits=0), "`precision_bits` must be an integer of at least"),
    (lambda: ladder.PACBayesGaussian(steps=-1), "`steps` must be an integer of at least 0"),
    (lambda: ladder.evaluate_run([ladder.VC()], run_of("two"), 50.0), r"`delta` must be in \(0"),
    (lambda: ladder.evaluate_run([], run_of("two"), 0.1), "`bounds` must be a sequence"),
]


@pytest.mark.parametrize(("call", "message"), BAD, ids=[m for _, m in BAD])
def test_bad_numbers_get_one_line(call, message):
    with pytest.raises(ValueError, match=f"^{message}[^\n]*$"):
        call()


def test_a_run_without_an_envelope_says_so():
    run = run_of("two")
    bare = eqx.tree_at(
        lambda run: run.reference.envelope, run, None, is_leaf=lambda leaf: leaf is None
    )
    with pytest.raises(ValueError, match="got 'trajectory', which needs envelope as well"):
        ladder.evaluate_run([ladder.EnvelopeTrajectoryBound()], bare, 0.1)
