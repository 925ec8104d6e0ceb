"""Lifespans: declared, entered and left, in sync children and in a child with an event loop."""

import asyncio
import logging
import os
import pickle
import subprocess
import sys
from collections.abc import AsyncGenerator, Generator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any

import pytest

from hybridpool import App, Lifespan
from hybridpool._child.lifespans import LifespanFailed, LifespanState, describe_failed_start, enter_all, entered
from hybridpool._task_context import RunningTask, set_current_task
from hybridpool.errors import ConfigError

Diary = list[str]
HERE = __name__


@pytest.fixture
def app() -> App:
    """An app without lifespans."""
    return App("shop")


@pytest.fixture
def diary() -> Diary:
    """What has happened."""
    return []


def declare(app: App, diary: Diary, name: str, *, fails_at: str = "", yields: int = 1) -> Lifespan[str]:
    """Declare a lifespan that notes what becomes of it."""

    def function() -> Iterator[str]:
        diary.append(f"{name} open")
        if fails_at == "start":
            raise OSError(f"{name} is away")
        for _ in range(yields):
            yield name
        diary.append(f"{name} close")
        if fails_at == "end":
            raise OSError(f"{name} is stuck")

    function.__qualname__ = name
    return app.lifespan(function)


def declare_async(
    app: App, diary: Diary, name: str, *, fails_at: str = "", yields: int = 1, error: type[BaseException] = OSError
) -> Lifespan[str]:
    """Declare an async lifespan that notes what becomes of it."""

    async def function() -> AsyncGenerator[str]:
        diary.append(f"{name} open")
        await asyncio.sleep(0)
        if fails_at == "start":
            raise error(f"{name} is away")
        for _ in range(yields):
            yield name
        await asyncio.sleep(0)
        diary.append(f"{name} close")
        if fails_at == "end":
            raise error(f"{name} is stuck")

    function.__qualname__ = name
    return app.lifespan(function)


def of(app: App, lane: str = "process") -> Sequence[LifespanState[Any]]:
    """Return what a child of a lane enters."""
    return app.__hybridpool_program__().child_lifespans(lane)


# ---- declared ------------------------------------------------------------------------------------------------


def test_lanes_by_kind(app: App, diary: Diary) -> None:
    """A generator is entered in process and thread children, an async generator in async children."""
    sync, other = declare(app, diary, "sync"), declare_async(app, diary, "other")
    assert (sync.lanes, other.lanes) == (("process", "thread"), ("async",))
    assert [[state.name for state in of(app, lane)] for lane in ("process", "thread", "async")] == [
        [f"{HERE}.sync"],
        [f"{HERE}.sync"],
        [f"{HERE}.other"],
    ]


def test_lanes_by_option(app: App) -> None:
    """The option `lanes` says where a lifespan is entered."""

    @app.lifespan(lanes=("async", "process"))
    def model() -> Generator[int]:
        yield 1

    assert model.lanes == ("async", "process")
    assert [len(of(app, lane)) for lane in ("process", "thread", "async")] == [1, 0, 1]


def test_apps_do_not_share_lifespans(app: App, diary: Diary) -> None:
    """A lifespan belongs to the app that declares it."""
    declare(app, diary, "db")
    assert not of(App("other"))


def test_a_partial_has_its_functions_name(app: App) -> None:
    """A partial of a generator function is taken, by the name of that function."""

    def database(dsn: str) -> Iterator[str]:
        yield dsn

    made = app.lifespan(partial(database, "dbname=shop"))
    assert made.name.endswith("database")
    leave = enter_all(of(app))
    assert made.value == "dbname=shop"
    leave()


def needs_dsn(dsn: str) -> Iterator[str]:
    """Take an argument, which nothing gives."""
    yield dsn


def returns() -> Iterator[int]:
    """Return an iterator, and not be a generator function."""
    return iter(())


@contextmanager
def managed() -> Generator[int]:
    """Be a context manager."""
    yield 1


@asynccontextmanager
async def managed_async() -> AsyncGenerator[int]:
    """Be an async context manager."""
    yield 1


async def asynchronous() -> AsyncGenerator[int]:
    """Need an event loop."""
    yield 1


def plain() -> Generator[int]:
    """Need nothing."""
    yield 1


