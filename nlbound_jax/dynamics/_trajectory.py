"""What training returns."""

from typing import Any

import equinox as eqx
import jax
import jax.core
import numpy as np
import xarray as xr
from jaxtyping import Array, Float

from .._results import RESULTS
from .._types import WeightsOverTime
from ..networks import LeakyMLP


class Trajectory(eqx.Module):
    """The weights of a network along training.

    **Attributes:**

    - `ts`: the saved times, `(times,)`, in units of gradient-flow time (for gradient descent the
        number of steps times the step size).
    - `weights`: a tuple of arrays `(times out in)`.
    - `epsilon`: one minus the negative slope of the network.
    - `reached`: the time at which training ended.
    - `stats`: solver statistics (`num_steps` and others).
    - `result`: how training ended, a member of `RESULTS`. If it did not get to its end, the
        saved times are those that were reached and the last one is `reached`; under `jit` or
        `vmap`, where shapes are fixed, the entries not reached are `inf` instead.
    """

    ts: Float[Array, " times"]
    weights: WeightsOverTime
    epsilon: Float[Array, ""]
    reached: Float[Array, ""]
    stats: dict[str, Any]
    result: RESULTS

    def network(self, index: int = -1) -> LeakyMLP:
        """The network at `ts[index]`; the last saved one by default.

        **Arguments:**

        - `index`: an index into `ts`.

        **Returns:**

        A [`LeakyMLP`][].
        """
        return LeakyMLP(tuple(w[index] for w in self.weights), self.epsilon)

    def to_xarray(self) -> xr.Dataset:
        """The trajectory as a labelled dataset.

        **Returns:**

        An `xarray.Dataset` with a variable `W1`, ..., `WL` of dimensions `(t, units, units)`.
        """
        data = {}
        for i, w in enumerate(self.weights, start=1):
            data[f"W{i}"] = (("t", f"unit_{i}", f"unit_{i - 1}"), np.asarray(w))
        attributes = {
            "epsilon": float(self.epsilon),
            "reached": float(self.reached),
            "result": RESULTS[self.result],
        }
        ts = ("t", np.asarray(self.ts), {"units": "gradient-flow time"})
        return xr.Dataset(data, coords={"t": ts}, attrs=attributes)


def is_concrete(tree: Any) -> bool:
    """Whether no leaf of `tree` is being traced."""
    return not any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(tree))
