"""BibTeX of what was used."""

import functools
import importlib.metadata
import importlib.resources
import inspect
import re
import textwrap
import types
from collections.abc import Iterable
from typing import Any

import lazy_loader

_CORE = ("golikov2024generalization", "nlbound_jax", "jax2018github", "kidger2021equinox")
_FLOW = ("kidger2021on", "tsitouras2011runge")
_DESCENT = ("deepmind2020jax", *_FLOW)
_HEAVY_BALL, _NESTEROV = "polyak1964some", "nesterov1983method"
_MNIST = ("lecun1998mnist",)
_HOEFFDING = ("hoeffding1963probability",)
_ONE_DRAW = (
    *("rivasplata2020pac", "viallard2024general", "mhammedi2019pac"),
    *("maurer2004note", "clopper1934use"),
)
_KL = (*_HOEFFDING, "chernoff1952measure", "langford2001bounds", "maurer2004note")

# Loaded when a bound is asked for: the general references need no JAX.
_ladder: Any = lazy_loader.load("nlbound_jax.ladder")

# All of the name of a solver, data set or library.
_NAMES = {
    "Tsit5": _FLOW,
    "Bosh3": ("kidger2021on", "bogacki1989pair"),
    "diffrax": ("kidger2021on",),
    "optax": ("deepmind2020jax",),
    "mnist": _MNIST,
    "jax": (),
    "equinox": (),
    "nlbound_jax": (),
}

# The start of the name of the module in which an object is defined; the longest wins.
_MODULES = {
    "nlbound_jax": (),
    "nlbound_jax.tasks._mnist": _MNIST,
    "nlbound_jax.dynamics": _FLOW,
    "nlbound_jax.dynamics._descent": _DESCENT,
    "nlbound_jax.dynamics._learning_time": (),
    "nlbound_jax.dynamics._reference": (*_FLOW, "clarke1990optimization"),
    "nlbound_jax.dynamics._reference_descent": (_HEAVY_BALL, _NESTEROV),
    "nlbound_jax.bounds._anchored": ("maurer2004note", "clopper1934use", "borell1975brunn"),
    "nlbound_jax.bounds._binomial": ("clopper1934use",),
    "nlbound_jax.bounds._one_draw": _ONE_DRAW,
    "nlbound_jax.bounds._leaves": _ONE_DRAW,
    "nlbound_jax.bounds._class": ("boucheron2013concentration",),
    "nlbound_jax.bounds._certified": (*_HOEFFDING, "johansson2017arb"),
    "nlbound_jax.bounds._gamma": ("dlmf",),
    "nlbound_jax.bounds._kl": _KL,
    "nlbound_jax.checks": _FLOW,
    "nlbound_jax.report._module": _ONE_DRAW,
    "nlbound_jax.report._classes": ("boucheron2013concentration", "clopper1934use"),
    "nlbound_jax.report._report": _FLOW,
    "nlbound_jax.report._seeds": _FLOW,
    "nlbound_jax.report._compare": _FLOW,
    "nlbound_jax.figures": (*_FLOW, *_MNIST),
    "nlbound_jax.figures._figure8": (*_FLOW, *_MNIST, "bogacki1989pair"),
    "nlbound_jax.sweep": _FLOW,
}
# Where bounds of the ladder are at work, by the start of their names: what they cite is cited as
# well.
_DEFAULT, _ALL = ("those of a report",), ("all",)
_WITH_BOUNDS = {
    "nlbound_jax.bounds._theorem52": ("theorem-5.2",),
    "nlbound_jax.bounds._grid": ("theorem-5.2",),
    "nlbound_jax.bounds._trajectory": ("trajectory",),
    "nlbound_jax.bounds._split": ("split",),
    "nlbound_jax.bounds._class": ("split",),
    "nlbound_jax.bounds._noise_ball": ("split",),
    "nlbound_jax.bounds._held_out": ("split",),
    "nlbound_jax.report._report": _DEFAULT,
    "nlbound_jax.report._seeds": _DEFAULT,
    "nlbound_jax.report._compare": _ALL,
    "nlbound_jax.report._certify": ("split",),
    "nlbound_jax.report._classes": ("split",),
    "nlbound_jax.figures": _DEFAULT,
    "nlbound_jax.sweep": _DEFAULT,
    "nlbound_jax.ladder": _ALL,
}


def _of_bounds(start: str) -> list[str] | None:
    """The keys of every bound of the ladder whose name is `start` or begins with it and a dash;
    `None` if there is none."""
    found = [b for b in _ladder.all_bounds() if re.match(rf"{re.escape(start)}(-|$)", b.name)]
    return [key for bound in found for key in bound.cites] if found else None


def _key(entry: str) -> str:
    return re.findall(r"@\w+\{([^,\s]+),", entry)[0]


@functools.cache
def _entries() -> dict[str, str]:
    """By key; in the file an entry is a paragraph behind a line that says what it is cited for."""
    file = importlib.resources.files(__package__ or "") / "references.bib"
    text = file.read_text(encoding="utf-8").strip()
    return {_key(entry): entry for entry in text.split("\n\n")}


def _cited_in(doc: str) -> list[str]:
    """The entries that a docstring cites: the first author's surname, and behind it the year."""
    found = []
    for key, entry in _entries().items():
        author = re.search(r"author = \{([\w-]+),", entry)
        year = re.search(r"year = \{(\d+)\}", entry)
        if author and year:
            between = r"(?:[^.;]|al\.){0,90}?"
            if re.search(rf"\b{author[1]}\b{between}\b{year[1]}\b", doc):
                found.append(key)
    return found


