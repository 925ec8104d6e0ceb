"""Pools in other people's tests: pytest is run on the page's own example, and on what may go wrong there."""

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.integration.pool.helpers import PATIENCE
from tests.integration.pool.pages import example

ROOT = Path(__file__).parents[3]
EXAMPLE = example("pytest.fixture")
MORE = """

import os, signal
from hybridpool import errors

def pid():
    return os.getpid()

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def fail():
    assert 1 == 2, "so"

PIDS = set()

@pytest.mark.anyio
async def test_first(pool):
    PIDS.update(child.pid for child in pool.stats())
    assert await pool.run(pid) in PIDS

@pytest.mark.anyio
async def test_the_same_pool(pool):
    assert {child.pid for child in pool.stats()} == PIDS
    with pytest.raises(AssertionError, match="so"):
        await pool.run(fail)

@pytest.mark.anyio
async def test_a_death(pool):
    with pytest.raises(errors.ChildLost):
        await pool.run(die)

@pytest.mark.anyio
async def test_after_it(pool):
    assert [value async for value in pool.map(double, range(3))] == [0, 2, 4]
"""
#: what pytest-asyncio does, without it: a fixture's two halves are two tasks
TWO_TASKS = """
import asyncio
from hybridpool import Pool

def double(x):
    return 2 * x

def test_two_tasks():
    with asyncio.Runner() as runner:
        async def begin():
            return await Pool(2).open()

        pool = runner.run(begin())
        assert runner.run(pool.run(double, 21)) == 42
        runner.run(pool.close())
"""


def run_pytest(folder: Path, text: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run pytest on one file, with nothing of this run's own configuration."""
    (folder / "test_it.py").write_text(text)
    (folder / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONSAFEPATH": "1", "PYTEST_ADDOPTS": ""}
    quiet = ("-q", "-p", "no:cacheprovider")
    return subprocess.run(
        [sys.executable, "-m", "pytest", *quiet, *words, "test_it.py"],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE,
        check=False,
    )


def passed(done: subprocess.CompletedProcess[str]) -> int:
    """Return how many tests passed, if none did not."""
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.search(r"^(\d+) passed in", done.stdout, re.MULTILINE)
    assert found, done.stdout
    return int(found[1])


def test_the_example(tmp_path: Path) -> None:
    """The example of the documentation passes as a test file of its own."""
    assert passed(run_pytest(tmp_path, EXAMPLE)) == 1


def test_one_pool_for_all_tests(tmp_path: Path) -> None:
    """One pool serves all tests of a session, and a child that dies in one test does not fail the next one."""
    assert passed(run_pytest(tmp_path, EXAMPLE + MORE)) == 5


def test_importlib_mode(tmp_path: Path) -> None:
    """With pytest's importlib mode children find the test's functions if `pythonpath` is set as the page says."""
    assert passed(run_pytest(tmp_path, EXAMPLE, "--import-mode=importlib", "-o", "pythonpath=.")) == 1
    done = run_pytest(tmp_path, EXAMPLE, "--import-mode=importlib")
    assert done.returncode == 1
    assert "No module named 'test_it'" in done.stdout


def test_a_fixture_of_two_tasks(tmp_path: Path) -> None:
    """A pool can be opened and closed in two different tasks, as some fixtures do."""
    assert passed(run_pytest(tmp_path, TWO_TASKS)) == 1
