"""What no child could record is given to one that can, and asked for again if that fails."""

import anyio
import pytest

from hybridpool._ipc.envelope import IS_DONE, UNFINISHED, unpack_unfinished
from hybridpool._lanes.base import Job
from hybridpool._message import Delivery, Head
from hybridpool._outcome import Ignored, Lost, Outcome, Raised, Returned, TimedOut
from hybridpool._policy.fallback import NotFinished
from hybridpool._policy.settlement import DeliveryOptions, FinishInApp
from hybridpool._worker.finisher import LIMIT_S, Finisher
from hybridpool._worker.received import Received
from hybridpool.errors import PoolClosed

DELIVERY = Delivery(
    queue="celery",
    tag=1,
    channel=1,
    redelivered=True,
    headers={},
    content_type="application/json",
    content_encoding="utf-8",
    correlation_id=None,
    reply_to=None,
    priority=None,
    exchange="",
    routing_key="celery",
    body=b"[]",
    properties=b"raw",
)
HEAD = Head("shop.add", "id-1", None, None, None, 0, None, None, None, None, False, 0)
STEP = FinishInApp("lost", "signal 9 (SIGKILL)")


def received() -> Received:
    """Return a message that was acknowledged before its task began."""
    options = DeliveryOptions(wants_result=False, acks_late=False, max_deliveries=3)
    return Received(DELIVERY, HEAD, options, acknowledged=True)


async def finish(outcome: Outcome) -> Job:
    """Have a message finished by a child that ends its call so; return the call."""
    jobs: list[Job] = []

    def submit(job: Job) -> None:
        jobs.append(job)
        job.on_done(job, outcome, "Finisher-1", 0.1)

    sizes: list[int] = []
    await Finisher(submit, sizes.append).finish(received(), STEP)
    assert sizes == [1]
    return jobs[0]


async def test_what_is_asked() -> None:
    """The child gets the message as it came, what happened to it, and a limit of time."""
    job = await finish(Ignored())
    assert (job.content_type, job.task, job.id, job.hard_limit) == (UNFINISHED, "shop.add", "id-1", LIMIT_S)
    assert isinstance(job.body, bytes)
    asked = unpack_unfinished(job.body)
    assert (asked.how, asked.cause, asked.acknowledged) == ("lost", "signal 9 (SIGKILL)", True)
    assert (asked.envelope.properties, asked.envelope.redelivered, asked.envelope.body) == (b"raw", True, b"[]")


@pytest.mark.parametrize("done", [True, False])
async def test_is_it_done(done: bool) -> None:
    """The child tells whether a task's success is recorded; if it cannot tell, that is said."""
    asked: list[str] = []

    def submit(job: Job) -> None:
        assert isinstance(job.body, bytes)
        asked.append(unpack_unfinished(job.body).how)
        answer = Returned(b"true" if done else b"false", "") if len(asked) == 1 else Lost("signal 9", "Finisher-1")
        job.on_done(job, answer, "Finisher-1", 0.1)

    finisher = Finisher(submit, lambda _: None)
    assert await finisher.is_done(received()) is done
    with pytest.raises(NotFinished, match="died: signal 9"):
        await finisher.is_done(received())
    assert asked == [IS_DONE, IS_DONE]


@pytest.mark.parametrize(
    ("outcome", "why"),
    [
        (Lost("signal 9 (SIGKILL)", "Finisher-1"), r"died: signal 9 \(SIGKILL\)"),
        (TimedOut(60.0, "Finisher-1"), "more than 60 s"),
        (Raised("ConnectionError", "builtins", b"[]", "ConnectionError('away')", ""), r"ConnectionError\('away'\)"),
    ],
)
async def test_failures(outcome: Outcome, why: str) -> None:
    """A child that dies, hangs or fails has not finished it, and the reason is told."""
    with pytest.raises(NotFinished, match=why):
        await finish(outcome)


async def test_a_lane_that_is_closed() -> None:
    """A lane that takes no calls has not finished it either."""

    def submit(_: Job) -> None:
        raise PoolClosed("stopping")

    with pytest.raises(NotFinished, match="stopping"):
        await Finisher(submit, lambda _: None).finish(received(), STEP)


async def test_waiting_for_the_rest() -> None:
    """A stopping worker waits until all is recorded, also what is asked for in the next turn of the loop."""
    jobs: list[Job] = []
    finisher, rests = Finisher(jobs.append, lambda _: None), anyio.Event()

    async def wait() -> None:
        await finisher.wait_rests(60.0)
        rests.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        tasks.start_soon(finisher.finish, received(), STEP)
        await anyio.wait_all_tasks_blocked()
        assert len(jobs) == 1
        assert not rests.is_set()
        jobs[0].on_done(jobs[0], Ignored(), "Finisher-1", 0.1)
        with anyio.fail_after(60.0):
            await rests.wait()


async def test_not_waiting_for_ever() -> None:
    """It waits no longer than it is told to."""
    jobs: list[Job] = []
    finisher = Finisher(jobs.append, lambda _: None)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(finisher.finish, received(), STEP)
        await anyio.wait_all_tasks_blocked()
        with anyio.fail_after(60.0):
            await finisher.wait_rests(0.01)
        tasks.cancel_scope.cancel()
