"""`Task`: the function it was, and what it sends."""

import datetime as dt
import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pytest

from hybridpool._client.call_options import CALL_OPTIONS, CallOptionsDict
from hybridpool._client.result_handle import Handle, SyncHandle
from hybridpool._client.tasks import Task
from hybridpool._task import TaskOptions


class Letterbox:
    """An app as far as a task needs one: keeps the sent calls."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, tuple[object, ...], dict[str, object], dict[str, Any]]] = []

    async def send(
        self, name: str, args: Sequence[object] = (), kwargs: Mapping[str, object] | None = None, **options: Any
    ) -> Handle[Any]:
        self.sent.append((name, tuple(args), dict(kwargs or {}), options))
        return Handle(name, "id-1", None)

    async def send_many(self, name: str, calls: Iterable[Sequence[object]], **options: Any) -> list[Handle[Any]]:
        return [await self.send(name, args, **options) for args in calls]

    def send_task(
        self, name: str, args: Sequence[object] = (), kwargs: Mapping[str, object] | None = None, **options: Any
    ) -> SyncHandle[Any]:
        self.sent.append((name, tuple(args), dict(kwargs or {}), options))
        return SyncHandle(Handle(name, "id-1", None), None)


def add(x: int, y: int = 1) -> int:
    """Add two numbers."""
    return x + y


@pytest.fixture
def app() -> Letterbox:
    """Give an app that keeps the sent calls."""
    return Letterbox()


@pytest.fixture
def task(app: Letterbox) -> Task[..., int]:
    """Give a task."""
    return Task(app, add, TaskOptions(name="shop.add", queue="slow"))


def test_stays_the_function_it_was(task: Task[..., int]) -> None:
    """A task can be called and inspected as the function it was made of."""
    assert task(2, y=3) == 5
    assert (vars(task)["__name__"], task.__doc__, task.__module__) == ("add", "Add two numbers.", __name__)
    assert list(inspect.signature(task).parameters) == ["x", "y"]
    assert task.function is add
    assert repr(task) == "<Task shop.add>"


@pytest.mark.anyio
async def test_many(app: Letterbox, task: Task[..., int]) -> None:
    """`enqueue_many` keeps the arguments, the options and the order of its calls."""
    handles = await task.options(queue="other").enqueue_many([(1,), (2, 3)])
    assert [handle.task for handle in handles] == ["shop.add"] * 2
    assert app.sent == [("shop.add", (1,), {}, {"queue": "other"}), ("shop.add", (2, 3), {}, {"queue": "other"})]
    assert await task.enqueue_many([]) == []


def test_calling_sends_nothing(app: Letterbox, task: Task[..., int]) -> None:
    """Calling a task directly sends nothing."""
    task(1)
    assert app.sent == []


def test_its_name(task: Task[..., int]) -> None:
    """A task has the name and the queue that were declared."""
    assert (task.name, task.declared.queue) == ("shop.add", "slow")


async def test_enqueue(app: Letterbox, task: Task[..., int]) -> None:
    """`enqueue` sends the arguments of the call."""
    handle = await task.enqueue(2, y=3)
    assert (handle.task, handle.id) == ("shop.add", "id-1")
    assert app.sent == [("shop.add", (2,), {"y": 3}, {})]


def test_delay(app: Letterbox, task: Task[..., int]) -> None:
    """`delay` sends the arguments of the call."""
    assert task.delay(2, y=3).id == "id-1"
    assert app.sent == [("shop.add", (2,), {"y": 3}, {})]


def test_apply_async(app: Letterbox, task: Task[..., int]) -> None:
    """`apply_async` sends the arguments and the options of the call."""
    task.apply_async((2,), {"y": 3}, queue="fast", priority=0)
    task.apply_async()
    assert app.sent == [("shop.add", (2,), {"y": 3}, {"queue": "fast", "priority": 0}), ("shop.add", (), {}, {})]


@pytest.mark.parametrize(
    ("chosen", "sent"),
    [
        ({}, {}),
        ({"queue": "fast"}, {"queue": "fast"}),
        ({"expires": 0}, {"expires": 0}),
        ({"priority": 0}, {"priority": 0}),
        ({"ignore_result": False}, {"ignore_result": False}),
        ({"headers": {}}, {}),
        ({"headers": {"tenant": "t"}, "task_id": "mine"}, {"headers": {"tenant": "t"}, "task_id": "mine"}),
        ({"expires": dt.timedelta(days=3650).total_seconds()}, {"expires": dt.timedelta(days=3650).total_seconds()}),
    ],
)
async def test_options(app: Letterbox, task: Task[..., int], chosen: dict[str, Any], sent: dict[str, Any]) -> None:
    """An option that was chosen is sent, also if it is 0 or False, and no other one."""
    await task.options(**chosen).enqueue(1)
    task.options(**chosen).delay(1)
    assert app.sent == [("shop.add", (1,), {}, sent)] * 2


async def test_options_are_for_their_own_calls(app: Letterbox, task: Task[..., int]) -> None:
    """Options hold for the calls made with them, and not for later calls of the task."""
    urgent = task.options(priority=9)
    await task.enqueue(1)
    await urgent.enqueue(2)
    await task.enqueue(3)
    assert [options for _, _, _, options in app.sent] == [{}, {"priority": 9}, {}]


def test_arguments_named_like_options(app: Letterbox) -> None:
    """A task's arguments may be named like options."""

    def move(queue: str, name: str, args: int) -> None: ...

    Task(app, move, TaskOptions(name="shop.move")).delay(queue="q", name="n", args=1)
    assert app.sent == [("shop.move", (), {"queue": "q", "name": "n", "args": 1}, {})]


def test_unknown_options(task: Task[..., int]) -> None:
    """An unknown option raises an error that names it."""
    with pytest.raises(TypeError, match="colour"):
        task.options(colour="red")  # type: ignore[call-arg]  # that is the point


def test_names_of_options() -> None:
    """Both ways of calling know the same options."""
    assert set(CALL_OPTIONS) == set(CallOptionsDict.__annotations__)
