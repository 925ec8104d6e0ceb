"""An app that writes a diary of what its hooks are told, in the file that the environment names."""

import os
from pathlib import Path

from hybridpool import App

app = App("hooks", result_backend="rpc://")
#: what each child opens for itself
resources: list[str] = []


def note(what: str) -> None:
    """Write one line."""
    with Path(os.environ["DIARY"]).open("a") as diary:
        diary.write(f"{what} {os.getpid()}\n")


@app.worker_init
def before_forks() -> None:
    """Once."""
    note("init")


@app.worker_process_init
def at_birth() -> None:
    """In each child."""
    note("process_init")
    resources.append(f"resource of {os.getpid()}")


@app.worker_process_shutdown
def at_the_end() -> None:
    """In each child that leaves in order."""
    note("shutdown")


@app.task
def opened() -> str:
    """Tell what this child has."""
    (resource,) = resources
    return resource
