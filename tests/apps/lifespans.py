"""An app whose children open one thing each, and write a diary of it into the file that the environment names."""

import os
from collections.abc import Generator
from pathlib import Path

from hybridpool import App

app = App("lifespans", result_backend="rpc://")


def note(what: str) -> None:
    """Write one line."""
    with Path(os.environ["DIARY"]).open("a") as diary:
        diary.write(f"{what} {os.getpid()}\n")


class Connection:
    """What each child has one of."""

    def __init__(self) -> None:
        self.calls = 0


@app.lifespan
def connection() -> Generator[Connection]:
    """A connection."""
    if os.environ.get("LIFESPAN") == "refused":
        raise ConnectionRefusedError("no server")
    note("open")
    yield Connection()
    note("close")


@app.lifespan
def session() -> Generator[str]:
    """What needs the connection; how it ends the environment says."""
    note("begin")
    yield f"session over {type(connection.value).__name__}"
    note("end")
    if os.environ.get("LIFESPAN") == "leaves badly":
        raise RuntimeError("the session is stuck")


@app.worker_process_init
def before() -> None:
    """A hook of the start."""
    note("hook")


@app.worker_process_shutdown
def after() -> None:
    """A hook of the end."""
    note("hook")


@app.task
def count() -> list[object]:
    """Tell which calls this child's connection has seen, and what the session is."""
    connection.value.calls += 1
    return [os.getpid(), connection.value.calls, session.value]


@app.task
def count_in_a_copy() -> str:
    """Tell what a process that the task has forked finds, which then ends as a program does."""
    read, write = os.pipe()
    if not os.fork():
        try:
            _ = connection.value
        except RuntimeError as error:
            os.write(write, str(error).encode())
        raise SystemExit
    os.wait()
    return os.read(read, 1000).decode()
