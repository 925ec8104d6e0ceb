"""From fork to READY, and from the last call to the exit."""

import importlib
import os
import pickle
import random
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Generator
from functools import partial
from typing import NoReturn

from hybridpool import _task_context
from hybridpool._child import execute, lifespans, log_forwarding, process_isolation
from hybridpool._child.concurrent_child import ConcurrentChild, Service
from hybridpool._child.log_forwarding import LogForwarder, PreparedLogging
from hybridpool._child.loop import Child
from hybridpool._child.memory import MemoryGauge
from hybridpool._child.process_state import IGNORE_HANDLER, set_handler
from hybridpool._child.program import Program
from hybridpool._child.rendering import escape_surrogates
from hybridpool._ipc.frames import ChildOrders, Fork, Ready, StartFailed
from hybridpool._ipc.shared_page import SharedPage

_START_FAILED = 1


def prepare() -> None:
    """Do once in the zygote, before the first fork, what every child would do again."""
    try:
        import setproctitle
    except ImportError:
        return
    # The first call looks for the command line in memory.
    setproctitle.getproctitle()


def live(
    order: Fork,
    channel: socket.socket,
    shared_page: int,
    zygote: int,
    program: Program | None,
    prepared: PreparedLogging | None,
) -> NoReturn:
    """Be a child, from just after the fork to the exit; never returns to the zygote's code.

    :param shared_page: descriptor of the page shared with the parent.
    :param zygote: pid of the zygote, which this child must not outlive.
    :param prepared: what `prepare_lane` has returned.
    """
    status = _START_FAILED
    try:
        _detach_from_zygote(zygote)
        page = SharedPage(shared_page)
        os.close(shared_page)
        status = _work(_make_child(order, channel, page), order, program, zygote, prepared)
    except BaseException:
        # The interpreter would run the zygote's exit handlers here; a traceback is all that is wanted.
        traceback.print_exc(file=sys.__stderr__)
    finally:
        _flush()
        os._exit(status)


def _detach_from_zygote(zygote: int) -> None:
    """Cut what is shared with the zygote and the siblings."""
    os.setsid()
    process_isolation.die_with_parent(zygote)
    process_isolation.tag_descendants()
    process_isolation.reset_signals()
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    random.seed()
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed(int.from_bytes(os.urandom(4)))


def prepare_lane(orders: ChildOrders, program: Program | None) -> PreparedLogging | None:
    """Load and do what the children of a lane have in common; in the zygote, so that they share it.

    :returns: the state of logging, for `live`; None: children leave it as it is.
    :raises Exception: if a module cannot be imported, or whatever the app's code raises.
    """
    if orders.lane == "async":
        importlib.import_module("hybridpool._child.async_loop").preload(orders.loop)
    elif orders.lane == "thread":
        importlib.import_module("hybridpool._child.thread_loop")
    prepared = log_forwarding.prepare(orders) if orders.log_format else None
    if program:
        program.prepare_children(orders)
    return prepared


def _make_child(order: Fork, channel: socket.socket, page: SharedPage) -> Child | ConcurrentChild:
    if order.orders.lane == "async":
        from hybridpool._child.async_loop import AsyncChild

        return AsyncChild(order.name, channel, page)
    if order.orders.lane == "thread":
        from hybridpool._child.thread_loop import ThreadChild

        return ThreadChild(order.name, channel, page)
    return Child(order.name, channel, page)


def _work(
    child: Child | ConcurrentChild,
    order: Fork,
    program: Program | None,
    zygote: int,
    prepared: PreparedLogging | None,
) -> int:
    _take_name(order.name)
    try:
        forwarder = LogForwarder(order.name, order.orders, child.say, prepared) if order.orders.log_format else None
    except Exception as error:
        # What `worker_logging` names.
        child.send(StartFailed(escape_surrogates(lifespans.describe_failed_start(error))))
        return _START_FAILED
    after_each = forwarder.finish if forwarder else _nothing
    gauge = MemoryGauge(order.orders.memory_watch)
    try:
        run = program.child_runner(order.orders, child) if program else execute.runner({})
        hooks = program.child_hooks("worker_process_init") if program else ()
        for hook in hooks:
            hook()
        if program:
            child.rules = program.child_rules()
            if isinstance(child, Child):
                child.soft_limit_error = program.child_soft_limit
        tasks = program.child_tasks() if program else {}
        finish = _initialize(order.orders.initializer)
        states = program.child_lifespans(order.orders.lane) if program else ()
        # Those of an async child are entered on its loop.
        leave = lifespans.enter_all(()) if order.orders.lane == "async" else lifespans.enter_all(states)
    except (Exception, SystemExit) as error:
        child.send(StartFailed(escape_surrogates(lifespans.describe_failed_start(error))))
        return _START_FAILED
    if forwarder and (hooks or states or order.orders.initializer):
        forwarder.save_state()
    # A child that has become another user in its hooks is not tied to the zygote any more (prctl(2)).
    process_isolation.die_with_parent(zygote)
    if program:
        _task_context.set_fallback_sender(_task_context.RunningTask("", "", 0, None, order.name, child.enqueue))

    def is_ready() -> None:
        child.send(Ready(os.getpid()))

    try:
        if isinstance(child, Child):
            is_ready()
            child.work(run, gauge, after_each)
        else:
            prepare, around = execute.preparer(tasks, child.rules), partial(lifespans.entered, states)
            child.work(Service(prepare, gauge, after_each, is_ready, order.orders, around))
    except lifespans.LifespanFailed as error:
        child.send(StartFailed(escape_surrogates(lifespans.describe_failed_start(error))))
        return _START_FAILED
    finally:
        _task_context.set_fallback_sender(None)
        leave()
        finish()
        for hook in program.child_hooks("worker_process_shutdown") if program else ():
            hook()
        after_each()
    return 0


def _initialize(pickled: bytes) -> Callable[[], None]:
    """Make this child's resource; return the function that tears it down at retirement."""
    if not pickled:
        return _nothing
    made = pickle.loads(pickled)()
    if not isinstance(made, Generator):
        _task_context.set_resource(made)
        return _nothing
    _task_context.set_resource(next(made, None))
    return lambda: _tear_down(made)


def _nothing() -> None:
    """Nothing is to be done."""


def _tear_down(made: Generator[object]) -> None:
    for _ in made:
        raise RuntimeError("the initializer yielded twice; it should yield once, and then give back")


def _take_name(name: str) -> None:
    """Give this process the child's name, for multiprocessing's users and, if setproctitle is there, for `ps`."""
    multiprocessing = sys.modules.get("multiprocessing")
    if multiprocessing is not None:
        multiprocessing.current_process().name = name
    titles = sys.modules.get("setproctitle")
    if titles is not None:
        titles.setproctitle(f"[hybridpool: {name}]")


def _flush() -> None:
    # A second signal while the last output is written must not replace the exit status.
    set_handler(signal.SIGTERM, IGNORE_HANDLER)
    for stream in (sys.__stdout__, sys.__stderr__):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):
            continue
