"""The public interface: a snapshot of its names and signatures, its boundary, and its reference.

    python -m tests.architecture.test_public_api --write      renew public_api.txt, the snapshot

A difference in the snapshot is a change that users see: it belongs into the changelog.
"""

import ast
import importlib
import inspect
import pickle
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

import hybridpool
from hybridpool import Pool, embedded, errors, events
from hybridpool._client.call_options import CALL_OPTIONS, CallOptionsDict
from tests.architecture import public_api
from tests.architecture.public_api import PUBLIC_MODULES, ROOT, names_of, tree_of

SNAPSHOT = Path(__file__).with_name("public_api.txt")
REFERENCE = ROOT / "docs/reference/python-api.md"
#: seconds for an example
PATIENCE = 30
EVENTS = [name for name in events.__all__ if isinstance(getattr(events, name), type) and name != "Bus"]


def public() -> Iterator[tuple[str, str]]:
    """Yield the module and name of everything public."""
    for module in PUBLIC_MODULES:
        yield from ((module, name) for name in names_of(module))


CLASSES = [
    (module, name) for module, name in public() if isinstance(getattr(importlib.import_module(module), name), type)
]
OPTIONS = [
    (name, field.name)
    for name in ("PoolOptions", "TaskOptions", "TaskOptionsDict", "CallOptionsDict")
    for field in public_api.fields("hybridpool", name)
]


# ---- the snapshot --------------------------------------------------------------------------------------------


def test_snapshot() -> None:
    """The public names, signatures, options and fields are those of public_api.txt.

    To renew it: python -m tests.architecture.test_public_api --write
    """
    assert public_api.snapshot() == SNAPSHOT.read_text()


# ---- the boundary --------------------------------------------------------------------------------------------


def test_modules_are_public_or_under_an_underscore() -> None:
    """Each module of the library is one of the public ones, or has an underscore in its path."""
    paths = [path.relative_to(ROOT).with_suffix("").parts for path in sorted((ROOT / "hybridpool").rglob("*.py"))]
    modules = [".".join(parts).removesuffix(".__init__") for parts in paths]
    open_ones = [module for module in modules if not any(part.startswith("_") for part in module.split("."))]
    assert sorted(open_ones) == sorted(PUBLIC_MODULES)


@pytest.mark.parametrize("module", PUBLIC_MODULES)
def test_names_are_public_or_under_an_underscore(module: str) -> None:
    """A public module defines or imports, without an underscore, what is public and nothing else of hybridpool."""
    loaded = importlib.import_module(module)
    submodules = {f"{module}.{name}" for name in vars(loaded)} & set(sys.modules)
    found = {
        name
        for name, value in vars(loaded).items()
        if not name.startswith("_")
        and f"{module}.{name}" not in submodules
        and str(getattr(value, "__module__", "")).startswith("hybridpool")
    }
    assert sorted(found - set(names_of(module))) == []


def test_names_of_other_libraries_are_not_passed_on() -> None:
    """Every public name is defined by hybridpool itself."""
    for module, name in public():
        if name != "__version__":
            public_api.definition(module, name)


def test_lazy_names_are_those_of_the_type_checker() -> None:
    """What is imported at its first use is what type checkers see, and all of it is listed in `__all__`."""
    typed = {
        name: home for name, home in public_api.imported_by("hybridpool").items() if home.startswith("hybridpool._")
    }
    assert typed == hybridpool._MODULES
    assert sorted([*typed, *hybridpool._SUBMODULES, "__version__"]) == sorted(hybridpool.__all__)
    assert set(hybridpool.__all__) <= set(dir(hybridpool))
    with pytest.raises(AttributeError, match="has no attribute 'Pol'"):
        _ = hybridpool.Pol  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("names", "not_loaded"),
    [
        ("", ("anyio", "asyncio", "attrs", "click", "msgspec", "psutil", "rich")),
        ("App, current_task, resource, Task", ("anyio", "asyncio", "click", "psutil", "rich")),
        (", ".join(hybridpool.__all__), ("aio_pika", "aiormq", "click", "rich", "uvloop")),
    ],
    ids=["the package", "what an app needs", "everything"],
)
def test_imports_are_light(names: str, not_loaded: tuple[str, ...]) -> None:
    """`import hybridpool` loads hardly anything, an app no event loop, and no public name a broker's library."""
    code = (
        f"from hybridpool import {names or '__version__'}; import sys; print(*set({not_loaded!r}) & set(sys.modules))"
    )
    assert _run("-c", code).split() == []


@pytest.mark.parametrize(("module", "name"), CLASSES, ids=lambda part: part)
def test_classes_show_their_public_module(module: str, name: str) -> None:
    """A class is shown under the name by which programs import it, and pickled by that name."""
    found = getattr(importlib.import_module(module), name)
    assert pickle.loads(pickle.dumps(found)) is found
    if not name.endswith("Dict"):
        assert (found.__module__, found.__qualname__) == (
            module if name != "InlinePool" else "hybridpool.testing",
            name,
        )


