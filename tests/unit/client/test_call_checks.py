"""What cannot be sent, obeyed or run is refused where the call is written."""

import datetime as dt
import functools
import math
import pickle
from collections.abc import Callable, Mapping
from typing import Any, Self

import pytest

from hybridpool import App
from hybridpool._client.call_checks import Signature, read_call_options
from hybridpool._client.result_handle import Handle, SyncHandle
from hybridpool._task_context import RunningTask, set_current_task
from hybridpool.errors import CannotSend, ConfigError, HybridpoolError

NOW = dt.datetime.now(dt.UTC)
DAY = dt.timedelta(days=1)
SECONDS = "must be seconds, within a hundred years, not"
LIMIT = "must be seconds above zero, not"
HEADERS = "must be a dict of AMQP headers"
QUEUE = "must be a queue's name"
WHOLE = "must be a whole number from 0 to 255, not"


def nested(levels: int) -> list[object]:
    """Return lists in each other."""
    value: list[object] = []
    for _ in range(levels):
        value = [value]
    return value


def endless() -> dict[str, object]:
    """Return a table that holds itself."""
    table: dict[str, object] = {}
    table["self"] = table
    return table


@pytest.mark.parametrize(
    ("option", "value", "complaint"),
    [
        *[("countdown", wrong, SECONDS) for wrong in ("5s", math.nan, math.inf, True, DAY, 1e10, [5])],
        *[
            ("expires", wrong, "must be seconds or a datetime, not")
            for wrong in ("60", DAY, math.nan, 1e12, NOW.date())
        ],
        *[("eta", wrong, "must be a datetime, not") for wrong in ("2030-01-01", 5, NOW.date(), NOW.time())],
        ("eta", dt.datetime.max.replace(tzinfo=dt.UTC), "must be a datetime within a hundred years, not"),
        *[("priority", wrong, WHOLE) for wrong in (-1, 256, 900, "high", 2.5, True, math.nan)],
        *[("queue", wrong, QUEUE) for wrong in (3, "", b"q", "x" * 251, "ü" * 126, "amq.mine", "\ud800", ["q"])],
        *[("time_limit", wrong, LIMIT) for wrong in (-1, 0, "5", math.nan, math.inf, True, DAY, 1e10)],
        *[("soft_time_limit", wrong, LIMIT) for wrong in (-1, 0, "5", math.nan, math.inf, True, DAY, 1e10)],
        *[("task_id", wrong, "must be text of 1 to 255 bytes, not") for wrong in (17, "", "x" * 256, "\udc80", b"i")],
        *[("ignore_result", wrong, "must be True or False, not") for wrong in ("no", 0, 1)],
        *[("confirm", wrong, "must be True or False, not") for wrong in ("no", 0, 2.5)],
        *[("headers", wrong, HEADERS) for wrong in ("no", ["a"], 5, endless(), {"a": nested(17)}, {"a": "x" * 70_000})],
        ("headers", {"a": math.nan}, f"{HEADERS}, which cannot hold nan"),
        ("headers", {"a": {"b": [1, -math.inf]}}, f"{HEADERS}, which cannot hold -inf"),
        ("headers", {"a": 2**63}, f"{HEADERS}, which cannot hold the number"),
        ("headers", {"a": object()}, f"{HEADERS}, which cannot hold object objects"),
        ("headers", {"a": "\ud800"}, f"{HEADERS}, which cannot hold"),
        ("headers", {"k" * 256: 1}, f"{HEADERS}, which have names of at most 255 bytes"),
        ("headers", {5: 1}, f"{HEADERS}, which have names of at most 255 bytes, not 5"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, dict | dt.time) else repr(value)[:30],
)
def test_wrong_values(option: str, value: object, complaint: str) -> None:
    """An option with a value that cannot be sent or obeyed is refused in one line that names it."""
    with pytest.raises(CannotSend) as raised:
        read_call_options({option: value})
    text = str(raised.value)
    assert text.startswith(f"{option}=… {complaint}")
    assert "\n" not in text
    assert len(text) < 250


@pytest.mark.parametrize(
    "given",
    [
        *[{"countdown": right} for right in (-5, 0, 0.2, 400 * 86400)],
        *[
            {"eta": right}
            for right in (NOW - DAY, NOW + DAY, NOW.replace(tzinfo=None), dt.datetime.min.replace(tzinfo=dt.UTC))
        ],
        *[{"expires": right} for right in (0, -1, 60.5, NOW + DAY, NOW.replace(tzinfo=None))],
        *[{"priority": right} for right in (0, 255)],
        *[{"queue": right} for right in ("x" * 250, "ünï cøde/✓ #*")],
        *[{"time_limit": right, "soft_time_limit": right} for right in (0.001, 5, 86400)],
        {"task_id": "ünï/✓ id"},
        {"headers": {"a": {"b": [1, 2.5, None, True, b"x", NOW, "ü", -(2**63)]}, "n": nested(14)}},
        dict.fromkeys(("queue", "countdown", "eta", "headers", "confirm", "time_limit")),
        {},
    ],
    ids=lambda value: repr(value)[:40],
)
def test_right_values(given: Mapping[str, Any]) -> None:
    """A valid value is accepted unchanged, and None is the same as leaving the option out."""
    options = read_call_options(given)
    for name, value in given.items():
        assert value is None or getattr(options, name) == value


def test_options_against_each_other() -> None:
    """A soft limit above the hard one, and a countdown together with an ETA, are refused."""
    with pytest.raises(CannotSend, match=r"soft_time_limit=9 must not be above time_limit=3"):
        read_call_options({"soft_time_limit": 9, "time_limit": 3})
    with pytest.raises(CannotSend, match="a countdown or an eta, not both"):
        read_call_options({"countdown": 5, "eta": NOW})
    with pytest.raises(ConfigError, match=r"task\(soft_time_limit=…\) must not be above time_limit"):
        App("shop").task(soft_time_limit=9, time_limit=3)
    with pytest.raises(ConfigError, match=r"task\(queue=…\) must be a queue's name"):
        App("shop").task(queue="amq.mine")


# ---- arguments -------------------------------------------------------------------------------------------------------


def add(x: int, y: int = 1) -> int:
    """Add."""
    return x + y


def only_names(*, x: int) -> int:
    """Take names only."""
    return x


def only_places(x: int, /) -> int:
    """Take places only."""
    return x


def anything(*args: int, **kwargs: int) -> int:
    """Take all."""
    return len(args) + len(kwargs)


def injected(function: Callable[..., int]) -> Callable[..., int]:
    """Give the function an argument of its own, as a decorator may."""

    @functools.wraps(function)
    def inner(*args: int) -> int:
        return function(1, *args)

    return inner


@pytest.mark.parametrize(
    ("function", "args", "kwargs", "fits"),
    [
        (add, (1,), {}, True),
        (add, (1, 2), {}, True),
        (add, (), {"x": 1}, True),
        (add, (), {}, False),
        (add, (1, 2, 3), {}, False),
        (add, (1,), {"x": 1}, False),
        (add, (1,), {"z": 1}, False),
        (only_names, (), {"x": 1}, True),
        (only_names, (1,), {}, False),
        (only_names, (), {}, False),
        (only_places, (1,), {}, True),
        (only_places, (), {"x": 1}, False),
        (anything, (1, 2, 3), {"z": 1}, True),
        (injected(add), (2,), {}, True),
        (functools.partial(add, 1), (2,), {}, True),
        (functools.partial(add, 1), (2, 3), {}, False),
        (print, (1,), {"sep": ""}, True),
        (type, (1, 2, 3, 4), {}, True),
    ],
)
def test_arguments_and_signatures(
    function: Callable[..., Any], args: tuple[object, ...], kwargs: dict[str, object], fits: bool
) -> None:
    """Arguments that do not fit the function's signature are refused; if the signature is unknown, all are accepted."""
    signature = Signature(function, bind=False)
    if fits:
        signature.check("t", args, kwargs)
    else:
        with pytest.raises(CannotSend, match=r"^t\(.*the arguments do not fit: "):
            signature.check("t", args, kwargs)


class InATask:
    """Plays a child that runs a task; keeps the sent messages."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    def __enter__(self) -> Self:
        set_current_task(RunningTask("id-1", "t", 0, None, "ForkPoolWorker-1", self.sent.append))
        return self

    def __exit__(self, *exc_info: object) -> None:
        set_current_task(None)


@pytest.fixture
def app() -> App:
    """Make an app with tasks."""
    app = App("shop")
    app.task(name="add")(add)

    @app.task(name="bound", bind=True)
    def bound(task: RunningTask, x: int) -> str:
        return task.id * x

    return app


@pytest.mark.parametrize(
    "call",
    [
        lambda app: app.tasks["add"].apply_async("ab"),
        lambda app: app.tasks["add"].apply_async(5),
        lambda app: app.tasks["add"].apply_async({1, 2}),
        lambda app: app.tasks["add"].apply_async((1,), [2]),
        lambda app: app.tasks["add"].apply_async((1,), {5: 2}),
        lambda app: app.tasks["add"].delay(),
        lambda app: app.tasks["add"].delay(1, 2, 3),
        lambda app: app.tasks["add"].options(priority=3).delay(z=1),
        lambda app: app.tasks["add"].delay(object()),
        lambda app: app.tasks["bound"].delay(),
        lambda app: app.tasks["bound"].delay(1, 2),
        lambda app: app.send_task("elsewhere", "ab"),
        lambda app: app.send_task(5),
        lambda app: app.send_task(""),
        lambda app: app.send_task("t", queue="x" * 200, countdown=5),
        lambda app: app.send_task("t", colour="red"),
        lambda app: app.tasks["add"].options(priority=900),
    ],
)
def test_calls_that_are_refused(app: App, call: Callable[[App], object]) -> None:
    """A call that could not run raises CannotSend, which is also a TypeError, and nothing is sent."""
    with InATask() as child, pytest.raises(CannotSend) as raised:
        call(app)
    assert child.sent == []
    assert isinstance(raised.value, HybridpoolError)
    assert isinstance(raised.value, TypeError)
    assert "\n" not in str(raised.value)


def test_calls_that_fit(app: App) -> None:
    """A call that fits is sent; the bound task itself does not count as an argument."""
    with InATask() as child:
        app.tasks["add"].delay(1)
        app.tasks["bound"].delay(2)
        app.tasks["bound"].apply_async(kwargs={"x": 2})
        app.send_task("elsewhere", ["anything", {}])
    assert len(child.sent) == 4


# ---- pickling --------------------------------------------------------------------------------------------------------

PICKLED = App("pickled")


@PICKLED.task
def by_name(x: int) -> int:
    """Give it back."""
    return x


def test_a_task_is_pickled_by_its_name() -> None:
    """A task is pickled by its name and unpickled as the same task."""
    assert pickle.loads(pickle.dumps(by_name)) is by_name
    with pytest.raises((pickle.PicklingError, AttributeError)):
        pickle.dumps(PICKLED.task(name="nowhere")(lambda: 1))


def test_what_is_not_pickled() -> None:
    """An app and a handle refuse to be pickled, and say what to do instead."""
    with pytest.raises(TypeError, match="import it where it is needed"):
        pickle.dumps(PICKLED)
    handle: Handle[int] = Handle("t", "id-1", None)
    for one in (handle, SyncHandle(handle, None)):
        with pytest.raises(TypeError, match="send its id"):
            pickle.dumps(one)
