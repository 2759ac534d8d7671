import equinox as eqx
import numpy as np
import pytest
import xarray as xr
from helpers import assert_close, traced_anew

from nlbound_jax import bounds
from nlbound_jax.bounds import _theorem52

pytestmark = pytest.mark.float64

AXES = {
    "t": np.linspace(0.5, 9, 5),
    "epsilon": [0.0, 0.01, 0.5],
    "beta": [1e-4, 1e-2],
    "gamma": [1e-6, 1e-3],
}
REST = {"stable_rank_root": 4.0, "alignment": 0.6, "dim": 49, "num_samples": 60000}


@pytest.mark.parametrize("chunk_size", [7, 60, 1000])
@pytest.mark.parametrize("depth", [2, 3])
def test_a_grid_is_the_outer_product(chunk_size, depth):
    made = bounds.grid(**AXES, **REST, depth=depth, train_risk=0.2, chunk_size=chunk_size)
    assert dict(made.sizes) == {"t": 5, "epsilon": 3, "beta": 2, "gamma": 2}
    for i, j, k, n in ((0, 0, 0, 0), (4, 2, 1, 1), (2, 1, 0, 1)):
        one = bounds.theorem_5_2(
            AXES["t"][i],
            epsilon=AXES["epsilon"][j],
            beta=AXES["beta"][k],
            gamma=AXES["gamma"][n],
            depth=depth,
            train_risk=0.2,
            **REST,
        )
        cell = made.isel(t=i, epsilon=j, beta=k, gamma=n)
        for name in ("u", "v", "log_v", "capacity", "deviation", "penalty", "value"):
            assert_close(cell[name].values, getattr(one, name), rtol=1e-12)
    assert made.attrs["depth"] == depth
    assert made.attrs["alignment"] == 0.6
    assert made.t.attrs["units"] == "gradient-flow time"


def test_blow_up_is_marked_and_infinite():
    made = bounds.grid(**(AXES | {"t": [1.0, 1e9]}), **REST, depth=3)
    assert (made.result.sel(t=1e9) == 1).all()
    assert np.isinf(made.penalty.sel(t=1e9)).all()
    assert np.isfinite(made.penalty.sel(t=1.0)).all()


def test_chunks_compile_once(monkeypatch):
    traced = eqx.debug.assert_max_traces(_theorem52.log_v, max_traces=1)
    monkeypatch.setattr(_theorem52, "log_v", traced)
    traced_anew(monkeypatch, _theorem52, "_evaluate")
    for factor in (1.0, 1.1):
        changed = AXES | {"t": factor * AXES["t"]}
        bounds.grid(**changed, **REST, depth=2, chunk_size=13)


def test_best_over_margins_and_times():
    made = bounds.grid(**AXES, **REST, depth=2, train_risk=[0.2, 0.4])
    best = bounds.best_over(made, "t", "gamma")
    assert set(best.sizes) == {"epsilon", "beta", "train_risk"}
    assert_close(best.value.values, made.value.min(("t", "gamma")).values)
    cell = best.isel(epsilon=1, beta=0, train_risk=1)
    corner = made.sel(t=cell.best_t.item(), gamma=cell.best_gamma.item())
    again = corner.isel(epsilon=1, beta=0, train_risk=1)
    assert_close(cell.value.values, again.value.values)
    assert_close(cell.deviation.values, again.deviation.values)


def test_a_store_round_trips(tmp_path):
    made = bounds.grid(**AXES, **REST, depth=2)
    made.to_zarr(tmp_path / "grid.zarr", consolidated=False)
    again = xr.open_zarr(tmp_path / "grid.zarr", consolidated=False)
    xr.testing.assert_identical(made, again.load())


def test_bad_arguments_get_one_line(no_type_checks):
    for name, value, message in (
        ("epsilon", [0.1, 1.5], r"`epsilon` must be in \[0, 1\], got 1.5"),
        ("beta", [[0.1]], r"`beta` must be a number or a non-empty sequence .* got shape \(1, 1\)"),
        ("gamma", [], "`gamma` must be a number or a non-empty sequence"),
        ("chunk_size", 0, "`chunk_size` must be an integer of at least 1, got 0"),
    ):
        with pytest.raises(ValueError, match=message):
            bounds.grid(**(AXES | REST | {"depth": 2, name: value}))
    made = bounds.grid(**AXES, **REST, depth=2)
    with pytest.raises(ValueError, match="`dims` must be one of 't', 'epsilon', 'beta', 'gamma'"):
        bounds.best_over(made, "depth")
    with pytest.raises(ValueError, match="`dims` must name at least one dimension"):
        bounds.best_over(made)