@pytest.mark.parametrize(
    ("function", "options", "reason"),
    [
        (returns, {}, "it is made of a generator function, which yields its value once"),
        (managed, {}, "take the other decorator"),
        (managed_async, {}, "take the other decorator"),
        (needs_dsn, {}, "it is called without arguments, and missing a required argument: 'dsn'"),
        (asynchronous, {"lanes": ("process",)}, "process children have no event loop"),
        (plain, {"lanes": ("prefork",)}, "there is no lane 'prefork'; the lanes are process, async, thread"),
        (plain, {"lanes": "async"}, r"lanes= takes several names, as in lanes=\('async',\), not 'async'"),
        (plain, {"lanes": ()}, "lanes= takes several names"),
    ],
)
def test_wrong_declarations(app: App, function: Any, options: dict[str, Any], reason: str) -> None:
    """A lifespan that could not be entered is refused where it is declared, by its name."""
    with pytest.raises(ConfigError, match=f"^lifespan {HERE}.{function.__name__}: {reason}"):
        app.lifespan(**options)(function)
    assert not of(app)


def test_it_is_not_pickled(app: App, diary: Diary) -> None:
    """A lifespan cannot be sent to another process."""
    with pytest.raises(TypeError, match=rf"^<Lifespan {HERE}.db> cannot be pickled: import it"):
        pickle.dumps(declare(app, diary, "db"))


# ---- entered and left ----------------------------------------------------------------------------------------


def test_order(app: App, diary: Diary) -> None:
    """Lifespans are entered in the order of declaration and left in the reverse order, once."""
    for name in ("one", "two", "three"):
        declare(app, diary, name)
    leave = enter_all(of(app))
    assert diary == ["one open", "two open", "three open"]
    diary.clear()
    leave()
    leave()
    assert diary == ["three close", "two close", "one close"]


def test_a_value_is_there_for_the_next_ones(app: App) -> None:
    """A lifespan can use the value of one that was declared before it, also while it is left."""
    seen = []

    @app.lifespan
    def first() -> Generator[list[int]]:
        yield [1]

    @app.lifespan
    def second() -> Generator[int]:
        yield first.value[0] + 1
        seen.append((first.value, second.value))

    leave = enter_all(of(app))
    assert (first.value, second.value) == ([1], 2)
    assert first.value is first.value
    leave()
    assert seen == [([1], 2)]


def test_failed_start(app: App, diary: Diary) -> None:
    """If one fails at the start, those before it are left, those after it are not entered, and it is named."""
    declare(app, diary, "one")
    declare(app, diary, "two", fails_at="start")
    declare(app, diary, "three")
    with pytest.raises(LifespanFailed) as caught:
        enter_all(of(app))
    assert diary == ["one open", "two open", "one close"]
    text = describe_failed_start(caught.value)
    assert text.startswith(f"its lifespan {HERE}.two failed:\nTraceback (most recent call last):\n")
    assert text.endswith("OSError: two is away")
    # Only the app's own lines.
    assert text.count("  File ") == 1
    assert "in function" in text


def test_exit_at_the_start(app: App) -> None:
    """A lifespan that exits is a failed start like any other."""

    @app.lifespan
    def gone() -> Iterator[int]:
        sys.exit("no licence")
        yield 1  # type: ignore[unreachable]

    with pytest.raises(LifespanFailed) as caught:
        enter_all(of(app))
    assert describe_failed_start(caught.value).endswith("SystemExit: no licence")


def test_description_of_another_failure() -> None:
    """What a hook raises is described as the initializer's failure."""
    assert describe_failed_start(OSError("away")) == "its initializer failed:\nOSError: away"


def test_failed_end(app: App, diary: Diary, caplog: pytest.LogCaptureFixture) -> None:
    """If one fails while it is left, the log names it with the app's traceback, and the others are left."""
    declare(app, diary, "one")
    two = declare(app, diary, "two", fails_at="end")
    declare(app, diary, "three")
    leave = enter_all(of(app))
    diary.clear()
    leave()
    assert diary == ["three close", "two close", "one close"]
    [record] = caplog.records
    assert record.levelno == logging.ERROR
    assert record.getMessage() == f"lifespan {HERE}.two failed while it was left: the others are left all the same"
    assert caplog.text.count("  File ") == 1
    assert "OSError: two is stuck" in caplog.text
    with pytest.raises(RuntimeError, match="is closed: this child has left it"):
        _ = two.value


