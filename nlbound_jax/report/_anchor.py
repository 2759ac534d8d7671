"""The anchor of a report: the same training on a part of the sample."""

from collections.abc import Sequence
from typing import Any

import jax

from .. import ladder, tasks
from ..networks import LeakyMLP
from ..tasks import AnchorSplit, Task
from ._settings import Settings
from ._train import NothingToLearn, end_time, start_network, train_network


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
    if not settings.anchor_fraction:
        raise ValueError("`anchor_fraction` must be positive for a split, got 0.")
    key = jax.random.key(settings.split_seed)
    return tasks.split(task, key=key, fraction=settings.anchor_fraction)


def train_anchor(
    split: AnchorSplit, settings: Settings, devices: Sequence[Any] | None = None
) -> ladder.Anchor:
    """Train the anchor, and networks on parts of S1 beside it, as the settings say. All of it is a
    matter of S1 alone, also how long it takes.

    **Arguments:**

    - `split`: out of [`declared_split`][].
    - `settings`: a [`Settings`][].
    - `devices`: as in [`gradient_flow`][].

    **Returns:**

    An [`Anchor`][].

    **Raises:**

    `ValueError` naming the argument; `RuntimeError` if gradient descent diverged.
    """

    def trained(part: Task) -> LeakyMLP:
        net = start_network(part, settings)
        try:
            t1 = end_time(part, settings)
        except NothingToLearn:
            return net
        return train_network(net, part, settings, t1, devices=devices).network()

    with jax.enable_x64(True):
        others = [(trained(part), part) for part in split.subsamples()]
        return ladder.anchor_of(split, trained(split.anchor), task=split.anchor, others=others)
