"""Write `api.md`, the reference of the public names and of the command, from the source.

`make docs` runs it. Signatures are read from the source rather than from the imported objects,
so that annotations stay as they were written (`Numeric`, not the union behind it). The table of the
bounds is made of their objects.
"""

import ast
import enum
import functools
import inspect
import re
import types
import typing
from pathlib import Path
from typing import Any, NamedTuple

import typer

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "nlbound_jax"
PAGE = ROOT / "docs" / "api.md"
ROOMS = "tasks networks dynamics bounds ladder checks report figures sweep"
SECTIONS = tuple(ROOMS.split())
TYPES = ("_words.py", "_types.py")
WIDTH = 88
DUNDERS = ("__call__", "__getitem__")
HEAD = """# API

Generated from the docstrings by `make docs`. Equation numbers are those of the paper; the
statements and proofs behind the bounds are in [bounds/README.md](../nlbound_jax/bounds/README.md).
"""

Definition = ast.FunctionDef | ast.ClassDef | ast.Assign


class Source(NamedTuple):
    """A module's text and syntax tree."""

    path: Path
    text: str
    tree: ast.Module


class Item(NamedTuple):
    """A public name: the section and name under which it is public, and its definition."""

    section: str
    name: str
    source: Source
    node: Definition

    @property
    def anchor(self) -> str:
        return ".".join(part for part in (self.section, self.name) if part)


@functools.cache
def read(path: Path) -> Source:
    text = path.read_text(encoding="utf-8")
    return Source(path, text, ast.parse(text))


def locate(path: Path, imported: ast.ImportFrom) -> Path:
    """The file from which an import statement in `path` takes its names."""
    base = path.parents[imported.level - 1] if imported.level else ROOT
    base = base.joinpath(*(imported.module or "").split(".")) if imported.module else base
    return base.with_suffix(".py") if base.with_suffix(".py").exists() else base / "__init__.py"


def define(path: Path, name: str) -> tuple[Source, Definition] | None:
    """Where a name is defined, through any chain of imports; `None` for a module or a name from
    elsewhere."""
    source = read(path)
    for node in source.tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name == name:
            return source, node
        if isinstance(node, ast.Assign) and any(ast.unparse(t) == name for t in node.targets):
            return source, node
        if isinstance(node, ast.ImportFrom) and (node.level or node.module == PACKAGE.name):
            for alias in node.names:
                target = locate(path, node)
                if (alias.asname or alias.name) == name and target != path:
                    return define(target, alias.name) if target.exists() else None
    return None


def exports(path: Path, section: str) -> list[Item]:
    """The names that a contents page (an `__init__`, or the root's stub) makes public."""
    found = []
    for node in read(path).tree.body:
        names = [a.asname or a.name for a in node.names] if isinstance(node, ast.ImportFrom) else []
        for name in names:
            definition = define(path, name)
            if definition is not None:
                found.append(Item(section, name, *definition))
    return found


def segment(source: Source, node: ast.AST) -> str:
    """The source of an expression on one line, with the aliases of its module written out."""
    text = " ".join((ast.get_source_segment(source.text, node) or "").split())
    text = re.sub(r"([\[(]) | ,?(?=[\])])", r"\1", text).replace(",]", "]")
    for name in sorted({n.id for n in ast.walk(node) if isinstance(n, ast.Name)}):
        found = define(source.path, name)
        if found is None or found[0].path.name in TYPES:
            continue
        if isinstance(found[1], ast.Assign) and not isinstance(found[1].value, ast.Call):
            value = segment(found[0], found[1].value)
            text = re.sub(rf"\b{name}\b", value.replace("\\", r"\\"), text)
    return text


