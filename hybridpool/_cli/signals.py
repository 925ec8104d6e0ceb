"""What signals mean to a worker. Heard from the first moment on: as PID 1, a process has no defaults to die of.

TERM, INT and QUIT stop it, and nothing else that is sent to it does: HUP opens the log file anew, USR1 shows where the
worker is, and the others that would end a process are ignored with a line.
"""

import asyncio
import os
import signal
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final, Self

import anyio

from hybridpool._child.printable import one_line
from hybridpool._cli.early_setup import OUTLIVED, outlive_signals
from hybridpool._observe.log import log
from hybridpool._observe.log_sink import Sink
from hybridpool._observe.stacks import stacks
from hybridpool._worker.runtime import StopMode, Worker

_ANSWERS: Final = {signal.SIGTERM: StopMode.WARM, signal.SIGINT: StopMode.WARM, signal.SIGQUIT: StopMode.COLD}
#: seconds
_REAP_EVERY: Final = 5.0
#: seconds in which a signal that is ignored gets one line: a timer may send thousands
_LINE_INTERVAL_S: Final = 10.0


class Signals:
    """TERM and the first INT stop warmly, QUIT and the second INT coldly.

    A context in which signals are heard; before there is a worker, each of them ends the context.
    """

    def __init__(self) -> None:
        self._worker: Worker | None = None
        self._interrupts = 0
        self._scope = anyio.CancelScope()
        self._sink: Sink | None = None
        self._noted: list[int] = []
        #: monotonic seconds of the last line about each signal that is ignored
        self._said: dict[int, float] = {}

    def __enter__(self) -> Self:
        self._scope.__enter__()
        loop = asyncio.get_running_loop()
        for number in _ANSWERS:
            loop.add_signal_handler(number, self._hear, number)
        outlive_signals()
        # One that has a handler already belongs to a profiler, or a debugger.
        self._noted = [other for other in OUTLIVED if signal.getsignal(other) is signal.SIG_IGN]
        for other in self._noted:
            loop.add_signal_handler(other, self._note, other)
        return self

    def __exit__(self, *exc_info: object) -> bool:
        loop = asyncio.get_running_loop()
        # From here on they are ignored: the process ends soon, with the exit code of what it has done.
        # Between handler and that there is the default.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [*_ANSWERS, *self._noted])
        for number in _ANSWERS:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_IGN)
        for other in self._noted:
            loop.remove_signal_handler(other)
        outlive_signals()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return bool(self._scope.__exit__(*exc_info))  # type: ignore[arg-type]  # passed on as they came

    @contextmanager
    def meant_for(self, worker: Worker) -> Generator[None]:
        """From now on signals stop this worker."""
        self._worker = worker
        try:
            yield
        finally:
            self._worker = None

    def log_to(self, sink: Sink) -> None:
        """From now on HUP opens this sink's file anew."""
        self._sink = sink

    def _note(self, number: int) -> None:
        """Hear a signal that does not stop the worker."""
        match number:
            case signal.SIGHUP:
                self._open_log_anew()
            case signal.SIGUSR1:
                children = self._worker.describe_children() if self._worker is not None else []
                log.warning("worker: SIGUSR1: where it is\n%s", "\n".join([*map(one_line, children), stacks()]))
            case _:
                now = time.monotonic()
                if now - self._said.get(number, -_LINE_INTERVAL_S) >= _LINE_INTERVAL_S:
                    self._said[number] = now
                    meaning = "has no meaning yet and is ignored" if number == signal.SIGUSR2 else "is ignored"
                    log.warning("worker: %s %s", _name(number), meaning)

    def _open_log_anew(self) -> None:
        if self._sink is None:
            log.warning("worker: SIGHUP: the log is not open yet")
            return
        try:
            path = self._sink.reopen()
        except OSError as error:
            why = error.strerror or str(error)
            log.warning("worker: SIGHUP: no log file is opened anew: %s", why)
        else:
            log.warning("worker: SIGHUP: the log file %s is opened anew", path)

    def _hear(self, number: signal.Signals) -> None:
        if self._worker is None:
            self._scope.cancel()
            return
        answer = _ANSWERS[number]
        if number is signal.SIGINT:
            self._interrupts += 1
            if self._interrupts > 1:
                answer = StopMode.COLD
            else:
                log.warning("worker: Hitting Ctrl+C again will terminate all running tasks!")
        log.warning("worker: %s shutdown (MainProcess)", "Warm" if answer is StopMode.WARM else "Cold")
        self._worker.stop(answer)


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIGRTMIN+{number - signal.SIGRTMIN}"


async def reap_orphans(worker: Worker) -> None:
    """As PID 1, collect the orphans that the kernel gives us, for ever.

    By looking now and then, since uvloop keeps SIGCHLD for itself. Descendants of our own are the zygote's to reap;
    what comes here was started beside us, or was a child when its zygote died. The zygote is left to who waits for it.
    """
    while True:
        await anyio.sleep(_REAP_EVERY)
        while (pid := _dead_child()) and pid != worker.zygote_pid:
            os.waitpid(pid, os.WNOHANG)  # noqa: ASYNC222  # it is dead already


def _dead_child() -> int | None:
    try:
        seen = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    return seen.si_pid if seen else None
