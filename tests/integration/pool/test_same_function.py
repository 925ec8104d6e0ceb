"""A function found by its name is the one that the caller has in hand, or the call is refused."""

import functools
import importlib
import sys
import textwrap
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from hybridpool import Pool
from hybridpool.errors import CannotSend
from tests.integration.pool import functions
from tests.integration.pool.helpers import open_pool
from tests.integration.pool.test_run import run_script

# starting a zygote reads the pipe on which exec would tell its failure
pytestmark = pytest.mark.may_block

AGAIN = "was defined again after the pool was opened"
ANOTHER = "is another function in the child than in the program"
CODE = "def f(): return 1\n\ndef g(): return 1\n"


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Give a module that can be changed."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (tmp_path / "changed.py").write_text(CODE)
    monkeypatch.delitem(sys.modules, "changed", raising=False)
    importlib.invalidate_caches()
    return importlib.import_module("changed")


def rewrite(module: ModuleType, text: str) -> None:
    """Change a module's file, and reload it."""
    assert module.__file__ is not None
    Path(module.__file__).write_text(text)
    importlib.reload(module)


@pytest.fixture
async def pool(module: ModuleType) -> AsyncIterator[Pool]:
    """Have a pool of one that was opened when the module was as it is written."""
    assert module.f() == 1
    async with open_pool(1) as pool:
        yield pool


@pytest.mark.parametrize("is_used", [True, False], ids=["used before", "not used before"])
async def test_a_module_that_is_reloaded(pool: Pool, module: ModuleType, is_used: bool) -> None:
    """After a module was reloaded its functions are refused until a new pool is opened."""
    if is_used:
        assert await pool.run(module.f) == 1
    rewrite(module, CODE.replace("1", "2"))
    with pytest.raises(CannotSend, match=f"changed:f {AGAIN}"):
        await pool.run(module.f)
    with pytest.raises(CannotSend, match=AGAIN):
        await pool.run(functools.partial(module.f))
    with pytest.raises(CannotSend, match=AGAIN):
        pool.map(module.f, [1])
    async with open_pool(1) as another:
        assert await another.run(module.f) == 2


async def test_a_function_that_is_replaced(pool: Pool, module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """A function that took another one's name is refused, and the old function still runs."""
    old = module.f
    assert await pool.run(old) == 1
    exec("def f(): return 2", vars(module))
    with pytest.raises(CannotSend, match=AGAIN):
        await pool.run(module.f)
    assert await pool.run(old) == 1
    monkeypatch.setattr(module, "f", old)
    assert await pool.run(module.f) == 1


async def test_code_that_is_replaced(pool: Pool, module: ModuleType) -> None:
    """A function whose code was replaced is refused."""
    assert await pool.run(module.f) == 1
    module.f.__code__ = (lambda: 2).__code__
    with pytest.raises(CannotSend, match=AGAIN):
        await pool.run(module.f)


def patched(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate as tests and tracing libraries do."""

    @functools.wraps(function)
    def inner(*args: Any) -> Any:
        return -function(*args)

    return inner


@pytest.mark.parametrize("is_wrapped", [True, False], ids=["by functools.wraps", "by its name alone"])
async def test_a_patch_that_the_child_does_not_have(pool: Pool, module: ModuleType, is_wrapped: bool) -> None:
    """A function that was patched before its first call is refused, since the child's module is not patched."""
    patch = patched(module.g) if is_wrapped else eval("lambda: 2", vars(module))
    patch.__qualname__ = "g"
    vars(module)["g"] = patch
    with pytest.raises(CannotSend, match=f"changed:g {ANOTHER}"):
        await pool.run(module.g)
    with pytest.raises(CannotSend, match=ANOTHER):
        await pool.run(functools.partial(module.g))
    assert await pool.run(module.f) == 1


@pytest.mark.parametrize(
    "again",
    [
        "def work(): return 2",
        "work = decorated(work)",
        "import functools; work = functools.wraps(work)(lambda: 2)",
    ],
)
def test_a_function_defined_again_where_only_the_program_runs(tmp_path: Path, again: str) -> None:
    """A function that a script defines again under its main guard is refused; the first definition is not run."""
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(f"""
            import asyncio, functools
            from hybridpool import Pool
            def decorated(function):
                @functools.wraps(function)
                def inner(): return 2
                return inner
            def work(): return 1
            async def main():
                async with Pool(1) as pool:
                    try:
                        print(await pool.run(work))
                    except TypeError as error:
                        print(error)
            if __name__ == "__main__":
                {again}
                asyncio.run(main())
        """)
    )
    done = run_script(str(script))
    assert f"__main__:work {ANOTHER}" in done.stdout, done.stderr


async def test_decorated_functions(one: Pool) -> None:
    """A function decorated where it is defined runs in the child."""
    assert await one.run(functions.decorated, 4) == 8
