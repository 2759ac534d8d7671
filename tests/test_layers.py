"""The shape of the house: who imports whom, what an `__init__` holds, how long files grow.

One test a rule, over all files: it lists every offender.
"""

import ast
import re
import tomllib
from pathlib import Path

import pytest

pytestmark = [pytest.mark.float64, pytest.mark.quick]

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "nlbound_jax"
FILES = sorted(PACKAGE.rglob("*.py"))
ORDER = ["tasks", "networks", "dynamics", "bounds", "ladder"]
ORDER += ["checks", "report", "figures", "sweep", "cli"]
ALLOWED = {name: set(ORDER[:i]) for i, name in enumerate(ORDER)}
ALLOWED["bounds"] = set()
ALLOWED["dynamics"] = {"tasks", "networks"}


def parse(path):
    return ast.parse(path.read_text())


def ident(path):
    return str(path.relative_to(PACKAGE))


def imported(node, file):
    """The dotted names below `nlbound_jax` that an import statement or a call of `import_module`
    in `file` (relative to the package) reaches; `from x import y` gives `x.y`."""
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        # One dot is the folder of the file, each further one the folder above.
        above = len(file.parts) - node.level
        home = ["nlbound_jax", *file.parts[:above]] if node.level else []
        home += [node.module] if node.module else []
        names = [".".join([*home, alias.name]) for alias in node.names]
    elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
        given = [*node.args, *(keyword.value for keyword in node.keywords)]
        names = [a.value for a in given if isinstance(a, ast.Constant)]
        if names and names[0].startswith("."):  # from the package given, else that of the file
            home = names[1:] or [".".join(["nlbound_jax", *file.parts[:-1]])]
            inside = names[0].lstrip(".")
            above = len(names[0]) - len(inside) - 1
            names = [".".join([*home[0].split(".")[: -above or None], inside])]
    else:
        names = []
    return [n.removeprefix("nlbound_jax.") for n in names if n.startswith("nlbound_jax.")]


def wrong_way(tree, file):
    """Every import, at any level and place, of a room that `file` must not know."""
    here = file.parts[0]
    for node in ast.walk(tree):
        for name in imported(node, file):
            room = name.split(".")[0]
            if room in ORDER and room != here and room not in ALLOWED.get(here, set()):
                yield f"{file}:{node.lineno} imports {name}"


def private(tree, file):
    """Every import, at any level and place, of a private module or an underscored name of another
    room. Private modules at the root are for all."""
    for node in ast.walk(tree):
        for name in imported(node, file):
            room = name.split(".")[0]
            hidden = re.match(r"(\w+\.)+?_\w+", name)
            if room in ORDER and room != file.parts[0] and hidden:
                yield f"{file} imports {hidden[0]}"


def absolute(tree, file):
    """Every import of the package by its own name: inside it they are relative."""
    for node in ast.walk(tree):
        relative = isinstance(node, ast.ImportFrom) and node.level
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
        if not relative and any(name.split(".")[0] == "nlbound_jax" for name in names):
            yield f"{file}:{node.lineno}"


def local(tree, file):
    """Every internal import inside a function."""
    functions = [n for n in ast.walk(tree) if isinstance(n, (ast.FunctionDef, ast.Lambda))]
    inner = {id(node): node for f in functions for node in ast.walk(f)}
    for node in inner.values():
        if imported(node, file):
            yield f"{file}:{node.lineno}"


def offenders(rule, files=FILES):
    return [found for path in files for found in rule(parse(path), path.relative_to(PACKAGE))]


def test_imports_point_one_way():
    assert offenders(wrong_way) == []


def test_no_room_imports_what_is_private_in_another():
    assert not offenders(private)


def test_a_private_import_is_caught_wherever_it_stands():
    """The rule itself: statements put into a file of `bounds/classical`."""
    file = Path("bounds", "classical", "_new.py")
    wrong = [
        "from ...networks._mlp import LeakyMLP",
        "from ...networks import _mlp",
        "from ...networks import LeakyMLP, _mlp as mlp",
        "from ...report._report import _order",
        "from ...report import _order",
        "import nlbound_jax.dynamics._flow",
        "import numpy, nlbound_jax.tasks._task as data",
        "from nlbound_jax.report._split import entry",
        "from nlbound_jax.sweep import _store",
        "def late():\n    from ...tasks._npz import from_npz",
        "if TYPE_CHECKING:\n    from ...dynamics._trajectory import Trajectory",
        "importlib.import_module('nlbound_jax.sweep._store')",
        "import_module(name='nlbound_jax.sweep._store')",
        "import_module('...sweep._store', __package__)",
        "import_module('._store', package='nlbound_jax.sweep')",
    ]
    for statement in wrong:
        assert list(private(ast.parse(statement), file)), statement
    right = [
        "from ... import _validate",
        "from ..._results import RESULTS, _private",
        "import nlbound_jax._types",
        "from ...networks import LeakyMLP as _LeakyMLP",
        "from ... import networks as _networks",
        "from .. import _kl",
        "from .._kl import invert, _private",
        "from ._strata import log_cost",
        "import nlbound_jax.bounds._kl",
        "import_module('._strata', __package__)",
        "import_module('.._kl', __package__)",
        "import_module('._store', package='numpy')",
        "from numpy import _core",
        "import dynamics._flow",
    ]
    for statement in right:
        assert not list(private(ast.parse(statement), file)), statement
    # Where a relative import leads depends on the folder that the file is in.
    statement = ast.parse("from ..networks._mlp import LeakyMLP")
    assert list(private(statement, Path("dynamics", "_new.py")))
    assert not list(private(statement, Path("networks", "_new.py")))
    assert not list(private(statement, file))
    assert list(private(ast.parse("from .tasks._npz import from_npz"), Path("_new.py")))