def test_values_can_be_pickled() -> None:
    """Values that programs get and keep are rebuilt where hybridpool is imported only then."""
    value = hybridpool.ChildStats(
        name="c", pid=1, state="idle", tasks=0, in_hand=0, at_work=None, working_for=0.0, owned=0
    )
    event = events.ChildGone("c", 1, "exit code 0", True)
    error = errors.AppLoadError("no app")
    assert pickle.loads(pickle.dumps((value, event))) == (value, event)
    assert str(pickle.loads(pickle.dumps(error))) == "no app"
    code = f"import pickle; print(pickle.loads({pickle.dumps(value)!r}).name)"
    assert _run("-c", code) == "c\n"


def test_options_for_type_checkers_are_those_that_are_read() -> None:
    """The typed options of a call are the options that a call accepts."""
    assert tuple(CallOptionsDict.__annotations__) == CALL_OPTIONS


# ---- help and reference --------------------------------------------------------------------------------------


def _examples() -> list[str]:
    """Return the examples in the docstring of the package: its indented blocks of code."""
    docstring = inspect.getdoc(hybridpool) or ""
    blocks = re.findall(r"(?:^    .*\n|^\n(?=\n*    ))+", docstring, re.MULTILINE)
    return [textwrap.dedent(block).strip() for block in blocks if "import" in block]


def test_help_begins_with_app_and_pool() -> None:
    """`help(hybridpool)` begins with `App`, `Pool` and an example of each."""
    paragraphs = (inspect.getdoc(hybridpool) or "").split("\n\n")
    assert [text.split()[0] for text in paragraphs if text.startswith("`")] == ["`App`", "`Pool`"]
    assert len(_examples()) == 2


@pytest.mark.may_block
@pytest.mark.anyio
async def test_example_of_app(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first example of `help(hybridpool)` works."""
    (tmp_path / "shop.py").write_text(_examples()[0])
    monkeypatch.syspath_prepend(tmp_path)
    shop = importlib.import_module("shop")
    try:
        async with embedded(shop.app, worker_concurrency=1):
            await shop.main()
    finally:
        del sys.modules["shop"]
    assert capsys.readouterr().out == "5\n"


def test_example_of_pool(tmp_path: Path) -> None:
    """The second example of `help(hybridpool)` works."""
    script = tmp_path / "script.py"
    script.write_text(_examples()[1])
    assert _run(str(script)) == "2432902008176640000\n"


def test_everything_public_is_explained() -> None:
    """Each public class, function and method has a docstring."""
    missing = []
    for module, name in public():
        node = None if name == "__version__" else public_api.definition(module, name)
        if isinstance(node, ast.ClassDef | public_api.Function) and not ast.get_docstring(node):
            missing.append(name)
        if isinstance(node, ast.ClassDef):
            missing += [
                f"{name}.{part.name}"
                for part in node.body
                if isinstance(part, public_api.Function)
                and part.name[0] != "_"
                and not ast.get_docstring(part)
                and not any(ast.unparse(mark) == "overload" for mark in part.decorator_list)
            ]
    assert missing == []


@pytest.mark.parametrize(("owner", "option"), OPTIONS, ids=lambda part: part)
def test_options_are_explained(owner: str, option: str) -> None:
    """Each option has a comment that says what it means."""
    [field] = [field for field in public_api.fields("hybridpool", owner) if field.name == option]
    assert field.comment


@pytest.mark.parametrize(("module", "name"), list(public()), ids=lambda part: part)
def test_reference_names_it(module: str, name: str) -> None:
    """The reference names each public name, and each method, property, field and option of it."""
    words = set(re.findall(r"\w+", " ".join(_code_of(REFERENCE.read_text()))))
    assert name in words
    if (module, name) in CLASSES:
        assert [member for member in public_api.members(module, name) if member not in words] == []


def _code_of(page: str) -> list[str]:
    """Return what a page shows as code: in backticks, in blocks and in headings."""
    blocks = re.findall(r"^```.*?^```", page, re.MULTILINE | re.DOTALL)
    rest = re.sub(r"^```.*?^```", "", page, flags=re.MULTILINE | re.DOTALL)
    return [*blocks, *re.findall(r"`([^`\n]+)`", rest)]


def test_every_event_is_named() -> None:
    """`hybridpool.events` exports each class of event that its modules define."""
    defined = {
        node.name
        for path in (ROOT / "hybridpool/events").glob("_[a-z]*.py")
        for node in tree_of(f"hybridpool.events.{path.stem}").body
        if isinstance(node, ast.ClassDef)
    }
    assert defined == {*EVENTS, "Bus"}


def test_pages_and_examples_use_public_names() -> None:
    """What users read and copy imports no private module."""
    pages = [ROOT / "README.md", *sorted((ROOT / "examples").rglob("*.*")), *sorted((ROOT / "docs").rglob("*.md"))]
    texts = {str(path.relative_to(ROOT)): path.read_text() for path in pages if path.suffix in (".md", ".py")}
    private = r"(?:from|import) hybridpool(?:\.\w+)*\._|from hybridpool(?:\.\w+)* import .*\b_[a-z]"
    assert [path for path, text in texts.items() if re.search(private, text)] == []


def test_pool_says_that_it_is_hybridpools() -> None:
    """`help(Pool)` and error messages name the public class."""
    assert repr(Pool) == "<class 'hybridpool.Pool'>"


def _run(*words: str) -> str:
    """Run this interpreter at the root, and return what it printed."""
    done = subprocess.run(
        [sys.executable, *words],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


if __name__ == "__main__" and sys.argv[1:] == ["--write"]:
    SNAPSHOT.write_text(public_api.snapshot())
