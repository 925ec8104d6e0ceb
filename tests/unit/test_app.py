"""Declaring tasks: names, duplicates, mistakes."""

import functools
import json
import sys
import threading
import types
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Self

import pytest

import hybridpool
from hybridpool import App
from hybridpool._client.tasks import AsyncTask, Task
from hybridpool._embed import import_name
from hybridpool._ipc.codec import decode
from hybridpool._message import Outgoing, unpack
from hybridpool._task import LaneName
from hybridpool._task_context import RunningTask, set_current_task, set_fallback_sender
from hybridpool.errors import BrokerUnavailable, CannotSend, ConfigError, ResultError, ResultsDisabled


@pytest.fixture
def app() -> App:
    """Make an app."""
    return App("shop")


def add(x: int, y: int) -> int:
    """Add two numbers."""
    return x + y


def test_default_names(app: App) -> None:
    """A task's default name is its module and function."""
    task = app.task(add)
    assert task.name == f"{__name__}.add"
    assert app.tasks == {f"{__name__}.add": task}


def test_chosen_names(app: App) -> None:
    """A chosen name is kept."""
    assert app.task(name="legacy.add")(add).name == "legacy.add"


@pytest.mark.parametrize("script", ["__main__", "__mp_main__"])
def test_names_of_a_script(app: App, script: str) -> None:
    """A task of a script is named after its app."""

    def local() -> None: ...

    local.__module__ = script
    local.__qualname__ = "local"
    assert app.task(local).name == "shop.local"


def test_a_script_is_no_importable_module(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """An app of a script is refused in plain words, also where multiprocessing knows the script by a second name."""
    script = types.ModuleType("__main__")
    script.app = app  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "__mp_main__", script)
    with pytest.raises(ConfigError, match="is not in an importable module"):
        import_name(app)


def test_nested_functions_have_their_own_names(app: App) -> None:
    """A nested function's name has the names around it."""

    class Cart:
        @staticmethod
        def add() -> None: ...

    task = app.task(Cart.add)
    assert task.name.endswith("test_nested_functions_have_their_own_names.<locals>.Cart.add")


def test_options(app: App) -> None:
    """The options of the decorator are the task's options."""
    task = app.task(name="t", queue="slow", acks_late=False, ignore_result=True, max_deliveries=1)(add)
    assert (task.declared.queue, task.declared.acks_late) == ("slow", False)
    assert (task.declared.ignore_result, task.declared.max_deliveries) == (True, 1)


def test_an_unknown_option(app: App) -> None:
    """An unknown option is refused with a suggestion."""
    with pytest.raises(ConfigError, match=r"did you mean .acks_late"):
        app.task(acks_lat=False)  # type: ignore[call-overload]  # that is the point


def test_two_tasks_of_one_name(app: App) -> None:
    """The second of two tasks of one name is refused, with both places."""
    app.task(name="t")(add)
    with pytest.raises(
        ConfigError, match=r"two tasks named 't', declared at .*test_app.py:\d+ and at .*; give one .* name="
    ):
        app.task(name="t")(lambda: None)
    assert app.tasks["t"].function is add


