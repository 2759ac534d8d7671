"""The trajectory bound: the distance to the reference network in place of a derivative."""

import math
from typing import Literal

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from .. import _validate
from .._products import product_gap
from .._results import RESULTS, explained, where
from .._types import AnyArray, Numeric
from ._capacity import log_class_size
from ._kl import invert

_Values = Float[Array, "..."]
Method = Literal["counting", "kl"]
# Beside a smaller margin a Q of which parts are below the doubles would still count.
_LEAST_GAMMA = 1e-280


class TrajectoryBound(eqx.Module):
    """The trajectory bound, term by term; every array has the broadcast shape of the numbers.

    **Attributes:**

    - `distance`: Q, the bound on $E\\|f_W - f_V\\|$, f_V the leaky network with the reference
        network's weights.
    - `capacity`: `counting`: $\\Upsilon_\\kappa$; `kl`: what $\\text{kl}^{-1}$ adds to the risk.
    - `deviation`: $2 Q/\\gamma$ (kappa = 1) or $2 c Q / \\gamma$ (kappa = 2), times $\\sqrt 2$ if
        there are several outputs.
    - `penalty`: `capacity + deviation`.
    - `value`: `train_risk + penalty`; `None` without a train risk.
    - `result`: `successful`, or why the bound is `+inf`: `blow_up` where a distance is,
        `overflow` where the bound exceeds the doubles.
    """

    distance: _Values
    capacity: _Values
    deviation: _Values
    penalty: _Values
    value: _Values | None
    result: RESULTS


def output_distance(
    norms: Float[Array, "... layers"], frobenius: _Values, distances: Float[Array, "... layers"]
) -> _Values:
    """Q, the bound on the root mean square of $\\|f_W - f_V\\|$ for $\\|W_l - V_l\\|_F \\le x_l$
    and whitened inputs, with any number of outputs:

    $Q = A_1^F \\prod_{j \\ge 2} A_j - F \\prod_{j \\ge 2} a_j$ with $A_l = a_l + x_l$,
    $A_1^F = F + x_1$, as a telescoping sum of non-negative terms.

    For inputs x that are not whitened let $\\Sigma$ be their second moment, over the sample or over
    the distribution: with $\\|V_1 \\Sigma^{1/2}\\|_F$ and $\\tilde x \\ge
    \\|(W_1 - V_1) \\Sigma^{1/2}\\|_F$ in the place of F and $x_1$ it is the same bound for them.
    With $a_1$ and $x_1$ there, the spectral norm in the place of F, it bounds
    $\\|f_W(x) - f_V(x)\\| / \\|x\\|$ at every x, and so, times $(E \\|x\\|^2)^{1/2}$ or a bound on
    it, the mean where the second moment is not known.

    **Arguments:**

    - `norms`: $a_l = \\|V_l\\|$, `(... layers)`.
    - `frobenius`: $F = \\|V_1\\|_F$, `(...)`.
    - `distances`: $x_l$, `(... layers)`, finite.

    **Returns:**

    Q, `(...)`.
    """
    lower = jnp.concatenate([frobenius[..., None], norms[..., 1:]], axis=-1)
    layers = range(norms.shape[-1])
    return product_gap([lower[..., j] for j in layers], [distances[..., j] for j in layers])


@eqx.filter_jit
def _evaluate(arrays, numbers, kappa: int, method: Method, classes: int) -> TrajectoryBound:
    norms, frobenius, distances = arrays
    blown = ~jnp.isfinite(distances).all(axis=-1)
    safe = jnp.where(blown[..., None], 0.0, distances)
    reach = jnp.where(blown, jnp.inf, output_distance(norms, frobenius, safe))
    # Shapes may differ only by broadcasting from here on.
    reach, *values = jnp.broadcast_arrays(reach, *numbers.values())
    numbers = dict(zip(numbers, values, strict=True))
    blown = ~jnp.isfinite(reach)
    depth = norms.shape[-1]
    bend = -jnp.expm1((depth - 1) * jnp.log1p(-numbers["epsilon"] / 2))
    # Of several outputs the margin is sqrt(2)-Lipschitz, and each has a target and a linear part.
    factor = (2.0 if classes == 1 else 2.0 * math.sqrt(2.0)) * (1.0 if kappa == 1 else bend)
    known = ~blown & (numbers["gamma"] > _LEAST_GAMMA)
    deviation = factor * jnp.where(known, reach, 0.0) / jnp.where(known, numbers["gamma"], 1.0)
    deviation = jnp.where(known, deviation, jnp.inf)
    size = log_class_size(kappa, classes * numbers["dim"], numbers["precision_bits"])
    exponent = (size + jnp.log(numbers["cells"]) - jnp.log(numbers["delta"])) / (
        numbers["num_samples"]
    )
    risk = numbers.get("train_risk")
    if method == "counting":
        capacity = jnp.sqrt(exponent / 2)
    else:
        shifted = jnp.minimum(1.0, numbers["train_risk"] + deviation / 2)
        capacity = invert(shifted, exponent) - shifted
    penalty = capacity + deviation
    return TrajectoryBound(
        distance=reach,
        capacity=capacity,
        deviation=deviation,
        penalty=penalty,
        value=None if risk is None else risk + penalty,
        result=explained(where(blown, RESULTS.blow_up, RESULTS.successful), penalty),
    )