def parameters(source: Source, node: ast.FunctionDef) -> list[str]:
    """The parameters as they were written, without `self`."""

    def one(arg: ast.arg, default: ast.expr | None = None, star: str = "") -> str:
        text = star + arg.arg
        if arg.annotation is not None:
            text += f": {segment(source, arg.annotation)}"
        if default is not None:
            text += (" = " if arg.annotation is not None else "=") + segment(source, default)
        return text

    a = node.args
    plain = [*a.posonlyargs, *a.args]
    defaults = [None] * (len(plain) - len(a.defaults)) + a.defaults
    found = [one(arg, default) for arg, default in zip(plain, defaults, strict=True)]
    if a.posonlyargs:
        found.insert(len(a.posonlyargs), "/")
    if plain and plain[0].arg in ("self", "cls"):
        found = found[1:]
    if a.vararg is not None:
        found.append(one(a.vararg, star="*"))
    elif a.kwonlyargs:
        found.append("*")
    found += [one(arg, d) for arg, d in zip(a.kwonlyargs, a.kw_defaults, strict=True)]
    return found + ([one(a.kwarg, star="**")] if a.kwarg is not None else [])


def signature(name: str, source: Source, node: ast.FunctionDef) -> str:
    """A function's first line; one line a parameter where it is long."""
    inside = parameters(source, node)
    end = f") -> {segment(source, node.returns)}" if node.returns is not None else ")"
    line = f"{name}({', '.join(inside)}{end}"
    if len(line) > WIDTH:
        line = "\n".join([f"{name}(", *(f"    {p}," for p in inside), end])
    return line


def fields(source: Source, node: ast.ClassDef) -> list[str]:
    """The annotated fields of a class, and the members of an enumeration."""
    lines = []
    for item in node.body:
        if isinstance(item, ast.AnnAssign):
            line = f"{segment(source, item.target)}: {segment(source, item.annotation)}"
            default = item.value
            if isinstance(default, ast.Call):  # of `field`, which begins with the default
                default = default.args[0] if default.args else None
            if default is not None:
                line += f" = {segment(source, default)}"
            lines.append(line)
        elif isinstance(item, ast.Assign) and isinstance(item.value, ast.Constant):
            lines.append(f"{segment(source, item.targets[0])} = ...")
    return lines


def is_property(node: ast.FunctionDef) -> bool:
    names = {ast.unparse(decorator).split(".")[-1] for decorator in node.decorator_list}
    return bool(names & {"property", "cached_property"})


def members(node: ast.ClassDef) -> list[ast.FunctionDef]:
    """The documented public methods and properties."""
    found = [n for n in node.body if isinstance(n, ast.FunctionDef) and ast.get_docstring(n)]
    return [n for n in found if not n.name.startswith("_") or n.name in DUNDERS]


class Links:
    """From names in docstrings to anchors of the page."""

    def __init__(self, items: list[Item]):
        self.anchors: dict[str, str] = {}
        for item in items:
            self.anchors.setdefault(item.anchor, item.anchor)
            self.anchors.setdefault(item.name, item.anchor)
            for member in members(item.node) if isinstance(item.node, ast.ClassDef) else []:
                self.anchors[f"{item.anchor}.{member.name}"] = f"{item.anchor}.{member.name}"
                self.anchors.setdefault(
                    f"{item.name}.{member.name}", f"{item.anchor}.{member.name}"
                )

    def find(self, name: str, where: str) -> str:
        name = name.removeprefix(f"{PACKAGE.name}.")
        # A bare name inside a class may be one of its members.
        for tried in (f"{where}.{name}", f"{where.rpartition('.')[0]}.{name}", name):
            if tried in self.anchors:
                return self.anchors[tried]
        raise SystemExit(f"make_api: [`{name}`][] in the docstring of {where} is not public.")


def markdown(doc: str, links: Links, where: str) -> str:
    """A docstring for the page: references become links, formulas take the form in which
    GitHub's Markdown leaves their backslashes alone."""
    token = re.compile(
        r"(?P<fence>```.*?```)|\[`(?P<name>[^`]+)`\]\[\]|(?P<code>`[^`]+`)|\$(?P<math>[^$]+)\$",
        flags=re.DOTALL,
    )

    def replace(match: re.Match[str]) -> str:
        if match["name"]:
            return f"[`{match['name']}`](#{links.find(match['name'], where)})"
        if match["math"]:
            return f"$`{' '.join(match['math'].split())}`$"
        return match[0]

    paragraphs = []
    for paragraph in doc.split("\n\n"):
        alone = re.fullmatch(r"\$([^$]+)\$([.,;:]?)", paragraph)
        if alone:
            paragraphs.append(f"```math\n{alone[1]}{alone[2]}\n```")
        else:
            paragraphs.append(paragraph)
    return token.sub(replace, "\n\n".join(paragraphs))