def logged(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate as users do: all that is decorated so shares one code object."""

    @functools.wraps(function)
    def inner(*args: Any) -> Any:
        return function(*args)

    return inner


def test_two_decorated_tasks_of_one_name(app: App) -> None:
    """The second of two tasks of one name is refused, also if one decorator wraps both."""
    app.task(name="t")(logged(add))
    with pytest.raises(ConfigError, match="two tasks named 't'"):
        app.task(name="t")(logged(print))


def test_the_same_function_again(app: App) -> None:
    """The same function can be declared again."""
    app.task(name="t")(add)
    assert app.task(name="t")(add).name == "t"


@pytest.mark.parametrize("function", [functools.partial(add, 1), len])
def test_callables_that_are_no_functions(app: App, function: Callable[..., Any]) -> None:
    """A partial and a C function can be tasks, and share no name with another task."""
    assert app.task(name="t")(function).name == "t"
    with pytest.raises(ConfigError, match="two tasks named 't'"):
        app.task(name="t")(add)


def test_a_callable_without_a_name(app: App) -> None:
    """A partial without a name is refused with a hint at `name=`."""
    with pytest.raises(ConfigError, match="name="):
        app.task(functools.partial(add, 1))


async def fetch(x: int, y: int) -> int:
    """Add two numbers, after waiting for them."""
    return x + y


class Fetcher:
    """An object whose call is async."""

    async def __call__(self, x: int, y: int) -> int:
        """Add two numbers."""
        return x + y


ASYNC_FUNCTIONS = {
    "function": fetch,
    "partial": functools.partial(fetch),
    "object": Fetcher(),
    "partial of an object": functools.partial(Fetcher()),
}


@pytest.mark.parametrize("function", ASYNC_FUNCTIONS.values(), ids=ASYNC_FUNCTIONS.keys())
async def test_async_def(app: App, function: Callable[..., Any]) -> None:
    """An `async def` function is an `AsyncTask`: it runs in the async lane, and a call of it here is awaited."""
    task: Any = app.task(name="t")(function)
    assert type(task) is AsyncTask
    assert task.declared.lane == "async"
    assert task.function is function
    assert await task(2, 3) == 5
    assert json.loads(app.__hybridpool_program__().manifest())["tasks"] == {"t": {"lane": "async"}}


def test_a_bound_async_def(app: App) -> None:
    """`bind=True` goes with `async def`; a caller does not name the first argument."""

    @app.task(name="t", bind=True)
    async def bound(self: RunningTask, x: int) -> str:
        return f"{self.id} {x}"

    assert (type(bound), bound.declared.lane) == (AsyncTask, "async")
    with InATask() as child:
        bound.delay(1)
        with pytest.raises(CannotSend):
            bound.delay(1, 2)  # type: ignore[call-arg]
    assert len(child.published) == 1


def test_an_async_task_declared_once_more(app: App) -> None:
    """A task can be made of an async task; it is async too."""
    other = App("other").task(name="t")(app.task(name="t")(fetch))
    assert type(other) is AsyncTask
    assert other.declared.lane == "async"


@pytest.mark.parametrize(
    ("function", "lane", "found"),
    [
        (add, None, None),
        (add, "process", "process"),
        (add, "thread", "thread"),
        (fetch, None, "async"),
        (fetch, "async", "async"),
        (fetch, "process", "process"),
    ],
)
def test_lanes(app: App, function: Callable[..., Any], lane: Any, found: LaneName | None) -> None:
    """A task keeps the lane that is asked for; without one, `async def` is for the async lane, and `def` is open."""
    assert app.task(name="t", lane=lane)(function).declared.lane == found


NOT_ASYNC = (
    'lane="async" is for async def: a def would block the event loop for all other calls; for one that waits, use '
    'lane="thread"'
)
NOT_IN_A_THREAD = (
    'lane="thread" is for def: no event loop runs on its threads; an async def runs in lane="async", or alone in a '
    'child with lane="process"'
)
WRONG_LANES = [
    (add, "async", NOT_ASYNC),
    *((function, "thread", NOT_IN_A_THREAD) for function in ASYNC_FUNCTIONS.values()),
]


@pytest.mark.parametrize(("function", "lane", "why"), WRONG_LANES)
def test_lanes_that_do_not_fit(app: App, function: Callable[..., Any], lane: LaneName, why: str) -> None:
    """A lane in which a function cannot run is refused, in one line with the reason."""
    with pytest.raises(ConfigError) as caught:
        app.task(name="t", lane=lane)(function)
    assert str(caught.value) == f"task t: {why}"
    assert not app.tasks


def test_generators_are_refused(app: App) -> None:
    """A generator function, sync or async, is refused."""

    def sync() -> Iterator[int]:
        yield 1

    async def waits() -> AsyncIterator[int]:
        yield 1

    for function, kind in ((sync, "a"), (waits, "an async")):
        for declared in (function, functools.partial(function)):
            with pytest.raises(ConfigError) as caught:
                app.task(name="t")(declared)
            assert str(caught.value) == f"task t: a task returns its value; it cannot be {kind} generator function"
    assert not app.tasks


def test_settings_are_checked() -> None:
    """An unknown or wrong setting is refused when the app is made."""
    with pytest.raises(ConfigError, match="worker_concurrency"):
        App("shop", worker_concurency=2)
    with pytest.raises(ConfigError, match="worker_concurrency"):
        App("shop", worker_concurrency="many")


def test_broker_is_short_for_its_setting() -> None:
    """`App(broker=…)` sets broker_url."""
    assert App("shop", broker="amqp://somewhere//").conf.broker_url.startswith("amqp://somewhere")


@pytest.mark.parametrize(
    ("option", "near"), [("que", "queue"), ("expire", "expires"), ("prio", "priority"), ("taskid", "task_id")]
)
def test_unknown_options_of_a_call(app: App, option: str, near: str) -> None:
    """An unknown option of a call is refused with a suggestion."""
    with pytest.raises(TypeError, match=f"^'{option}' is not an option of a call; did you mean '{near}'\\?$"):
        app.send_task("t", (), {}, **{option: 1})


async def test_unknown_options_of_an_async_call(app: App) -> None:
    """An unknown option of an async call is refused, without a far-fetched suggestion."""
    with pytest.raises(TypeError, match=r"^'zzzzzz' is not an option of a call$"):
        await app.send("t", zzzzzz=1)


def test_hooks_in_order(app: App) -> None:
    """Hooks run in the order in which they were declared."""

    @app.worker_process_init
    def first() -> None: ...

    @app.worker_process_init
    def second() -> None: ...

    program = app.__hybridpool_program__()
    assert list(program.child_hooks("worker_process_init")) == [first, second]
    assert not program.child_hooks("worker_init")
    assert not program.child_hooks("worker_process_shutdown")


def test_what_the_other_side_of_the_fork_gets(app: App) -> None:
    """Children get the functions, and the parent gets the settings and the tasks' options."""
    app.task(name="t", queue="slow")(add)
    app.conf.worker_concurrency = 3
    program = app.__hybridpool_program__()
    assert program.child_tasks() == {"t": add}
    manifest = json.loads(program.manifest())
    assert manifest["app"] == "shop"
    assert manifest["tasks"] == {"t": {"queue": "slow"}}
    assert manifest["settings"]["conf"] == {"worker_concurrency": 3}


def test_apps_do_not_know_each_other(app: App) -> None:
    """Two apps in one process share no tasks, hooks or settings."""
    app.task(name="t")(add)
    app.worker_init(list)
    app.conf.worker_concurrency = 3
    other = App("other")
    assert other.tasks == {}
    assert not other.__hybridpool_program__().child_hooks("worker_init")
    assert other.conf.worker_concurrency != 3 or other.conf.export()["conf"] == {}


def test_public_names() -> None:
    """Every public name exists, and any other one raises AttributeError."""
    assert all(getattr(hybridpool, name) for name in hybridpool.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'Ap'"):
        _ = hybridpool.Ap  # type: ignore[attr-defined]


class InATask:
    """Plays a child that runs a task, for code that sends."""

    def __init__(self) -> None:
        self.published: list[Outgoing] = []
        #: so many messages are published before there is no connection; None: all
        self.room: int | None = None

    def __enter__(self) -> Self:
        set_current_task(
            RunningTask(id="id-1", name="t", retries=0, root_id="root", child="ForkPoolWorker-1", _enqueue=self.enqueue)
        )
        return self

    def __exit__(self, *exc_info: object) -> None:
        set_current_task(None)

    def enqueue(self, message: bytes) -> None:
        """Take the messages to publish."""
        if len(self.published) == self.room:
            raise BrokerUnavailable("gone")
        self.published.append(unpack(message))


def test_sending_from_inside_a_task(app: App) -> None:
    """A call made in a task goes to the parent, in the tree of its task, and its result cannot be waited for."""
    task: Task[..., int] = app.task(name="shop.add", queue="slow")(add)
    with InATask() as child:
        handle = task.options(priority=3).delay(2, 3)
    [message] = child.published
    assert (message.routing_key, message.priority, message.reply_to) == ("slow", 3, None)
    assert (message.headers["root_id"], message.headers["parent_id"]) == ("root", "id-1")
    assert message.headers["id"] == message.correlation_id == handle.id
    assert decode(message.body)[:2] == [[2, 3], {}]
    with pytest.raises(ResultError, match="must not wait"):
        handle.get()


async def test_sending_from_inside_a_task_that_runs_a_loop() -> None:
    """An async call made in a task goes to the parent, and its result cannot be waited for."""
    app = App("shop", worker_concurrency=1)
    with InATask() as child:
        handle = await app.send("shop.add", (2, 3))
    assert len(child.published) == 1
    with pytest.raises(ResultsDisabled, match="from inside a task"):
        await handle.get()


@pytest.mark.parametrize(
    ("of_call", "of_task", "of_app", "ignored"),
    [
        (None, None, False, False),
        (None, None, True, True),
        (None, True, False, True),
        (None, False, True, False),
        (False, True, True, False),
        (True, False, False, True),
    ],
)
def test_the_nearest_word_on_results_holds(
    of_call: bool | None, of_task: bool | None, of_app: bool, ignored: bool
) -> None:
    """The call's `ignore_result` wins over the task's, and that over the app's."""
    app = App("shop", task_ignore_result=of_app)
    task: Task[..., int] = app.task(name="t", ignore_result=of_task)(add)
    with InATask() as child:
        task.options(ignore_result=of_call).delay(1, 2)
    assert child.published[0].headers["ignore_result"] is ignored


async def test_a_failure_in_the_middle_of_many(app: App) -> None:
    """Inside a task `enqueue_many` raises what it raises outside: the error, with a note of how many are confirmed."""
    task: Task[..., int] = app.task(name="shop.add")(add)
    with InATask() as child:
        child.room = 1
        with pytest.raises(BrokerUnavailable) as caught:
            await task.enqueue_many([(1, 2), (3, 4), (5, 6)])
    assert caught.value.__notes__ == ["1 of 3 calls were confirmed"]
    assert len(child.published) == 1


def test_a_thread_of_a_task_sends_through_the_parent(app: App) -> None:
    """A call made in a thread of a task goes to the parent."""
    sent: list[Outgoing] = []
    set_fallback_sender(RunningTask("", "", 0, None, "ForkPoolWorker-1", lambda message: sent.append(unpack(message))))
    try:
        thread = threading.Thread(target=app.send_task, args=("mail", (1,)))
        thread.start()
        thread.join()
    finally:
        set_fallback_sender(None)
    [message] = sent
    assert message.headers["root_id"] == message.headers["id"]
    assert message.headers["parent_id"] is None
    assert message.routing_key == "", "the parent knows the default"