def test_internal_imports_are_relative():
    assert offenders(absolute) == []


def test_no_internal_import_inside_a_function():
    # The command loads JAX only when it is needed, and its help is made of `_numbers`.
    late = ("cli", "_numbers.py")
    outside = [f for f in FILES if f.relative_to(PACKAGE).parts[0] not in late]
    assert offenders(local, outside) == []


def test_an_import_is_caught_wherever_it_stands():
    """The rules themselves: statements put into a file of `bounds/classical`."""
    file = Path("bounds", "classical", "_new.py")
    wrong = [
        "from ...dynamics import gradient_flow",
        "from ...dynamics._flow import gradient_flow",
        "from ... import _validate, networks",
        "import nlbound_jax.dynamics",
        "import numpy, nlbound_jax.tasks._task as data",
        "from nlbound_jax import report",
        "from nlbound_jax.networks import LeakyMLP",
        "def late():\n    from ...tasks import Task",
        "if TYPE_CHECKING:\n    from ...dynamics import Trajectory",
        "importlib.import_module('nlbound_jax.sweep')",
    ]
    for statement in wrong:
        assert list(wrong_way(ast.parse(statement), file)), statement
    right = [
        "from ... import _validate",
        "from ..._types import Weights",
        "from .. import kl_inverse",
        "from .._kl import kl_inverse",
        "from ._strata import strata",
        "import dynamics",
        "from jax import numpy as tasks",
    ]
    for statement in right:
        assert not list(wrong_way(ast.parse(statement), file)), statement
    # The same statement may be right in one room and wrong in another.
    upward = ast.parse("from ..report import report")
    assert not list(wrong_way(upward, Path("figures", "_new.py")))
    assert list(wrong_way(upward, Path("checks", "_new.py")))
    assert list(wrong_way(ast.parse("from .tasks import Task"), Path("_new.py")))
    assert list(wrong_way(ast.parse("from . import tasks"), Path("_new.py")))
    for statement in wrong[3:7]:
        assert list(absolute(ast.parse(statement), file)), statement
    assert len(list(local(ast.parse(wrong[7]), file))) == 1
    assert not list(absolute(ast.parse(wrong[0]), file))
    assert not list(local(ast.parse(wrong[0]), file))


def beside_imports(tree, file):
    if not ast.get_docstring(tree):
        yield f"{file} has no docstring"
    for node in tree.body[1:]:
        if len(file.parts) == 1 and isinstance(node, (ast.Assign, ast.Import)):
            continue
        names = node.names if isinstance(node, ast.ImportFrom) else []
        if not names or any(alias.asname != alias.name for alias in names):
            yield f"{file}:{node.lineno} {ast.unparse(node)[:60]}"


def test_init_is_a_contents_page():
    assert offenders(beside_imports, [f for f in FILES if f.name == "__init__.py"]) == []


def long_functions(tree, file):
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            lines = node.end_lineno - node.lineno + 1
            doc = node.body[0] if ast.get_docstring(node) else None
            lines -= doc.end_lineno - doc.lineno + 1 if doc else 0
            lines -= node.body[0].lineno - node.lineno  # the signature
            if lines > 60:
                yield f"{file}: {node.name} has {lines} lines of code"


def test_files_and_functions_are_small():
    long_files = [ident(f) for f in FILES if len(f.read_text().splitlines()) > 400]
    assert long_files == []
    assert offenders(long_functions) == []


def errors_of_several_arguments(tree, file):
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            if len(node.exc.args) > 1:
                yield f"{file}:{node.lineno}"


def test_a_raised_error_has_one_argument():
    assert offenders(errors_of_several_arguments) == []


def test_every_folder_of_the_layout_exists():
    for name in ORDER:
        assert (PACKAGE / name / "__init__.py").exists()
    for name in ("tests", "benchmarks", "notebooks"):
        assert (ROOT / name).is_dir()


def test_pyproject_names_only_what_exists():
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())
    tool = config["tool"]
    named = [*tool["pyright"]["include"], *tool["pytest"]["ini_options"]["testpaths"]]
    named += [*tool["hatch"]["build"]["targets"]["wheel"]["packages"], config["project"]["readme"]]
    named += config["project"]["license-files"]
    for name in named:
        assert (ROOT / name).exists(), name
    assert (PACKAGE / "py.typed").exists()