def trajectory_bound(
    norms: AnyArray,
    frobenius: AnyArray,
    distances: AnyArray,
    *,
    epsilon: Numeric,
    gamma: Numeric,
    dim: Numeric,
    num_samples: Numeric,
    kappa: int = 2,
    method: Method = "counting",
    classes: int = 1,
    precision_bits: Numeric = 32,
    delta: Numeric = 0.01,
    cells: Numeric = 1,
    train_risk: Numeric | None = None,
) -> TrajectoryBound:
    """A bound from the distance to the reference network (linear, slope $1 - \\epsilon/2$, same
    start). With probability $1 - \\delta$ it is, for a network whose layers are within
    $x_l$ of the reference's, $\\|W_l - V_l\\|_F \\le x_l$:

    `counting`: $R \\le \\hat R^C_\\gamma + \\Upsilon_\\kappa + \\text{dev}$;
    `kl`: $R \\le \\text{kl}^{-1}(\\min(1, \\hat R^C_\\gamma + \\text{dev}/2), C) + \\text{dev}/2$,
    $C = (\\kappa p d \\ln 2 + \\ln(\\text{cells}/\\delta))/m$, with the ramp risk
    $\\hat R^C_\\gamma$ (or the larger margin risk). kappa = 1: the proxy is the leaky
    network with the reference network's weights, $\\text{dev} = 2Q/\\gamma$. kappa = 2: that
    with the trained network's own linear part, $\\text{dev} = 2cQ/\\gamma$,
    $c = 1 - (1 - \\epsilon/2)^{L-1}$. It needs neither Assumption 5.1 nor a derivative in the
    slope. New here: statement and proof are in the README of this folder.

    **Main arguments:**

    - `norms`: $a_l = \\|V_l\\|$, `(... layers)`.
    - `frobenius`: $F = \\|V_1\\|_F$, `(...)`.
    - `distances`: $x_l$, `(... layers)`: the envelope (a priori; `+inf` after its blow-up), or
        the measured distances (a posteriori). For inputs that are not whitened Q over the sample
        and over the distribution differ, and V is a function of $\\Sigma$ too, whose
        $d(d + 1)/2$ numbers are not counted here: give the larger Q, of a V that is driven by
        statistics from outside the sample (`driver` of [`reference_flow`][]).
    - `epsilon`: one minus the negative slope, in [0, 1].
    - `gamma`: the margin, positive.
    - `dim`: d.
    - `num_samples`: m.

    The leading shape of the arrays and the numbers broadcast against each other.

    **Other arguments:**

    - `kappa`: which proxy, 1 or 2.
    - `method`: `"counting"` or `"kl"` (never looser; needs `train_risk`).
    - `classes`: K, the number of outputs. With K >= 2 the margin of a sample of class y is
        $f_y - \\max_{j \\ne y} f_j$, the deviation has a factor $\\sqrt 2$, and C has
        $\\kappa p K d$ in the place of $\\kappa p d$.
    - `precision_bits`, `delta`, `cells`: as in [`theorem_5_2`][].
    - `train_risk`: the ramp (or margin) risk on the training set, in [0, 1].

    **Returns:**

    A [`TrajectoryBound`][].

    **Raises:**

    `ValueError` naming the argument, or if `jax_enable_x64` is not set.
    """
    _validate.needs_x64("trajectory_bound")
    kappa = _validate.member("kappa", kappa, (1, 2))
    method = _validate.member("method", method, ("counting", "kl"))
    classes = _validate.integer("classes", classes, 1)
    if method == "kl" and train_risk is None:
        raise ValueError("`train_risk` must be given with method='kl', got None.")
    real = _validate.real
    far = _validate.at_least_zero("distances", distances)
    if not far.ndim:
        raise ValueError("`distances` must have shape (..., layers), got ().")
    arrays = (real("norms", norms, 0), real("frobenius", frobenius, 0), far)
    if not arrays[0].shape == far.shape == (*arrays[1].shape, far.shape[-1]):
        shapes = ", ".join(str(a.shape) for a in arrays)
        raise ValueError(
            "`norms`, `frobenius` and `distances` must have shapes (..., layers), (...) and "
            f"(..., layers), got {shapes}."
        )
    numbers = {
        "epsilon": real("epsilon", epsilon, 0, 1),
        "gamma": real("gamma", gamma, 0, open_low=True),
        "dim": real("dim", dim, 1),
        "num_samples": real("num_samples", num_samples, 1),
        "precision_bits": real("precision_bits", precision_bits, 1),
        "delta": real("delta", delta, 0, 1, open_low=True, open_high=True),
        "cells": real("cells", cells, 1),
    }
    if train_risk is not None:
        numbers["train_risk"] = real("train_risk", train_risk, 0, 1)
    _validate.broadcastable({"frobenius": arrays[1], **numbers})
    return _evaluate(arrays, numbers, kappa, method, classes)
