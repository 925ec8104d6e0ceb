"""From fork to READY, and from the last call to the exit."""

import os
import random
import signal
import socket
import sys
import traceback
from typing import NoReturn

from hybridpool.child import guard
from hybridpool.child.frames import Fork, Ready, Stillborn
from hybridpool.child.load import Program
from hybridpool.child.loop import Child
from hybridpool.child.memory import Gauge
from hybridpool.child.voice import Voice

_STILLBORN = 1


def live(order: Fork, channel: socket.socket, zygote: int, program: Program | None) -> NoReturn:
    """Be a child, from just after the fork to the exit; never returns to the zygote's code.

    :param zygote: pid of the zygote, which this child must not outlive.
    """
    status = _STILLBORN
    try:
        _leave_home(zygote)
        status = _work(order, channel, program)
    except BaseException:
        # The interpreter would run the zygote's exit handlers here; a traceback is all that is wanted.
        traceback.print_exc(file=sys.__stderr__)
    finally:
        _flush()
        os._exit(status)


def _leave_home(zygote: int) -> None:
    """Cut what is shared with the zygote and the siblings."""
    os.setsid()
    guard.die_with_parent(zygote)
    guard.reset_signals()
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    random.seed()
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed(int.from_bytes(os.urandom(4)))


def _work(order: Fork, channel: socket.socket, program: Program | None) -> int:
    _take_name(order.name)
    child = Child(order.name, channel)
    voice = Voice(order.name, order.orders, child.say)
    gauge = Gauge(order.orders.memory_watch)
    try:
        for hook in program.child_hooks("worker_process_init") if program else ():
            hook()
        tasks = program.child_tasks() if program else {}
    except (Exception, SystemExit) as error:
        own = error.__traceback__
        text = "".join(traceback.format_exception(type(error), error, own and own.tb_next)).rstrip("\n")
        child.send(Stillborn(f"worker_process_init failed:\n{text}"))
        return _STILLBORN
    child.send(Ready(os.getpid()))
    try:
        child.work(tasks, gauge, voice.finish)
    finally:
        for hook in program.child_hooks("worker_process_shutdown") if program else ():
            hook()
        voice.finish()
    return 0


def _take_name(name: str) -> None:
    """Be known by the child's name: to multiprocessing's users and, if setproctitle is there, to `ps`."""
    multiprocessing = sys.modules.get("multiprocessing")
    if multiprocessing is not None:
        multiprocessing.current_process().name = name
    try:
        from setproctitle import setproctitle
    except ImportError:
        return
    setproctitle(f"[hybridpool: {name}]")


def _flush() -> None:
    # A second signal while the last words are written must not replace the exit status.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    for stream in (sys.__stdout__, sys.__stderr__):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):
            continue
