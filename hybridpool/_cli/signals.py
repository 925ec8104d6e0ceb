"""The signals of a worker. They have handlers from the start: for PID 1 the kernel has no default actions.

TERM, INT and QUIT stop the worker. No other signal that can be handled does: HUP reopens the log file, USR1 logs where
the worker and its children are, and the others that would end a process are ignored and logged.
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
from hybridpool._child.stacks import stacks
from hybridpool._cli.early_setup import IGNORED_SIGNALS, ignore_signals
from hybridpool._observe.log import log
from hybridpool._observe.log_sink import Sink
from hybridpool._worker.runtime import StopMode, Worker

_ANSWERS: Final = {signal.SIGTERM: StopMode.WARM, signal.SIGINT: StopMode.WARM, signal.SIGQUIT: StopMode.COLD}
#: of Celery: if it is SIGQUIT, TERM does what QUIT does
REMAP_VARIABLE: Final = "REMAP_SIGTERM"
_TITLES: Final = {StopMode.WARM: "Warm", StopMode.SOFT: "Soft", StopMode.COLD: "Cold"}
#: seconds between two looks for orphans
_REAP_INTERVAL_S: Final = 5.0
#: seconds between two lines about the same ignored signal: a timer may send thousands
_LINE_INTERVAL_S: Final = 10.0


class Signals:
    """A context with signal handlers: TERM and the first INT stop warmly, QUIT and the second INT coldly.

    If the worker has a soft timeout, the first QUIT, or second INT, stops softly. Before there is a worker, each of
    these ends the context.
    """

    def __init__(self, *, remap: str = "") -> None:
        """:param remap: what the environment says in `REMAP_VARIABLE`."""
        self._answers = {**_ANSWERS, signal.SIGTERM: StopMode.COLD} if remap == "SIGQUIT" else _ANSWERS
        self._is_soft = False
        self._worker: Worker | None = None
        self._interrupts = 0
        self._scope = anyio.CancelScope()
        self._sink: Sink | None = None
        self._noted: list[int] = []
        #: monotonic seconds of the last line about each signal that is ignored
        self._logged_at: dict[int, float] = {}

    def __enter__(self) -> Self:
        self._scope.__enter__()
        loop = asyncio.get_running_loop()
        for number in _ANSWERS:
            loop.add_signal_handler(number, self._stop, number)
        ignore_signals()
        # A signal that has a handler already belongs to a profiler or a debugger.
        self._noted = [other for other in IGNORED_SIGNALS if signal.getsignal(other) is signal.SIG_IGN]
        for other in self._noted:
            loop.add_signal_handler(other, self._note, other)
        return self

    def __exit__(self, *exc_info: object) -> bool:
        loop = asyncio.get_running_loop()
        # From here on they are ignored, so that the process exits with its own code. They are blocked meanwhile:
        # between `remove_signal_handler` and SIG_IGN the default action holds, and a signal then would end the process.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [*_ANSWERS, *self._noted])
        for number in _ANSWERS:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_IGN)
        for other in self._noted:
            loop.remove_signal_handler(other)
        ignore_signals()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return bool(self._scope.__exit__(*exc_info))  # type: ignore[arg-type]  # passed on as they came

    @contextmanager
    def meant_for(self, worker: Worker) -> Generator[None]:
        """Let signals stop this worker while the block runs."""
        self._worker = worker
        try:
            yield
        finally:
            self._worker = None

    def log_to(self, sink: Sink) -> None:
        """Let HUP reopen this sink's file."""
        self._sink = sink

    def _note(self, number: int) -> None:
        """Handle a signal that does not stop the worker."""
        match number:
            case signal.SIGHUP:
                self._open_log_anew()
            case signal.SIGUSR1:
                children = self._worker.describe_children() if self._worker is not None else []
                log.warning("worker: SIGUSR1: where it is\n%s", "\n".join([*map(one_line, children), stacks()]))
                if self._worker is not None:
                    self._worker.report_stacks()
            case _:
                now = time.monotonic()
                if now - self._logged_at.get(number, -_LINE_INTERVAL_S) >= _LINE_INTERVAL_S:
                    self._logged_at[number] = now
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

    def _stop(self, number: signal.Signals) -> None:
        if self._worker is None:
            self._scope.cancel()
            return
        answer = self._answers[number]
        if number is signal.SIGINT:
            self._interrupts += 1
            if self._interrupts > 1:
                answer = StopMode.COLD
            else:
                log.warning("worker: Hitting Ctrl+C again will terminate all running tasks!")
        if answer is StopMode.COLD and self._worker.soft_timeout and not self._is_soft:
            answer, self._is_soft = StopMode.SOFT, True
            log.warning("Initiating Soft Shutdown, terminating in %g seconds", self._worker.soft_timeout)
        log.warning("worker: %s shutdown (MainProcess)", _TITLES[answer])
        self._worker.stop(answer)


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIGRTMIN+{number - signal.SIGRTMIN}"


async def reap_orphans(worker: Worker) -> None:
    """As PID 1, reap the orphans that the kernel hands to this process, without end.

    It polls, since uvloop keeps SIGCHLD for itself. The zygote reaps what the worker's children started.
    What comes here was started by other processes, or was a child when its zygote died. The zygote's client reaps the
    zygote itself.
    """
    while True:
        await anyio.sleep(_REAP_INTERVAL_S)
        while (pid := _dead_child()) and pid != worker.zygote_pid:
            os.waitpid(pid, os.WNOHANG)  # noqa: ASYNC222  # it is dead already


def _dead_child() -> int | None:
    try:
        seen = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    return seen.si_pid if seen else None
