"""The inequalities in the proof of Theorem 5.2, as printed and as they hold."""

from typing import Any

import numpy as np
from jaxtyping import Float

from ..bounds import theorem_5_2
from ._check import Check
from ._measure import Measured

_Times = Float[np.ndarray, " times"]


# Of what the solver was asked for, 1e-6: its errors add up over the steps.
ERROR = 1e-5


def make(
    run: Measured,
    name: str,
    equation: str,
    measured: Any,
    bound: Any,
    *,
    claimed: bool,
    size: Any = 0.0,
) -> Check:
    """A [`Check`][] whose tolerance is the solver's error, relative to the bound and to the
    `size` of the two numbers of which the left side is a difference."""
    measured = np.asarray(measured, float)
    bound = np.broadcast_to(np.asarray(bound, float), measured.shape)
    tolerance = ERROR * (np.where(np.isfinite(bound), np.abs(bound), 0.0) + np.asarray(size))
    return Check(name, equation, claimed, np.asarray(run.derivative.ts), measured, bound, tolerance)


def _constants(run: Measured) -> dict[str, Any]:
    weights = [np.asarray(w) for w in run.net.weights]
    spectral = [float(np.linalg.norm(w, 2)) for w in weights]
    rho = max(1.0, float(np.linalg.norm(weights[0])) / spectral[0])
    return {
        "depth": run.net.depth,
        "epsilon": float(run.net.epsilon),
        "beta": max(spectral),
        "stable_rank_root": rho,
        "alignment": min(run.task.alignment, 1.0),
    }


def _growth(run: Measured, reading: str, assumption: bool) -> tuple[_Times, _Times]:
    """u and v over time."""
    terms = theorem_5_2(
        np.asarray(run.derivative.ts),
        gamma=1.0,
        dim=run.task.rank,
        num_samples=run.task.num_samples,
        reading=reading,  # pyright: ignore
        assumption_5_1=assumption,
        **_constants(run),
    )
    return np.asarray(terms.u), np.asarray(terms.v)


def weight_norms(run: Measured) -> list[Check]:
    """Lemma 7.1: $\\|W_l\\| \\le u$ and $\\|W_1\\|_F \\le \\rho u$.

    **Arguments:**

    - `run`: a [`Measured`][].

    **Returns:**

    Two checks: as printed, and with the repaired u, without Assumption 5.1.
    """
    rho = _constants(run)["stable_rank_root"]
    sides = run.sides
    spectral = np.asarray(sides.spectral).max(axis=1)
    measured = np.maximum(spectral, np.asarray(sides.frobenius)[:, 0] / rho)
    text = "Lemma 7.1: ||W_l|| and ||W_1||_F/rho <= u"
    printed, _ = _growth(run, "printed", True)
    repaired, _ = _growth(run, "repaired", False)
    return [
        make(run, "norms-printed", f"{text}, printed", measured, printed, claimed=False),
        make(run, "norms-repaired", f"{text}, repaired", measured, repaired, claimed=True),
    ]


def slope_dependence(run: Measured) -> list[Check]:
    """Lemma 7.1: the dependence of the weights on the slope against v, as the derivative at
    frozen activations (what the proof bounds), as the true derivative (which it claims to bound)
    and as a difference quotient (what the repaired theorem bounds).

    **Arguments:**

    - `run`: a [`Measured`][].

    **Returns:**

    A check for each of the three and each reading of v; one of them is claimed.
    """
    derivative = run.derivative
    norms = {"frozen": np.asarray(derivative.norms["frozen"]).max(axis=1)}
    if derivative.central is not None:
        norms["true"] = np.asarray(derivative.norms["central"]).max(axis=1)
    norms["difference"] = np.asarray(run.sides.difference).max(axis=1)
    words = {
        "frozen": "||dW_l/dtau||_F at frozen activations",
        "true": "||dW_l/dtau||_F, central difference",
        "difference": "||W_l^eps - W_l^0||_F/eps",
    }
    weights = np.asarray(run.sides.frobenius).max(axis=1)
    epsilon = float(run.net.epsilon)
    rates = {name: _growth(run, name, name == "printed")[1] for name in ("printed", "repaired")}
    checks = []
    for name, measured in norms.items():
        for reading, v in rates.items():
            claimed = (name, reading) == ("difference", "repaired")
            text = f"Lemma 7.1: {words[name]} <= v, {reading}"
            size = weights / epsilon if name == "difference" and epsilon > 0 else 0.0
            check = make(run, f"{name}-{reading}", text, measured, v, claimed=claimed, size=size)
            checks.append(check)
    return checks


