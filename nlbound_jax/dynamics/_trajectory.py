"""What training returns."""

from typing import Any

import equinox as eqx
import jax
import jax.core
import jax.tree_util as jtu
import numpy as np
import xarray as xr
from jaxtyping import Array, Float, PyTree

from .._results import RESULTS
from .._types import ParametersOverTime
from ..networks import LeakyMLP


class Trajectory(eqx.Module):
    """The weights of a network, or the parameters of any module, along training.

    **Attributes:**

    - `ts`: the saved times, `(times,)`, in units of gradient-flow time (for gradient descent the
        number of steps times the step size).
    - `weights`: of a [`LeakyMLP`][] a tuple of arrays `(times out in)`; of any other module the
        module itself with an array `(times ...)` for each parameter and `None` for what is not
        trained.
    - `epsilon`: one minus the negative slope of a `LeakyMLP`, of any other module `None`.
    - `reached`: the time at which training ended.
    - `stats`: solver statistics (`num_steps` and others).
    - `result`: how training ended, a member of `RESULTS`. If it did not get to its end, the
        saved times are those that were reached and the last one is `reached`; under `jit` or
        `vmap`, where shapes are fixed, the entries not reached are `inf` instead.
    - `rest`: of any other module what is not trained of it, with `None` for each parameter; of a
        `LeakyMLP` `None`.
    """

    ts: Float[Array, " times"]
    weights: ParametersOverTime
    epsilon: Float[Array, ""] | None
    reached: Float[Array, ""]
    stats: dict[str, Any]
    result: RESULTS
    rest: PyTree = None

    def network(self, index: int = -1) -> Any:
        """The network at `ts[index]`; the last saved one by default.

        **Arguments:**

        - `index`: an index into `ts`.

        **Returns:**

        A [`LeakyMLP`][], or a module like that at the start.
        """
        weights = jax.tree.map(lambda w: w[index], self.weights)
        if self.epsilon is not None:
            return LeakyMLP(weights, self.epsilon)
        return eqx.combine(weights, self.rest)

    def to_xarray(self) -> xr.Dataset:
        """The trajectory as a labelled dataset.

        **Returns:**

        An `xarray.Dataset` with a variable `W1`, ..., `WL` of dimensions `(t, units, units)`; of
        any other module with a variable for each parameter, named by where it is, as
        `layers[0].bias`, of dimensions of its own after `t`.
        """
        data, attributes = {}, {}
        if self.epsilon is not None:
            attributes["epsilon"] = float(self.epsilon)
            for i, w in enumerate(self.weights, start=1):
                data[f"W{i}"] = (("t", f"unit_{i}", f"unit_{i - 1}"), np.asarray(w))
        else:
            for path, w in jtu.tree_leaves_with_path(self.weights):
                name = jtu.keystr(path).removeprefix(".")
                axes = (f"{name}_{axis}" for axis in range(1, w.ndim))
                data[name] = (("t", *axes), np.asarray(w))
        attributes |= {"reached": float(self.reached), "result": RESULTS[self.result]}
        ts = ("t", np.asarray(self.ts), {"units": "gradient-flow time"})
        return xr.Dataset(data, coords={"t": ts}, attrs=attributes)


def is_concrete(tree: Any) -> bool:
    """Whether no leaf of `tree` is being traced."""
    return not any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(tree))
