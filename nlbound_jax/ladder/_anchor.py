"""A network that a first part of the sample determines, and the second part that certifies."""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .. import _validate
from .._types import AnyArray
from ..bounds import anchor_shapes
from ..networks import LeakyMLP, check_network, in_units
from ..tasks import AnchorSplit, Task


class Anchor(eqx.Module):
    """A network U that S1, the first part of a declared split, and independent randomness
    determine; out of [`anchor_of`][].

    **Attributes:**

    - `split`: the split, an [`AnchorSplit`][].
    - `net`: U on the split's inputs $\\hat x$, float64.
    - `trained`: the network on $\\hat x$ that the anchored bounds are about, if it is another than
        the one at hand, or `None`.
    - `shapes`: how noise is shared out over the units, out of [`anchor_shapes`][], or `None`.
    - `reference`: the reference network of S1 over time, $V_l$ on $\\hat x$, `(times out in)`
        each, or `None`.
    """

    split: AnchorSplit
    net: LeakyMLP
    trained: LeakyMLP | None = None
    shapes: Float[Array, "shapes width"] | None = None
    reference: tuple[Float[Array, "times _out _in"], ...] | None = None

    def test_risk(self, net: LeakyMLP) -> float | None:
        """The share of the test set on which a network errs: an output of 0, or NaN, is an error.

        **Arguments:**

        - `net`: a network on $\\hat x$.

        **Returns:**

        The share; `None` without test data.
        """
        x, y = self.split.x_test, self.split.y_test
        if x is None or y is None:
            return None
        return float(np.mean(~(np.asarray(in_units(net)[0](x)) * y > 0)))

    def on_raw(self, net: LeakyMLP) -> LeakyMLP:
        """A network on $\\hat x$ as one on raw features over the split's scale.

        **Arguments:**

        - `net`: the network.

        **Returns:**

        A [`LeakyMLP`][], the same function.
        """
        first = net.weights[0] @ jnp.asarray(self.split.transform.matrix.T)
        return LeakyMLP((first, *net.weights[1:]), net.epsilon)


def _moved(name: str, net: LeakyMLP, split: AnchorSplit, task: Task | None) -> LeakyMLP:
    """A network on the whitened inputs of a task (raw ones if `None`), on those of the split."""
    width = split.x.shape[1] if task is None else task.rank
    net = check_network(name, net, width)
    first = np.asarray(net.weights[0], float)
    first = split.from_raw(first) if task is None else split.from_task(first, task)
    with jax.enable_x64(True):
        weights = (jnp.asarray(first), *(jnp.asarray(w, float) for w in net.weights[1:]))
        return LeakyMLP(weights, jnp.asarray(net.epsilon, float))


def anchor_of(
    split: AnchorSplit,
    net: LeakyMLP,
    *,
    task: Task | None,
    trained: tuple[LeakyMLP, Task] | None = None,
    others: Sequence[tuple[LeakyMLP, Task]] = (),
    reference: Sequence[Float[AnyArray, "times _out _in"]] | None = None,
) -> Anchor:
    """What the anchored bounds need of an anchor.

    **Arguments:**

    - `split`: out of [`split`][].
    - `net`: the anchor U. It may depend on S1 and on randomness, and on nothing else of the
        sample: neither on S2 nor on what was trained on it, such as when that stopped.

    **Other arguments:**

    - `task`: the task whose whitened inputs it takes, such as `split.anchor`; `None` for raw
        features over the split's scale.
    - `trained`: the network that is to be certified, with its task, if it is another than the one
        that bounds are evaluated on: one that was trained from the anchor's start, for which the
        two are closest.
    - `others`: networks trained alike on parts of S1, each with its task, such as
        [`AnchorSplit.subsamples`][]: they show how noise is best shared out over the units.
    - `reference`: the weights of the reference network of S1 over time, `(times out in)` each, on
        the inputs that `net` takes: for the bound that is known a priori. S1 and independent
        randomness determine all of them, also the times; the network at hand is compared with the
        i-th at the i-th time of its run.

    **Returns:**

    An [`Anchor`][].

    **Raises:**

    `ValueError` naming the argument.
    """
    split = _validate.instance("split", split, AnchorSplit)
    moved = _moved("net", net, split, task)
    certified = None if trained is None else _moved("trained", trained[0], split, trained[1])
    shapes = None
    if others:
        alike = [_moved("others", other, split, of).weights for other, of in others]
        with jax.enable_x64(True):
            shapes = anchor_shapes(moved.weights, alike)
    over_time = None if reference is None else _over_time(reference, moved, split, task)
    return Anchor(split, moved, certified, shapes, over_time)


