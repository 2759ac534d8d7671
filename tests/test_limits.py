import numpy as np
import pytest
from helpers import assert_close

from nlbound_jax import bounds, dynamics

pytestmark = [pytest.mark.float64, pytest.mark.quick]

NUMBERS = {"epsilon": 0.05, "stable_rank_root": 2.0, "alignment": 0.633, "dim": 49, "kappa": 2}


def printed_deviation(beta, depth, growth, ratio):
    """Theorem 5.2 at the linear learning time of the fraction r beta^L / s."""
    fraction = growth * beta**depth / NUMBERS["alignment"]
    t = dynamics.learning_time(fraction, depth=depth, alignment=NUMBERS["alignment"], beta=beta)
    terms = bounds.theorem_5_2(
        t, depth=depth, beta=beta, gamma=fraction / ratio, num_samples=1, reading="printed",
        **NUMBERS,
    )  # fmt: skip
    return float(terms.deviation)


@pytest.mark.parametrize(("depth", "order"), [(2, 1), (3, 3), (4, 4), (5, 5)])
def test_eq_19_and_103_are_the_limits(depth, order):
    """The error falls at least as fast as the paper says: O(beta) at L = 2, O(beta^L) beyond."""
    limit = float(bounds.small_beta_deviation(1.3, depth=depth, ratio=10.0, **NUMBERS))
    errors = [abs(printed_deviation(b, depth, 1.3, 10.0) / limit - 1) for b in (0.08, 0.04, 0.02)]
    assert errors[2] < 0.02
    for coarse, fine in zip(errors[:-1], errors[1:], strict=True):
        assert fine < 1.02 * coarse / 2**order


def test_the_limit_is_infinite_where_u_blows_up_first():
    wide = NUMBERS | {"epsilon": 1.0, "stable_rank_root": 20.0}
    assert np.isinf(bounds.small_beta_deviation(3.0, depth=4, ratio=1.0, **wide))
    assert np.isfinite(bounds.small_beta_deviation(3.0, depth=2, ratio=1.0, **wide))


def test_it_broadcasts():
    growth = np.array([1.1, 1.5, 2.0])
    values = bounds.small_beta_deviation(growth, depth=2, ratio=10.0, **NUMBERS)
    one = bounds.small_beta_deviation(growth[1], depth=2, ratio=10.0, **NUMBERS)
    assert_close(values[1], one)
    assert (np.diff(values) > 0).all()


def test_bad_arguments_get_one_line():
    with pytest.raises(ValueError, match="`growth` must be finite and greater than 1, got 1"):
        bounds.small_beta_deviation(1.0, depth=2, ratio=10.0, **NUMBERS)
    with pytest.raises(ValueError, match="`ratio` must be positive and finite, got 0"):
        bounds.small_beta_deviation(1.5, depth=2, ratio=0.0, **NUMBERS)
