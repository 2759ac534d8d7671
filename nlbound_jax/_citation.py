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

_CORE = ("golikov2024generalization", "nlbound_jax", "jax2018github", "kidger2021equinox")
_FLOW = ("kidger2021on", "tsitouras2011runge")
_DESCENT = ("deepmind2020jax", *_FLOW)
_MNIST = ("lecun1998mnist",)
_COUNTING = ("hoeffding1963probability", "chernoff1952measure")
_TRAJECTORY = (*_COUNTING, "clarke1990optimization")
_SPLIT = (
    "mcallester1999some",
    "donsker1983asymptotic",
    "bartlett2002rademacher",
    "ledoux1991probability",
    "mcdiarmid1989method",
    "hoeffding1963probability",
)
_KL = (*_COUNTING, "langford2001bounds", "maurer2004note")

# The start of a row's name in a report, or all of the name of a solver or library.
_NAMES = {
    "theorem-5.2": ("hoeffding1963probability",),
    "trajectory": _TRAJECTORY,
    "split": _SPLIT,
    "Tsit5": _FLOW,
    "Bosh3": ("kidger2021on", "bogacki1989pair"),
    "diffrax": ("kidger2021on",),
    "optax": ("deepmind2020jax",),
    "mnist": _MNIST,
    "jax": (),
    "equinox": (),
    "nlbound_jax": (),
}
_ROWS = ("theorem-5.2", "trajectory", "split")

_GOLOWICH = ("golowich2018size", "bartlett2002rademacher", "ledoux1991probability")
# By the name of the function, which is that of a row but for dashes.
_CLASSICAL = {
    "counting": ("hoeffding1963probability", "shalev2014understanding"),
    "vc": ("bartlett2019nearly", "anthony1999neural"),
    "frobenius": _GOLOWICH,
    "path_norm": ("neyshabur2015norm", *_GOLOWICH),
    "path_norm_l2": ("neyshabur2015norm", *_GOLOWICH),
    "spectral": ("bartlett2017spectrally", "bartlett2002rademacher"),
    "pac_bayes_spectral": ("neyshabur2018pac", "mcallester1999some", "davidson2001local"),
    "pac_bayes_gaussian": (
        "dziugaite2017computing",
        "langford2001bounds",
        "maurer2004note",
        "kingma2015variational",
        "deepmind2020jax",
    ),
}

# The start of the name of the module in which an object is defined; the longest wins.
_MODULES = {
    "nlbound_jax": (),
    "nlbound_jax.tasks._mnist": _MNIST,
    "nlbound_jax.dynamics": _FLOW,
    "nlbound_jax.dynamics._descent": _DESCENT,
    "nlbound_jax.dynamics._learning_time": (),
    "nlbound_jax.dynamics._reference": (*_FLOW, "clarke1990optimization"),
    "nlbound_jax.bounds._theorem52": ("hoeffding1963probability",),
    "nlbound_jax.bounds._grid": ("hoeffding1963probability",),
    "nlbound_jax.bounds._certified": ("hoeffding1963probability", "johansson2017arb"),
    "nlbound_jax.bounds._gamma": ("dlmf",),
    "nlbound_jax.bounds._kl": _KL,
    "nlbound_jax.bounds._trajectory": _TRAJECTORY,
    "nlbound_jax.bounds._split": _SPLIT,
    "nlbound_jax.bounds._noise_ball": _SPLIT,
    "nlbound_jax.bounds._held_out": _SPLIT,
    "nlbound_jax.checks": _FLOW,
    "nlbound_jax.report._report": (*_FLOW, *_TRAJECTORY, *_SPLIT),
    "nlbound_jax.report._seeds": (*_FLOW, *_TRAJECTORY, *_SPLIT),
    "nlbound_jax.report._compare": (
        *(*_FLOW, *_TRAJECTORY, *_SPLIT),
        *(key for keys in _CLASSICAL.values() for key in keys),
    ),
    "nlbound_jax.report._certify": _SPLIT,
    "nlbound_jax.figures": (*_FLOW, *_MNIST, *_TRAJECTORY, *_SPLIT),
    "nlbound_jax.figures._figure8": (*_FLOW, *_MNIST, "bogacki1989pair"),
    "nlbound_jax.sweep": (*_FLOW, *_TRAJECTORY, *_SPLIT),
}


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
    rows = [row for row in _ROWS if re.match(rf"{re.escape(row)}(-|$)", name)]
    classical = name.removeprefix("classical-").replace("-", "_")
    return _NAMES.get(rows[0] if rows else name, _CLASSICAL.get(classical))


def _all_classical() -> list[str]:
    return [key for keys in _CLASSICAL.values() for key in keys]


def _of_definition(kind: Any) -> list[str]:
    """The keys for a function, a class or a module of this library."""
    if isinstance(kind, types.ModuleType):
        names = [_rule(kind.__name__), *(m for m in _MODULES if m.startswith(f"{kind.__name__}."))]
        found = [key for name in names for key in _MODULES[name]]
        everything = "nlbound_jax.bounds.classical".startswith(kind.__name__)
        return found + (_all_classical() if everything else [])
    found = [*_MODULES[_rule(kind.__module__)], *_cited_in(kind.__doc__ or "")]
    if ".classical." in kind.__module__:
        all_of_them = kind.__name__ == "all_bounds"
        found += _all_classical() if all_of_them else _CLASSICAL.get(kind.__name__, ())
    return found


def _of_instance(used: Any) -> list[str]:
    """The keys for an object of this library, which may say more than its class."""
    kind = type(used).__name__
    if kind == "ClassicalBound":
        return [*_CLASSICAL.get(used.name, ()), *_cited_in(used.source)]
    if kind not in ("Report", "Certificate", "SavedRun", "Settings", "Task"):
        return _of_definition(type(used))
    found: list[str] = []
    if kind in ("Report", "Certificate"):
        found += [key for row in used.bounds for key in _of_name(row["bound"]) or ()]
    if kind in ("Report", "SavedRun", "Settings"):
        settings = used if kind == "Settings" else used.settings
        found += _DESCENT if settings.dynamics == "gd" else _FLOW
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