def test_exit_at_the_end(app: App, diary: Diary, caplog: pytest.LogCaptureFixture) -> None:
    """A lifespan that exits while it is left does not keep the others open."""
    declare(app, diary, "one")

    @app.lifespan
    def gone() -> Iterator[int]:
        yield 1
        sys.exit("enough")

    enter_all(of(app))()
    assert diary == ["one open", "one close"]
    assert "SystemExit: enough" in caplog.text


def test_no_yield(app: App, diary: Diary) -> None:
    """A generator that never yields is a failed start that says so."""
    declare(app, diary, "db", yields=0)
    with pytest.raises(LifespanFailed) as caught:
        enter_all(of(app))
    assert str(caught.value.__cause__) == (
        f"lifespan {HERE}.db did not yield: it should yield its value once, and then close it"
    )


def test_two_yields(app: App, caplog: pytest.LogCaptureFixture) -> None:
    """A generator that yields twice is named, and closed."""
    closed = []

    @app.lifespan
    def twice() -> Iterator[int]:
        try:
            yield 1
            yield 2
        finally:
            closed.append(True)

    enter_all(of(app))()
    assert closed == [True]
    assert f"{twice.name} yielded twice: it should yield its value once" in caplog.text


def test_a_forked_process_has_no_value_and_closes_nothing(app: App, diary: Diary) -> None:
    """In a process that was forked a value is refused by its name, and leaving does nothing."""
    db = declare(app, diary, "db")
    leave = enter_all(of(app))
    read, write = os.pipe()
    if not (copy := os.fork()):
        try:
            _ = db.value
        except RuntimeError as error:
            leave()
            os.write(write, f"{error}|{diary}".encode())
        finally:
            os._exit(0)
    os.waitpid(copy, 0)
    os.close(write)
    with os.fdopen(read) as answer:
        said, _, seen = answer.read().partition("|")
    assert said == (
        f"lifespan {HERE}.db belongs to process {os.getpid()}, from which this one was forked: open another one here"
    )
    assert seen == "['db open']"
    assert db.value == "db"
    leave()
    assert diary == ["db open", "db close"]


# ---- with an event loop --------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_order_with_a_loop(app: App, diary: Diary) -> None:
    """With an event loop, async and sync lifespans are entered in one order and left in the reverse order."""
    one, three = declare_async(app, diary, "one"), declare_async(app, diary, "three")
    app.lifespan(lanes=("async",))(plain)
    async with entered(of(app, "async")):
        assert (one.value, three.value) == ("one", "three")
        assert diary == ["one open", "three open"]
        diary.clear()
    assert diary == ["three close", "one close"]
    with pytest.raises(RuntimeError, match="is closed"):
        _ = one.value


@pytest.mark.anyio
async def test_sync_lifespan_with_a_loop(app: App, diary: Diary) -> None:
    """A sync lifespan that is declared for async children has its value there, and is left."""

    @app.lifespan(lanes=("async",))
    def model() -> Iterator[str]:
        yield "a model"
        diary.append("model close")

    async with entered(of(app, "async")):
        assert model.value == "a model"
    assert diary == ["model close"]


@pytest.mark.anyio
async def test_failed_start_with_a_loop(app: App, diary: Diary) -> None:
    """With an event loop, too, those before the one that fails are left, and it is named with the app's traceback."""
    declare_async(app, diary, "one")
    declare_async(app, diary, "two", fails_at="start")
    declare_async(app, diary, "three")
    with pytest.raises(LifespanFailed) as caught:
        async with entered(of(app, "async")):
            diary.append("ready")
    assert diary == ["one open", "two open", "one close"]
    text = describe_failed_start(caught.value)
    assert text.startswith(f"its lifespan {HERE}.two failed:\nTraceback")
    assert text.count("  File ") == 1


@pytest.mark.anyio
async def test_failed_end_with_a_loop(app: App, diary: Diary, caplog: pytest.LogCaptureFixture) -> None:
    """With an event loop, too, one that fails while it is left is named, and the others are left."""
    declare_async(app, diary, "one")
    declare_async(app, diary, "two", fails_at="end")
    async with entered(of(app, "async")):
        diary.clear()
    assert diary == ["two close", "one close"]
    assert f"lifespan {HERE}.two failed while it was left" in caplog.text


@pytest.mark.anyio
async def test_cancelled_while_it_is_left(app: App, diary: Diary, caplog: pytest.LogCaptureFixture) -> None:
    """A cancellation that comes while a lifespan is left is passed on once all are left."""
    declare_async(app, diary, "one")
    declare_async(app, diary, "two", fails_at="end", error=asyncio.CancelledError)
    with pytest.raises(asyncio.CancelledError):
        async with entered(of(app, "async")):
            diary.clear()
    assert diary == ["two close", "one close"]


