"""An app whose default queue has tasks of two lanes."""

import asyncio
from pathlib import Path

from hybridpool import App

app = App("mixed", result_backend="rpc://")


@app.task
def add(x: int, y: int) -> int:
    """Add two numbers, in a child of its own."""
    return x + y


@app.task
async def until_there(path: str) -> bool:
    """Wait on the loop until a file is there."""
    while not Path(path).exists():  # noqa: ASYNC110  what it waits for is outside, and has no event
        await asyncio.sleep(0.01)
    return True
