"""Workers at one queue, in virtual time: what each holds while its tasks are short, long, mixed, or change suddenly.

The broker delivers in order to consumers that have room, in turn, and every message needs half a round trip. A worker
changes its prefetch as `QueueConsumers` does: another consumer is started, the one of before is cancelled, and messages
that would wait for long go back to their places in the queue.
"""

import heapq
import random
from bisect import insort
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from itertools import count, pairwise

import attrs
import pytest

from hybridpool._policy.pace import LONG_CALL_S, MAX_PER_CHILD, Children, QueuePace

ROUND_TRIP_S = 0.002
CHILDREN = 2


class World:
    """Virtual time: things to be done, each at its moment."""

    def __init__(self) -> None:
        self.now = 0.0
        self._plan: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()

    def after(self, seconds: float, do: Callable[[], None]) -> None:
        """Do something later."""
        heapq.heappush(self._plan, (self.now + seconds, next(self._numbers), do))

    def run(self, until: Callable[[], bool]) -> None:
        """Let time pass until something is true."""
        while not until():
            self.now, _, do = heapq.heappop(self._plan)
            do()


@attrs.define(eq=False)
class Consumer:
    """A consumer at the broker."""

    prefetch: int
    deliver: Callable[[int, "Consumer"], None]
    unsettled: int = 0


class Queue:
    """One queue of the broker. Messages are their numbers, in the order in which they were published."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.ready: list[int] = []
        self._consumers: list[Consumer] = []

    def put(self, numbers: Sequence[int]) -> None:
        """Take messages, new ones or ones that come back to their places."""
        for number in numbers:
            insort(self.ready, number)
        self._hand_out()

    def add(self, consumer: Consumer) -> None:
        """Start a consumer."""
        self._consumers.append(consumer)
        self._hand_out()

    def cancel(self, consumer: Consumer) -> None:
        """End a consumer; what it has brought stays unsettled."""
        self._consumers.remove(consumer)

    def settle(self, consumer: Consumer) -> None:
        """Take an acknowledgement."""
        consumer.unsettled -= 1
        self._hand_out()

    def _hand_out(self) -> None:
        while self.ready:
            free = next((one for one in self._consumers if one.unsettled < one.prefetch), None)
            if free is None:
                return
            self._consumers.remove(free)
            self._consumers.append(free)
            free.unsettled += 1
            number = self.ready.pop(0)
            self._world.after(ROUND_TRIP_S / 2, partial(free.deliver, number, free))


class Worker:
    """A worker's part: children, messages that wait for them, and the pace."""

    def __init__(self, world: World, queue: Queue, runtimes: Sequence[float], begins: float = 0.0) -> None:
        self._world = world
        self._queue = queue
        self._runtimes = runtimes
        self._pace = QueuePace()
        self._consumer: Consumer | None = None
        self._is_changing = False
        self._waiting: list[tuple[int, Consumer]] = []
        self._running: dict[int, float] = {}
        #: the numbers of messages, in the order in which they began
        self.began: list[int] = []
        self.done = 0
        #: for each moment: the hold, the messages that wait, and the seconds of work that they are
        self.seen: list[tuple[float, int, int]] = []
        self.returned = 0
        world.after(begins, self._look)

    def _children(self) -> Children:
        long = sum(self._world.now - since >= LONG_CALL_S for since in self._running.values())
        return Children(size=CHILDREN, ceiling=CHILDREN, on_long_calls=long)

    def _look(self) -> None:
        self._decide()
        self.seen.append((self._world.now, self._pace.hold, len(self._waiting)))
        self._world.after(1.0, self._look)

    def _decide(self) -> None:
        if self._is_changing:
            return
        children, before = self._children(), self._pace.hold
        hold = self._pace.decide(children, ROUND_TRIP_S, self._world.now)
        if hold == before:
            return
        self._is_changing = True
        old, new = self._consumer, Consumer(hold, self._receive)
        self._consumer = new
        self._world.after(ROUND_TRIP_S / 2, lambda: self._queue.add(new))

        def changed() -> None:
            self._is_changing = False
            if hold < before and self._pace.gives_back(len(self._waiting), children):
                back, self._waiting = self._waiting, []
                self.returned += len(back)
                self._world.after(ROUND_TRIP_S / 2, lambda: self._put_back(back))

        def cancelled() -> None:
            if old is not None:
                self._queue.cancel(old)
            self._world.after(ROUND_TRIP_S / 2, changed)

        self._world.after(ROUND_TRIP_S * 3 / 2, cancelled)

    def _put_back(self, back: Sequence[tuple[int, Consumer]]) -> None:
        self._queue.put([number for number, _ in back])
        for _, consumer in back:
            self._queue.settle(consumer)

    def _receive(self, number: int, consumer: Consumer) -> None:
        self._waiting.append((number, consumer))
        self._start()

    def _start(self) -> None:
        while self._waiting and len(self._running) < CHILDREN:
            number, consumer = self._waiting.pop(0)
            self.began.append(number)
            self._running[number] = self._world.now

            def ended(number: int = number, consumer: Consumer = consumer) -> None:
                del self._running[number]
                self.done += 1
                is_due = self._pace.note(self._runtimes[number])
                self._world.after(ROUND_TRIP_S / 2, lambda: self._queue.settle(consumer))
                self._start()
                if is_due:
                    self._decide()

            self._world.after(self._runtimes[number], ended)


