"""The Zarr store of a sweep: one chunk of every array a piece, and a mark for a piece that is
complete."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr
from zarr.storage import MemoryStore

from .. import _validate
from .._writing import PARTIAL, one_line, room_of, writable, write_bytes, write_folder
from ._layout import Layout, Piece
from ._variables import Variable

MARKS = ".pieces"
KIND = "nlbound_jax sweep"


def _flat(config: dict[str, Any]) -> dict[str, Any]:
    return {f"{table}.{n}": v for table, rows in config.items() for n, v in rows.items()}


class Store:
    """The store at `path`, made if need be, for the arrays `variables`.

    A piece is a result if its mark is there and every chunk has the digest that the mark has
    for it. Marks are written last and moved into place.
    """

    def __init__(
        self,
        path: Path,
        config: dict[str, Any],
        layout: Layout,
        variables: list[Variable],
        coordinates: xr.Dataset,
    ):
        self.path, self.layout = path, layout
        self.variables = {v.name: v for v in variables}
        self.inner = {str(name): int(n) for name, n in coordinates.sizes.items()}
        attrs = {"kind": KIND, "configuration": json.dumps(config)}
        attrs |= {"pieces": layout.num_pieces, "flows": layout.num_flows}
        if not path.exists():
            self._create(coordinates.assign_attrs(coordinates.attrs | attrs))
        _same_configuration(path, config)
        self._arrays = {
            name: zarr.open_array(path / name, mode="r", zarr_format=2) for name in self.variables
        }

    def _create(self, coordinates: xr.Dataset) -> None:
        """Make the empty store beside `path` and move it into place: whoever comes first wins."""
        files = {}
        memory = MemoryStore(files)
        coordinates.to_zarr(memory, mode="w", zarr_format=2, consolidated=False)
        group = zarr.open_group(memory, mode="r+", zarr_format=2)
        named = " ".join(str(n) for n in coordinates.coords if n not in coordinates.sizes)
        for variable in self.variables.values():
            extra = {"coordinates": named} if named else {}
            sizes = self.layout.sizes | self.inner
            group.create_array(
                variable.name,
                shape=tuple(sizes[d] for d in variable.dims),
                chunks=self._chunk(variable),
                dtype=variable.dtype,
                fill_value=np.nan if variable.dtype.startswith("f") else None,
                attributes={"_ARRAY_DIMENSIONS": list(variable.dims), **variable.attrs, **extra},
            )
        zarr.consolidate_metadata(memory, zarr_format=2)
        content = {name: file.to_bytes() for name, file in files.items()}
        with writable("out", "path", self.path):
            write_folder(self.path, {f"{MARKS}/": b"", **content}, replace=False)

    def _chunk(self, variable: Variable) -> tuple[int, ...]:
        sizes = self.inner | self.layout.blocks
        return tuple(sizes[d] for d in variable.dims)

    def empty(self, piece: Piece) -> dict[str, np.ndarray]:
        """Arrays of nothing, of the shape of a piece."""
        sizes = self.inner | {n: s.stop - s.start for n, s in piece.slices.items()}
        return {
            name: v.empty(tuple(sizes[d] for d in v.dims)) for name, v in self.variables.items()
        }

    def _files(self, piece: Piece) -> dict[str, Path]:
        """The chunk of every array."""
        paths = {}
        for name, variable in self.variables.items():
            index = ".".join(str(piece.blocks.get(d, 0)) for d in variable.dims)
            paths[name] = self.path / name / index
        return paths

    def _mark(self, piece: Piece) -> Path:
        return self.path / MARKS / f"{piece.number}.json"

    def write(self, piece: Piece, arrays: dict[str, np.ndarray], info: dict[str, Any]) -> None:
        """Write the chunks of a piece, and its mark once they are there; all of them or none."""
        self.discard(piece)
        chunks = {
            file: self._encode(name, piece, arrays[name])
            for name, file in self._files(piece).items()
        }
        digests = {f.parent.name: _digest(content) for f, content in chunks.items()}
        mark = json.dumps(info | {"piece": piece.number, "chunks": digests}).encode()
        chunks[self._mark(piece)] = mark
        what = f"piece {piece.number + 1} of {self.layout.num_pieces} of {str(self.path)!r}"
        with one_line(what, room_of(chunks.values())):
            try:
                for file, content in chunks.items():
                    write_bytes(file, content)
            except BaseException:
                self.discard(piece)
                raise

    def _encode(self, name: str, piece: Piece, array: np.ndarray) -> bytes:
        """The chunk of an array. Zarr writes it into memory: it would write a file in a thread
        of its own, which goes on when this one is interrupted."""
        there, files = self._arrays[name], {}
        # A chunk of nothing but NaN is written like any other.
        with zarr.config.set({"array.write_empty_chunks": True}):
            memory = zarr.create_array(
                files,
                shape=there.shape,
                chunks=there.chunks,
                dtype=there.dtype,
                fill_value=there.fill_value,
                compressors=there.compressors,
                filters=there.filters,
                zarr_format=2,
            )
        dims = self.variables[name].dims
        memory[tuple(piece.slices.get(d, slice(None)) for d in dims)] = array
        return files[self._files(piece)[name].name].to_bytes()

    def discard(self, piece: Piece) -> None:
        """Remove what there is of a piece, its mark first."""
        for file in (self._mark(piece), *self._files(piece).values()):
            file.unlink(missing_ok=True)

    def is_done(self, piece: Piece) -> bool:
        """Whether a piece is a result: marked, and its chunks as they were when it was."""
        try:
            digests = json.loads(self._mark(piece).read_bytes())["chunks"]
        except (OSError, ValueError, KeyError, TypeError):
            return False
        files = self._files(piece)
        return digests == {n: _digest(f.read_bytes()) for n, f in files.items() if f.exists()}

    def tidy(self) -> None:
        """Remove the remains of writes that were cut short; for when all pieces are done."""
        for file in self.path.glob(f"*/*{PARTIAL}"):
            file.unlink(missing_ok=True)


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def read_attributes(name: str, path: Path) -> dict[str, Any]:
    """The attributes of a sweep's store, or one line that calls it `name`."""
    try:
        attributes = json.loads((path / ".zattrs").read_bytes())
        if attributes["kind"] == KIND:
            return attributes
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise ValueError(f"`{name}` must be the store of a sweep, got {str(path)!r}.")


