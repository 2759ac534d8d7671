"""Theorem 5.2: an a-priori generalization bound for leaky-ReLU networks under gradient flow."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from .. import _validate
from .._results import RESULTS, explained, where
from .._types import Numeric, Reading
from ._arguments import check_arguments
from ._capacity import counting
from ._growth import log_growth, log_v, rates

_Values = Float[Array, "..."]


class Theorem52(eqx.Module):
    """Theorem 5.2, term by term; every array has the broadcast shape of the arguments.

    **Attributes:**

    - `u`: bound on every $\\|W_l(t)\\|$ (Eq. 9).
    - `v`, `log_v`: bound on the dependence on the slope (Eq. 10), and its logarithm, which is
        finite where `v` overflows.
    - `capacity`: $\\Upsilon_\\kappa$ (Eq. 7).
    - `deviation`: $\\Delta_\\kappa(t)\\, \\epsilon^\\kappa / \\gamma$.
    - `penalty`: `capacity + deviation`, the bound on the gap $R - \\hat R_\\gamma$.
    - `value`: `train_risk + penalty`, the bound on R; `None` without a train risk.
    - `result`: `successful`, or why the bound is `+inf`: `blow_up` where t is at or past the
        blow-up of u, `overflow` where the bound exceeds the doubles. Derivatives at such a point
        are 0 or NaN and mean nothing.
    """

    u: _Values
    v: _Values
    log_v: _Values
    capacity: _Values
    deviation: _Values
    penalty: _Values
    value: _Values | None
    result: RESULTS


def log_phi(kappa: int, depth: int, rho, dim) -> _Values:
    """$\\Phi_1 = L\\sqrt d + 1 + (L-1)\\rho$ and
    $\\Phi_2 = (L-1)[(L + 1 + (L-1)\\rho)\\sqrt d + 2 (1 + (L-1)\\rho)]$ (Eq. 8)."""
    inner = 1 + (depth - 1) * rho
    if kappa == 1:
        return jnp.log(depth * jnp.sqrt(dim) + inner)
    return jnp.log((depth - 1) * ((depth + inner) * jnp.sqrt(dim) + 2 * inner))


@eqx.filter_jit
def _evaluate(numbers, depth: int, kappa: int, reading: Reading, assumption_5_1: bool) -> Theorem52:
    numbers = dict(zip(numbers, jnp.broadcast_arrays(*numbers.values()), strict=True))
    t, epsilon, beta, gamma = (numbers[k] for k in ("t", "epsilon", "beta", "gamma"))
    rho, s = numbers["stable_rank_root"], numbers["alignment"]
    rate = rates(depth, epsilon, beta, rho, s, reading, assumption_5_1)
    growth = log_growth(t, depth, rate)
    log_u = rate.log_beta_bar + growth.value
    # Where beta^L exceeds the doubles nothing is known but that u is large.
    log_u = jnp.where(jnp.isnan(log_u), jnp.inf, log_u)
    blown = growth.blown | jnp.isinf(log_u)
    logarithm = log_v(growth, depth, beta, rho, s, rate, reading)
    log_factor = log_phi(kappa, depth, rho, numbers["dim"])
    # Sum the logarithms first: v alone overflows long before epsilon^kappa v does.
    exponent = (
        log_factor
        + jnp.where(blown, 0.0, logarithm + (depth - 1) * log_u)
        + kappa * jnp.log(jnp.where(epsilon > 0, epsilon, 1.0))
        - jnp.log(gamma)
    )
    # A linear network does not deviate, even where log v is beyond the doubles. Of a margin below
    # them, which XLA takes for 0, nothing is known.
    unknown = blown | ((epsilon > 0) & ~(gamma > 0))
    deviation = jnp.where(epsilon > 0, jnp.exp(exponent), 0.0)
    deviation = jnp.where(unknown, jnp.inf, deviation)
    capacity = counting(
        kappa,
        numbers["dim"],
        numbers["num_samples"],
        numbers["precision_bits"],
        numbers["delta"],
        numbers["cells"],
    )
    penalty = capacity + deviation
    # The logarithm of a beta far from 1 costs digits.
    exact_u = rate.exact_beta_bar.high * jnp.exp(growth.value)
    late = growth.blown & jnp.isfinite(rate.one)
    result = where(late, RESULTS.blow_up, RESULTS.successful)
    return Theorem52(
        u=jnp.where(growth.value < 600, exact_u, jnp.exp(log_u)),
        v=jnp.exp(logarithm),
        log_v=logarithm,
        capacity=capacity,
        deviation=deviation,
        penalty=penalty,
        value=numbers["train_risk"] + penalty if "train_risk" in numbers else None,
        result=explained(result, penalty),
    )


def theorem_5_2(
    t: Numeric,
    *,
    depth: int,
    epsilon: Numeric,
    beta: Numeric,
    gamma: Numeric,
    stable_rank_root: Numeric,
    alignment: Numeric,
    dim: Numeric,
    num_samples: Numeric,
    kappa: int = 2,
    precision_bits: Numeric = 32,
    delta: Numeric = 0.01,
    cells: Numeric = 1,
    train_risk: Numeric | None = None,
    reading: Reading = "repaired",
    assumption_5_1: bool = True,
) -> Theorem52:
    """Theorem 5.2 of Golikov, *A Generalization Bound for Nearly-Linear Networks*, TMLR 12/2024:

    with probability $1 - \\delta$, $R(t) \\le \\hat R_\\gamma(t) + \\Upsilon_\\kappa
    + \\Delta_\\kappa(t)\\, \\epsilon^\\kappa / \\gamma$ (Eq. 6-11) with
    $\\Delta_\\kappa = \\Phi_\\kappa\\, v\\, u^{L-1}$.

    All numbers are scalars or arrays that broadcast against each other.

    **Main arguments:**

    - `t`: training time, at least 0.
    - `depth`: L >= 2, the number of weight matrices.
    - `epsilon`: one minus the negative slope, in [0, 1].
    - `beta`: bound on the spectral norm of every layer at the start, positive.
    - `gamma`: the margin, positive.
    - `stable_rank_root`: $\\rho = \\|W_1(0)\\|_F / \\|W_1(0)\\| \\ge 1$.
    - `alignment`: $s = \\|Y \\tilde X^\\top\\| / m$, in [0, 1].
    - `dim`: d, the number of whitened coordinates.
    - `num_samples`: m.

    **Other arguments:**

    - `kappa`: which proxy: 1 or 2.
    - `precision_bits`: p, bits of a number.
    - `delta`: one minus the confidence, in (0, 1).
    - `cells`: how many (t, gamma, ...) were tried; $\\ln(\\text{cells})$ is added to
        $\\ln(1/\\delta)$.
    - `train_risk`: $\\hat R_\\gamma(t)$, in [0, 1]; only for `value`.
    - `reading`: `"printed"`, the theorem as it stands in the paper, or `"repaired"`, the
        statement that may be relied on: the finite difference
        $\\|W^\\epsilon_l - W^0_l\\|_F \\le \\epsilon v$ in place of the derivative in $\\tau$,
        and $\\rho$ in place of $\\sqrt\\rho$ in $\\bar s_\\rho$.
    - `assumption_5_1`: rely on the paper's Assumption 5.1 (which fails for some data). `False`
        needs the repaired reading.

    **Returns:**

    A [`Theorem52`][].

    **Raises:**

    `ValueError` naming the argument, or if `jax_enable_x64` is not set: in float32 the
    exponential in v would leave few right digits.
    """
    given = locals()
    _validate.needs_x64("theorem_5_2")
    numbers, choices = check_arguments(given, _validate.real)
    _validate.broadcastable(numbers)
    return _evaluate(numbers, **choices)
