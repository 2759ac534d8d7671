"""Messages name what the caller wrote: the argument of the function that was called, the entry of
a file, the option of a command. Each is translated where the one calls the other."""

import contextlib
import re
from collections.abc import Iterator, Mapping


def renamed(message: str, names: Mapping[str, str]) -> str:
    """A message with other names in backquotes."""
    return re.sub(r"`([^`\s]+)`", lambda m: f"`{names.get(m[1], m[1])}`", message)


@contextlib.contextmanager
def naming(**names: str) -> Iterator[None]:
    """A `ValueError` from within about an argument is about what these `names` call it."""
    try:
        yield
    except ValueError as error:
        message = renamed(str(error), names)
        if message == str(error):
            raise
        error.args = (message,)
        raise