def _over_time(given, net: LeakyMLP, split: AnchorSplit, task: Task | None):
    """The reference network over time on the split's inputs."""
    arrays = [np.asarray(w, float) for w in given]
    widths = [w.shape[:1] for w in net.weights]
    if (
        len(arrays) != net.depth
        or any(w.ndim != 3 or w.shape[1:2] != n for w, n in zip(arrays, widths, strict=False))
        or len({len(w) for w in arrays}) != 1
    ):
        raise ValueError(
            f"`reference` must be {net.depth} arrays (times out in) of layers like those of `net`, "
            f"got shapes {[w.shape for w in arrays]}."
        )
    # Where its flow stopped there is no anchor.
    first = np.where(np.isfinite(arrays[0]), arrays[0], 0.0)
    first = split.from_raw(first) if task is None else split.from_task(first, task)
    stopped = ~np.all([np.isfinite(w).all(axis=(1, 2)) for w in arrays], axis=0)
    first[stopped] = np.nan
    with jax.enable_x64(True):
        return tuple(jnp.asarray(w) for w in (first, *arrays[1:]))


class Anchored(eqx.Module):
    """The arrays of an [`Anchor`][], for one task.

    **Attributes:**

    - `x`, `y`: S2 in the coordinates $\\hat x$, `(n d)`, and its labels, `(n,)`.
    - `x_first`: S1 in these coordinates, `(m1 d)`.
    - `matrix`: a first-layer matrix on the task's whitened inputs times this acts on $\\hat x$,
        `(rank d)`.
    - `weights`: those of the anchor, on $\\hat x$.
    - `trained`: those of the network that the bounds are about, on $\\hat x$, or `None`.
    - `shapes`: as in the [`Anchor`][].
    - `stretch`: the spectral norm of `matrix`.
    - `times`: the number of anchors in the [`Anchor`][]'s `reference`, or 0.
    """

    x: Float[Array, "n d"]
    y: Float[Array, " n"]
    x_first: Float[Array, "m1 d"]
    matrix: Float[Array, "rank d"]
    weights: tuple[Float[Array, "_out _in"], ...]
    trained: tuple[Float[Array, "_out _in"], ...] | None
    shapes: Float[Array, "shapes width"] | None
    stretch: Float[Array, ""]
    times: int = eqx.field(static=True, default=0)

    def moved(self, net: LeakyMLP) -> tuple[Float[Array, "_out _in"], ...]:
        """The weights of the network that the bounds are about, as they act on $\\hat x$.

        **Arguments:**

        - `net`: the network at hand, on the task's whitened inputs.

        **Returns:**

        Matrices `(out in)`, float64.
        """
        if self.trained is not None:
            return self.trained
        first, *rest = (w.astype(float) for w in net.weights)
        return (first @ self.matrix, *rest)


def anchored(anchor: Anchor, task: Task) -> Anchored:
    """The arrays of an anchor, for networks on the whitened inputs of a task.

    **Arguments:**

    - `anchor`: an [`Anchor`][].
    - `task`: the task that was split.

    **Returns:**

    An [`Anchored`][].

    **Raises:**

    `ValueError` if `task` has other features.
    """
    split, reference = anchor.split, anchor.reference
    matrix = split.from_task(np.eye(task.rank), task)
    return Anchored(
        x=jnp.asarray(split.x, float),
        y=jnp.asarray(split.y, float),
        x_first=jnp.asarray(split.x_first, float),
        matrix=jnp.asarray(matrix, float),
        weights=anchor.net.weights,
        trained=None if anchor.trained is None else anchor.trained.weights,
        shapes=anchor.shapes,
        stretch=jnp.asarray(np.linalg.norm(matrix, 2)),
        times=0 if reference is None else len(reference[0]),
    )
