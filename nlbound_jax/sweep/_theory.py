"""A piece of Theorem 5.2 alone: numbers in, bounds out, nothing trained."""

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from .._results import CELL_OUTCOMES, cell_flags
from ..bounds import theorem_5_2
from ._config import SweepConfig
from ._ensemble import AXIS
from ._layout import Layout, Piece
from ._options import THEORY


class Theory:
    """Works through pieces of the theorem, the cells of a piece shared by the devices."""

    def __init__(self, config: SweepConfig, layout: Layout, mesh: Mesh):
        self.config, self.layout, self.mesh = config, layout, mesh
        self.sharding = NamedSharding(mesh, PartitionSpec(AXIS))

    def fill(self, piece: Piece, arrays: dict[str, np.ndarray]) -> dict[str, int]:
        """Fill the arrays of a piece, and count its cells by outcome."""
        outer = {n: piece.slices[n].start for n in self.layout.outer}
        options = {n: o.default for n, o in THEORY.items() if o.default is not None}
        options |= self.config.options(outer)
        codes = {n: options[n] for n, o in THEORY.items() if o.kind == "outer"}
        numbers = {n: v for n, v in options.items() if n not in codes}
        cells = int(arrays["result"].size)
        # Every piece has the shape of the largest: nothing is compiled for the last ones.
        size = -(-self.layout.capacity // self.mesh.size) * self.mesh.size
        chosen = np.minimum(np.arange(size), cells - 1)
        lanes = self.layout.lanes
        shape = [piece.slices[n].stop - piece.slices[n].start for n in lanes]
        with jax.enable_x64(True):
            where = np.unravel_index(chosen, shape) if lanes else ()
            for name, index in zip(lanes, where, strict=True):
                values = np.asarray(self.config.axes[name], float)[piece.slices[name]][index]
                numbers[name] = jax.device_put(values, self.sharding)
            terms = theorem_5_2(**numbers, **codes)
            flags = 1 + cell_flags(terms.result)
        for name, array in arrays.items():
            values = flags if name == "result" else np.asarray(getattr(terms, name))
            # Lanes are in the order of the axes, and the other axes have one value in a piece.
            array[...] = np.broadcast_to(values, (size,))[:cells].reshape(array.shape)
        counts = np.bincount(arrays["result"].ravel(), minlength=1 + len(CELL_OUTCOMES))[1:]
        return {k: int(n) for k, n in zip(CELL_OUTCOMES, counts, strict=True) if n}