def _of_name(name: str) -> Iterable[str] | None:
    """The keys for a citation key, a row's name, a solver or a library; `None` if unknown."""
    if name in _entries():
        return [name]
    if name in _NAMES:
        return _NAMES[name]
    return _of_bounds(name.removeprefix("classical-").replace("_", "-")) if name else None


def _of_module(module: str) -> list[str]:
    """The keys for what is defined in a module."""
    place = max((m for m in _WITH_BOUNDS if module.startswith(m)), key=len, default=None)
    names = () if place is None else _WITH_BOUNDS[place]
    if names in (_DEFAULT, _ALL):
        bounds = _ladder.default_bounds() if names == _DEFAULT else _ladder.all_bounds()
        used = [key for bound in bounds for key in bound.cites]
    else:
        used = [key for name in names for key in _of_bounds(name) or ()]
    return [*_MODULES[_rule(module)], *used]


def _of_definition(kind: Any) -> list[str]:
    """The keys for a function, a class or a module of this library."""
    if isinstance(kind, types.ModuleType):
        tables = dict.fromkeys((*_MODULES, *_WITH_BOUNDS))
        inner = [name for name in tables if name.startswith(f"{kind.__name__}.")]
        found = [key for name in (kind.__name__, *inner) for key in _of_module(name)]
        everything = "nlbound_jax.bounds.classical".startswith(kind.__name__)
        return found + (_of_module("nlbound_jax.ladder") if everything else [])
    found = [*_of_module(kind.__module__), *_cited_in(kind.__doc__ or "")]
    if ".classical." in kind.__module__:
        if kind.__name__ == "all_bounds":
            found += _of_module("nlbound_jax.ladder")
        found += _of_bounds(kind.__name__.replace("_", "-")) or []
    return found


def _of_instance(used: Any) -> list[str]:
    """The keys for an object of this library, which may say more than its class."""
    kind = type(used).__name__
    if kind == "ClassicalBound":
        return [*(_of_name(used.name) or ()), *_cited_in(used.source)]
    if kind not in ("Report", "Certificate", "SavedRun", "Settings", "Task"):
        return _of_definition(type(used))
    found: list[str] = []
    if kind in ("Report", "Certificate"):
        found += [key for bound in used.bounds for key in bound.cites]
    if kind in ("Report", "SavedRun", "Settings"):
        settings = used if kind == "Settings" else used.settings
        found += _DESCENT if settings.dynamics == "gd" else _FLOW
        if settings.momentum:
            found.append(_NESTEROV if settings.nesterov else _HEAVY_BALL)
    if kind in ("Report", "SavedRun", "Task"):
        data = used.name if kind == "Task" else used.task["name"]
        found += _MNIST if data.startswith("mnist") else ()
    return found


def _rule(module: str) -> str:
    return max((m for m in _MODULES if module.startswith(m)), key=len)


def _of_diffrax(kind: Any) -> Iterable[str]:
    """Diffrax, and the method: its key, or the entries in Diffrax's own docstring."""
    if kind.__name__ in _NAMES:
        return _NAMES[kind.__name__]
    found = re.findall(r"```bibtex\n(.*?)```", inspect.getdoc(kind) or "", flags=re.DOTALL)
    comment = f"% Diffrax's {kind.__name__}:\n"
    return [*_NAMES["diffrax"], *(comment + textwrap.dedent(entry).strip() for entry in found)]


def _keys(used: Any) -> Iterable[str] | None:
    """Keys of entries, or entries; `None` if there is nothing to cite."""
    if isinstance(used, str):
        return _of_name(used)
    if isinstance(getattr(used, "cites", None), tuple):  # a bound of the ladder
        return used.cites if all(key in _entries() for key in used.cites) else None
    module = isinstance(used, types.ModuleType)
    defined = module or hasattr(used, "__qualname__")
    kind = used if defined else type(used)
    library = str(kind.__name__ if module else kind.__module__).split(".")[0]
    if library == "nlbound_jax":
        return _of_definition(used) if defined else _of_instance(used)
    return _of_diffrax(kind) if library == "diffrax" else _NAMES.get(library)


def citation(*used: Any) -> str:
    """BibTeX of what was used.

    ```python
    print(citation(made))  # a report: its bounds, its solver, its data
    print(citation("split-a-priori", bounds.kl_inverse, diffrax.Bosh3()))
    ```

    Every list begins with the paper, this library, JAX and Equinox. A Diffrax solver adds
    Diffrax and the reference of its method; `diffrax.citation` says more of controllers and
    adjoints.

    **Arguments:**

    - `used`: any number of: a [`Report`][], [`Certificate`][], [`Settings`][] or [`Task`][];
        a bound of the ladder;
        the name of a bound as in a report (`"split-a-priori"`); a function, class or subpackage
        of this library; a Diffrax solver; the name of a library, or a key of an entry. With
        none, the general references: those of the paper, the libraries and the data.

    **Returns:**

    The entries, one a paragraph, each behind a comment that says what it is cited for. The
    keys are distinct.

    **Raises:**

    `ValueError` naming `used` if there is nothing to cite for it.
    """
    keys: list[str] = [*_CORE]
    for one in used:
        found = _keys(one)
        if found is None:
            raise ValueError(
                "`used` must be reports, certificates, names of bounds, Diffrax solvers or public "
                f"names of nlbound_jax, got {' '.join(repr(one).split()):.80}."
            )
        keys += found
    if not used:
        keys += [*_DESCENT, *_MNIST]
    entries: dict[str, str] = {}
    for key in keys:
        entry = _entries().get(key, key)
        entries.setdefault(_key(entry), entry)
    version = importlib.metadata.version("nlbound_jax")
    entries["nlbound_jax"] = f"{entries['nlbound_jax'][:-2]},\n  version = {{{version}}}\n}}"
    return "\n\n".join(entries.values())
