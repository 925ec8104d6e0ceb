"""The rules of the house, kept by a machine: sizes, import contracts, light imports, few mocks."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LIBRARY = sorted((ROOT / "hybridpool").rglob("*.py"))
FILE_LINES = 300
FUNCTION_LINES = 40
CLASS_METHODS = 15
MOCKS = 20
HEAVY = ("asyncio", "anyio", "aio_pika", "uvloop")

Function = ast.FunctionDef | ast.AsyncFunctionDef


@pytest.fixture(params=LIBRARY, ids=lambda path: str(path.relative_to(ROOT)))
def source(request: pytest.FixtureRequest) -> Path:
    """One file of the library."""
    path: Path = request.param
    return path


def test_files_are_short(source: Path) -> None:
    """A file would hold more than one idea, and a change no longer have one address."""
    assert len(source.read_text().splitlines()) <= FILE_LINES


def test_functions_are_short(source: Path) -> None:
    """A function could no longer be seen whole."""
    long = {node.name: size for node in functions(source) if (size := body_lines(node)) > FUNCTION_LINES}
    assert not long


def test_classes_are_small(source: Path) -> None:
    """A class that does everything would grow, as in every old worker."""
    classes = [node for node in ast.walk(parsed(source)) if isinstance(node, ast.ClassDef)]
    methods = {node.name: [part for part in node.body if isinstance(part, Function)] for node in classes}
    counts = {name: sum(not is_overload(part) for part in parts) for name, parts in methods.items()}
    assert not {name: count for name, count in counts.items() if count > CLASS_METHODS}


def test_files_say_what_they_are_for(source: Path) -> None:
    """A reader would have to work out from the code what a file is for."""
    tree = parsed(source)
    assert ast.get_docstring(tree) or not tree.body


def test_import_contracts_hold() -> None:
    """A room would know a room above it, and the story no longer read down the page."""
    lint = "from importlinter.cli import lint_imports_command as lint; lint()"
    done = run("-c", lint, "--no-logo", "--no-cache")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("module", ["hybridpool", "hybridpool.child"])
def test_import_is_light(module: str) -> None:
    """What is imported before the fork would weigh on every child, and a loop's parts would be forked."""
    done = run("-c", f"import sys, {module}; print(*sorted(set({HEAVY!r}) & set(sys.modules)))")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


def test_few_mocks() -> None:
    """Tests would check that code calls what it calls, not that it works."""
    texts = [path.read_text() for path in (ROOT / "tests").rglob("*.py") if path != Path(__file__)]
    assert sum(len(re.findall(r"mock", text, re.IGNORECASE)) for text in texts) <= MOCKS


def run(*words: str) -> subprocess.CompletedProcess[str]:
    """Run a Python of our kind at the root, to its end."""
    return subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, check=False)


def is_overload(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """A typed variant of one method is not another method."""
    return any(isinstance(mark, ast.Name) and mark.id == "overload" for mark in function.decorator_list)


def parsed(source: Path) -> ast.Module:
    """Return the syntax tree of a file."""
    return ast.parse(source.read_text(), str(source))


def functions(source: Path) -> Iterator[Function]:
    """Yield every function of a file, methods and inner ones too."""
    yield from (node for node in ast.walk(parsed(source)) if isinstance(node, Function))


def body_lines(function: Function) -> int:
    """Count the lines of a function without its docstring and decorators."""
    lines = (function.end_lineno or function.lineno) - function.lineno + 1
    first = function.body[0]
    if ast.get_docstring(function, clean=False) is not None:
        lines -= (first.end_lineno or first.lineno) - first.lineno + 1
    return lines
