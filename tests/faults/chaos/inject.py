"""Injecting the planned faults."""

import re
import subprocess
import time
from collections.abc import Awaitable, Callable
from typing import Final

import anyio
import psutil

from tests.faults.chaos.calls import ANSWERS, MAIN, NAME, NARROW
from tests.faults.chaos.deployment import RECOVERY, ClientProxy, Deployment, WorkerSlot, in_thread, until
from tests.faults.chaos.odd import OddMessage
from tests.faults.chaos.plan import PUBLISHER, Fault, Kind
from tests.integration.raw import send
from tests.workers import command, environment

#: seconds after which a client has noticed that its connection was closed
NOTICE: Final = 1.0
#: seconds that packets vanish on new connections too, at most
LONGEST_STALL: Final = 5.0


async def inject(deployment: Deployment, fault: Fault, slot: WorkerSlot | None) -> None:
    """Inject a fault, and wait until the worker, node or publisher works again.

    :param slot: the worker that it hits; None: the node, or the publisher.
    """
    match fault.kind:
        case Kind.CUT if slot is None:
            _cut(deployment.sender_proxy, fault.chance)
        case Kind.STALLED if slot is None:
            await _stall(deployment.sender_proxy, fault.chance)
        case kind if kind in TO_NODES:
            begin = time.monotonic()
            await in_thread(lambda: TO_NODES[kind](deployment))
            deployment.note(kind, begin, notice=NOTICE)
        case kind:
            assert slot is not None
            await TO_WORKERS[kind](deployment, slot, fault.chance)


def is_for_worker(fault: Fault) -> bool:
    """Tell whether it hits a worker."""
    return fault.kind in TO_WORKERS and fault.who != PUBLISHER


def is_for_node(fault: Fault) -> bool:
    """Tell whether it hits the node, or needs it at rest."""
    return fault.kind in TO_NODES


def _close_connections(deployment: Deployment) -> None:
    deployment.node.ctl("close_all_connections", "chaos")


def _replay(deployment: Deployment) -> None:
    """Send the dead letters of the ordinary queue back, as an operator does."""
    words = command("dlq", "replay", "--all", "--queues", MAIN)
    env = environment({"HYBRIDPOOL_BROKER_URL": deployment.node.url})
    done = subprocess.run(words, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        deployment.troubles.append(f"hybridpool dlq replay: {done.stderr}")
    deployment.replayed += re.findall(r"\[(.+)\] sent to ", done.stdout)


def _send_odd(deployment: Deployment) -> None:
    """Send what no client library would."""
    calls, deployment.odd = deployment.odd, []
    messages = [
        OddMessage(task=call.task, id=call.id, name=NAME, oddity=call.oddity, reply_to=ANSWERS * call.wants_answer)
        for call in calls
    ]
    send(deployment.node.url, MAIN, [message.raw() for message in messages])


async def _child_killed(deployment: Deployment, slot: WorkerSlot, chance: float) -> None:
    await until(lambda: _children(slot) or slot.has_exited, what=f"a child of {slot.name}")
    children = _children(slot)
    if children:
        victim = children[int(chance * len(children))]
        await _kill(deployment, slot, Kind.CHILD_KILLED, victim)


async def _zygote_killed(deployment: Deployment, slot: WorkerSlot, chance: float) -> None:
    await until(lambda: _children(slot) or slot.has_exited, what=f"a child of {slot.name}")
    await _kill(deployment, slot, Kind.ZYGOTE_KILLED, _zygote(slot))


async def _kill(deployment: Deployment, slot: WorkerSlot, kind: Kind, victim: psutil.Process | None) -> None:
    begin = time.monotonic()
    try:
        if victim is not None:
            victim.kill()
            deployment.note(kind, begin, worker=slot.name, pid=victim.pid)
    except psutil.NoSuchProcess:
        pass  # a deadly task was quicker


def _zygote(slot: WorkerSlot) -> psutil.Process | None:
    try:
        return slot.worker.zygote
    except (psutil.NoSuchProcess, ValueError, IndexError):
        return None


def _children(slot: WorkerSlot) -> list[psutil.Process]:
    try:
        return slot.worker.children()
    except (psutil.NoSuchProcess, ValueError, IndexError):
        return []  # without a zygote just now, or gone


async def _worker_killed(deployment: Deployment, slot: WorkerSlot, chance: float) -> None:
    begin = time.monotonic()
    if slot.has_exited:
        return
    slot.worker.main.kill()
    await in_thread(slot.worker.wait)
    deployment.note(Kind.WORKER_KILLED, begin, worker=slot.name)
    await deployment.start(slot)


async def _worker_stopped(deployment: Deployment, slot: WorkerSlot, chance: float) -> None:
    begin = time.monotonic()
    if slot.has_exited:
        return
    await deployment.stop(slot)
    deployment.note(Kind.WORKER_STOPPED, begin, worker=slot.name)
    await deployment.start(slot)


async def _worker_cut(deployment: Deployment, slot: WorkerSlot, chance: float) -> None:
    begin = time.monotonic()
    _cut(slot.proxy, chance)
    deployment.note(Kind.CUT, begin, notice=NOTICE, worker=slot.name)


async def _worker_stalled(deployment: Deployment, slot: WorkerSlot, chance: float) -> None:
    lines, begin = slot.worker.lines, time.monotonic()
    before = len(lines)
    await _stall(slot.proxy, chance)

    def back() -> bool:
        return any("Connected to" in line for line in lines[before:]) or slot.has_exited

    await until(back, RECOVERY, f"{slot.name} connected again")
    deployment.note(Kind.STALLED, begin, notice=NOTICE, worker=slot.name)


def _cut(proxy: ClientProxy, chance: float) -> None:
    """Cut all connections, or one of the two that each client has."""
    live = proxy.live()
    for connection in live if chance < 0.5 else live[int((chance - 0.5) * 2 * len(live)) :][:1]:
        connection.cut()


async def _stall(proxy: ClientProxy, chance: float) -> None:
    proxy.stall()
    await anyio.sleep(LONGEST_STALL * chance)
    proxy.resume()


TO_WORKERS: Final[dict[Kind, Callable[[Deployment, WorkerSlot, float], Awaitable[None]]]] = {
    Kind.CHILD_KILLED: _child_killed,
    Kind.ZYGOTE_KILLED: _zygote_killed,
    Kind.WORKER_KILLED: _worker_killed,
    Kind.WORKER_STOPPED: _worker_stopped,
    Kind.CUT: _worker_cut,
    Kind.STALLED: _worker_stalled,
}

TO_NODES: Final[dict[Kind, Callable[[Deployment], None]]] = {
    Kind.CLOSED: _close_connections,
    Kind.NODE_STOPPED: lambda deployment: deployment.node.restart(),
    Kind.NODE_KILLED: lambda deployment: deployment.node.restart(hard=True),
    Kind.REPLAYED: _replay,
    Kind.EMPTIED: lambda deployment: deployment.take_letters(NARROW),
    Kind.ODD_SENT: _send_odd,
}
