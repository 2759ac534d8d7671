import jax
import numpy as np
import pytest
from helpers import assert_close
from matplotlib.figure import Figure

from nlbound_jax import bounds
from nlbound_jax.figures import _figure7, _figure8, _figure9
from nlbound_jax.figures._common import Preset, load_data, save_data

pytestmark = pytest.mark.float64

X64 = jax.config.jax_enable_x64
TINY = Preset("tiny")


def outputs(seed=0, m=40, n=30):
    rng = np.random.default_rng(seed)
    f, f_test = rng.normal(size=m), rng.normal(size=n)
    g, g_test = f + 0.1 * rng.normal(size=m), f_test + 0.1 * rng.normal(size=n)
    return f, g, np.sign(rng.normal(size=m)), f_test, g_test, np.sign(rng.normal(size=n))


def test_eq_41_every_term_against_numpy():
    f, g, y, f_test, g_test, y_test = args = outputs()
    gammas = np.asarray([[0.1, 0.5], [1.0, 3.0]])
    bound = bounds.optimistic_bound(*args, gamma=gammas)
    rtol = 1e-12 if X64 else 1e-4
    assert_close(bound.train_deviation, np.mean(np.abs(f - g)), rtol)
    assert_close(bound.test_deviation, np.mean(np.abs(f_test - g_test)), rtol)
    for index in np.ndindex(gammas.shape):
        gamma = gammas[index]
        # One sample at a time.
        risk = sum(float(a * b < gamma) for a, b in zip(y, f, strict=True)) / len(y)
        ramps = []
        for labels, values in ((y, g), (y_test, g_test)):
            margins = [a * b for a, b in zip(labels, values, strict=True)]
            ramp = [1.0 if z < 0 else max(0.0, 1 - z / gamma) for z in margins]
            ramps.append(sum(ramp) / len(ramp))
        deviation = (np.mean(np.abs(f - g)) + np.mean(np.abs(f_test - g_test))) / gamma
        assert_close(bound.train_margin_risk[index], risk, rtol)
        assert_close(bound.proxy_train_ramp[index], ramps[0], rtol)
        assert_close(bound.proxy_test_ramp[index], ramps[1], rtol)
        assert_close(bound.gap[index], ramps[1] - ramps[0], rtol, 1e-6)
        assert_close(bound.deviation[index], deviation, rtol)
        assert_close(bound.value[index], risk + ramps[1] - ramps[0] + deviation, rtol)


@pytest.mark.parametrize("seed", range(10))
def test_eq_41_holds_for_the_test_error_of_any_proxy(seed):
    args = outputs(seed)
    bound = bounds.optimistic_bound(*args, gamma=[0.05, 0.3, 1.0])
    f_test, y_test = args[3], args[5]
    assert (np.asarray(bound.value) >= np.mean(y_test * f_test < 0) - 1e-6).all()
    assert bound.label == "estimate from test data, not a certificate"


def test_errors_of_the_bound(no_type_checks):
    f, g, y, f_test, g_test, y_test = outputs()
    with pytest.raises(ValueError, match="`gamma` must be positive and finite, got 0"):
        bounds.optimistic_bound(f, g, y, f_test, g_test, y_test, gamma=0.0)
    with pytest.raises(ValueError, match=r"`proxy` must have shape \(40,\), got \(39,\)"):
        bounds.optimistic_bound(f, g[1:], y, f_test, g_test, y_test, gamma=1.0)
    with pytest.raises(ValueError, match=r"`output_test` must have shape \(samples,\)"):
        bounds.optimistic_bound(f, g, y, f_test[:, None], g_test, y_test, gamma=1.0)
    with pytest.raises(ValueError, match="`y_test` must be labels -1 and \\+1"):
        bounds.optimistic_bound(f, g, y, f_test, g_test, 2 * y_test, gamma=1.0)
    with pytest.raises(ValueError, match="`output` must be a finite number, got nan"):
        bounds.optimistic_bound(f * np.nan, g, y, f_test, g_test, y_test, gamma=1.0)


@pytest.fixture(scope="module")
def made():
    return {m: m.compute(TINY) for m in (_figure7, _figure8, _figure9)}


@pytest.mark.parametrize(
    "module", [pytest.param(_figure7, marks=pytest.mark.slow), _figure8, _figure9]
)
def test_round_trip_and_picture(made, module, tmp_path):
    data = made[module]
    save_data(data, tmp_path / "data.zarr")
    loaded = load_data(tmp_path / "data.zarr")
    assert loaded.identical(data)
    figure = module.draw(loaded)
    assert isinstance(figure, Figure)
    figure.savefig(tmp_path / "picture.png")
    for axis in figure.axes:
        assert axis.get_xlabel() == "t (gradient-flow time)"
    for name in ("title", "task", "num_samples", "dim", "width", "depth", "seed", "rtol", "init"):
        assert name in data.attrs
    assert data.attrs["title"] == module.TITLE


