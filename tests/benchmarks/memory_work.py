"""What the benchmark of memory has children do. A light module: the parent imports it for the functions' names.

The app is numpy and pandas, which the process that children are forked from has imported. `BALLAST_APP` adds objects.
"""

import gc
import importlib
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

APP = ("numpy", "pandas")
#: with them it is some 70 MB, so that the app is larger than the limit of the recycling measure
BALLAST_APP = (*APP, "tests.benchmarks.memory_ballast")
#: seconds after which a child that waits for the others gives up
PATIENCE = 60.0


class Pages(NamedTuple):
    """Bytes of one process: resident, its share of them, and its alone."""

    resident: int
    share: int
    private: int


def pages(pid: int) -> Pages:
    """Read what the kernel says of a process."""
    found: dict[str, int] = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, _, rest = line.partition(":")
        found[name] = int(rest.split()[0]) * 1024
    return Pages(found["Rss"], found["Pss"], found["Private_Clean"] + found["Private_Dirty"])


def begin() -> None:
    """Do nothing yet."""


def collect() -> None:
    """Five times: make and drop 50,000 small lists, and collect garbage, which looks at every object."""
    for _ in range(5):
        made = [[number] for number in range(50_000)]
        gc.collect()
        assert made.pop()


def compute() -> None:
    """Group a table and multiply matrices, twice."""
    # not by name: the tools that check this file do not have them
    np, pd = (importlib.import_module(name) for name in APP)
    for _ in range(2):
        table = pd.DataFrame({"key": np.arange(20_000) % 100, "value": np.linspace(0.0, 1.0, 20_000)})
        assert len(table.groupby("key").mean()) == 100
        square = np.ones((200, 200))
        assert (square @ square)[0, 0] == 200.0


STAGES: Mapping[str, Callable[[], None]] = {"begin": begin, "collect": collect, "compute": compute}


def together(stage: str, children: int, folder: str) -> int:
    """Do a stage's work, then wait until so many processes have: each has then done it once; returns the pid."""
    STAGES[stage]()
    (Path(folder) / str(os.getpid())).touch()
    until = time.monotonic() + PATIENCE
    while len(list(Path(folder).iterdir())) < children:
        if time.monotonic() > until:
            raise TimeoutError(f"not all of {children} children came")
        time.sleep(0.002)
    return os.getpid()


def little(_number: int) -> tuple[int, Pages]:
    """Work a little, which is no reason to replace a child; returns the pid and what this process holds."""
    assert sum([1] * 1000) == 1000
    return os.getpid(), pages(os.getpid())
