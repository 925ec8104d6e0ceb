"""Pools in a real notebook: cells run in a real Jupyter kernel, one after the other, as nbclient has them run."""

import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import psutil
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat.v4 import new_code_cell, new_notebook

from tests.integration.pool.helpers import PATIENCE, Gate
from tests.integration.pool.pages import example

ROOT = Path(__file__).parents[3]
FIRST = """
from hybridpool import Pool
from tests.integration.pool import functions

def f(x):
    return x + 1
"""
OPEN, CLOSE = example("Pool(2).open()"), example("pool.close()")
#: ipykernel learns that the stop button was pressed when something wakes its loop up, not before
TICK = """
import asyncio

async def tick():
    while True:
        await asyncio.sleep(0.05)

ticking = asyncio.create_task(tick())
"""
#: prints the pids of the pool's zygote and children
PIDS = "import psutil\nprint(*(process.pid for process in psutil.Process().children(recursive=True)))"


class Notebook:
    """A notebook at work."""

    def __init__(self, client: NotebookClient) -> None:
        self._client = client
        # made by the client, which cleans up after those only
        self._kernel: Any = client.km

    async def run(self, source: str) -> str:
        """Run one more cell; return what it prints.

        :raises CellExecutionError: if it raises; that tells its traceback.
        """
        cells = self._client.nb.cells
        cells.append(new_code_cell(source))  # type: ignore[no-untyped-call]  # nbformat has none
        with anyio.fail_after(2 * PATIENCE):
            done = await self._client.async_execute_cell(cells[-1], len(cells) - 1)
        return "".join(output.text for output in done.outputs if output.output_type == "stream")

    async def below(self) -> list[psutil.Process]:
        """Return the processes that it has started."""
        return [psutil.Process(int(pid)) for pid in (await self.run(PIDS)).split()]

    async def interrupt(self) -> None:
        """Do what the stop button does."""
        await self._kernel.interrupt_kernel()

    async def restart(self) -> None:
        """Do what the restart button does."""
        await self._kernel.restart_kernel(now=True)

    async def pid(self) -> int:
        """Return the kernel's pid."""
        return int(await self.run("import os\nprint(os.getpid())"))


@pytest.fixture
async def notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Notebook]:
    """Have an empty notebook; its kernel is this Python, and it leaves nothing in the user's home."""
    for variable in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(variable, str(tmp_path))
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "1")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    empty = new_notebook()  # type: ignore[no-untyped-call]  # nbformat has none
    client = NotebookClient(empty, kernel_name="python3", startup_timeout=2 * PATIENCE)
    async with client.async_setup_kernel():
        yield Notebook(client)


async def test_a_pool_in_a_cell(notebook: Notebook) -> None:
    """A pool can be entered at the top level of a cell, and runs a cell's functions in their newest version."""
    await notebook.run(FIRST)
    assert await notebook.run("async with Pool(2) as pool:\n    print(await pool.run(f, 3))") == "4\n"
    assert await notebook.below() == []
    await notebook.run("offset = 100\n\ndef f(x):\n    return x + offset")
    again = "async with Pool(2) as pool:\n    print([value async for value in pool.map(f, range(3))])"
    assert await notebook.run(again) == "[100, 101, 102]\n"
    assert await notebook.below() == []


async def test_a_pool_over_several_cells(notebook: Notebook) -> None:
    """A pool opened in one cell runs calls in later cells until a cell closes it."""
    await notebook.run(FIRST)
    await notebook.run(OPEN)
    assert await notebook.run("print(await pool.run(f, 3))") == "4\n"
    assert await notebook.run("call = pool.submit(f, 4)") == ""
    assert await notebook.run("print(await call, len(pool.stats()))") == "5 2\n"
    assert len(await notebook.below()) == 3
    await notebook.run(CLOSE)
    assert await notebook.below() == []
    with pytest.raises(CellExecutionError, match="PoolClosed"):
        await notebook.run("await pool.run(f, 3)")


async def test_a_call_that_fails(notebook: Notebook) -> None:
    """A failed call shows the child's traceback in the cell, and the pool works on."""
    await notebook.run(FIRST + OPEN)
    with pytest.raises(CellExecutionError, match="In the child:") as caught:
        await notebook.run("await pool.run(f, 'word')")
    assert caught.value.ename == "TypeError"
    assert await notebook.run("print(await pool.run(f, 3))") == "4\n"


async def test_without_cloudpickle(notebook: Notebook) -> None:
    """Without cloudpickle the error for a notebook's function names cloudpickle; a module's functions run."""
    await notebook.run("import sys\nsys.modules['cloudpickle'] = None\n" + FIRST)
    with pytest.raises(CellExecutionError) as caught:
        await notebook.run("async with Pool(1) as pool:\n    await pool.run(f, 3)")
    assert caught.value.ename == "CannotSend"
    assert caught.value.evalue.startswith("f cannot be sent to a child")
    assert caught.value.evalue.endswith("with cloudpickle installed it may work")
    # a function of a module does not take it
    assert await notebook.run("async with Pool(1) as pool:\n    print(await pool.run(abs, -3))") == "3\n"
    assert await notebook.below() == []


async def test_the_stop_button(notebook: Notebook, gate: Gate) -> None:
    """Interrupting a cell cancels its call and leaves the pool working."""
    await notebook.run(FIRST + OPEN + TICK)
    failed: list[CellExecutionError] = []

    async def run_long_cell() -> None:
        try:
            await notebook.run(f"await pool.run(functions.hold, {gate.path!r})")
        except CellExecutionError as error:
            failed.append(error)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run_long_cell)
        await gate.came()
        await notebook.interrupt()
    # as ipykernel has it
    assert failed[0].ename == "CancelledError"
    assert await notebook.run("print(await pool.run(f, 3), *(child.in_hand for child in pool.stats()))") == "4 0 0\n"


@pytest.mark.parametrize("how", ["killed", "restarted"])
async def test_the_kernel_goes(notebook: Notebook, how: str) -> None:
    """Zygote, children and what calls left are gone after the kernel was killed or restarted."""
    await notebook.run(FIRST + OPEN)
    await notebook.run("await pool.run(functions.leave_process)")
    await notebook.run("calls = [pool.submit(functions.nap, 600) for _ in range(2)]")
    below = await notebook.below()
    assert len(below) == 4, "zygote, children, and what a call has left"
    if how == "killed":
        os.kill(await notebook.pid(), signal.SIGKILL)
    else:
        await notebook.restart()
    with anyio.fail_after(PATIENCE):
        while any(process.is_running() for process in below):
            await anyio.lowlevel.checkpoint()