@pytest.mark.anyio
@pytest.mark.may_block
async def test_a_forked_process_closes_nothing_with_a_loop(app: App, diary: Diary) -> None:
    """With an event loop, too, a process that was forked in the block leaves nothing when it leaves the block."""

    @app.lifespan
    async def client() -> AsyncGenerator[int]:
        yield 1
        diary.append("client close")

    read, write = os.pipe()
    async with entered(of(app, "async")):
        copy = os.fork()
    if not copy:
        os.write(write, repr(diary).encode())
        os._exit(0)
    os.waitpid(copy, 0)  # noqa: ASYNC222  # it ends at once
    os.close(write)
    with os.fdopen(read) as answer:
        assert answer.read() == "[]"
    assert diary == ["client close"]


@pytest.mark.anyio
async def test_an_exception_of_the_block(app: App, diary: Diary) -> None:
    """What the block raises is passed on, and the lifespans are left."""
    declare_async(app, diary, "one")
    with pytest.raises(ZeroDivisionError):
        async with entered(of(app, "async")):
            raise ZeroDivisionError
    assert diary == ["one open", "one close"]


@pytest.mark.anyio
async def test_no_yield_with_a_loop(app: App, diary: Diary) -> None:
    """An async generator that never yields is a failed start that says so."""
    declare_async(app, diary, "db", yields=0)
    with pytest.raises(LifespanFailed) as caught:
        async with entered(of(app, "async")):
            diary.append("ready")
    assert str(caught.value.__cause__).startswith(f"lifespan {HERE}.db did not yield")
    assert diary == ["db open", "db close"]


@pytest.mark.anyio
async def test_two_yields_with_a_loop(app: App, caplog: pytest.LogCaptureFixture) -> None:
    """An async generator that yields twice is named, and closed."""
    closed = []

    @app.lifespan
    async def twice() -> AsyncGenerator[int]:
        try:
            yield 1
            yield 2
        finally:
            closed.append(True)

    async with entered(of(app, "async")):
        assert not closed
    assert closed == [True]
    assert f"lifespan {twice.name} yielded twice" in caplog.text


# ---- where there is no value ---------------------------------------------------------------------------------


@pytest.fixture
def in_a_task() -> Iterator[None]:
    """Be a task of a child."""
    set_current_task(RunningTask("id-1", "t", 0, None, "AsyncLane-1", lambda message: None))
    yield
    set_current_task(None)


def test_no_value_outside_of_a_worker(app: App, diary: Diary) -> None:
    """Outside of a worker's children the error says where the value is."""
    db = declare(app, diary, "db")
    with pytest.raises(RuntimeError) as caught:
        _ = db.value
    assert str(caught.value) == (
        f"lifespan {HERE}.db has no value here: it is entered in process and thread children of a worker, before "
        "their first task; read .value inside a task, or in a test in a block of .replaced(…)"
    )


@pytest.mark.usefixtures("in_a_task")
def test_no_value_in_another_lane(app: App, diary: Diary) -> None:
    """In a task of another lane the error names the child and both remedies."""
    db = declare(app, diary, "db")
    with pytest.raises(RuntimeError) as caught:
        _ = db.value
    assert str(caught.value) == (
        f"lifespan {HERE}.db has no value in AsyncLane-1: it is entered in process and thread children of a worker; "
        "run this task there (lane=…), or declare the lifespan for this lane too (lanes=…)"
    )


def test_replaced(app: App, diary: Diary) -> None:
    """A test replaces a value while a block lasts, also one inside another."""
    db = declare(app, diary, "db")
    with db.replaced("fake"):
        assert db.value == "fake"
        with db.replaced("other"):
            assert db.value == "other"
        assert db.value == "fake"
    with pytest.raises(RuntimeError, match="has no value here"):
        _ = db.value
    assert not diary


def test_import_loads_no_event_loop() -> None:
    """An app with a lifespan loads no asyncio."""
    code = (
        "import sys; from hybridpool import App; app = App('shop')\n"
        "@app.lifespan\ndef db(): yield 1\n"
        "@app.lifespan\nasync def clients(): yield 1\n"
        "import hybridpool._child.lifespans; sys.exit('asyncio' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
