"""Two functions under one task name: refused where one would take the other's calls, renewed where it is one source."""

import importlib
import re
import runpy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from hybridpool import App
from hybridpool.errors import ConfigError

DECORATOR = """
def decorated(function):
    def inner(*args):
        return function(*args)
    return inner
"""
FACTORY = """
def make(factor):
    def scale(x):
        return x * factor
    return app.task(scale)
"""
ONE, OTHER = "@app.task\ndef f(): return 1\n", "@app.task\ndef f(): return 2\n"

Load = Callable[..., ModuleType]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give a folder whose modules can be imported, and are forgotten afterwards."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)
    (tmp_path / "declared_app.py").write_text("from hybridpool import App\napp = App('shop')\n")
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.fixture
def load(folder: Path) -> Load:
    """Give what writes a module that declares tasks, and imports it; the second time it is reloaded."""

    def load(text: str, name: str = "declared_tasks") -> ModuleType:
        (folder / f"{name}.py").write_text(f"from declared_app import app\n{text}")
        importlib.invalidate_caches()
        known = sys.modules.get(name)
        return importlib.import_module(name) if known is None else importlib.reload(known)

    return load


@pytest.mark.parametrize(
    "text",
    [
        ONE + OTHER,
        ONE + ONE,
        "@app.task(name='t')\ndef f(): return 1\n@app.task(name='t')\ndef g(): return 2\n",
        DECORATOR + "@app.task\n@decorated\ndef f(): return 1\n@app.task\n@decorated\ndef g(): return 2\n",
        FACTORY + "double, triple = make(2), make(3)\n",
        "scales = [app.task(lambda x: x * n) for n in (2, 3)]\n",
        "for n in (2, 3): app.task(lambda x, n=n: x * n)\n",
        "for n in (2, 3):\n    @app.task\n    def f(x): return x * n\n",
        "for sign in '+-': exec(f'@app.task\\ndef f(x): return x {sign} 1')\n",
        "for sign in '+-': exec(f'@app.task\\ndef f(x): return x {sign} 1', dict(globals()))\n",
        "class C:\n    def m(self): return self.n\none, other = C(), C()\napp.task(one.m)\napp.task(other.m)\n",
        "from functools import partial\nfor n in (2, 3): app.task(name='t')(partial(pow, n))\n",
        "def f(): return 1\ndef g(): return 2\ndef late(): app.task(name='t')(f); app.task(name='t')(g)\nlate()\n",
    ],
    ids=lambda text: text.strip().splitlines()[0][:30],
)
def test_two_functions_of_one_run_are_two_tasks(load: Load, text: str) -> None:
    """The second of two functions declared under one name is refused, with both places and advice."""
    with pytest.raises(ConfigError, match=r"two tasks named '[^']+', declared at (\S+:\d+) and at \S+:\d+; .*name="):
        load(text)


def test_places_of_both_declarations(load: Load, folder: Path) -> None:
    """The error names file and line of both declarations, also for decorated functions."""
    with pytest.raises(ConfigError) as raised:
        load(DECORATOR + "@app.task\n@decorated\ndef f(): ...\n@app.task\n@decorated\ndef g(): ...\n")
    path = re.escape(str(folder / "declared_tasks.py"))
    assert re.search(rf"declared at {path}:7 and at {path}:10; .* name= .*functools\.wraps", str(raised.value))


@pytest.mark.parametrize(
    "text",
    [
        "def f(): return 1\ntask = app.task(f)\napp.task(f)\napp.task(task)\n",
        FACTORY + "make(2), make(2)\n",
        "def make():\n    class C:\n        @app.task\n        def f(self): return 1\nmake()\nmake()\n",
    ],
    ids=["the same function", "equal closures", "a class body that is run again"],
)
def test_one_function_declared_twice_is_one_task(load: Load, text: str) -> None:
    """A function that is declared twice is one task."""
    assert len(load(text).app.tasks) == 1


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (ONE, ONE),
        (ONE, "\n\n" + OTHER),
        (DECORATOR + "@app.task\n@decorated\ndef f(): 1\n", "\n" + DECORATOR + "@app.task\n@decorated\ndef f(): 2\n"),
        ("f = app.task(lambda x: x)\n", "\nf = app.task(lambda x: -x)\n"),
        (
            "def late():\n    @app.task\n    def f(): return 1\nlate()\n",
            "\ndef late():\n    @app.task\n    def f(): 2\nlate()\n",
        ),
        ("@app.task(name='t')\ndef f(): return 1\n", "@app.task(name='t')\ndef g(): return 2\n"),
    ],
    ids=["unchanged", "changed and moved", "decorated", "lambda", "declared by a function", "renamed"],
)
def test_a_reloaded_module_renews_its_tasks(load: Load, before: str, after: str) -> None:
    """After `importlib.reload` the task's name stands for the new function."""
    app = load(before).app
    [old] = app.tasks.values()
    load(after)
    [new] = app.tasks.values()
    assert new is not old
    assert new.function is not old.function


