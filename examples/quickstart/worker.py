"""The smallest app: its name, where results go, and some tasks.

python -m hybridpool --app=worker.app worker --concurrency=2
"""

import os
import time

from hybridpool import App

app = App("worker", result_backend="rpc://")


@app.task
def task1() -> str:
    """Return the process that runs this."""
    return f"run by pid {os.getpid()}"


@app.task
def task2(name: str = "world") -> None:
    """Print a line, which the worker logs."""
    print(f"hello {name}")


@app.task
def add(x: int, y: int) -> int:
    """Add two numbers."""
    return x + y


@app.task
def busy(seconds: float) -> float:
    """Keep a CPU busy for so many seconds."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass
    return seconds
