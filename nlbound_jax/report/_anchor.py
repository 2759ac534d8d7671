"""The anchor of a report: the same training on a part of the sample."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .. import _validate, ladder, tasks
from ..dynamics import reference_flow
from ..networks import LeakyMLP, initialize
from ..tasks import AnchorSplit, Task
from ._settings import Settings
from ._steps import reference_after, steps_until
from ._train import (
    NothingToLearn,
    check_start,
    end_time,
    save_times,
    start_network,
    train_network,
)


def declared_split(task: Task, settings: Settings) -> AnchorSplit:
    """The split that the settings declare, before the sample is looked at: an anchor that was
    trained elsewhere must know no other sample than `task.x[split.first]`.

    **Arguments:**

    - `task`: the data.
    - `settings`: a [`Settings`][], of which `anchor_fraction` and `split_seed` count.

    **Returns:**

    An [`AnchorSplit`][].

    **Raises:**

    `ValueError` naming the argument: if `anchor_fraction` is 0, and as [`split`][].
    """
    settings = _validate.instance("settings", settings, Settings)
    if not settings.anchor_fraction:
        raise ValueError("`anchor_fraction` must be positive for a split, got 0.")
    key = jax.random.key(settings.split_seed)
    return tasks.split(task, key=key, fraction=settings.anchor_fraction)


def _start(split: AnchorSplit, part: Task, settings: Settings) -> LeakyMLP:
    """A start that S1 determines, as a network on the whitened inputs of a task: the same function
    for all parts of the sample."""
    check_start(settings)
    net = initialize(
        jax.random.key(settings.seed),
        split.x.shape[1],
        settings.width,
        settings.depth,
        epsilon=settings.epsilon,
        beta=settings.beta,
        kind=settings.init,
        dtype=settings.dtype,
    )
    first = split.to_task(np.asarray(net.weights[0]), part)
    return LeakyMLP((jnp.asarray(first, settings.dtype), *net.weights[1:]), net.epsilon)


def _reference(split: AnchorSplit, settings: Settings) -> Sequence[Any]:
    """The reference network of S1 at the times at which its own training would be saved, from the
    start of a report on S1 alone."""
    part = split.anchor
    start = start_network(part, settings)
    try:
        t1 = end_time(part, settings)
    except NothingToLearn:
        return [np.repeat(np.asarray(w)[None], settings.num_times, 0) for w in start.weights]
    if settings.dynamics == "gd":
        # All declared times, also where the training on S1 has fewer: the whole sample's may not.
        steps = steps_until(t1, settings)._replace(saves=settings.num_times)
        return reference_after(start, part.target, steps, settings, envelope=False).weights
    ts = save_times(t1, settings)
    return reference_flow(start, part.target, np.asarray(ts, float), envelope=False).weights


def train_anchor(
    task: Task, split: AnchorSplit, settings: Settings, devices: Sequence[Any] | None = None
) -> ladder.Anchor:
    """Train an anchor on S1 as the settings say, also as to when it ends: it is a matter of S1
    alone. From the same start a network is trained on the whole sample: a start that depends on
    the whole sample, as one on its whitened inputs does, would lead away from the anchor's (near
    ReLU small differences grow). The reference network of S1 starts as that of a report on S1
    does.

    **Arguments:**

    - `task`: the data.
    - `split`: out of [`declared_split`][].
    - `settings`: a [`Settings`][].
    - `devices`: as in [`gradient_flow`][].

    **Returns:**

    An [`Anchor`][], with that network.

    **Raises:**

    `ValueError` naming the argument; `RuntimeError` if gradient descent diverged.
    """

    def trained(part: Task) -> LeakyMLP:
        net = _start(split, part, settings)
        try:
            t1 = end_time(part, settings)
        except NothingToLearn:
            return net
        # Saved as often as a run of the report, with which it so shares its program.
        return train_network(net, part, settings, t1, devices=devices).network()

    with jax.enable_x64(True):
        anchor, whole = trained(split.anchor), trained(task)
        reference = _reference(split, settings)
        return ladder.anchor_of(
            split, anchor, task=split.anchor, trained=(whole, task), reference=reference
        )