def at_work(runtimes: Sequence[float], begins: Sequence[float] = (0.0,)) -> tuple[World, list[Worker]]:
    """Run all of a backlog with workers that begin at these moments; each message must begin exactly once."""
    world = World()
    queue = Queue(world)
    queue.put(range(len(runtimes)))
    workers = [Worker(world, queue, runtimes, moment) for moment in begins]
    world.run(lambda: sum(worker.done for worker in workers) == len(runtimes))
    began = Counter(number for worker in workers for number in worker.began)
    assert began == Counter(range(len(runtimes)))
    return world, workers


def test_short_tasks_keep_the_children_busy() -> None:
    """No-ops reach the largest hold, and nearly the rate that children have without any waiting."""
    runtimes = [0.0002] * 20_000
    world, [worker] = at_work(runtimes)
    assert max(hold for _, hold, _ in worker.seen) == CHILDREN * MAX_PER_CHILD
    assert world.now < 1.1 * sum(runtimes) / CHILDREN


def test_the_order_stays() -> None:
    """Tasks begin in the order of the queue, whatever is held and given back meanwhile."""
    runtimes = [0.001] * 5000 + [5.0] * 20 + [0.001] * 3000 + [0.3] * 40
    _, [worker] = at_work(runtimes)
    assert worker.returned > 0
    assert worker.began == sorted(worker.began)


def test_a_sudden_change_to_minutes() -> None:
    """When tasks of 1 ms are followed by ones of 60 s, two messages wait for each two that run, three seconds later."""
    runtimes = [0.001] * 10_000 + [60.0] * 40
    world, [worker] = at_work(runtimes)
    assert max(waiting for _, _, waiting in worker.seen) > 50, "it held many while they were short"
    # about five seconds of short ones; then what it holds of the long ones
    later = [waiting for now, _, waiting in worker.seen if now > 8.0]
    assert max(later) <= CHILDREN
    assert world.now < 5.0 + 60.0 * 40 / CHILDREN + 5.0


def test_the_rest_of_a_sudden_change_goes_to_others() -> None:
    """Of 40 tasks of a minute behind 10,000 of 1 ms, two workers run as many, within 10 %."""
    _, workers = at_work([0.001] * 10_000 + [60.0] * 40, (0.0, 0.3))
    long = [sum(number >= 10_000 for number in worker.began) for worker in workers]
    assert max(long) <= 1.1 * min(long)


@pytest.mark.parametrize("begins", [(0.0, 0.0), (0.0, 0.4), (0.0, 5.0), (0.0, 25.0)])
def test_long_tasks_are_shared(begins: Sequence[float]) -> None:
    """Workers that begin one after the other share a backlog of 10 s tasks as their time allows."""
    world, workers = at_work([10.0] * 60, begins)
    hours = [world.now - moment for moment in begins]
    shares = [60 * one / sum(hours) for one in hours]
    assert [abs(worker.done - share) <= 2 for worker, share in zip(workers, shares, strict=True)] == [True, True]


@pytest.mark.parametrize("runtime", [0.0005, 0.005, 0.05, 0.5, 2.0])
def test_two_workers_are_fair(runtime: float) -> None:
    """Two workers at one queue run as many tasks as each other within 10 %, of whichever length."""
    _, workers = at_work([runtime] * max(100, int(10 / runtime)), (0.0, 0.0))
    done = sorted(worker.done for worker in workers)
    assert done[1] <= 1.1 * done[0]


@pytest.mark.parametrize("seed", range(5))
def test_mixed_durations(seed: int) -> None:
    """Of tasks of 1 ms to 3 s all are run, children hardly wait, and two workers share the time within 10 %."""
    chance = random.Random(seed)
    runtimes = [chance.choice((0.001, 0.001, 0.001, 0.01, 0.1, 0.5, 3.0)) for _ in range(1500)]
    world, workers = at_work(runtimes, (0.0, 0.0))
    assert world.now < 1.1 * sum(runtimes) / (2 * CHILDREN) + 3.0
    spent = sorted(sum(runtimes[number] for number in worker.began) for worker in workers)
    assert spent[1] <= 1.1 * spent[0]
    for worker in workers:
        changes = sum(one[1] != other[1] for one, other in pairwise(worker.seen))
        assert changes <= len(worker.seen) / 4, "it does not go back and forth"
