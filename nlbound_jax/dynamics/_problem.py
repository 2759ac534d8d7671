"""What a training is: of which parameters, on which data, by which gradient."""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float

from .. import _validate
from .._results import RESULTS
from .._types import Parameters, ParametersOverTime
from ..networks import LeakyMLP, check_network
from ..tasks import ClassTask, Task
from ._field import Blocks, SampleBlocks, make_blocks, make_sample_blocks
from ._model import Model, check_module, check_outputs, squared_loss
from ._trajectory import Trajectory


class Problem(eqx.Module):
    """A module, data and a loss, checked.

    - `net`: the module at the start; `parameters`: what is trained of it.
    - `model`: the slope of a `LeakyMLP` whose loss is the squared one, else a `Model`.
    """

    net: Any
    task: Any
    parameters: Parameters
    model: Float[Array, ""] | Model

    @property
    def dtype(self) -> Any:
        """Of the parameters, the training and its times."""
        return jax.tree.leaves(self.parameters)[0].dtype

    def blocks(self, mesh: Mesh | None) -> Blocks | SampleBlocks:
        """The data as the gradient takes it."""
        if isinstance(self.model, Model):
            return make_sample_blocks(self.task.x, _targets(self.task), self.dtype, mesh)
        return make_blocks(self.task, self.dtype, mesh)

    def weights(self, parameters: Parameters) -> Parameters:
        """The parameters as a [`Trajectory`][] has them."""
        return parameters.weights if isinstance(parameters, LeakyMLP) else parameters

    def trajectory(
        self,
        ts: Float[Array, " times"],
        parameters: ParametersOverTime,
        reached: Float[Array, ""],
        stats: dict[str, Any],
        result: RESULTS,
    ) -> Trajectory:
        """The trained module over time."""
        weights, ends = self.weights(parameters), (reached, stats, result)
        if isinstance(self.net, LeakyMLP):
            return Trajectory(ts, weights, self.net.epsilon, *ends)
        return Trajectory(ts, weights, None, *ends, self.model.rest)  # pyright: ignore


def _targets(task: Task | ClassTask) -> np.ndarray:
    return task.y if isinstance(task, Task) else task.targets


def pose(
    net: Any, task: Any, loss: Callable[..., Any] | None, held: Sequence[Array] = ()
) -> Problem:
    """The problem that the arguments of a training describe; `ValueError` if they do not. Here it
    is decided which gradient is taken: by hand, or of any module. Arrays of the module that are
    `held` are not trained, and then it is always the latter."""
    if isinstance(net, LeakyMLP) and net.num_outputs == 1:
        net = check_network("net", net, _validate.instance("task", task, Task).rank)
        if loss is None and not held:
            return Problem(net, task, net.weights, net.epsilon.astype(net.weights[0].dtype))
    parameters, rest = check_module(net, held)
    if not isinstance(task, Task | ClassTask):
        raise ValueError(f"`task` must be a Task or a ClassTask, got {_validate.shown(task)}.")
    if loss is not None and not callable(loss):
        raise ValueError(
            f"`loss` must be a function loss(predictions, targets), got {_validate.shown(loss)}."
        )
    model = Model(rest, squared_loss if loss is None else loss)
    dtype = jax.tree.leaves(parameters)[0].dtype
    x, y = (jax.ShapeDtypeStruct(a.shape[1:], dtype) for a in (task.x, _targets(task)))
    check_outputs(net, model.loss, loss is None, x, y)
    return Problem(net, task, parameters, model)
