"""The public names of hybridpool, read from the source: what they are, their signatures, members and comments.

Read from the source and not from objects: signatures are then the same under every version of Python, and fields have
the comments (`#:`) that explain them.
"""

import ast
import importlib.util
import inspect
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import attrs

ROOT = Path(__file__).parents[2]
PUBLIC_MODULES = ("hybridpool", "hybridpool.errors", "hybridpool.events", "hybridpool.testing")
#: what calls, decorators and blocks of users need beside plain names
SPECIAL_METHODS = ("__call__", "__aenter__")
#: classes that only the library makes: how it does so is not public
NOT_CONSTRUCTED = {
    "AsyncTask",
    "BaseTask",
    "Call",
    "ChildStats",
    "Handle",
    "Lifespan",
    "PoolLane",
    "RunningTask",
    "SyncHandle",
    "Task",
    "TaskCall",
}

Function = ast.FunctionDef | ast.AsyncFunctionDef


@attrs.frozen
class Field:
    """A class attribute that is declared in a class body: a field of a value, an option."""

    name: str
    type: str
    #: source of the default; empty: none
    default: str
    #: its `#:` comment
    comment: str


@cache
def tree_of(module: str) -> ast.Module:
    """Return the syntax tree of a module."""
    return ast.parse(source_of(module))


@cache
def source_of(module: str) -> str:
    """Return the source of a module."""
    spec = importlib.util.find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).read_text()


def names_of(module: str) -> list[str]:
    """Return the public names of a public module, without its submodules."""
    loaded = importlib.import_module(module)
    if module == "hybridpool.errors":
        return [node.name for node in tree_of(module).body if isinstance(node, ast.ClassDef | ast.FunctionDef)]
    return [name for name in loaded.__all__ if not isinstance(getattr(loaded, name), ModuleType)]


def imported_by(module: str) -> dict[str, str]:
    """Return the modules that a package's `__init__` imports its names from, also those that it imports lazily."""
    return {
        alias.name: node.module or ""
        for node in ast.walk(tree_of(module))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def definition(module: str, name: str) -> ast.stmt:
    """Return the statement that defines a public name."""
    home = imported_by(module).get(name, module)
    for node in tree_of(home).body:
        if isinstance(node, ast.ClassDef | Function) and node.name == name:
            return node
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            return node
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == name:
            return node
    raise LookupError(f"{home} does not define {name}")


# ---- classes -------------------------------------------------------------------------------------------------


def class_nodes(module: str, name: str) -> Iterator[tuple[str, ast.ClassDef]]:
    """Yield a public class and its private bases of hybridpool, whose members it has too, each with its module."""
    home = imported_by(module).get(name, module)
    node = definition(module, name)
    assert isinstance(node, ast.ClassDef)
    yield home, node
    found: Any = getattr(importlib.import_module(module), name)
    for base in found.__mro__[1:]:
        if base.__module__.startswith("hybridpool._"):
            yield from (
                (base.__module__, part)
                for part in tree_of(base.__module__).body
                if isinstance(part, ast.ClassDef) and part.name == base.__name__
            )


def fields(module: str, name: str) -> list[Field]:
    """Return the fields of a class, with their comments."""
    home, node = next(class_nodes(module, name))
    return [
        Field(
            part.target.id,
            ast.unparse(part.annotation),
            ast.unparse(part.value) if part.value else "",
            comment_above(home, part.lineno),
        )
        for part in node.body
        if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name) and part.target.id[0] != "_"
    ]


def comment_above(module: str, line: int) -> str:
    """Return the `#:` comment that ends above a line."""
    lines, found = source_of(module).splitlines(), []
    for text in reversed(lines[: line - 1]):
        if not text.strip().startswith("#"):
            break
        found.append(text.strip().removeprefix("#:").removeprefix("#").strip())
    return " ".join(reversed(found))


def members(module: str, name: str) -> list[str]:
    """Return the names of a class's public methods, properties and attributes."""
    found = [field.name for field in fields(module, name)]
    for _, node in class_nodes(module, name):
        for part in node.body:
            if isinstance(part, Function) and part.name[0] != "_":
                found.append(part.name)
            if isinstance(part, Function) and part.name == "__init__":
                found += [attribute for attribute, _ in _attributes(part)]
    return list(dict.fromkeys(found))


