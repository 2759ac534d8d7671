"""The shape of the house: who imports whom, what an `__init__` holds, how long files grow."""

import ast
import tomllib
from pathlib import Path

import pytest

pytestmark = pytest.mark.float64

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "nlbound_jax"
FILES = sorted(PACKAGE.rglob("*.py"))
ORDER = ["tasks", "networks", "dynamics", "bounds", "checks", "report", "figures", "sweep", "cli"]
ALLOWED = {name: set(ORDER[:i]) for i, name in enumerate(ORDER)}
ALLOWED["bounds"] = set()
ALLOWED["dynamics"] = {"tasks", "networks"}


def parse(path):
    return ast.parse(path.read_text())


def ident(path):
    return str(path.relative_to(PACKAGE))


def internal_imports(tree, path):
    """(node, subpackage) for every import of another subpackage."""
    inside = path.relative_to(PACKAGE).parts
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level == 2:
            names = [node.module] if node.module else [alias.name for alias in node.names]
            yield from ((node, name.split(".")[0]) for name in names)
        elif isinstance(node, ast.ImportFrom) and node.level == 1 and len(inside) == 1:
            yield node, (node.module or "").split(".")[0]
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [alias.name for alias in node.names]
            names += [getattr(node, "module", None) or ""]
            assert not any(name.split(".")[0] == "nlbound_jax" for name in names), ident(path)


@pytest.mark.parametrize("path", FILES, ids=ident)
def test_imports_point_one_way(path):
    here = path.relative_to(PACKAGE).parts[0]
    for _, target in internal_imports(parse(path), path):
        if target in ORDER and here != target:
            assert target in ALLOWED.get(here, set()), f"{ident(path)} imports {target}"


@pytest.mark.parametrize("path", FILES, ids=ident)
def test_no_internal_import_inside_a_function(path):
    if path.relative_to(PACKAGE).parts[0] == "cli":
        return
    tree = parse(path)
    functions = [n for n in ast.walk(tree) if isinstance(n, (ast.FunctionDef, ast.Lambda))]
    inner = {id(n) for f in functions for n in ast.walk(f)}
    relative = [n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.level]
    assert not [n.lineno for n in relative if id(n) in inner]


@pytest.mark.parametrize("path", [f for f in FILES if f.name == "__init__.py"], ids=ident)
def test_init_is_a_contents_page(path):
    body = parse(path).body
    assert ast.get_docstring(parse(path)), "an __init__ needs a docstring"
    for node in body[1:]:
        if path.parent == PACKAGE and isinstance(node, (ast.Assign, ast.Import)):
            continue
        assert isinstance(node, ast.ImportFrom), ast.dump(node)
        assert all(alias.asname == alias.name for alias in node.names), ast.dump(node)


@pytest.mark.parametrize("path", FILES, ids=ident)
def test_files_and_functions_are_small(path):
    assert len(path.read_text().splitlines()) <= 400
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.FunctionDef):
            lines = node.end_lineno - node.lineno + 1
            doc = node.body[0] if ast.get_docstring(node) else None
            lines -= doc.end_lineno - doc.lineno + 1 if doc else 0
            signature = node.body[0].lineno - node.lineno
            assert lines - signature <= 60, f"{node.name} has {lines - signature} lines of code"


@pytest.mark.parametrize("path", FILES, ids=ident)
def test_a_raised_error_has_one_argument(path):
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            assert len(node.exc.args) <= 1, f"{ident(path)}:{node.lineno}"


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