def test_two_tasks_of_one_name_after_a_reload(load: Load) -> None:
    """A reload that brings a second function under one name is refused."""
    text = DECORATOR + "@app.task\n@decorated\ndef f(): return 1\n"
    load(text)
    with pytest.raises(ConfigError, match="two tasks named"):
        load(text + "@app.task\n@decorated\ndef g(): return 2\n")


def test_two_modules(load: Load) -> None:
    """Two modules that use one task name are refused, even if their text is equal."""
    load("@app.task(name='t')\ndef f(): return helper()\n", "declared_one")
    with pytest.raises(ConfigError, match=r"declared_one\.py:2 and at .*declared_other\.py:2"):
        load("@app.task(name='t')\ndef f(): return helper()\n", "declared_other")


def test_two_scripts(folder: Path) -> None:
    """Two scripts run as `__main__` that use one task name are refused; the same script run again renews its task."""
    for name, text in (("one", ONE), ("other", OTHER)):
        (folder / f"{name}.py").write_text(f"from declared_app import app\n{text}")
    for _ in range(2):
        runpy.run_path(str(folder / "one.py"), run_name="__main__")
    with pytest.raises(ConfigError, match=r"one\.py:2 and at .*other\.py:2"):
        runpy.run_path(str(folder / "other.py"), run_name="__main__")


class Cells:
    """Runs cells as a notebook does: each is compiled for itself, and all share one namespace."""

    def __init__(self) -> None:
        self.app = App("notes")
        self._space: dict[str, object] = {"app": self.app, "__name__": "__main__"}

    def run(self, *cells: str, file: str = "<cell>") -> None:
        """Run them in turn."""
        for cell in cells:
            exec(compile(cell, file, "exec"), self._space)


def test_a_cell_that_is_run_again(tmp_path: Path) -> None:
    """A cell that is run again renews its task: unchanged, changed, moved, in another cell, or in a class."""
    cells = Cells()
    cells.run(ONE, ONE, OTHER, "\n\n" + ONE)
    cells.run(OTHER, file="<another cell>")
    cells.run(ONE, file=str(tmp_path / "cell.py"))
    assert cells.app.tasks["notes.f"]() == 1
    nested = "class C:\n    @app.task\n    def g(): return {}\n"
    cells.run(nested.format(1), nested.format(2))
    assert cells.app.tasks["notes.C.g"]() == 2


def test_two_functions_in_one_cell() -> None:
    """Two functions of one name in one cell are refused, and so are two under one `name=`."""
    cells = Cells()
    with pytest.raises(ConfigError, match="declared at <cell>:1 and at <cell>:3"):
        cells.run(ONE + OTHER)
    cells.run("@app.task(name='t')\ndef f(): ...\n")
    with pytest.raises(ConfigError, match="two tasks named 't'"):
        cells.run("@app.task(name='t')\ndef g(): ...\n")


@pytest.mark.parametrize("function", [5, "text"])
def test_what_no_task_is_made_of(function: object) -> None:
    """A task made of something that is not callable is refused in one line."""
    app: App = App("shop")
    with pytest.raises(ConfigError, match="a task is made of a function"):
        app.task(function)  # type: ignore[call-overload]  # that is the point


def test_a_generator_function_is_refused() -> None:
    """A generator function is refused where it is declared."""

    def lines() -> Iterator[int]:
        yield 1

    with pytest.raises(ConfigError, match="cannot be a generator function"):
        App("shop").task(name="t")(lines)
