"""Each package's docstring has a map of its modules, one entry each, made from their first docstring lines.

    python -m tests.architecture.test_module_maps --write      renew the maps

The docstrings of public packages are for users and name no private modules; docs/explanation/source-map.md has the map
of the top package.
"""

import ast
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOP = ROOT / "hybridpool"
#: the private packages; the public ones have docstrings for users
PACKAGES = sorted(TOP.glob("_*/**/__init__.py"))
WIDTH = 120
#: the map in a docstring: its title, and the indented lines that follow
MAP = re.compile(r"\n\nModules:\n\n(?:    .*\n)+")


def modules(package: Path) -> dict[str, str]:
    """Return the modules and packages that a package holds, each with what it says of itself."""
    found = {}
    for path in sorted(package.iterdir()):
        if path.suffix == ".py" and path.name != "__init__.py":
            found[path.stem] = summary(path)
        elif (path / "__init__.py").is_file():
            found[path.name] = summary(path / "__init__.py")
    return found


def summary(path: Path) -> str:
    """Return the first paragraph of a module's docstring, without its full stop."""
    docstring = ast.get_docstring(ast.parse(path.read_text())) or ""
    return " ".join(docstring.partition("\n\n")[0].split()).removesuffix(".")


def map_of(package: Path) -> str:
    """Return the map of a package's modules."""
    found = modules(package)
    column = max(map(len, found), default=0) + 4
    return "".join(f"{line}\n" for name, text in found.items() for line in _entry(name, text, column))


def _entry(name: str, text: str, column: int) -> Iterator[str]:
    room = WIDTH - 4 - column
    # One line, if the first sentence or its first part fits on one.
    for end in (". ", "; ", ": "):
        if len(text) > room:
            text = text.partition(end)[0]
    yield from textwrap.wrap(
        text,
        WIDTH,
        initial_indent=f"    {name:<{column}}",
        subsequent_indent=" " * (4 + column),
        break_long_words=False,
        break_on_hyphens=False,
    )


def renewed(init: Path) -> str:
    """Return the source of a package's `__init__` with its map made again; a docstring without one gets one."""
    source = init.read_text()
    docstring = re.search(r'\A"""(.*?)"""', source, re.DOTALL)
    assert docstring is not None, f"{init} has no docstring"
    text, made = docstring[1].rstrip("\n") + "\n", f"\n\nModules:\n\n{map_of(init.parent)}"
    if MAP.search(text):
        text = MAP.sub(lambda _: made, text)
    else:
        text = text.rstrip("\n") + made
    return f'"""{text}"""{source[docstring.end() :]}'


@pytest.mark.parametrize("init", PACKAGES, ids=lambda path: str(path.parent.relative_to(ROOT)))
def test_map_names_the_modules_that_are_there(init: Path) -> None:
    """The docstring of a package names each of its modules and no other, with the module's own first line.

    To renew it: python -m tests.architecture.test_module_maps --write
    """
    assert init.read_text() == renewed(init)


def test_top_package_names_the_public_modules() -> None:
    """`help(hybridpool)` names the public modules and no private one."""
    docstring = ast.get_docstring(ast.parse((TOP / "__init__.py").read_text())) or ""
    _, _, listed = docstring.partition("Further modules:\n\n")
    public = {name for name in modules(TOP) if not name.startswith("_")}
    assert {line.split()[0] for line in listed.splitlines()} == public
    assert re.findall(r"\b_[a-z]+", docstring.replace("__name__", "").replace("__main__", "")) == []


if __name__ == "__main__" and sys.argv[1:] == ["--write"]:
    # The innermost first: the map of a package quotes those that it holds.
    for path in sorted(PACKAGES, key=lambda path: -len(path.parts)):
        path.write_text(renewed(path))
