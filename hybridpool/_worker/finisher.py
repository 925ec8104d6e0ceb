"""Has a child of another library's app record how a task ended, where no child could record it.

A child that is lost, a task over its time limit, a revoked message: in Celery its main process tells the result
backend, runs errbacks and counts the chord. Our parent runs no code of the app, so one more child does that, which runs
no tasks and is made when it is needed first. It is a child as others are: supervised, limited in time, and replaced
when it dies. What it had in hand is asked again (`policy.fallback`), and the message is acknowledged afterwards only.

After a mass revoke or a long pause, thousands of messages want this at once. As with other calls, the child gets many
short ones in one write, and loses by its death only the one that it had begun. If the app's backend is slow, there are
more such children (`policy.finishing`), and a message that waits for long keeps no other from being taken
(`RedeliveryTracker.hold`).
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

import anyio
import msgspec
from anyio.lowlevel import checkpoint

from hybridpool._ipc.envelope import COMMAND, IS_DONE, UNFINISHED, Command, Envelope, Unfinished, pack_envelope
from hybridpool._lanes.base import Job
from hybridpool._message import Delivery
from hybridpool._outcome import Ignored, Lost, Outcome, Raised, Returned, TimedOut
from hybridpool._policy.fallback import NotFinished
from hybridpool._policy.finishing import finishers
from hybridpool._policy.settlement import FinishInApp
from hybridpool._worker.received import Received
from hybridpool.errors import PoolClosed

#: seconds that the app may take for one message: a result backend that does not answer must not stop the others
LIMIT_S: Final = 60.0


class Finisher:
    """Asks the child."""

    def __init__(self, submit: Callable[[Job], None], resize: Callable[[int], None]) -> None:
        """Ask through these two.

        :param submit: gives a call to that child; raises `PoolClosed` if there can be none.
        :param resize: sets how many such children there are; likewise.
        """
        self._submit = submit
        self._resize = resize
        self._size = 0
        self._at_work = 0
        self._rests = anyio.Event()
        self._rests.set()

    async def finish(self, received: Received, step: FinishInApp) -> None:
        """Have it recorded.

        :raises NotFinished: if that failed.
        """
        unfinished = Unfinished(
            envelope_of(received.delivery),
            step.how,
            received.acknowledged,
            step.cause,
            step.limit,
            step.kind,
            step.module,
            step.arguments,
            received.head.id,
            received.delivery.correlation_id,
            received.delivery.reply_to,
        )
        outcome = await self._ask(received, unfinished)
        if not isinstance(outcome, Ignored):
            raise NotFinished(_describe(outcome))

    async def is_done(self, received: Received) -> bool:
        """Tell whether the task's success is recorded, though its child has died before it could say so.

        :raises NotFinished: if that cannot be found out.
        """
        unfinished = Unfinished(envelope_of(received.delivery), IS_DONE, received.acknowledged)
        outcome = await self._ask(received, unfinished)
        if not isinstance(outcome, Returned) or outcome.parts:
            raise NotFinished(_describe(outcome))
        return bool(msgspec.json.decode(outcome.value))

    async def _ask(self, received: Received, unfinished: Unfinished) -> Outcome:
        job = Job(
            task=received.head.name,
            id=received.head.id,
            content_type=UNFINISHED,
            body=pack_envelope(unfinished),
            on_done=_ignore,
            hard_limit=LIMIT_S,
        )
        return await self._run(job)

    async def command(self, name: str, arguments: Mapping[str, object]) -> object:
        """Run a remote control command of the app's own, and return its answer.

        :raises NotFinished: if it failed.
        """
        command = Command(name, msgspec.json.encode(arguments))
        job = Job(
            task=f"remote control {name}",
            content_type=COMMAND,
            body=pack_envelope(command),
            on_done=_ignore,
            hard_limit=LIMIT_S,
        )
        outcome = await self._run(job)
        if isinstance(outcome, Raised):
            return {"error": outcome.text}
        if not isinstance(outcome, Returned) or outcome.parts:
            raise NotFinished(_describe(outcome))
        return msgspec.Raw(outcome.value)

    async def _run(self, job: Job) -> Outcome:
        """Run a call in that child.

        :raises NotFinished: if there can be none.
        """
        ended: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

        def on_done(_job: Job, outcome: Outcome, _child: str, _runtime: float) -> None:
            if not ended.done():
                ended.set_result(outcome)

        job.on_done = on_done
        if not self._at_work:
            self._rests = anyio.Event()
        self._at_work += 1
        began, took = anyio.current_time(), 0.0
        try:
            self._keep(took)
            self._submit(job)
            outcome = await ended
            took = anyio.current_time() - began
            return outcome
        except PoolClosed as error:
            raise NotFinished(str(error)) from None
        finally:
            self._at_work -= 1
            self._keep(took)
            if not self._at_work:
                self._rests.set()

    def _keep(self, took: float) -> None:
        """Have as many children as are needed."""
        size = finishers(self._size, waiting=self._at_work, took=took)
        if size != self._size:
            self._resize(size)
            self._size = size

    async def wait_rests(self, timeout: float) -> None:
        """Wait until nothing is being recorded.

        :param timeout: seconds.
        """
        with anyio.move_on_after(timeout):
            # A settlement that has just been started asks in the next turn of the loop.
            await checkpoint()
            await self._rests.wait()


def _ignore(*_: object) -> None:
    """Nothing; `Finisher._run` sets what is called."""


def envelope_of(delivery: Delivery) -> Envelope:
    """Return a message as the app's children get it."""
    return Envelope(
        delivery.content_type,
        delivery.properties,
        delivery.exchange,
        delivery.routing_key,
        delivery.redelivered,
        delivery.body,
    )


def _describe(outcome: Outcome) -> str:
    match outcome:
        case Raised(text=text):
            return text
        case Lost(cause=cause):
            return f"the child that was to record it died: {cause}"
        case TimedOut(limit=limit):
            return f"it took more than {limit:g} s"
        case _:
            return type(outcome).__name__
