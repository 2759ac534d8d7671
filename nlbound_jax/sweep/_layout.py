"""The pieces of a sweep: which block of every axis a piece fills."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from .. import _validate
from ._config import SweepConfig
from ._options import DATA, options_of


class Piece(NamedTuple):
    """A piece of work: its number, and for every axis which block and which slice it is."""

    number: int
    blocks: dict[str, int]
    slices: dict[str, slice]


class Layout:
    """The axes cut into blocks, so that a piece of work is one chunk of every array.

    Axes that change shapes or code have blocks of one; the axes of numbers share the lanes of a
    piece; those that enter the bounds alone are whole in every piece, as they share its flows.
    """

    def __init__(self, config: SweepConfig):
        options = options_of(config.mode)
        self.sizes = {name: len(values) for name, values in config.axes.items()}
        kinds = {name: options[name].kind for name in self.sizes}
        self.lanes = tuple(n for n in self.sizes if kinds[n] == "lane")
        self.after = tuple(n for n in self.sizes if kinds[n] == "after")
        self.outer = tuple(n for n in self.sizes if kinds[n] == "outer")
        self.blocks = dict.fromkeys(self.outer, 1) | {n: self.sizes[n] for n in self.after}
        room = config.chunk or 1
        for name in reversed(self.lanes):
            self.blocks[name] = _balanced(self.sizes[name], room)
            room = max(1, room // self.blocks[name])
        # Data and shapes change as seldom as can be.
        changes = sorted(self.outer, key=lambda n: n not in DATA)
        self._order = (*changes, *self.lanes, *self.after)
        self._counts = tuple(-(-self.sizes[n] // self.blocks[n]) for n in self._order)
        self.num_pieces = math.prod(self._counts)

    @property
    def capacity(self) -> int:
        """The largest number of lanes of a piece."""
        return math.prod(self.blocks[name] for name in self.lanes)

    @property
    def num_flows(self) -> int:
        """The number of combinations, but for the axes that share the flow."""
        return math.prod(n for name, n in self.sizes.items() if name not in self.after)

    def piece(self, number: int) -> Piece:
        """A piece by its number."""
        index = np.unravel_index(number, self._counts)
        blocks = {name: int(b) for name, b in zip(self._order, index, strict=True)}
        slices = {
            n: slice(b * self.blocks[n], min((b + 1) * self.blocks[n], self.sizes[n]))
            for n, b in blocks.items()
        }
        return Piece(number, blocks, slices)

    def places(self, piece: Piece, names: tuple[str, ...]) -> Iterator[dict[str, int]]:
        """The indices along `names` of a piece, the last one fastest."""
        ranges = [piece.slices[n] for n in names]
        for index in np.ndindex(*(r.stop - r.start for r in ranges)):
            yield {n: r.start + i for n, r, i in zip(names, ranges, index, strict=True)}

    def num_lanes(self, piece: Piece) -> int:
        """The number of flows of a piece."""
        return math.prod(piece.slices[n].stop - piece.slices[n].start for n in self.lanes)


def _balanced(size: int, room: int) -> int:
    """Blocks of at most `room`, as equal as can be."""
    return -(-size // -(-size // room))


def share(num_pieces: int, index: int, count: int) -> range:
    """The pieces of process `index` out of `count`: every `count`-th one."""
    return range(index, num_pieces, count)


def parse_shard(text: str) -> tuple[int, int]:
    """A process's share of a sweep as the command line gives it: `3/16` is the index 2 out of 16.

    **Arguments:**

    - `text`: i/n with 1 <= i <= n.

    **Returns:**

    `(index, count)` as [`sweep`][] takes them for `shard`, the index from 0.

    **Raises:**

    `ValueError` if `text` is none.
    """
    first, slash, second = text.partition("/")
    if slash and first.isdecimal() and second.isdecimal() and 1 <= int(first) <= int(second):
        return int(first) - 1, int(second)
    raise ValueError(f"`shard` must be i/n with 1 <= i <= n, got {_validate.shown(text)}.")
