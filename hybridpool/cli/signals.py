"""What signals mean to a worker. Heard from the first moment on: as PID 1, a process has no defaults to die of."""

import asyncio
import os
import signal
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final, Self

import anyio

from hybridpool.monitor.log import log
from hybridpool.worker import Stop, Worker

_ANSWERS: Final = {signal.SIGTERM: Stop.WARM, signal.SIGINT: Stop.WARM, signal.SIGQUIT: Stop.COLD}
#: seconds
_REAP_EVERY: Final = 5.0


class Signals:
    """TERM and the first INT stop warmly, QUIT and the second INT coldly.

    A context in which signals are heard; before there is a worker, each of them ends the context.
    """

    def __init__(self) -> None:
        self._worker: Worker | None = None
        self._interrupts = 0
        self._scope = anyio.CancelScope()

    def __enter__(self) -> Self:
        self._scope.__enter__()
        loop = asyncio.get_running_loop()
        for number in _ANSWERS:
            loop.add_signal_handler(number, self._hear, number)
        return self

    def __exit__(self, *exc_info: object) -> bool:
        loop = asyncio.get_running_loop()
        for number in _ANSWERS:
            loop.remove_signal_handler(number)
        return bool(self._scope.__exit__(*exc_info))  # type: ignore[arg-type]  # passed on as they came

    @contextmanager
    def meant_for(self, worker: Worker) -> Generator[None]:
        """From now on signals stop this worker."""
        self._worker = worker
        try:
            yield
        finally:
            self._worker = None

    def _hear(self, number: signal.Signals) -> None:
        if self._worker is None:
            self._scope.cancel()
            return
        answer = _ANSWERS[number]
        if number is signal.SIGINT:
            self._interrupts += 1
            if self._interrupts > 1:
                answer = Stop.COLD
            else:
                log.warning("worker: Hitting Ctrl+C again will terminate all running tasks!")
        log.warning("worker: %s shutdown (MainProcess)", "Warm" if answer is Stop.WARM else "Cold")
        self._worker.stop(answer)


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
