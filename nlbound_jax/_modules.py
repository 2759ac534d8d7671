"""What an Equinox module must be before it is trained or certified."""

from collections.abc import Iterator, Sequence
from typing import Any

import equinox as eqx
import jax


def in_training(net: Any) -> Iterator[Any]:
    """The parts of a module that are told to be in training, and do something then: a dropout of
    nothing is at rest, and that of attention is one by default."""
    parts = []

    def visit(node: Any) -> bool:
        parts.append(node)
        return False

    jax.tree.leaves(net, is_leaf=visit)
    for part in parts:
        idle = isinstance(part, eqx.nn.Dropout) and isinstance(part.p, int | float) and not part.p
        if not getattr(part, "inference", True) and not idle:
            yield part


def among(node: Any, arrays: Sequence[Any]) -> bool:
    """Whether `node` is itself, not in value, one of `arrays`."""
    return any(node is array for array in arrays)
