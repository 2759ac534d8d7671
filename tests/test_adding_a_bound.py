"""A new bound is an adapter and an entry in one tuple; everything else finds it by itself."""

import importlib.util
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close, small_data
from typer.testing import CliRunner

from nlbound_jax import (
    RESULTS,
    Settings,
    certify,
    citation,
    figures,
    ladder,
    networks,
    report,
    sweep,
    tasks,
)
from nlbound_jax.cli._app import app
from nlbound_jax.ladder import _ladder
from nlbound_jax.report import compare, comparison_table, plot, plot_comparison, table

pytestmark = pytest.mark.float64

TASK = tasks.from_arrays(**small_data())
SMALL = Settings(width=4, beta=0.05, epsilon=0.05, num_times=3)


class Toy(ladder.AbstractBound):
    """The training error and Hoeffding's deviation, as if the network had been fixed beforehand:
    no bound on a trained one, but a sum that NumPy checks."""

    name = "toy"
    needs = ()
    a_priori = False
    measures = "error"
    source = "a test"
    cites = ("hoeffding1963probability",)
    colour = "crimson"

    def assumes(self, data):
        return ("a network fixed beforehand",)

    def __call__(self, at, delta):
        deviation = jnp.sqrt(-jnp.log(delta) / (2 * at.data.num_samples))
        return at.terms(
            gamma=None,
            train_term=jnp.mean(at.margins <= 0, dtype=float),
            complexity=deviation,
            rest=0.0,
            result=RESULTS.successful,
            parts={"deviation": deviation},
        )


@pytest.fixture(autouse=True)
def added(monkeypatch):
    """The entry in the tuple. The others are left out: they take time and are tested elsewhere."""
    monkeypatch.setattr(_ladder, "OURS", (Toy(),))
    monkeypatch.setattr(_ladder, "PAPER", ())


@pytest.fixture
def made():
    return report(TASK, SMALL)


def expected(net, delta=SMALL.delta):
    wrong = np.mean(TASK.y * np.asarray(net(TASK.x)) <= 0)
    return wrong, np.sqrt(np.log(1 / delta) / (2 * TASK.num_samples))


def test_a_report_has_it(made):
    train, deviation = expected(made.network)
    row = made.at_end("toy")
    assert_close(row["train_term"], train, atol=1e-9)
    assert_close(row["complexity"], deviation, rtol=1e-9)
    assert (row["gamma"], row["train_margin_risk"], row["rest"]) == (None, None, 0.0)
    assert row["assumes"] == ["a network fixed beforehand"]
    assert json.dumps(made.as_dict(), allow_nan=False)
    data = made.to_xarray()
    assert_close(data["value"].sel(bound="toy")[-1], row["value"], rtol=1e-12)
    assert np.isnan(data["gamma"].sel(bound="toy")).all()
    grid, *notes = table(made).renderables
    assert "toy" in grid.columns[0].cells
    assert any("a network fixed beforehand" in note.plain for note in notes)
    line = next(line for line in plot(made).axes[0].lines if line.get_label() == "toy")
    assert line.get_color() == "crimson"


def test_certify_has_it(made):
    found = certify(made.network, TASK)["toy"]
    assert_close(found["uncapped"], made.at_end("toy")["uncapped"], rtol=1e-9)
    assert found["t"] is None


def test_compare_has_it(made, monkeypatch):
    monkeypatch.setattr(_ladder, "CLASSICAL", _ladder.CLASSICAL[:1])
    found = compare(TASK, SMALL, epsilons=(), steps=None)
    assert [row["bound"] for row in found.rows] == ["toy", "vc"]
    assert_close(found["toy"]["uncapped"], made.at_end("toy")["uncapped"], rtol=1e-9)
    assert found["toy"]["ours"]
    assert "toy" in comparison_table(found).renderables[0].columns[0].cells
    assert "toy" in [line.get_label() for line in plot_comparison(found).axes[0].lines]


def test_a_sweep_has_it(tmp_path):
    """Also where the axes enter the bounds alone."""
    axes = {"delta": [0.01, 0.2], "seed": [0, 1]}
    settings = {"width": 4, "beta": 0.05, "epsilon": 0.05, "num_times": 3}
    data = sweep({"axes": axes, "settings": settings}, tmp_path / "s.zarr", task=TASK).load()
    assert data["bound"].values.tolist() == ["toy"]
    for delta in axes["delta"]:
        made = report(TASK, Settings(**settings, delta=delta, seed=1))
        cell = data.sel(delta=delta, seed=1, bound="toy")
        # Two compilations of an adaptive solve: a sample or two lie so near the boundary.
        assert_close(cell["value_over_time"][-1], made.at_end("toy")["value"], atol=2 / 120)
        assert_close(cell["complexity"], expected(made.network, delta)[1], rtol=1e-9)