def _same_configuration(path: Path, config: dict[str, Any]) -> None:
    """One line with the first setting in which the store differs."""
    try:
        stored = _flat(json.loads(read_attributes("out", path)["configuration"]))
    except ValueError as error:
        raise ValueError(
            f"{str(error).partition(',')[0]} or a path that does not exist yet, got {str(path)!r}."
        ) from None
    ours = _flat(json.loads(json.dumps(config)))
    for name in (*ours, *(n for n in stored if n not in ours)):
        if stored.get(name) != ours.get(name):
            if name.startswith("data."):
                raise ValueError(
                    f"`settings.dataset` must name the data that {str(path)!r} was made with, "
                    f"got other data of that name."
                )
            raise ValueError(
                f"`{name}` must be as in {str(path)!r}, {_validate.shown(stored.get(name))}, "
                f"got {_validate.shown(ours.get(name))}."
            )


def read_marks(path: Path, known: dict[str, dict[str, Any]] | None = None) -> dict[str, dict]:
    """The marks of the pieces that are complete, without their digests; `known` ones are not
    read again."""
    marks: dict[str, dict[str, Any]] = {}
    for entry in os.scandir(path / MARKS):
        if not entry.name.endswith(".json"):
            continue
        if known is not None and entry.name in known:
            marks[entry.name] = known[entry.name]
            continue
        try:
            mark = json.loads(Path(entry.path).read_bytes())
            mark.pop("chunks")
            marks[entry.name] = mark
        except (OSError, ValueError, KeyError, AttributeError):
            continue
    return marks


def count_marks(marks: dict[str, dict[str, Any]]) -> tuple[int, dict[str, int]]:
    """The flows that are done, and how many of them failed, by outcome."""
    counts: dict[str, int] = {}
    for mark in marks.values():
        for name, n in mark["flows"].items():
            counts[name] = counts.get(name, 0) + n
    failed = {name: n for name, n in counts.items() if name != "successful"}
    return sum(counts.values()), failed