def proxy_deviation(run: Measured) -> list[Check]:
    """Lemma 7.3: the network against the proxy of Eq. 25 at each sample (Eq. 26) and in root mean
    square over the training set (Eq. 27).

    **Arguments:**

    - `run`: a [`Measured`][].

    **Returns:**

    Two checks as printed and two with the repaired u and v, without Assumption 5.1.
    """
    depth, epsilon = run.net.depth, float(run.net.epsilon)
    inner = 1 + (depth - 1) * _constants(run)["stable_rank_root"]
    factors = {
        "pointwise": (depth - 1) * (depth + inner),
        "root-mean-square": 2 * (depth - 1) * inner,
    }
    sides = {
        "pointwise": ("Eq. 26: max_x |f - proxy|/||x||", run.sides.proxy_pointwise),
        "root-mean-square": ("Eq. 27: rms(f - proxy)", run.sides.proxy_gap),
    }
    growth = {name: _growth(run, name, name == "printed") for name in ("printed", "repaired")}
    checks = []
    for name, (words, measured) in sides.items():
        for reading, (u, v) in growth.items():
            with np.errstate(invalid="ignore"):
                bound = factors[name] * u ** (depth - 1) * v * epsilon**2
            bound = np.where(np.isnan(bound), np.inf, bound)
            text = f"{words} <= {factors[name]:.4g} u^(L-1) v eps^2, {reading}"
            claimed = reading == "repaired"
            # The linear part, where most of the solver's error is, is projected out.
            size = (epsilon + 1e-8) * np.asarray(run.sides.linear_size)
            check = make(
                run, f"{name}-{reading}", text, measured, bound, claimed=claimed, size=size
            )
            checks.append(check)
    return checks


def residuals(run: Measured) -> list[Check]:
    """Lemma 7.4: the residual, and its projection on the inputs.

    **Arguments:**

    - `run`: a [`Measured`][].

    **Returns:**

    Three checks: the residual, its projection under Assumption 5.1, and that assumption itself,
    which is printed but false for some data.
    """
    constants = _constants(run)
    start = constants["stable_rank_root"] * constants["beta"] ** run.net.depth
    error = run.task.y - np.asarray(run.net(run.task.x))
    before = np.linalg.norm(error @ run.task.x) / len(error)
    return [
        make(
            run,
            "residual",
            "Lemma 7.4: rms(Y - f) <= 1 + rho beta^L",
            run.sides.residual,
            1 + start,
            claimed=True,
        ),
        make(
            run,
            "projected-residual",
            "Lemma 7.4: ||(Y - f) X^T||/m <= s + rho beta^L, under Assumption 5.1",
            run.sides.projected,
            constants["alignment"] + start,
            claimed=False,
        ),
        make(
            run,
            "assumption-5.1",
            "Assumption 5.1: ||(Y - f) X^T||/m <= its value at t = 0",
            run.sides.projected,
            before,
            claimed=False,
        ),
    ]


def gradient_alignment(run: Measured) -> list[Check]:
    """Conjecture E.1: the gradients of the loss and of the projected loss are positively aligned.

    **Arguments:**

    - `run`: a [`Measured`][].

    **Returns:**

    One check: minus their cosine against 0.
    """
    text = "Conjecture E.1: -sum_l tr[grad^X_l grad_l^T] (as a cosine) <= 0"
    measured = -np.asarray(run.sides.alignment)
    return [make(run, "conjecture-e.1", text, measured, 0.0, claimed=False)]