def entry(level: str, anchor: str, code: str, doc: str) -> str:
    text = f'<a id="{anchor}"></a>\n\n{level} `{anchor}`\n\n```python\n{code}\n```\n'
    return f"{text}\n{doc}\n" if doc else text


def render(item: Item, links: Links) -> list[str]:
    """A public name: its signature or fields, its docstring, its methods."""
    source, node, anchor = item.source, item.node, item.anchor
    if isinstance(node, ast.Assign):
        code = f"{item.name} = {segment(source, node.value)}"
        return [entry("###", anchor, code, comment_above(source, node))]
    doc = markdown(ast.get_docstring(node) or "", links, anchor)
    if isinstance(node, ast.FunctionDef):
        return [entry("###", anchor, signature(item.name, source, node), doc)]
    decorators = [f"@{segment(source, d)}" for d in node.decorator_list]
    bases = ", ".join(segment(source, base) for base in node.bases)
    head = f"class {node.name}({bases}):" if bases else f"class {node.name}:"
    body = [f"    {line}" for line in fields(source, node) or ["..."]]
    parts = [entry("###", anchor, "\n".join([*decorators, head, *body]), doc)]
    for member in members(node):
        where = f"{anchor}.{member.name}"
        if is_property(member):
            kind = segment(source, member.returns) if member.returns is not None else "Any"
            code = f"{member.name}: {kind}  # property"
        else:
            code = signature(member.name, source, member)
        doc = markdown(ast.get_docstring(member) or "", links, where)
        parts.append(entry("####", where, code, doc))
    return parts


def comment_above(source: Source, node: ast.stmt) -> str:
    lines = source.text.splitlines()[: node.lineno - 1]
    found = []
    while lines and lines[-1].startswith("# "):
        found.insert(0, lines.pop()[2:])
    return " ".join(found)


def annotation_types() -> str:
    """The aliases of `_words.py` and `_types.py`, with the comments above them."""
    sources, text = [read(PACKAGE / name) for name in TYPES], []
    for source, node in ((s, node) for s in sources for node in s.tree.body):
        if isinstance(node, ast.Assign):
            value = " ".join((ast.get_source_segment(source.text, node.value) or "").split())
            comment = comment_above(source, node)
            line = f"- `{segment(source, node.targets[0])} = {value}`"
            text.append(f"{line}: {comment}" if comment else line)
    return '<a id="types"></a>\n\n## Types in signatures\n\n' + "\n".join(text) + "\n"


def kind_of(hint: Any) -> str:
    """The values that an option takes, in words."""
    if typing.get_origin(hint) is typing.Annotated:
        return kind_of(hint.__origin__)
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        return kind_of(next(a for a in typing.get_args(hint) if a is not type(None)))
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return ", ".join(f"`{member.value}`" for member in hint)
    if typing.get_origin(hint) in (list, tuple):
        return f"{kind_of(typing.get_args(hint)[0])}, repeatable"
    names = {bool: "flag", int: "integer", float: "number", str: "text", Path: "path"}
    return names.get(hint, getattr(hint, "__name__", str(hint)))


def option(param: Any, hint: Any) -> str:
    """A row of a command's table."""
    if param.param_type_name == "argument":
        name = f"`{param.name.upper()}`"
    else:
        name = " / ".join(f"`{text}`" for text in (*param.opts, *param.secondary_opts))
    default = param.default() if callable(param.default) else param.default
    default = default.value if isinstance(default, enum.Enum) else default
    flag = kind_of(hint) == "flag" and not param.secondary_opts
    shown = "required" if param.required else ""
    if not param.required and default is not None and not flag:
        shown = f"`{str(default).lower() if isinstance(default, bool) else default}`"
    text = (param.help or "").replace("|", r"\|")
    return f"| {name} | {kind_of(hint)} | {shown} | {text} |"


