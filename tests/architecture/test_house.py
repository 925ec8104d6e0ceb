"""The rules of the house, kept by a machine: import contracts, light imports, few mocks. Sizes are advice."""

import ast
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LIBRARY = sorted((ROOT / "hybridpool").rglob("*.py"))
FILE_LINES = 400
FUNCTION_LINES = 60
CLASS_METHODS = 20
MOCKS = 20
#: attributes of a lane that are its own
LANE_PARTS = ("dispatcher", "watchdog", "registry")
HEAVY = ("asyncio", "anyio", "aio_pika", "uvloop")

Function = ast.FunctionDef | ast.AsyncFunctionDef


def size_advice(path: Path) -> Iterator[str]:
    """Yield what is larger than usual in a file."""
    if (lines := len(path.read_text().splitlines())) > FILE_LINES:
        yield f" has {lines} lines (usual: up to {FILE_LINES})"
    for node in functions(path):
        if (size := body_lines(node)) > FUNCTION_LINES:
            yield f":{node.lineno} {node.name} has {size} lines (usual: up to {FUNCTION_LINES})"
    for kind in ast.walk(parsed(path)):
        if isinstance(kind, ast.ClassDef):
            methods = sum(isinstance(part, Function) and not is_overload(part) for part in kind.body)
            if methods > CLASS_METHODS:
                yield f":{kind.lineno} {kind.name} has {methods} methods (usual: up to {CLASS_METHODS})"


@pytest.fixture(params=LIBRARY, ids=lambda path: str(path.relative_to(ROOT)))
def source(request: pytest.FixtureRequest) -> Path:
    """One file of the library."""
    path: Path = request.param
    return path


def test_sizes_are_advice() -> None:
    """A file, function or class beyond the usual size is named in a warning; what it costs to split is for people."""
    for path in LIBRARY:
        for advice in size_advice(path):
            warnings.warn(f"advice on size: {path.relative_to(ROOT)}{advice}", stacklevel=1)


def test_files_say_what_they_are_for(source: Path) -> None:
    """Each file of the library that has code begins with a docstring."""
    tree = parsed(source)
    assert ast.get_docstring(tree) or not tree.body


def test_import_contracts_hold() -> None:
    """The import contracts of `pyproject.toml` hold."""
    lint = "from importlinter.cli import lint_imports_command as lint; lint()"
    done = run("-c", lint, "--no-logo", "--no-cache")
    assert done.returncode == 0, done.stdout + done.stderr


def test_only_a_lane_reaches_into_its_parts() -> None:
    """A lane alone changes its state: other modules call its methods, and take no part of it by attribute."""
    lanes = ROOT / "hybridpool" / "_lanes"
    owners = {
        lanes / kind / f"{name}.py" for kind in ("prefork", "shared") for name in ("lane", "dispatcher", "watchdog")
    }
    owners.add(lanes / "children" / "lane.py")
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno} {ast.unparse(node)}"
        for path in LIBRARY
        if path not in owners
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Attribute) and node.attr.removeprefix("_") in LANE_PARTS
    ]
    assert found == []


def test_reaching_into_a_lane_is_noticed() -> None:
    """The names that the test above looks for are those of the lane's parts."""
    lane = ROOT / "hybridpool" / "_lanes" / "prefork" / "lane.py"
    attributes = {node.attr for node in ast.walk(parsed(lane)) if isinstance(node, ast.Attribute)}
    assert {f"_{part}" for part in LANE_PARTS} <= attributes


@pytest.mark.parametrize("module", ["hybridpool", "hybridpool._child"])
def test_import_is_light(module: str) -> None:
    """Importing `hybridpool` or the code of a child loads no event loop and no client library of a broker."""
    done = run("-c", f"import sys, {module}; print(*sorted(set({HEAVY!r}) & set(sys.modules)))")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


def test_few_mocks() -> None:
    """The tests say "mock" at most `MOCKS` times."""
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
