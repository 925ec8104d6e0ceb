"""Start a worker from the command line: app, settings, log, banner, signals, exit code."""

import asyncio
import errno
import gc
import importlib
import logging
import os
import platform
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import anyio

from hybridpool import events
from hybridpool._brokers.factory import open_broker
from hybridpool._child.log_formats import FORMAT
from hybridpool._cli.banner import banner as draw_banner
from hybridpool._cli.daemon import pid_file
from hybridpool._cli.early_setup import import_from_here
from hybridpool._cli.forced_exit import TEARDOWN_S, exit_within
from hybridpool._cli.signals import REMAP_VARIABLE, Signals, reap_orphans
from hybridpool._cli.start import Start
from hybridpool._cli.title import hide_passwords
from hybridpool._client.asynclib import plain_error
from hybridpool._client.sync_portal import has_uvloop
from hybridpool._config import celery_environment_layer, environment_layer
from hybridpool._observe import log
from hybridpool._observe.log_file import LogFile
from hybridpool._observe.log_sink import Sink
from hybridpool._worker.bootstrap import Prepared, prepare
from hybridpool._worker.runtime import StopMode, Worker
from hybridpool.errors import ConfigError


def launch(start: Start, on_started: Callable[[], None] | None = None) -> int:
    """Run a worker until it is told to stop; returns the exit code: 0 after a warm stop, 1 after a cold one.

    :param on_started: called when the app is imported and the log is open.
    :raises HybridpoolError: if it cannot start or go on; its text is one line.
    """
    if sys.platform != "linux":
        raise ConfigError(f"hybridpool workers run on Linux, not on {platform.system()}: they need pidfd and prctl")
    import_from_here()
    try:
        return anyio.run(_run, start, on_started, backend_options={"use_uvloop": has_uvloop()})
    except BaseExceptionGroup as group:
        raise plain_error(group) from None


async def _run(start: Start, on_started: Callable[[], None] | None) -> int:
    """Run the worker; then limit the time in which the process exits, because threads that hang would delay it."""
    try:
        code = await _main(start, on_started)
    except BaseException as error:
        shown = plain_error(error) if isinstance(error, BaseExceptionGroup) else error
        exit_within(TEARDOWN_S, 1, f"hybridpool: {shown}")
        raise
    exit_within(TEARDOWN_S, code)
    return code


async def _main(start: Start, on_started: Callable[[], None] | None) -> int:
    bus = events.Bus()
    ended = StopMode.WARM
    with Signals(remap=os.environ.get(REMAP_VARIABLE, "")) as signals, ExitStack() as files:
        # The broker's library is slow to import: import it while the zygote imports the app.
        asyncio.get_running_loop().call_soon(importlib.import_module, "hybridpool._brokers.rabbitmq")
        layers = [start.layer, environment_layer(os.environ)]
        prepared = await prepare(
            start.app, layers, bus, guests=[celery_environment_layer(os.environ)], refusal=start.refusal
        )
        settings = prepared.resolved.settings
        sink = _open_log(settings.worker_logfile)
        files.enter_context(pid_file(prepared.file_name(start.words.pidfile)))
        style = _style(prepared)
        log.set_up(sink, log.level_number(settings.worker_loglevel), style)
        logging.captureWarnings(capture=True)
        signals.log_to(sink)
        bus.subscribe(log.listener(sink.write, style))
        broker = open_broker(
            settings.broker_url,
            bus.emit,
            heartbeat=settings.broker_heartbeat,
            connect_timeout=settings.broker_connection_timeout,
            name=prepared.node,
        )
        worker = Worker(prepared, broker, bus, log_in_colour=style.in_colour, purges=start.words.purges)
        is_hidden = hide_passwords(sys.orig_argv)
        if start.show_banner and not style.as_json:
            sink.write(draw_banner(prepared, settings.queues))
        _warn(prepared, start.words.notes, is_hidden=is_hidden)
        if on_started is not None:
            on_started()
        try:
            with signals.meant_for(worker):
                async with anyio.create_task_group() as beside:
                    beside.start_soon(_when_ready, worker, prepared.node)
                    if os.getpid() == 1:
                        beside.start_soon(reap_orphans, worker)
                    ended = await worker.run()
                    beside.cancel_scope.cancel()
        finally:
            sink.flush()
    return 0 if ended is StopMode.WARM else 1


async def _when_ready(worker: Worker, node: str) -> None:
    await worker.ready.wait()
    # What is there now stays as long as the worker does. A full collection stops the loop, the longer the more objects
    # it has to look at: these are the most by far, and need not be looked at again.
    gc.freeze()
    log.log.info("%s ready.", node)


def _warn(prepared: Prepared, notes: Sequence[str], *, is_hidden: bool) -> None:
    if not is_hidden:
        log.log.warning(
            "a password stands on the command line, where ps shows it: install setproctitle, or use the environment "
            "(HYBRIDPOOL_BROKER_URL)"
        )
    if prepared.resolved.settings.worker_pool == "solo":
        log.log.warning("worker_pool solo: one forked child runs the tasks, not the main process as in Celery")
    for note in (*notes, *(prepared.guest.notes if prepared.guest is not None else ())):
        log.log.warning("%s", note)
    if prepared.threads:
        names = ", ".join(prepared.threads)
        log.log.warning("importing the app left threads running, which no child will have: %s", names)
    if os.geteuid() == 0:
        if "pickle" in prepared.resolved.settings.accept_content:
            risk = "accept_content allows pickle: a message can run any code as root"
        else:
            risk = "whatever a task is made to do, it does as root; give it a user of its own"
        log.log.warning("the worker runs as root, and %s", risk)


def _style(prepared: Prepared) -> log.LogStyle:
    """Return how log lines look; in colour on a terminal, unless NO_COLOR is set (no-color.org)."""
    settings = prepared.resolved.settings
    is_terminal = settings.worker_logfile is None and os.isatty(2) and os.environ.get("TERM") != "dumb"
    return log.LogStyle(
        layout=settings.worker_log_format or FORMAT,
        as_json=settings.worker_log_json,
        in_colour=is_terminal and not settings.worker_log_json and not os.environ.get("NO_COLOR"),
        config=prepared.logging,
    )


def _open_log(path: str | None) -> Sink:
    """:raises ConfigError: if the log file cannot be opened."""
    if path is None:
        return Sink(2)
    try:
        file = LogFile(path)
    except OSError as error:
        raise ConfigError(f"worker_logfile {path!r} cannot be opened: {_why_not(path, error)}") from None
    return Sink(file.descriptor, file)


def _why_not(path: str, error: OSError) -> str:
    match error.errno:
        case errno.ENXIO if Path(path).is_socket():
            # as /dev/stdout of a systemd service is
            return "it is a socket; leave --logfile out, and the log goes to stderr"
        case errno.ENXIO:
            return "it is a FIFO without a reader; start its reader first"
        case errno.ENOENT:
            return f"there is no folder {os.path.dirname(path) or '.'}"  # noqa: PTH120  # as it was given
        case _:
            return error.strerror or str(error)
