"""Files and folders that are written whole or not at all, and one line if they cannot be."""

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

# No space, no quota, the limit on the size of a file.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_BLOCK = 4096
# What a write that was killed leaves behind.
PARTIAL = ".partial"


class CannotWrite(OSError):
    """One line, with the `errno` of what is behind it."""


def reason(error: OSError) -> str:
    """What the system says, in a few words."""
    if error.strerror or error.errno is None:
        return error.strerror or type(error).__name__
    return os.strerror(error.errno)


@contextlib.contextmanager
def one_line(what: str, room: int) -> Iterator[None]:
    """Raise [`CannotWrite`][] for an `OSError`: `what` could not be written, and takes `room`
    bytes."""
    try:
        yield
    except OSError as error:
        told = CannotWrite(
            f"{what} could not be written: {reason(error)} (it takes {_bytes(room)})."
        )
        told.errno = error.errno
        raise told from None


@contextlib.contextmanager
def writable(name: str, kind: str, path: Path) -> Iterator[None]:
    """Make the folder of `path`, and raise a `ValueError` that names the argument where it cannot
    be written; a disk that fills up is another matter."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        if error.errno in FULL:
            raise
        raise ValueError(
            f"`{name}` must be a {kind} that can be written, got {str(path)!r}: {reason(error)}."
        ) from None


def _bytes(number: int) -> str:
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number} bytes"


def room_of(contents: Iterable[bytes]) -> int:
    """The bytes that files take on the disk, whole blocks."""
    return sum(-(-len(content) // _BLOCK) * _BLOCK for content in contents)


def write_atomically(path: Path, fill: Callable[[BinaryIO], object], room: int) -> None:
    """Write beside `path` and move into place, so that no half-written file is ever seen.

    `room` is told if it fails: about how many bytes it is."""
    with one_line(repr(str(path)), room):
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=PARTIAL)
        try:
            with os.fdopen(handle, "wb") as file:
                fill(file)
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):  # interrupted when it was in place
                os.unlink(temporary)
            raise


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file that is in memory."""
    write_atomically(path, lambda file: file.write(content), len(content))


def write_folder(path: Path, files: Mapping[str, bytes], replace: bool = True) -> None:
    """Write a folder beside `path` and move it into place, over what is there or, without
    `replace`, only if nothing is.

    `files` are its files by their names, with `/` between folders; a name that ends in `/` is an
    empty folder."""
    with one_line(repr(str(path)), room_of(files.values())):
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}"))
        try:
            made = temporary / "new"
            for name, content in files.items():
                if name.endswith("/"):
                    (made / name).mkdir(parents=True, exist_ok=True)
                    continue
                (made / name).parent.mkdir(parents=True, exist_ok=True)
                (made / name).write_bytes(content)
            _move(made, path, temporary / "old", replace)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _move(made: Path, path: Path, old: Path, replace: bool) -> None:
    """Move `made` to `path`, what was there to `old`, and back if that fails."""
    try:
        if replace and path.is_dir():
            os.replace(path, old)
        os.rename(made, path)
    except BaseException as error:
        if old.exists() and not path.exists():
            os.replace(old, path)
        lost = isinstance(error, OSError) and not replace and path.exists()
        if not lost:  # the race to be first
            raise
