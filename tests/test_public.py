"""Every public name is documented, exported once and annotated."""

import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

from nlbound_jax import bounds, checks, dynamics, figures, ladder, networks, tasks

README = Path(__file__).parent.parent / "README.md"
SUBPACKAGES = (tasks, networks, dynamics, bounds, ladder, checks, figures)


def public_objects():
    found = {}
    modules = [(m.__name__, m) for m in SUBPACKAGES]
    # At the root these names are the functions.
    for name in ("report", "sweep"):
        modules.append((f"nlbound_jax.{name}", importlib.import_module(f"nlbound_jax.{name}")))
    for module_name, module in modules:
        for name, value in vars(module).items():
            if not name.startswith("_") and not inspect.ismodule(value):
                found[f"{module_name}.{name}"] = value
    return found


PUBLIC = public_objects()


def functions(value):
    if inspect.isfunction(value):
        return [value]
    members = vars(value).items() if inspect.isclass(value) else []
    return [
        member
        for name, member in members
        if inspect.isfunction(member) and not name.startswith("_") and not overrides(value, name)
    ]


def overrides(cls, name):
    """Whether a base class of this library has the method and says what its arguments are."""
    bases = [base for base in cls.__mro__[1:] if base.__module__.startswith("nlbound_jax.")]
    return any(
        "arguments:**" in (getattr(base, name, None).__doc__ or "").lower() for base in bases
    )


def undocumented(value):
    """What the docstrings and annotations of a public name leave out."""
    if not (value.__doc__ or "").strip():
        yield "no docstring"
    for function in functions(value):
        doc = function.__doc__ or ""
        named = [p for p in inspect.signature(function).parameters.values() if p.name != "self"]
        for p in named:
            if p.annotation is inspect.Parameter.empty:
                yield f"{function.__qualname__}: {p.name} has no annotation"
            if f"`{p.name}`" not in doc:
                yield f"{function.__qualname__} does not document {p.name}"
        if named and "arguments:**" not in doc.lower():
            yield f"{function.__qualname__} has no arguments:**"
        if named and "**Returns:**" not in doc:
            yield f"{function.__qualname__} has no **Returns:**"
        if not doc.strip():
            yield f"{function.__qualname__} has no docstring"


@pytest.mark.quick
def test_public_names_are_documented_and_annotated():
    assert len(PUBLIC) > 90
    assert [(n, found) for n, value in PUBLIC.items() for found in undocumented(value)] == []


def test_what_is_not_documented_is_found():
    def function(a, b: int):
        """Adds `a`."""

    expected = ["a has no annotation", "does not document b", "no arguments:**", "no **Returns:**"]
    found = list(undocumented(function))
    assert all(any(f.endswith(e) for f in found) for e in expected)
    assert len(found) == len(expected)


@pytest.mark.quick
def test_no_name_is_exported_by_two_subpackages():
    names = [name.rsplit(".", 1)[1] for name in PUBLIC]
    assert len(names) == len(set(names))


@pytest.mark.float64
def test_the_root_is_lazy_and_complete():
    code = (
        "import sys, nlbound_jax; assert 'jax' not in sys.modules; "
        "import nlbound_jax.report; assert callable(nlbound_jax.report); "
        "[getattr(nlbound_jax, n) for n in nlbound_jax.__all__]; print(nlbound_jax.__version__)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", out.stdout)


@pytest.mark.float64
def test_the_python_blocks_of_the_readme_run(optimized):
    """One after the other in one process, each with names of its own: what compiles once is not
    compiled again."""
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    assert len(blocks) > 3
    code = f"for block in {blocks!r}: exec(block, {{}})"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
