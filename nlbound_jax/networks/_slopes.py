"""The parameters of any module; the slopes of leaky networks in it are none."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array, PyTree

from .._modules import among
from ._conv import LeakyConv
from ._mlp import LeakyMLP


def _sloped(node: Any) -> bool:
    return isinstance(node, LeakyMLP | LeakyConv)


def _slope(net: Any) -> Any:
    return net.epsilon


def without_slopes(tree: PyTree) -> PyTree:
    """A tree without the slope of any [`LeakyMLP`][] or [`LeakyConv`][] in it: `None` stands in its
    place.

    **Arguments:**

    - `tree`: a module, or a tree like its parameters, such as [`leaf_scales`][] of a module.

    **Returns:**

    A PyTree of the same kind.
    """

    def bare(node):
        return eqx.tree_at(_slope, node, None, is_leaf=_nothing) if _sloped(node) else node

    return jax.tree.map(bare, tree, is_leaf=_sloped)


def _nothing(node: Any) -> bool:
    return node is None


def partition(net: PyTree, held: Sequence[Array] = ()) -> tuple[PyTree, PyTree]:
    """The parameters of a module, its floating arrays, and the rest. The slope of a [`LeakyMLP`][]
    or [`LeakyConv`][] is none, wherever it stands.

    **Arguments:**

    - `net`: any module.
    - `held`: arrays of it, as themselves and not by value, that are none either.

    **Returns:**

    Two trees like `net`, each with `None` for what is in the other; `equinox.combine` joins them.
    """

    def trained(node):
        if not _sloped(node):
            return eqx.is_inexact_array(node) and not among(node, held)
        weights = jax.tree.map(lambda w: not among(w, held), node)
        return eqx.tree_at(_slope, weights, False)

    return eqx.partition(net, jax.tree.map(trained, net, is_leaf=_sloped))