def _attributes(init: Function) -> Iterator[tuple[str, str]]:
    for part in ast.walk(init):
        if not isinstance(part, ast.Assign | ast.AnnAssign):
            continue
        target = part.targets[0] if isinstance(part, ast.Assign) else part.target
        if isinstance(target, ast.Attribute) and ast.unparse(target.value) == "self" and target.attr[0] != "_":
            yield target.attr, f": {ast.unparse(part.annotation)}" if isinstance(part, ast.AnnAssign) else ""


# ---- the snapshot --------------------------------------------------------------------------------------------


def snapshot() -> str:
    """Return every public name, one a line, with its signature; members of classes are indented."""
    lines: list[str] = []
    for module in PUBLIC_MODULES:
        described = [line for name in sorted(names_of(module)) for line in _described(module, name)]
        lines += [module, *(f"    {line}" for line in described), ""]
    return "\n".join(lines)


def _described(module: str, name: str) -> Iterator[str]:
    if name == "__version__":
        yield name
        return
    node = definition(module, name)
    if isinstance(node, Function):
        yield signature(node)
    elif isinstance(node, ast.ClassDef):
        bases = ", ".join(ast.unparse(base) for base in [*node.bases, *node.keywords])
        yield f"class {name}({bases})" if bases else f"class {name}"
        yield from (f"    {line}" for line in _members(module, name))
    else:
        # Not the members of a union: each has its own line.
        yield name if isinstance(getattr(importlib.import_module(module), name), type(int | str)) else ast.unparse(node)


def _members(module: str, name: str) -> Iterator[str]:
    for field in fields(module, name):
        yield f"{field.name}: {field.type}" + (f" = {field.default}" if field.default else "")
    for _, node in class_nodes(module, name):
        for part in node.body:
            if not isinstance(part, Function):
                continue
            if part.name == "__init__" and name not in NOT_CONSTRUCTED:
                yield signature(part)
            if part.name == "__init__":
                yield from (f"{attribute}{kind}" for attribute, kind in _attributes(part))
            if part.name[0] != "_" or part.name in SPECIAL_METHODS:
                yield signature(part)


def signature(function: Function) -> str:
    """Return a function's first line as it is written, on one line."""
    marks = [f"@{ast.unparse(mark)} " for mark in function.decorator_list]
    word = "async def" if isinstance(function, ast.AsyncFunctionDef) else "def"
    returns = f" -> {ast.unparse(function.returns)}" if function.returns else ""
    return f"{''.join(marks)}{word} {function.name}({ast.unparse(function.args)}){returns}"


# ---- tables for the reference --------------------------------------------------------------------------------


def option_table(module: str, name: str, *, has_defaults: bool) -> str:
    """Return a table of options or fields: name, type, default if there are any, meaning."""
    kind = "option" if "Options" in name else "field"
    titles = [kind, "type", *(["default"] if has_defaults else []), "meaning"]
    rows = [f"| {' | '.join(titles)} |", f"| {' | '.join('---' for _ in titles)} |"]
    for field in fields(module, name):
        default = f" `{_plain(field.default)}` |" if has_defaults and field.default else " |" if has_defaults else ""
        rows.append(f"| `{field.name}` | `{_plain(field.type)}` |{default} {_plain(field.comment)} |")
    return "\n".join(rows)


def event_table() -> str:
    """Return a table of events for each module of events: class, meaning, fields."""
    parts = []
    for home in ("_tasks", "_children", "_broker"):
        module = f"hybridpool.events.{home}"
        title = (ast.get_docstring(tree_of(module)) or "").splitlines()[0].rstrip(".")
        rows = [f"**{title}.**", "", "| event | meaning | fields |", "| --- | --- | --- |"]
        for node in tree_of(module).body:
            if isinstance(node, ast.ClassDef):
                named = [
                    f"`{field.name}: {_plain(field.type)}`" + (f" ({_plain(field.comment)})" if field.comment else "")
                    for field in fields(module, node.name)
                ]
                meaning = " ".join((ast.get_docstring(node) or "").split())
                rows.append(f"| `{node.name}` | {_plain(meaning)} | {', '.join(named)} |")
        parts.append("\n".join(rows))
    return "\n\n".join(parts)


def _plain(text: str) -> str:
    return inspect.cleandoc(text).replace("|", "\\|").replace("``", "`")
