"""The documentation agrees with the code: the API page, docstrings, links and commands."""

import ast
import dataclasses
import importlib.util
import inspect
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import typer
from test_public import PUBLIC as NAMES

import nlbound_jax
from nlbound_jax import bounds
from nlbound_jax.cli._app import app

pytestmark = pytest.mark.float64

ROOT = Path(__file__).parent.parent
FOLDERS = ("docs", "nlbound_jax", "benchmarks", "notebooks", "tests")
GUIDES = sorted([*ROOT.glob("*.md"), *(p for f in FOLDERS for p in (ROOT / f).rglob("*.md"))])
PUBLIC = NAMES | {
    f"nlbound_jax.bounds.classical.{name}": value
    for name, value in vars(bounds.classical).items()
    if not name.startswith("_") and not inspect.ismodule(value)
}
CLASSES = {name: value for name, value in PUBLIC.items() if inspect.isclass(value)}


@pytest.fixture(scope="module")
def generator():
    spec = importlib.util.spec_from_file_location("make_api", ROOT / "docs" / "make_api.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def page(generator):
    return generator.page()


def anchors(page):
    return re.findall(r'<a id="([^"]+)"></a>', page)


@pytest.mark.quick
def test_the_api_page_is_up_to_date(page):
    # Not a comparison in an assert: pytest would print the difference of two long pages.
    stale = (ROOT / "docs" / "api.md").read_text() != page
    assert not stale, "docs/api.md is stale: run `make docs`"


def test_every_public_name_is_on_the_page(page):
    found = set(anchors(page))
    for name in PUBLIC:
        assert name.removeprefix("nlbound_jax.") in found, name
    for name in nlbound_jax.__all__:
        assert f"`{name}`" in page or f"`nlbound_jax.{name}`" in page, name


def test_every_method_and_property_is_on_the_page(page):
    found = set(anchors(page))
    for name, value in CLASSES.items():
        for member, kind in vars(value).items():
            ours = inspect.isfunction(kind) or isinstance(kind, property)
            if ours and not member.startswith("_") and _written(value, member):
                assert f"{name.removeprefix('nlbound_jax.')}.{member}" in found


def test_the_links_of_the_page_resolve(page):
    found = anchors(page)
    assert len(found) == len(set(found))
    assert set(re.findall(r"\]\(#([^)]+)\)", page)) <= set(found)
    assert "][]" not in page
    assert not re.search(r"0x[0-9a-f]{6}", page)
    assert str(ROOT) not in page


def test_every_option_of_the_command_is_on_the_page(page):
    text = page[page.index('<a id="command-line">') :]
    for name, command in typer.main.get_command(app).commands.items():
        section = text[text.index(f"### `nlbound {name}`") :].split("\n### ")[0]
        for param in command.params:
            if not param.hidden and param.param_type_name == "option":
                assert all(f"`{o}`" in section for o in param.opts if o != "--help")


# --- Docstrings, beyond tests/test_public.py


def tree_of(value):
    """The syntax of a function or class."""
    source = inspect.getsource(inspect.unwrap(value))
    return ast.parse(textwrap.dedent(source)).body[0]


def _written(cls, member):
    """Whether a class's own source has this function (a dataclass adds some)."""
    tree = tree_of(cls)
    return any(isinstance(n, ast.FunctionDef) and n.name == member for n in tree.body)


def public_functions():
    for name, value in PUBLIC.items():
        if inspect.isfunction(value):
            yield name, value
        for member, kind in vars(value).items() if inspect.isclass(value) else []:
            public = not member.startswith("_") or member in ("__call__", "__getitem__")
            if inspect.isfunction(kind) and public and _written(value, member):
                yield f"{name}.{member}", kind


FUNCTIONS = dict(public_functions())


# What does not say yet which error it raises, or what its fields are. Strict: a name that does
# must leave the list.
QUIET = ("_validate.trusted", "_validate.float_dtype", "_validate.is_traced")


def raises(tree):
    """The exceptions that a function raises itself; `_validate` raises ValueError."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            found.add(ast.unparse(node.exc.func))
        called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
        if called.startswith("_validate.") and called not in QUIET:
            found.add("ValueError")
    return found - {"typer.Exit"}


@pytest.mark.quick
def test_what_a_function_raises_is_documented():
    missing = []
    for name, function in FUNCTIONS.items():
        _, heading, text = (function.__doc__ or "").partition("**Raises:**")
        kinds = raises(tree_of(function))
        missing += [(name, kind) for kind in kinds if not heading or f"`{kind}`" not in text]
    assert missing == []


@pytest.mark.quick
def test_the_members_of_a_class_are_documented():
    missing = []
    for name, cls in CLASSES.items():
        for member, kind in vars(cls).items():
            if isinstance(kind, property) and not member.startswith("_"):
                missing += [] if (kind.__doc__ or "").strip() else [f"{name}.{member}"]
        if dataclasses.is_dataclass(cls):
            fields = [field.name for field in dataclasses.fields(cls)]
            missing += [f"{name}.{f}" for f in fields if f"`{f}`" not in (cls.__doc__ or "")]
    assert missing == []


def faults_of_form(doc):
    """What makes a docstring's Markdown read wrong."""
    for mark in "`$":
        if doc.count(mark) % 2:
            yield f"an odd number of {mark}"
    headings = re.findall(r"^\*\*([A-Z][a-z ]+)s?:\*\*$", doc, flags=re.MULTILINE)
    if len(headings) != len(set(headings)):
        yield "a heading twice"
    for match in re.finditer(r"^\*\*[A-Z][a-z ]+:\*\*", doc, flags=re.MULTILINE):
        before, after = doc[: match.start()], doc[match.end() :]
        if not (before.endswith("\n\n") and after.startswith("\n\n")):
            yield f"no blank line on both sides of {match.group()}"


@pytest.mark.quick
def test_docstrings_are_well_formed():
    documented = PUBLIC | {"nlbound_jax.citation": nlbound_jax.citation}
    docs = {name: inspect.cleandoc(value.__doc__ or "") for name, value in documented.items()}
    assert [(name, fault) for name, doc in docs.items() for fault in faults_of_form(doc)] == []
    assert len(list(faults_of_form("`a\n**Returns:** b\n\n**Raises:**\n\n**Raises:**\n\n"))) == 3


# --- Guides


def broken_links(path):
    text = re.sub(r"```.*?```|`[^`]*`", "", path.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?://|mailto:", target):
            continue
        file, _, fragment = target.partition("#")
        where = path.parent / file if file else path
        if not where.exists():
            yield f"{path.name} links to {target}"
        elif fragment and where.suffix == ".md" and fragment not in slugs(where.read_text()):
            yield f"{path.name} links to {target}"


@pytest.mark.quick
def test_relative_links_exist(tmp_path):
    assert [link for path in GUIDES for link in broken_links(path)] == []
    page = tmp_path / "page.md"
    page.write_text("# A head\n[right](#a-head) [no head](#b-head) [no file](none.md)")
    assert len(list(broken_links(page))) == 2


def slugs(text):
    """The anchors that GitHub gives to headings, and those in the text."""
    text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    heads = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    made = [re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-") for head in heads]
    return {*made, *anchors(text)}


def test_files_that_a_guide_names_exist():
    missing = []
    for name in ("README.md", "CONTRIBUTING.md"):
        text = re.sub(r"```.*?```", "", (ROOT / name).read_text(), flags=re.DOTALL)
        for code in re.findall(r"`([^`\n]+)`", text):
            a_path = re.fullmatch(r"[\w./-]+/[\w./-]*|[\w-]+\.(?:md|py|toml|pyi)", code)
            if a_path and "_name" not in code:
                places = [ROOT / code, ROOT / "nlbound_jax" / code]
                places += (ROOT / "nlbound_jax").rglob(code) if "/" not in code else []
                missing += [] if any(p.exists() for p in places) else [f"{name} names {code}"]
    assert missing == []


def commands_in(name):
    """Every `nlbound` and `make` command line in a guide, in blocks and in the text."""
    text = (ROOT / name).read_text()
    blocks = re.findall(r"```\n(.*?)```", text, flags=re.DOTALL)
    lines = [line.strip() for block in blocks for line in block.splitlines()]
    lines += re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    starts = ("nlbound ", ".venv/bin/nlbound ", "make ")
    found = [line.split("#")[0].strip() for line in lines if line.startswith(starts)]
    found = {line.removeprefix(".venv/bin/") for line in found}
    # In the text a command may be named without its arguments.
    return sorted(line for line in found if len(line.split()) > 2 or line.startswith("make"))


COMMANDS = [*commands_in("README.md"), *commands_in("CONTRIBUTING.md")]


def misread(line):
    """What is wrong with a command line of a guide; parsed, not run."""
    program, name, *arguments = line.split()
    if program == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
        return None if name in targets else "no such target"
    command = typer.main.get_command(app).commands.get(name)
    if command is None:
        return "no such command"
    try:
        command.make_context(name, arguments)
    except Exception as error:  # of click, which Typer may carry under a name of its own
        return repr(error)


@pytest.mark.quick
def test_the_commands_of_the_guides_are_understood():
    assert sum(line.startswith("nlbound ") for line in COMMANDS) > 9
    assert {line: fault for line in COMMANDS if (fault := misread(line))} == {}
    for line in ("make nothing", "nlbound none --t 1", "nlbound bound --t 1 --no-such"):
        assert misread(line)


def test_the_page_is_made_by_one_command(tmp_path):
    """The table of the bounds is made of their objects, the rest of the source: no pictures."""
    code = (
        "import runpy, sys; made = runpy.run_path('docs/make_api.py')['page'](); "
        "assert 'matplotlib' not in sys.modules; print(len(made))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert int(run.stdout) > 10_000
