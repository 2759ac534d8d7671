"""The bounds of a network that was trained elsewhere."""

from collections.abc import Sequence
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from .. import _validate, ladder
from ..ladder import AbstractBound, Anchor
from ..networks import LeakyMLP, check_network, in_units
from ..tasks import Task
from ._report import certified_by, summary
from ._rows import row


class Certificate(eqx.Module):
    """What [`certify`][] found.

    **Attributes:**

    - `bounds`: the bounds, a tuple of [`AbstractBound`][]s.
    - `rows`: one dictionary for each, with the keys of a report's entry, at its best margin; `t` is
        `None`.
    - `network`: the network on whitened inputs, a [`LeakyMLP`][].
    - `certified`: the network that a bound is about where that is another, by the bound's name, on
        raw features over the task's scale.
    - `train_risk`, `test_risk`: the share of samples with $y f(x) \\le 0$: an output of 0, or NaN,
        is an error. `test_risk` is `None` without test data.
    - `held_out_trace`: the mean of $\\|\\tilde x\\|^2$ over the test set, beside d, or `None`.
    - `delta`: one minus the confidence of each bound.
    """

    bounds: tuple[AbstractBound, ...]
    rows: list[dict[str, Any]]
    network: LeakyMLP
    certified: dict[str, LeakyMLP]
    train_risk: float
    test_risk: float | None
    held_out_trace: float | None
    delta: float = eqx.field(static=True)

    def __getitem__(self, name: str) -> dict[str, Any]:
        """The entry of a bound.

        **Arguments:**

        - `name`: such as `"split-a-posteriori"` or `"split-no-plug-in"`.

        **Returns:**

        A dictionary of its terms.

        **Raises:**

        `ValueError` if `name` is not one of these.
        """
        rows = {row["bound"]: row for row in self.rows}
        return rows[_validate.member("name", name, tuple(rows))]


def _risk(net: LeakyMLP, x, y) -> float:
    # What is not known to be right (0 and NaN) counts as wrong.
    return float(np.mean(~(np.asarray(in_units(net)[0](x)) * y > 0)))


def certify(
    net: LeakyMLP,
    task: Task,
    *,
    delta: float = 0.01,
    inputs: Literal["whitened", "raw"] = "whitened",
    anchor: Anchor | None = None,
    key: PRNGKeyArray | None = None,
    bounds: Sequence[AbstractBound] | None = None,
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
        without biases are homogeneous), and with a task's `bias` the constant feature, R, after
        them. Of a raw first layer the part in the span of the
        training inputs is kept.
    - `anchor`: an anchor for the anchored bounds, out of [`anchor_of`][]; none by default.
    - `key`: for their draws, which nothing else has used: `jax.random.key(0)` if `None`.
    - `bounds`: bounds of the ladder that need nothing but a network (and an anchor, if there is
        one); by default all of ours.

    **Returns:**

    A [`Certificate`][]: `"split-a-posteriori"`, which plugs in $\\Sigma_X$ for the distribution's
    $\\Sigma$, and, if the task has test inputs and a norm bound known beforehand
    and its whitening dropped no direction (`components`, `cut`), `"split-no-plug-in"`, which does
    not; with an anchor `"anchored"`, which needs none of these,
    `"anchored-one-draw"` and `"anchor-test-bound"`.

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
    anchored = anchor is not None and _validate.instance("anchor", anchor, Anchor) is not None
    known = ladder.known_of(task, depth=net.depth, along=False, anchored=anchored)
    if bounds is None:
        bounds = ladder.applicable(ladder.default_bounds(), known)
    bounds = ladder.checked_bounds(bounds, known)
    with jax.enable_x64(True):
        if inputs == "raw":
            back = task.transform.inverse(np.eye(task.rank)).T
            first = jnp.asarray(np.asarray(net.weights[0], float) @ back, net.weights[0].dtype)
            net = LeakyMLP((first, *net.weights[1:]), net.epsilon)
        terms = ladder.evaluate_network(bounds, net, task, delta, anchor=anchor, key=key)
        certified, risks = certified_by(terms, anchor)
        test = None
        if task.x_test is not None and task.y_test is not None:
            test = _risk(net, task.x_test, task.y_test)
        train = _risk(net, task.x, task.y)
    rows = []
    for bound in bounds:
        best = terms[bound.name].at(int(terms[bound.name].best_margins()))
        risk = risks.get(bound.name, test)
        rows.append(row(bound, best, bound.assumes(task), risk))
    trace = summary(task)["held_out_trace"]
    return Certificate(bounds, rows, net, certified, train, test, trace, delta)
