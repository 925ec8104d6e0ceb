"""What a type checker knows of tasks: arguments and results as in the function. For mypy and pyright, never run."""

import datetime as dt
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from typing import assert_type

from hybridpool import App, AsyncTask, BaseTask, Handle, Lifespan, RunningTask, SyncHandle, Task, TaskCall, current_task

app = App("shop", worker_concurrency=2)


@app.task
def resize(url: str, width: int = 90) -> bytes:
    """Return a picture."""
    return url.encode() * width


@app.task(name="shop.total", queue="slow", acks_late=False, ignore_result=False, max_deliveries=1)
def total(*prices: float, currency: str) -> dict[str, float]:
    """Return a sum."""
    return {currency: sum(prices)}


@app.task()
def nothing() -> None:
    """Return nothing."""


@app.task(
    bind=True,
    autoretry_for=(OSError,),
    dont_autoretry_for=[FileNotFoundError],
    throws=(KeyError,),
    max_retries=None,
    default_retry_delay=5,
    retry_backoff=True,
    retry_backoff_max=60.0,
    retry_jitter=False,
)
def fetch(self: RunningTask, url: str) -> bytes:
    """Return a page, in the end."""
    if not url:
        self.retry(countdown=2.5, args=("u",), kwargs={}, max_retries=None)
    if self.request.retries > 3:
        raise self.retry(exc=OSError("away"), eta=dt.datetime.now(dt.UTC))
    return url.encode()


@app.task
async def load(url: str, width: int = 90) -> bytes:
    """Return a picture, after waiting for it."""
    return url.encode() * width


@app.task(name="shop.rates", lane="process", concurrency=20)
async def rates(*, currency: str) -> dict[str, float]:
    """Return a table, after waiting for it."""
    return {currency: 1.0}


@app.task(bind=True, max_retries=3)
async def follow(self: RunningTask, url: str) -> str:
    """Return where a link leads."""
    if not url:
        self.retry(countdown=2.5)
    return url


@app.task(lane="thread")
def wait(seconds: float) -> int:
    """Return a number, after waiting for it."""
    return int(seconds)


def plain_calls() -> None:
    """A task is called as its function."""
    assert_type(resize("u", 5), bytes)
    assert_type(total(1.0, 2.0, currency="EUR"), dict[str, float])
    assert_type(resize.name, str)
    resize(5)  # type: ignore[arg-type]
    resize("u", height=5)  # type: ignore[call-arg]
    resize()  # type: ignore[call-arg]
    total(1.0)  # type: ignore[call-arg]


async def from_async_code() -> None:
    """Calls from afar take the same arguments, and their handles give the same result."""
    handle = await resize.enqueue("u", width=5)
    assert_type(handle, Handle[bytes])
    assert_type(await handle.get(timeout=1.0), bytes)
    assert_type(await (await nothing.enqueue()).get(), None)
    await resize.enqueue(5)  # type: ignore[arg-type]
    await resize.enqueue("u", wide=5)  # type: ignore[call-arg]
    await total.enqueue(1.0)  # type: ignore[call-arg]
    await handle.get("soon")  # type: ignore[arg-type]


def from_sync_code() -> None:
    """As Celery's users call."""
    handle = resize.delay("u")
    assert_type(handle, SyncHandle[bytes])
    assert_type(handle.get(1), bytes)
    assert_type(resize.apply_async(("u",), {"width": 5}, queue="fast"), SyncHandle[bytes])
    resize.delay(b"u")  # type: ignore[arg-type]


async def with_options() -> None:
    """Options change how a call is sent, not what it takes and gives."""
    urgent = resize.options(queue="fast", priority=9, expires=5.0, ignore_result=False, headers={"tenant": "t"})
    assert_type((await urgent.enqueue("u")), Handle[bytes])
    assert_type(urgent.delay("u", 5).get(), bytes)
    await urgent.enqueue(5)  # type: ignore[arg-type]
    resize.options(colour="red")  # type: ignore[call-arg]
    resize.options(priority="high")  # type: ignore[arg-type]


def declared_wrongly() -> None:
    """A mistyped option of the decorator is found before the program runs."""
    app.task(quue="slow")  # type: ignore[call-overload]
    app.task(acks_late="no")  # type: ignore[call-overload]
    app.task(5)  # type: ignore[call-overload]
    app.task(autoretry_for=(OSError("away"),))  # type: ignore[arg-type]
    app.task(max_retries="many")  # type: ignore[call-overload]
    app.task(retry_backof=True)  # type: ignore[call-overload]


