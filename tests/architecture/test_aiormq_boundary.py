"""One file knows the inside of aiormq, aio-pika and pamqp; all others use what is documented."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.architecture

ROOT = Path(__file__).parents[2]
ADAPTER = ROOT / "hybridpool/_brokers/rabbitmq"
COMPAT = ADAPTER / "aiormq_compat.py"
CONTRACT = ROOT / "tests/contract/test_aiormq_compat.py"
CLIENTS = ("aiormq", "aio_pika", "pamqp")
#: what other modules may import: the exceptions are documented
DOCUMENTED = "aiormq.exceptions"
#: as Python mangles the private names of a class
MANGLED = re.compile(r"_[A-Z]\w*?__[a-z]\w*")


def imported(tree: ast.AST) -> Iterator[str]:
    """Yield the full name of each import."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def private_parts(tree: ast.AST) -> Iterator[str]:
    """Yield what reaches into an object's private part: mangled names, and `_name` of anything but self and cls."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
            owner = node.value
            if not (isinstance(owner, ast.Name) and owner.id in ("self", "cls")):
                yield f"line {node.lineno}: {ast.unparse(node)}"
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and MANGLED.fullmatch(node.value):
            yield f"line {node.lineno}: {node.value!r}"


@pytest.mark.parametrize(
    "path",
    [path for path in sorted((ROOT / "hybridpool").rglob("*.py")) if path != COMPAT],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_only_one_file_imports_the_clients(path: Path) -> None:
    """Other modules import nothing of the client libraries but their exceptions."""
    found = [name for name in imported(ast.parse(path.read_text())) if name.partition(".")[0] in CLIENTS]
    assert [name for name in found if not f"{name}.".startswith(f"{DOCUMENTED}.")] == []


@pytest.mark.parametrize(
    "path",
    [path for path in sorted(ADAPTER.rglob("*.py")) if path != COMPAT],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_no_other_file_touches_a_private_part(path: Path) -> None:
    """The adapter's other modules use public names only, of the client libraries and of each other."""
    assert list(private_parts(ast.parse(path.read_text()))) == []


def test_each_dependency_has_a_contract_test() -> None:
    """Each public function, class and constant of `aiormq_compat` is used by its contract test."""
    names: list[str] = []
    for node in ast.parse(COMPAT.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.append(node.name)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.append(node.target.id)
    tested = CONTRACT.read_text()
    public = [name for name in names if not name.startswith("_")]
    assert len(public) > 10
    assert [name for name in public if not re.search(rf"\b{name}\b", tested)] == []
