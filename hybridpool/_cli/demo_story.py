"""The demo's story: a worker in this process, three waves of tasks, a rest, a summary.

Nothing is staged: the worker is the one that `hybridpool worker` runs. What is to happen is checked in the end.
"""

import os
import secrets
import tempfile
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import anyio
import psutil
from rich.console import Console

from hybridpool import events
from hybridpool._brokers.base import Broker
from hybridpool._brokers.factory import open_broker
from hybridpool._brokers.memory import MemoryServer
from hybridpool._brokers.url import parse
from hybridpool._cli.demo_app import Send, app, mixed
from hybridpool._cli.demo_tally import Tally
from hybridpool._cli.demo_view import View, shown
from hybridpool._cli.signals import Signals
from hybridpool._client.asynclib import plain_error
from hybridpool._client.sync_portal import has_uvloop
from hybridpool._embed import embedded
from hybridpool._protocol.dead_letter import dead_queue
from hybridpool.errors import ResultTimeout

#: seconds
_BROKER_PATIENCE: Final = 4.0
_RESULT_PATIENCE: Final = 60.0
_IDLE: Final = 1.0
#: on a busy machine
_SHRINK_PATIENCE: Final = 30.0
_PULSE: Final = 0.01
_FLOOR, _CEILING = 1, 3
#: exit code
_INTERRUPTED: Final = 130

Connect = Callable[[events.Listener], Broker]


def tell(url: str | None, tasks: int) -> int:
    """Run the demo and return the exit code: 0 if all went as it should, else 1.

    :param url: None: queues in memory.
    :raises HybridpoolError: if it cannot begin or go on; one line says why.
    """
    # settings that are meant for a real worker would change what happens here
    for name in [name for name in os.environ if name.startswith("HYBRIDPOOL_")]:
        del os.environ[name]
    try:
        return anyio.run(_main, url or "memory://", tasks, backend_options={"use_uvloop": has_uvloop()})
    except BaseExceptionGroup as group:
        raise plain_error(group) from None


async def _main(url: str, tasks: int) -> int:
    console, tally, bus = Console(highlight=False), Tally(tasks), events.Bus()
    begun = time.perf_counter()
    title = f"hybridpool demo: {tasks} tasks through {parse(url).masked}, {_FLOOR} to {_CEILING} children"
    # not the default ways to end: the queues of a demo that is interrupted are to be deleted too
    with Signals(), tempfile.TemporaryDirectory(prefix="hybridpool-demo-") as scratch:
        async with _queue(url) as (queue, connect), shown(console, title) as view:
            bus.subscribe(view)
            bus.subscribe(tally)
            worker = embedded(
                app,
                bus=bus,
                connect=connect,
                task_default_queue=queue,
                worker_autoscale=(_FLOOR, _CEILING),
                worker_autoscale_idle=_IDLE,
                worker_max_tasks_per_child=max(2, tasks // 6),
            )
            async with worker:
                await _play(tally, view, bus, Path(scratch) / "died")
        tally.left = len(psutil.Process().children(recursive=True))
        return _sum_up(console, tally, time.perf_counter() - begun)
    return _INTERRUPTED


@asynccontextmanager
async def _queue(url: str) -> AsyncGenerator[tuple[str, Connect]]:
    """Give a queue that nobody else uses, and how to connect; the queue and its dead letters are deleted in the end.

    :raises BrokerError: if the broker cannot be reached.
    """
    server, queue = MemoryServer(), f"hybridpool-demo-{secrets.token_hex(4)}"

    def connect(announce: events.Listener) -> Broker:
        return open_broker(url, announce, connect_timeout=_BROKER_PATIENCE, name=queue, server=server)

    async with connect(lambda _: None) as broker:
        # a worker would try for ever
        await broker.connected(_BROKER_PATIENCE)
        try:
            yield queue, connect
        finally:
            with anyio.move_on_after(_BROKER_PATIENCE, shield=True):
                await broker.delete(queue)
                await broker.delete(dead_queue(queue))


async def _play(tally: Tally, view: View, bus: events.Bus, note: Path) -> None:
    """Send one at a time, then two, then many; then wait until the pool has shrunk."""
    view.progress(0, tally.total)
    async with anyio.create_task_group() as beside:
        beside.start_soon(_feel_pulse, tally)
        calls = mixed(tally.total, note)
        few = tally.total // 6
        for wave, width in ((calls[:few], 1), (calls[few : 2 * few], 2), (calls[2 * few :], 4 * _CEILING)):
            await _wave(wave, width, tally, view)
        await _shrunk(tally, bus)
        beside.cancel_scope.cancel()


async def _wave(sends: Sequence[Send], width: int, tally: Tally, view: View) -> None:
    """Have so many tasks under way at a time."""
    limit = anyio.CapacityLimiter(width)

    async def one(send: Send) -> None:
        async with limit:
            error: Exception | None = None
            begun = time.perf_counter()
            try:
                handle = await send()
                await handle.get(_RESULT_PATIENCE)
            except ResultTimeout:
                raise
            except Exception as result:  # noqa: BLE001 - whatever the task raised
                error = result
            tally.answered(time.perf_counter() - begun, error)
            view.progress(len(tally.waits), tally.total)

    async with anyio.create_task_group() as under_way:
        for send in sends:
            under_way.start_soon(one, send)


async def _shrunk(tally: Tally, bus: events.Bus) -> None:
    """Wait for the pool to be at its least, some seconds at most."""
    is_shrunk = anyio.Event()

    def hear(event: events.Event) -> None:
        if isinstance(event, events.PoolScaled) and event.after == _FLOOR:
            is_shrunk.set()

    bus.subscribe(hear)
    if tally.scaled and tally.scaled[-1][1] > _FLOOR:
        with anyio.move_on_after(_SHRINK_PATIENCE):
            await is_shrunk.wait()
    bus.unsubscribe(hear)


async def _feel_pulse(tally: Tally) -> None:
    """Find out how late the loop is at the worst."""
    while True:
        begun = time.perf_counter()
        await anyio.sleep(_PULSE)
        tally.lag = max(tally.lag, time.perf_counter() - begun - _PULSE)


def _sum_up(console: Console, tally: Tally, duration: float) -> int:
    console.print()
    for topic, text in tally.summary(duration):
        console.print(f"[bold]{topic:>15}[/]  {text}", soft_wrap=True)
    surprises = tally.surprises()
    console.print()
    if not surprises:
        console.print("[bold green]All went as expected.[/]")
        return 0
    console.print(f"[bold red]Not as expected:[/] {'; '.join(surprises)}.", soft_wrap=True)
    return 1
