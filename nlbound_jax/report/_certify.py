"""The split bound of a network that was trained elsewhere."""

from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .. import _validate
from ..networks import LeakyMLP, check_network
from ..tasks import Task
from ._split import Inputs, Scored, a_posteriori, entry, held_out_trace, margins_of, prepare


@eqx.filter_jit
def _certify(net: LeakyMLP, inputs: Inputs, delta) -> dict[str, Scored]:
    return a_posteriori(net, margins_of(net, inputs), inputs, delta)


class Certificate(eqx.Module):
    """What [`certify`][] found.

    **Attributes:**

    - `bounds`: one dictionary for each version of the split bound, with the keys of a report's
        entry that belong to a single network.
    - `network`: the network on whitened inputs, a [`LeakyMLP`][].
    - `train_risk`, `test_risk`: fractions misclassified; `test_risk` is `None` without test data.
    - `held_out_trace`: the mean of $\\|\\tilde x\\|^2$ over the test set, beside d, or `None`.
    - `delta`: one minus the confidence of each bound.
    """

    bounds: list[dict[str, Any]]
    network: LeakyMLP
    train_risk: float
    test_risk: float | None
    held_out_trace: float | None
    delta: float = eqx.field(static=True)

    def __getitem__(self, name: str) -> dict[str, Any]:
        """The entry of a version.

        **Arguments:**

        - `name`: `"split-a-posteriori"` or `"split-no-plug-in"`.

        **Returns:**

        A dictionary of its terms.

        **Raises:**

        `ValueError` if `name` is not one of these.
        """
        rows = {row["bound"]: row for row in self.bounds}
        return rows[_validate.member("name", name, tuple(rows))]


def _risk(net: LeakyMLP, x, y) -> float:
    return float(np.mean(np.asarray(net(x)) * y < 0))


def certify(
    net: LeakyMLP,
    task: Task,
    *,
    delta: float = 0.01,
    inputs: Literal["whitened", "raw"] = "whitened",
) -> Certificate:
    """A generalization bound for a network that was trained in any way: by any optimizer, for
    any number of steps, from any start. The split bound holds for all weights at once, so no
    flow is run. Statement and proof are in `nlbound_jax/bounds/README.md`, section 6.

    **Arguments:**

    - `net`: the network.
    - `task`: the data; the training set must be the one that the network was trained on, or
        independent of it.

    **Other arguments:**

    - `delta`: one minus the confidence of each bound.
    - `inputs`: what the first layer acts on: `"whitened"` inputs (`task.x`), or `"raw"` ones, as
        `task.transform` takes them, up to a positive factor (which changes nothing: networks
        without biases are homogeneous). Of a raw first layer the part in the span of the
        training inputs is kept.

    **Returns:**

    A [`Certificate`][]: `"split-a-posteriori"`, which plugs in $\\Sigma_X$ for the distribution's
    $\\Sigma$, and, if the task has test inputs and a norm bound known beforehand,
    `"split-no-plug-in"`, which does not.

    **Raises:**

    `ValueError` naming the argument.
    """
    delta = _validate.scalar("delta", delta, low=0, high=1, open_low=True, open_high=True)
    inputs = _validate.member("inputs", inputs, ("whitened", "raw"))
    net = check_network("net", net)
    task = _validate.instance("task", task, Task)
    width = net.weights[0].shape[1]
    expected = task.rank if inputs == "whitened" else task.transform.matrix.shape[0]
    if width != expected:
        raise ValueError(
            f"`net` must have {expected} inputs ({inputs} ones of the task), got {width}."
        )
    with jax.enable_x64(True):
        if inputs == "raw":
            back = task.transform.inverse(np.eye(task.rank)).T
            first = jnp.asarray(np.asarray(net.weights[0], float) @ back, net.weights[0].dtype)
            net = LeakyMLP((first, *net.weights[1:]), net.epsilon)
        scored = _certify(net, prepare(task, net.weights[0].dtype, delta), jnp.asarray(delta))
        trace = held_out_trace(task)
        rows = [entry(name, found, trace, net.depth) for name, found in scored.items()]
        test = None
        if task.x_test is not None and task.y_test is not None:
            test = _risk(net, task.x_test, task.y_test)
        train = _risk(net, task.x, task.y)
    return Certificate(rows, net, train, test, trace, delta)