async def async_tasks() -> None:
    """A call of an `async def` is awaited here; its handle gives what the coroutine returns."""
    assert_type(await load("u", 5), bytes)
    assert_type(await rates(currency="EUR"), dict[str, float])
    handle = await load.enqueue("u", width=5)
    assert_type(handle, Handle[bytes])
    assert_type(await handle.get(timeout=1.0), bytes)
    assert_type(await (await rates.enqueue(currency="EUR")).get(), dict[str, float])
    assert_type(await load.enqueue_many([("u",), ("v", 5)]), list[Handle[bytes]])
    assert_type(load.delay("u").get(1), bytes)
    assert_type(await load.options(queue="fast").enqueue("u"), Handle[bytes])
    assert_type(await follow.enqueue("u"), Handle[str])
    assert_type(await (await follow.enqueue(url="u")).get(), str)
    assert_type(wait(2.0), int)
    assert_type(await wait.enqueue(2.0), Handle[int])
    await load(5)  # type: ignore[arg-type]
    await load.enqueue(5)  # type: ignore[arg-type]
    await load.enqueue("u", wide=5)  # type: ignore[call-arg]
    await rates.enqueue("EUR")  # type: ignore[call-arg]
    await follow.enqueue()  # type: ignore[call-arg]
    await wait(2.0)  # type: ignore[misc]
    app.task(lane="gevent")  # type: ignore[call-overload]
    app.task(concurrency="many")  # type: ignore[call-overload]


async def bound_tasks() -> None:
    """The caller of a bound task does not name its first argument."""
    assert_type((await fetch.enqueue("u")), Handle[bytes])
    assert_type(fetch.delay(url="u").get(), bytes)
    fetch.delay()  # type: ignore[call-arg]
    fetch.delay(5)  # type: ignore[arg-type]


def ends_here() -> int:
    """What comes after a retry is never reached, so nothing need be returned."""
    running = current_task()
    assert running is not None
    running.retry(exc=OSError("away"))


def retried_wrongly(running: RunningTask, reason: str) -> None:
    """An option that would fail the task is found before the program runs."""
    if reason == "countdown":
        running.retry(countdown="soon")  # type: ignore[arg-type]
    if reason == "exc":
        running.retry(exc="away")  # type: ignore[arg-type]
    running.retry(OSError("away"))  # type: ignore[call-arg]


def handles_are_covariant(handle: Handle[bool]) -> Handle[int]:
    """A handle of a narrower type serves where a wider one is wanted."""
    return handle


def passed_on(task: Task[[str, int], bytes], call: TaskCall[[str, int], bytes]) -> bytes:
    """Tasks can be written down as types."""
    task.delay("u", 5)
    call.delay("u", 5)
    task.delay("u")  # type: ignore[call-arg]
    return task("u", 5)


async def passed_on_of_either_kind(task: BaseTask[[str, int], bytes], waits: AsyncTask[[str, int], bytes]) -> bytes:
    """What is sent away needs no knowledge of the kind; what is called here does."""
    assert_type(await task.enqueue("u", 5), Handle[bytes])
    some: BaseTask[[str, int], bytes] = waits
    one: Task[[str, int], bytes] = waits  # type: ignore[assignment]
    assert one is some
    return await waits("u", 5)


def hooks() -> None:
    """A hook stays the function that it is."""

    @app.worker_process_init
    def connect() -> int:
        return 1

    assert_type(connect(), int)
    app.worker_init(5)  # type: ignore[type-var]


async def by_name() -> None:
    """By name nothing is known of arguments and results."""
    handle = await app.send("shop.total", (1.0,), {"currency": "EUR"}, queue="slow")
    number: int = await handle.get()
    assert number
    await app.send(5)  # type: ignore[arg-type]


# ---- lifespans -----------------------------------------------------------------------------------------------


class Database:
    """What a child opens."""


@app.lifespan
def database() -> Generator[Database]:
    """Open a database."""
    yield Database()


@app.lifespan
async def clients() -> AsyncIterator[dict[str, int]]:
    """Open clients."""
    yield {}


@app.lifespan(lanes=("process", "async"))
def model() -> Iterator[bytes]:
    """Load a model, which needs no closing."""
    yield b""


@app.lifespan(lanes=["async"])
async def session() -> AsyncGenerator[int]:
    """Begin a session."""
    yield 1


def values() -> None:
    """The value of a lifespan has the type that the generator yields."""
    assert_type(database, Lifespan[Database])
    assert_type(database.value, Database)
    assert_type(clients.value, dict[str, int])
    assert_type(model.value, bytes)
    assert_type(session.value, int)
    database.value = Database()  # type: ignore[misc]
    with database.replaced(Database()):
        pass
    with model.replaced("text"):  # type: ignore[arg-type]
        pass


def lifespans_declared_wrongly() -> None:
    """Other functions than generator functions without arguments, and unknown lanes, are type errors."""

    def connect() -> Database:
        return Database()

    def connect_to(dsn: str) -> Iterator[str]:
        yield dsn

    async def connect_later() -> Database:
        return Database()

    app.lifespan(connect)  # type: ignore[arg-type]
    app.lifespan(connect_to)  # type: ignore[arg-type]
    app.lifespan(connect_later)  # type: ignore[arg-type]
    app.lifespan(lanes=("prefork",))  # type: ignore[arg-type]