def test_the_ladder_figure_has_it(tmp_path):
    data = figures.ladder(TASK, SMALL, epsilons=[0.05])
    assert data["bound"].values.tolist() == ["toy"]
    figures.save_data(data, tmp_path / "ladder.zarr")
    line = figures.plot_ladder(figures.load_data(tmp_path / "ladder.zarr")).axes[0].lines[0]
    assert (line.get_label(), line.get_color()) == ("toy", "crimson")
    # A picture of a bound that is not there any more has a colour too.
    other = data.assign_coords(bound=["gone"])
    assert figures.plot_ladder(other).axes[0].lines[0].get_label() == "gone"


def test_it_is_cited(made):
    for used in ("toy", Toy(), made):
        assert "hoeffding1963probability" in citation(used)


def test_the_command_has_it(tmp_path):
    np.savez(tmp_path / "data.npz", **small_data())
    args = ["report", "--dataset", str(tmp_path / "data.npz"), "--width", "4", "--end-time", "1"]
    found = CliRunner().invoke(app, [*args, "--json"])
    assert found.exit_code == 0, found.output
    assert {row["bound"] for row in json.loads(found.stdout)["bounds"]} == {"toy"}


def test_the_api_page_has_it():
    path = Path(__file__).parents[1] / "docs" / "make_api.py"
    spec = importlib.util.spec_from_file_location("make_api", path)
    page = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(page)
    assert "| `toy` |" in page.table_of_bounds()


def test_only_what_is_asked_for_is_evaluated():
    made = report(TASK, SMALL, bounds=[ladder.RepairedTheorem52Bound(kappa=1), Toy()])
    assert made.names() == ["theorem-5.2-repaired", "toy"]
    assert certify(made.network, TASK, bounds=[Toy()]).rows[0]["bound"] == "toy"


class Once(Toy):
    """Smallest where it must not be looked at: it is made once, at the end of training."""

    epsilon: float = 0.75  # a setting has this name too

    name = "once"
    needs = ("t",)
    over_time = False

    def __call__(self, at, delta):
        return at.terms(
            gamma=None,
            train_term=0.0,
            complexity=at.t / (1 + at.t),
            rest=0.0,
            result=RESULTS.successful,
            parts={"epsilon": self.epsilon},
        )


def test_what_is_made_once_is_made_at_the_end_in_a_sweep_too(monkeypatch, tmp_path):
    monkeypatch.setattr(_ladder, "OURS", (Once(), Toy()))
    axes = {"seed": [0, 1]}
    settings = {"width": 4, "beta": 0.05, "epsilon": 0.05, "num_times": 3}
    data = sweep({"axes": axes, "settings": settings}, tmp_path / "s.zarr", task=TASK).load()
    made = report(TASK, Settings(**settings))
    cell = data.sel(seed=0, bound="once")
    end = made.at_end("once")
    assert end["t"] == made.best("once")["t"] == float(made.trajectory.ts[-1])
    assert_close(cell["value"], end["value"], rtol=1e-9)
    assert np.isnan(cell["value_over_time"]).values.tolist() == [True, True, False]
    assert (end["numbers"], end["parts"]) == ({"epsilon": 0.75}, {"epsilon": 0.75})
    plot(made)
    table(made)
    # Another list of bounds does not go into the same store.
    monkeypatch.setattr(_ladder, "OURS", (Toy(), Once()))
    with pytest.raises(ValueError, match=r"^`store\.bounds.*` must be as in "):
        sweep({"axes": axes, "settings": settings}, tmp_path / "s.zarr", task=TASK)


def test_a_citation_that_is_not_in_the_list_is_one_line():
    class Unknown(Toy):
        cites = ("nobody2026nothing",)

    with pytest.raises(ValueError, match="^`used` must be reports"):
        citation(Unknown())


BAD = [
    ([], "a sequence of at least one bound of nlbound_jax.ladder, got []."),
    ("toy", "a sequence of at least one bound of nlbound_jax.ladder, got 'toy'."),
    (["toy"], "a AbstractBound, got 'toy'."),
    ([Toy(), Toy()], "every name once, got 'toy' twice."),
    (
        [ladder.SplitNoPlugIn()],
        "what is known here, got 'split-no-plug-in', which needs held_out as well.",
    ),
]


@pytest.mark.parametrize(("bounds", "message"), BAD, ids=[m[-20:] for _, m in BAD])
def test_bad_bounds_get_one_line(no_type_checks, bounds, message):
    with pytest.raises(ValueError, match="^`bounds` must ") as caught:
        report(TASK, SMALL, bounds=bounds)
    assert str(caught.value).endswith(message)
    net = networks.initialize(jax.random.key(0), TASK.rank, 4, 2, epsilon=0.1, beta=1.0)
    with pytest.raises(ValueError, match="^`bounds` must "):
        certify(net, TASK, bounds=bounds)
