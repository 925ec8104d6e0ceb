"""The course of the demo: a worker in this process, three waves of tasks, an idle time, a summary.

Nothing is simulated: the worker is the one that `hybridpool worker` runs. The end checks that all happened as expected.
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
_BROKER_TIMEOUT_S: Final = 4.0
_RESULT_TIMEOUT_S: Final = 60.0
_IDLE_S: Final = 1.0
#: on a busy machine
_SHRINK_TIMEOUT_S: Final = 30.0
_LAG_INTERVAL_S: Final = 0.01
_MIN_CHILDREN, _MAX_CHILDREN = 1, 3
#: exit code
_INTERRUPTED: Final = 130

Connect = Callable[[events.Listener], Broker]


def tell(url: str | None, tasks: int) -> int:
    """Run the demo and return the exit code: 0 if all went as expected, 1 if not.

    :param url: of the broker; None: queues in memory.
    :raises HybridpoolError: if it cannot start or go on; its text is one line.
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
    title = f"hybridpool demo: {tasks} tasks through {parse(url).masked}, {_MIN_CHILDREN} to {_MAX_CHILDREN} children"
    # signals unwind the stack, so that an interrupted demo deletes its queues too
    with Signals(), tempfile.TemporaryDirectory(prefix="hybridpool-demo-") as scratch:
        async with _queue(url) as (queue, connect), shown(console, title) as view:
            bus.subscribe(view)
            bus.subscribe(tally)
            worker = embedded(
                app,
                bus=bus,
                connect=connect,
                task_default_queue=queue,
                worker_autoscale=(_MIN_CHILDREN, _MAX_CHILDREN),
                worker_autoscale_idle=_IDLE_S,
                worker_max_tasks_per_child=max(2, tasks // 6),
            )
            async with worker:
                await _play(tally, view, bus, Path(scratch) / "died")
        tally.left = len(psutil.Process().children(recursive=True))
        return _sum_up(console, tally, time.perf_counter() - begun)
    return _INTERRUPTED


@asynccontextmanager
async def _queue(url: str) -> AsyncGenerator[tuple[str, Connect]]:
    """Yield the name of the demo's own queue and a function that connects; delete the queue and its letters after.

    :raises BrokerError: if the broker cannot be reached.
    """
    server, queue = MemoryServer(), f"hybridpool-demo-{secrets.token_hex(4)}"

    def connect(announce: events.Listener) -> Broker:
        return open_broker(url, announce, connect_timeout=_BROKER_TIMEOUT_S, name=queue, server=server)

    async with connect(lambda _: None) as broker:
        # the worker itself would try without end
        await broker.connected(_BROKER_TIMEOUT_S)
        try:
            yield queue, connect
        finally:
            with anyio.move_on_after(_BROKER_TIMEOUT_S, shield=True):
                await broker.delete(queue)
                await broker.delete(dead_queue(queue))


async def _play(tally: Tally, view: View, bus: events.Bus, note: Path) -> None:
    """Send one at a time, then two, then many; then wait until the pool has shrunk."""
    view.progress(0, tally.total)
    async with anyio.create_task_group() as beside:
        beside.start_soon(_measure_lag, tally)
        calls = mixed(tally.total, note)
        few = tally.total // 6
        for wave, width in ((calls[:few], 1), (calls[few : 2 * few], 2), (calls[2 * few :], 4 * _MAX_CHILDREN)):
            await _wave(wave, width, tally, view)
        await _shrunk(tally, bus)
        beside.cancel_scope.cancel()


async def _wave(sends: Sequence[Send], width: int, tally: Tally, view: View) -> None:
    """Send the tasks, at most `width` of them at a time."""
    limit = anyio.CapacityLimiter(width)

    async def one(send: Send) -> None:
        async with limit:
            error: Exception | None = None
            begun = time.perf_counter()
            try:
                handle = await send()
                await handle.get(_RESULT_TIMEOUT_S)
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
    """Wait until the pool has its minimum size, for `_SHRINK_TIMEOUT_S` at most."""
    is_shrunk = anyio.Event()

    def listen(event: events.Event) -> None:
        if isinstance(event, events.PoolScaled) and event.after == _MIN_CHILDREN:
            is_shrunk.set()

    bus.subscribe(listen)
    if tally.scaled and tally.scaled[-1][1] > _MIN_CHILDREN:
        with anyio.move_on_after(_SHRINK_TIMEOUT_S):
            await is_shrunk.wait()
    bus.unsubscribe(listen)


async def _measure_lag(tally: Tally) -> None:
    """Measure the largest delay of the event loop."""
    while True:
        begun = time.perf_counter()
        await anyio.sleep(_LAG_INTERVAL_S)
        tally.lag = max(tally.lag, time.perf_counter() - begun - _LAG_INTERVAL_S)


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