def commands(group: Any, prefix: str) -> list[str]:
    """Every visible subcommand with a table of its arguments and options."""
    parts = []
    for name, command in group.commands.items():
        if command.hidden:
            continue
        if hasattr(command, "commands"):
            parts += commands(command, f"{prefix} {name}")
            continue
        signature = inspect.signature(command.callback)
        hints = {p.name: p.annotation for p in signature.parameters.values()}
        params = [p for p in command.params if p.name in hints and not p.hidden]
        rows = [option(p, hints[p.name]) for p in params]
        parts.append(
            f'<a id="{prefix}-{name}"></a>\n\n### `{prefix} {name}`\n\n'
            f"{inspect.cleandoc(command.help or '')}\n\n"
            "| option | takes | default | |\n| --- | --- | --- | --- |\n" + "\n".join(rows) + "\n"
        )
    return parts


def table_of_bounds() -> str:
    """Every bound of the ladder, as its object describes it."""
    from nlbound_jax import ladder

    rows = [
        f"| `{bound.name}` | {'a priori' if bound.a_priori else 'a posteriori'} | "
        f"{', '.join(f'`{name}`' for name in bound.needs) or 'the network'} | {bound.measures} | "
        f"{bound.source} |"
        for bound in ladder.all_bounds()
    ]
    head = "| bound | known | needs | train term | source |\n| --- | --- | --- | --- | --- |\n"
    return "The bounds, in the order of tables:\n\n" + head + "\n".join(rows) + "\n"


def sections() -> dict[str, Path]:
    """The public subpackages, each followed by its own public subpackages."""
    found = {}
    for name in SECTIONS:
        inside = sorted(
            path.relative_to(PACKAGE).parent
            for path in (PACKAGE / name).glob("*/__init__.py")
            if not path.parent.name.startswith("_")
        )
        for folder in (Path(name), *inside):
            found[".".join(folder.parts)] = PACKAGE / folder / "__init__.py"
    return found


def page() -> str:
    """The whole page."""
    from nlbound_jax.cli._app import app

    pages = {name: exports(path, name) for name, path in sections().items()}
    everything = [item for items in pages.values() for item in items]
    where = {(item.source.path, item.name): item.anchor for item in everything}
    root = exports(PACKAGE / "__init__.pyi", "")
    own = [item for item in root if (item.source.path, item.name) not in where]
    links = Links([*everything, *own])
    shown = [f"[`{i.name}`](#{where.get((i.source.path, i.name), i.anchor)})" for i in root]
    body, contents = [], ["- [`nlbound_jax`](#nlbound_jax): " + ", ".join(shown)]
    doc = ast.get_docstring(read(PACKAGE / "__init__.py").tree) or ""
    body.append(
        f'<a id="nlbound_jax"></a>\n\n## `nlbound_jax`\n\n{markdown(doc, links, "nlbound_jax")}\n\n'
        f"From the root: the subpackages below and {', '.join(shown)}.\n"
    )
    body += [text for item in own for text in render(item, links)]
    for name, items in pages.items():
        full = f"{PACKAGE.name}.{name}"
        doc = markdown(ast.get_docstring(read(sections()[name]).tree) or "", links, name)
        body.append(f'<a id="{full}"></a>\n\n## `{full}`\n\n{doc}\n')
        body += [table_of_bounds()] if name == "ladder" else []
        body += [text for item in items for text in render(item, links)]
        listed = ", ".join(f"[`{item.name}`](#{item.anchor})" for item in items)
        contents.append(f"- [`{full}`](#{full})" + (f": {listed}" if listed else ""))
    contents += ["- [Types in signatures](#types)", "- [The command line](#command-line)"]
    body.append(annotation_types())
    body.append('<a id="command-line"></a>\n\n## The command line\n')
    body += commands(typer.main.get_command(app), "nlbound")
    return "\n".join([HEAD, "\n".join(contents) + "\n", *body])


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE.relative_to(ROOT)}")