def test_figure_7_lines_are_the_falls(made):
    data = made[_figure7]
    assert data["loss"].shape == (2, TINY.num_times + 1)
    assert_close(data["reached"], data["end_time"], 1e-6)
    fall, projected = (np.asarray(v) for v in _figure7.falls(data))
    assert (fall[:, 0] == 0).all()
    assert (fall[:, 1:] > 0).all()
    assert (projected[:, 1:] > 0).all()
    for case, axis in enumerate(_figure7.draw(data).axes):
        solid, dashed, guess = axis.lines
        assert_close(solid.get_ydata(), fall[case] + 1e-8, 1e-12)
        assert_close(dashed.get_ydata(), projected[case] + 1e-8, 1e-12)
        assert_close(solid.get_xdata(), data["t"].values[case], 1e-12)
        assert (solid.get_linestyle(), dashed.get_linestyle()) == ("-", "--")
        assert guess.get_linestyle() == ":"


def test_figure_7_a_linear_network_loses_alike_in_both(made):
    # At epsilon = 0.001 the residual outside the span of the inputs hardly moves.
    fall, projected = (np.asarray(v) for v in _figure7.falls(made[_figure7]))
    assert_close(projected, fall, 0.02, 1e-12)


def test_figure_8_terms_add_up_and_lines_are_the_data(made):
    data = made[_figure8]
    assert data["value"].dims == ("step", "proxy", "ratio")
    assert data["value"].shape == (TINY.num_times, 3, len(_figure8.RATIOS))
    deviation = (data["train_deviation"] + data["test_deviation"]) / data["gamma"]
    total = data["train_margin_risk"] + data["gap"] + deviation
    assert_close(total.transpose(*data["value"].dims), data["value"], 1e-10)
    assert (data["value"] >= data["test_risk"] - 1e-9).all()
    assert float(data["reached"]) == pytest.approx(float(data["t"][-1]), rel=1e-5)
    assert data.attrs["label"] == "estimate from test data, not a certificate"
    assert data.attrs["epsilon"] == 0.1
    axes = _figure8.draw(data).axes
    assert len(axes) == 6
    for proxy, axis in zip(_figure8.PROXIES, axes[3:], strict=True):
        for ratio, line in zip(data["ratio"].values, axis.lines, strict=False):
            assert_close(line.get_ydata(), data["value"].sel(proxy=proxy, ratio=ratio), 1e-12)
        dashed = [line for line in axis.lines if line.get_label() == "true test error"]
        assert dashed[0].get_linestyle() == "--"
        assert dashed[0].get_color() == "black"
        assert_close(dashed[0].get_ydata(), data["test_risk"], 1e-12)
        assert any(
            set(line.get_ydata()) == {0.5} and line.get_linestyle() == ":" for line in axis.lines
        )


def test_figure_8_the_correction_helps(made):
    deviation = made[_figure8]["train_deviation"]
    assert (deviation.sel(proxy="g2") < deviation.sel(proxy="g1")).all()


def test_figure_9_has_a_panel_an_epsilon(made):
    data = made[_figure9]
    assert data["value"].dims == ("epsilon", "step", "proxy", "ratio")
    axes = _figure9.draw(data).axes
    assert [a.get_title() for a in axes] == ["epsilon = 0.4", "epsilon = 1"]
    for epsilon, axis in zip(data["epsilon"].values, axes, strict=True):
        one = data.sel(epsilon=epsilon, proxy="g2")
        for ratio, line in zip(data["ratio"].values, axis.lines, strict=False):
            assert_close(line.get_ydata(), one["value"].sel(ratio=ratio), 1e-12)
            assert_close(line.get_xdata(), one["t"], 1e-12)


@pytest.mark.slow
def test_a_run_that_stops_leaves_nan_and_says_where(monkeypatch):
    monkeypatch.setattr(_figure8, "MAX_STEPS", 30)
    data = _figure8.compute(TINY)
    reached = float(data["reached"])
    assert 0 < reached < float(data["t"][-1])
    done = data["t"].values <= reached
    assert 0 < done.sum() < len(done)
    assert (np.isfinite(data["test_risk"].values) == done).all()
    _figure8.draw(data)


def test_figure_8_needs_test_data():
    task = TINY.task(7)
    bare = type(task)(
        task.x,
        task.y,
        None,
        None,
        task.target,
        task.alignment,
        task.spectrum,
        task.transform,
        None,
        "bare",
    )
    with pytest.raises(ValueError, match="`task` must have test data, got none"):
        _figure8.follow(bare, TINY, 0.1)
