"""Making things happen."""

import re
import subprocess
import time
from collections.abc import Awaitable, Callable
from typing import Final

import anyio
import psutil

from tests.faults.chaos.calls import ANSWERS, MAIN, NAME, NARROW
from tests.faults.chaos.estate import RECOVERY, Estate, Seat, Way, in_thread, until
from tests.faults.chaos.odd import OddMessage
from tests.faults.chaos.plan import PUBLISHER, Happening, Kind
from tests.integration.raw import send
from tests.workers import command, environment

#: seconds in which whoever has lost a connection that was closed on him has surely noticed
NOTICE: Final = 1.0
#: seconds that packets vanish on new connections too, at most
LONGEST_STALL: Final = 5.0


async def happen(estate: Estate, happening: Happening, seat: Seat | None) -> None:
    """Make it happen, and wait until whom it hit is back.

    :param seat: whom it hits; None: the node, or the publisher.
    """
    match happening.kind:
        case Kind.CUT if seat is None:
            _cut(estate.sender_way, happening.chance)
        case Kind.STALLED if seat is None:
            await _stall(estate.sender_way, happening.chance)
        case kind if kind in TO_NODES:
            begin = time.monotonic()
            await in_thread(lambda: TO_NODES[kind](estate))
            estate.note(kind, begin, notice=NOTICE)
        case kind:
            assert seat is not None
            await TO_WORKERS[kind](estate, seat, happening.chance)


def is_for_worker(happening: Happening) -> bool:
    """Tell whether it hits a worker."""
    return happening.kind in TO_WORKERS and happening.who != PUBLISHER


def is_for_node(happening: Happening) -> bool:
    """Tell whether it hits the node, or needs it at rest."""
    return happening.kind in TO_NODES


def _close_connections(estate: Estate) -> None:
    estate.node.ctl("close_all_connections", "chaos")


def _replay(estate: Estate) -> None:
    """Send the dead letters of the ordinary queue back, as an operator does."""
    words = command("dlq", "replay", "--all", "--queues", MAIN)
    env = environment({"HYBRIDPOOL_BROKER_URL": estate.node.url})
    done = subprocess.run(words, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        estate.troubles.append(f"hybridpool dlq replay: {done.stderr}")
    estate.replayed += re.findall(r"\[(.+)\] sent to ", done.stdout)


def _send_odd(estate: Estate) -> None:
    """Send what no client library would."""
    calls, estate.odd = estate.odd, []
    messages = [
        OddMessage(task=call.task, id=call.id, name=NAME, oddity=call.oddity, reply_to=ANSWERS * call.wants_answer)
        for call in calls
    ]
    send(estate.node.url, MAIN, [message.raw() for message in messages])


async def _child_killed(estate: Estate, seat: Seat, chance: float) -> None:
    await until(lambda: _children(seat) or seat.is_deserted, what=f"a child of {seat.name}")
    children = _children(seat)
    if children:
        victim = children[int(chance * len(children))]
        await _kill(estate, seat, Kind.CHILD_KILLED, victim)


async def _zygote_killed(estate: Estate, seat: Seat, chance: float) -> None:
    await until(lambda: _children(seat) or seat.is_deserted, what=f"a child of {seat.name}")
    await _kill(estate, seat, Kind.ZYGOTE_KILLED, _zygote(seat))


async def _kill(estate: Estate, seat: Seat, kind: Kind, victim: psutil.Process | None) -> None:
    begin = time.monotonic()
    try:
        if victim is not None:
            victim.kill()
            estate.note(kind, begin, worker=seat.name, pid=victim.pid)
    except psutil.NoSuchProcess:
        pass  # a deadly task was quicker


def _zygote(seat: Seat) -> psutil.Process | None:
    try:
        return seat.worker.zygote
    except (psutil.NoSuchProcess, ValueError, IndexError):
        return None


def _children(seat: Seat) -> list[psutil.Process]:
    try:
        return seat.worker.children()
    except (psutil.NoSuchProcess, ValueError, IndexError):
        return []  # without a zygote just now, or gone


async def _worker_killed(estate: Estate, seat: Seat, chance: float) -> None:
    begin = time.monotonic()
    if seat.is_deserted:
        return
    seat.worker.main.kill()
    await in_thread(seat.worker.wait)
    estate.note(Kind.WORKER_KILLED, begin, worker=seat.name)
    await estate.start(seat)


async def _worker_stopped(estate: Estate, seat: Seat, chance: float) -> None:
    begin = time.monotonic()
    if seat.is_deserted:
        return
    await estate.stop(seat)
    estate.note(Kind.WORKER_STOPPED, begin, worker=seat.name)
    await estate.start(seat)


async def _worker_cut(estate: Estate, seat: Seat, chance: float) -> None:
    begin = time.monotonic()
    _cut(seat.way, chance)
    estate.note(Kind.CUT, begin, notice=NOTICE, worker=seat.name)


async def _worker_stalled(estate: Estate, seat: Seat, chance: float) -> None:
    lines, begin = seat.worker.lines, time.monotonic()
    before = len(lines)
    await _stall(seat.way, chance)

    def back() -> bool:
        return any("Connected to" in line for line in lines[before:]) or seat.is_deserted

    await until(back, RECOVERY, f"{seat.name} connected again")
    estate.note(Kind.STALLED, begin, notice=NOTICE, worker=seat.name)


def _cut(way: Way, chance: float) -> None:
    """Cut all connections, or one of the two that each client has."""
    children = way.live()
    for child in children if chance < 0.5 else children[int((chance - 0.5) * 2 * len(children)) :][:1]:
        child.cut()


async def _stall(way: Way, chance: float) -> None:
    way.stall()
    await anyio.sleep(LONGEST_STALL * chance)
    way.resume()


TO_WORKERS: Final[dict[Kind, Callable[[Estate, Seat, float], Awaitable[None]]]] = {
    Kind.CHILD_KILLED: _child_killed,
    Kind.ZYGOTE_KILLED: _zygote_killed,
    Kind.WORKER_KILLED: _worker_killed,
    Kind.WORKER_STOPPED: _worker_stopped,
    Kind.CUT: _worker_cut,
    Kind.STALLED: _worker_stalled,
}

TO_NODES: Final[dict[Kind, Callable[[Estate], None]]] = {
    Kind.CLOSED: _close_connections,
    Kind.NODE_STOPPED: lambda estate: estate.node.restart(),
    Kind.NODE_KILLED: lambda estate: estate.node.restart(hard=True),
    Kind.REPLAYED: _replay,
    Kind.EMPTIED: lambda estate: estate.take_letters(NARROW),
    Kind.ODD_SENT: _send_odd,
}
