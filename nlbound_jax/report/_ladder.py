"""Every bound of a run, in every cell (t, gamma)."""

from typing import Any, NamedTuple

import numpy as np

from .._types import Reading
from ..bounds import theorem_5_2, trajectory_bound
from ..dynamics import ReferenceTrajectory, Trajectory
from ..networks import LeakyMLP
from ..tasks import Task
from ._settings import Settings
from ._train import Risks

PLUG_IN = "Sigma_X plugged in for Sigma"
ASSUMES = {
    "printed": ["Assumption 5.1", "the printed proof", PLUG_IN, "rounding to p bits"],
    "repaired": ["Assumption 5.1", PLUG_IN, "rounding to p bits"],
}


class Run(NamedTuple):
    """A trained network and what was measured along the way; `gammas` is `(times ratios)`, in
    units of the reference network's outputs."""

    task: Task
    settings: Settings
    start: LeakyMLP
    trajectory: Trajectory
    reference: ReferenceTrajectory
    gammas: np.ndarray
    risks: Risks


def theorem_rows(run: Run, reading: Reading) -> list[dict[str, Any]]:
    """Theorem 5.2 in one reading. Its premises, beta and rho, are measured on the network that
    was trained, since rounding may lift a norm just above the beta that was asked for."""
    weights = [np.asarray(w, float) for w in run.start.weights]
    spectral = [float(np.linalg.norm(w, 2)) for w in weights]
    settings = run.settings
    terms = theorem_5_2(
        np.asarray(run.trajectory.ts, float)[:, None],
        depth=settings.depth,
        epsilon=settings.epsilon,
        beta=max(spectral),
        gamma=run.gammas,
        stable_rank_root=max(1.0, float(np.linalg.norm(weights[0])) / spectral[0]),
        alignment=min(run.task.alignment, 1.0),
        dim=run.task.rank,
        num_samples=run.task.num_samples,
        kappa=settings.kappa,
        precision_bits=settings.precision_bits,
        delta=settings.delta,
        cells=settings.cells,
        reading=reading,
    )
    blown = ~np.isfinite(np.asarray(terms.u))
    return rows(
        run,
        f"theorem-5.2-{reading}",
        capacity=np.asarray(terms.capacity),
        deviation=np.asarray(terms.deviation),
        a_priori=True,
        assumes=ASSUMES[reading],
        results=np.where(blown, "blow_up", "successful"),
    )


def measured_distances(run: Run) -> np.ndarray:
    """$\\|W_l - V_l\\|_F$ of the trained network, `(times layers)`."""
    pairs = zip(run.trajectory.weights, run.reference.weights, strict=True)
    gaps = [np.asarray(w, float) - np.asarray(v) for w, v in pairs]
    return np.stack([np.linalg.norm(gap, axis=(1, 2)) for gap in gaps], axis=1)


def trajectory_rows(run: Run, *, measured: bool) -> list[dict[str, Any]]:
    """The trajectory bound, from the envelope or from the distances of the trained network."""
    settings, reference = run.settings, run.reference
    terms = trajectory_bound(
        np.asarray(reference.norms)[:, None],
        np.asarray(reference.frobenius)[:, None, 0],
        measured_distances(run)[:, None] if measured else np.asarray(reference.envelope)[:, None],
        epsilon=settings.epsilon,
        gamma=run.gammas,
        dim=run.task.rank,
        num_samples=run.task.num_samples,
        kappa=settings.kappa,
        precision_bits=settings.precision_bits,
        delta=settings.delta,
        cells=settings.cells,
    )
    return rows(
        run,
        "trajectory-measured" if measured else "trajectory",
        capacity=np.asarray(terms.capacity),
        deviation=np.asarray(terms.deviation),
        a_priori=not measured,
        assumes=[PLUG_IN, "rounding to p bits"],
        results=np.where(np.isfinite(terms.distance), "successful", "blow_up"),
    )


def rows(
    run: Run,
    bound: str,
    *,
    capacity: np.ndarray,
    deviation: np.ndarray,
    a_priori: bool,
    assumes: list[str],
    results: np.ndarray,
) -> list[dict[str, Any]]:
    """The entries of `bound`, one a cell; arrays broadcast to `(times ratios)`."""
    shape = run.gammas.shape
    capacity, deviation, results = (
        np.broadcast_to(a, shape) for a in (capacity, deviation, results)
    )
    margin, ramp = np.asarray(run.risks.margin, float), np.asarray(run.risks.ramp, float)
    ts = np.asarray(run.trajectory.ts, float)
    test = None if run.risks.test is None else np.asarray(run.risks.test, float)
    entries = []
    for i, j in np.ndindex(shape):
        penalty = float(capacity[i, j] + deviation[i, j])
        entries.append(
            {
                "bound": bound,
                "kappa": run.settings.kappa,
                "ratio": float(run.settings.ratios[j]),
                "gamma": float(run.gammas[i, j]),
                "t": float(ts[i]),
                "train_margin_risk": float(margin[i, j]),
                "train_ramp_risk": float(ramp[i, j]),
                "capacity": float(capacity[i, j]),
                "deviation": float(deviation[i, j]),
                "value": min(1.0, float(margin[i, j]) + penalty),
                "value_ramp": min(1.0, float(ramp[i, j]) + penalty),
                "test_risk": None if test is None else float(test[i]),
                "a_priori": a_priori,
                "assumes": assumes,
                "result": str(results[i, j]),
            }
        )
    return entries
