"""Ways to have children of a fat app, each a small tree of processes; and what its processes hold.

Each is built in a fresh process, which the tree begins with.
"""

import asyncio
import gc
import importlib
import multiprocessing
import os
import socket
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import NoReturn

import psutil

from tests.benchmarks import memory_work as work

CHILDREN = 4
MIB = 1024 * 1024
#: MiB by figure: of a child on average, and of the whole tree
Held = dict[str, float]
#: has every child do a stage and meet in a folder; returns their pids
Do = Callable[[str, str], Awaitable[Sequence[int]]]


def held(children: Sequence[int]) -> Held:
    """Look at the children, at all other processes below this one, and at itself."""
    tree = [os.getpid(), *(process.pid for process in psutil.Process().children(recursive=True))]
    each = {pid: work.pages(pid) for pid in tree}
    own = [each[pid] for pid in children]
    return {
        "child RSS": sum(one.resident for one in own) / len(own) / MIB,
        "child PSS": sum(one.share for one in own) / len(own) / MIB,
        "child private": sum(one.private for one in own) / len(own) / MIB,
        "tree PSS": sum(one.share for one in each.values()) / MIB,
    }


async def through_stages(do: Do) -> dict[str, Held]:
    """Have all children do one stage after the other, and look after each."""
    found = {}
    for stage in work.STAGES:
        with tempfile.TemporaryDirectory() as folder:
            pids = await do(stage, folder)
        if len(set(pids)) != CHILDREN:
            raise RuntimeError(f"{stage} was done by {sorted(set(pids))}, not by {CHILDREN} children")
        found[stage] = held(pids)
    return found


def import_app() -> None:
    """Have the app in this process."""
    for name in work.APP:
        importlib.import_module(name)


# ---- ways ------------------------------------------------------------------------------------------------------------


async def ours(*, parent_too: bool) -> dict[str, Held]:
    """Measure a Pool: parent, zygote and children.

    :param parent_too: whether the parent has the app as well, as one that imports it beside its functions does.
    """
    from hybridpool import Pool

    if parent_too:
        import_app()
    async with Pool(CHILDREN, preload=[*work.APP, work.__name__]) as pool:

        async def do(stage: str, folder: str) -> Sequence[int]:
            return await asyncio.gather(*(pool.run(work.together, stage, CHILDREN, folder) for _ in range(CHILDREN)))

        return await through_stages(do)


async def forked(*, freeze: bool) -> dict[str, Held]:
    """Measure a process that has the app and calls `os.fork`, and its children."""
    import_app()
    if freeze:
        gc.collect()
        gc.freeze()
    channels = [_fork() for _ in range(CHILDREN)]

    async def do(stage: str, folder: str) -> Sequence[int]:
        for channel in channels:
            channel.send(f"{stage} {folder}".encode())
        return [int(channel.recv(100)) for channel in channels]

    return await through_stages(do)


def _fork() -> socket.socket:
    ours, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
    if os.fork():
        theirs.close()
        return ours
    ours.close()
    return _obey(theirs)


def _obey(channel: socket.socket) -> NoReturn:
    """Do stages as ordered, until this program ends the process group."""
    try:
        while True:
            stage, folder = channel.recv(1000).decode().split(" ", 1)
            channel.send(str(work.together(stage, CHILDREN, folder)).encode())
    finally:
        os._exit(1)


async def pooled(*, method: str) -> dict[str, Held]:
    """Measure `multiprocessing.Pool`: with fork the parent has the app, with spawn each child imports it."""
    if method == "fork":
        import_app()
    with multiprocessing.get_context(method).Pool(CHILDREN, initializer=import_app) as pool:

        async def do(stage: str, folder: str) -> Sequence[int]:
            return pool.starmap(work.together, [(stage, CHILDREN, folder)] * CHILDREN, chunksize=1)

        return await through_stages(do)


OURS = "hybridpool"
TREES: Mapping[str, Callable[[], Awaitable[dict[str, Held]]]] = {
    OURS: partial(ours, parent_too=False),
    "hybridpool, app in the parent too": partial(ours, parent_too=True),
    "os.fork after gc.freeze": partial(forked, freeze=True),
    "os.fork": partial(forked, freeze=False),
    "multiprocessing, fork": partial(pooled, method="fork"),
    "multiprocessing, spawn": partial(pooled, method="spawn"),
}
