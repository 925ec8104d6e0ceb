"""What may be said about a task when it is declared."""

from datetime import timedelta
from typing import Any, cast

import pytest

from hybridpool import App
from hybridpool._child.failure_rules import DEFAULT_RULES, Rules
from hybridpool._client.task_arguments import TaskOptionsDict, read_arguments
from hybridpool._task import TaskOptions, tasks_from, tasks_to_plain
from hybridpool.errors import ConfigError, SoftTimeLimitExceeded


def read(*, bind: Any = False, **options: Any) -> tuple[TaskOptions, Rules]:
    """Declare a task."""
    return read_arguments(cast("TaskOptionsDict", options), bind=bind)


def test_nothing_said() -> None:
    """A task without arguments to its decorator has the default options and rules."""
    assert read() == (TaskOptions(name=""), DEFAULT_RULES)
    assert DEFAULT_RULES.max_retries == 3


def test_all_said() -> None:
    """Every argument of the decorator reaches the task's options or rules."""
    options, rules = read(
        bind=True,
        name="shop.add",
        queue="slow",
        lane="thread",
        concurrency=20,
        rate_limit="10/m",
        acks_late=False,
        ignore_result=True,
        max_deliveries=1,
        time_limit=30,
        soft_time_limit=20,
        autoretry_for=(OSError, SoftTimeLimitExceeded),
        dont_autoretry_for=[FileNotFoundError],
        throws={KeyError},
        max_retries=7,
        default_retry_delay=60,
        retry_backoff=2,
        retry_backoff_max=100,
        retry_jitter=False,
    )
    assert options == TaskOptions(
        name="shop.add",
        queue="slow",
        lane="thread",
        concurrency=20,
        rate_limit="10/m",
        acks_late=False,
        ignore_result=True,
        max_deliveries=1,
        time_limit=30,
        soft_time_limit=20,
        retry_delay=60,
        retry_backoff=2,
        retry_backoff_max=100,
        retry_jitter=False,
    )
    assert rules == Rules((OSError, SoftTimeLimitExceeded), (FileNotFoundError,), (KeyError,), 7, bind=True)
    assert tasks_from(tasks_to_plain({"shop.add": options})) == {"shop.add": options}


def test_none_is_nothing_said() -> None:
    """None for an option is the same as leaving it out."""
    assert read(**dict.fromkeys(set(TaskOptionsDict.__annotations__) - {"max_retries"})) == read()


def test_no_end() -> None:
    """`max_retries=None` means no limit, and 0 means no retry."""
    assert read(max_retries=None)[1].max_retries is None
    assert read(max_retries=0)[1].max_retries == 0


@pytest.mark.parametrize(
    ("given", "expected"),
    [(True, 1.0), (1, 1.0), (2.5, 2.5), ("5s", 5.0), (timedelta(minutes=1), 60.0), (False, None), (0, None)],
)
def test_backoff(given: object, expected: float | None) -> None:
    """`retry_backoff=True` is a backoff of 1 s, False is none, and a number is itself."""
    assert read(retry_backoff=given)[0].retry_backoff == expected


def test_one_exception() -> None:
    """A single exception class is accepted in place of a tuple."""
    assert read(autoretry_for=OSError)[1].autoretry_for == (OSError,)


KINDS = "must be exception classes, not"
DURATION = "must be a duration"
NUMBER = "must be a whole number of at least"


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ({"autoretry_for": 5}, f"{KINDS} 5"),
        ({"autoretry_for": 0}, f"{KINDS} 0"),
        ({"autoretry_for": "OSError"}, f"{KINDS} 'OSError'"),
        ({"autoretry_for": ("OSError",)}, f"{KINDS} 'OSError'"),
        ({"autoretry_for": int}, f"{KINDS} <class 'int'>"),
        ({"autoretry_for": OSError("away")}, f"{KINDS} OSError('away')"),
        ({"dont_autoretry_for": (OSError, None)}, f"{KINDS} None"),
        ({"throws": [3]}, f"{KINDS} 3"),
        ({"max_retries": -1}, f"{NUMBER} 0, not -1"),
        ({"max_retries": 1.5}, f"{NUMBER} 0, not 1.5"),
        ({"max_retries": "many"}, f"{NUMBER} 0, not 'many'"),
        ({"max_retries": True}, f"{NUMBER} 0, not True"),
        ({"default_retry_delay": -1}, DURATION),
        ({"default_retry_delay": "soon"}, DURATION),
        ({"default_retry_delay": float("inf")}, DURATION),
        ({"retry_backoff": "yes"}, DURATION),
        ({"retry_backoff": -1}, DURATION),
        ({"retry_backoff_max": None, "retry_jitter": "often"}, "must be"),
        ({"retry_backoff_max": [600]}, DURATION),
        ({"retry_jitter": 2}, "must be"),
        ({"acks_late": "sometimes"}, "must be"),
        ({"ignore_result": []}, "must be"),
        ({"max_deliveries": 0}, f"{NUMBER} 1, not 0"),
        ({"time_limit": 0}, "must be a duration above zero"),
        ({"soft_time_limit": "x"}, "must be a duration above zero"),
        ({"queue": 5}, "must be a queue's name, not 5"),
        ({"lane": "gevent"}, "must be process, thread or async, not 'gevent'"),
        ({"lane": True}, "must be process, thread or async, not True"),
        ({"rate_limit": "10/day"}, "must be a rate such as 10/s"),
        ({"rate_limit": -1}, "must be a rate such as 10/s"),
        ({"rate_limit": True}, "must be a rate such as 10/s"),
        ({"concurrency": 0}, f"{NUMBER} 1, not 0"),
        ({"concurrency": "many"}, f"{NUMBER} 1, not 'many'"),
        ({"name": ""}, "must be a name, not ''"),
        ({"bind": "self"}, "must be"),
    ],
)
def test_wrong_values(wrong: dict[str, Any], complaint: str) -> None:
    """A wrong value is refused in one line that names the option."""
    with pytest.raises(ConfigError) as raised:
        read(**wrong)
    text = str(raised.value)
    option = next(name for name, value in wrong.items() if value is not None)
    assert text.startswith(f"task({option}=…) {complaint}")
    assert "\n" not in text


@pytest.mark.parametrize(
    ("unknown", "near"),
    [("max_retry", "max_retries"), ("autoretry", "autoretry_for"), ("retry_backof", "retry_backoff")],
)
def test_unknown_options(unknown: str, near: str) -> None:
    """An unknown option is refused with a suggestion."""
    with pytest.raises(ConfigError, match=f"'{unknown}' is not an option of a task; did you mean '{near}'"):
        read(**{unknown: 1})


def test_the_decorator_says_it() -> None:
    """A wrong option is refused where the decorator is written."""
    app: Any = App("shop")
    with pytest.raises(ConfigError, match=r"task\(autoretry_for=…\) must be exception classes, not 'OSError'"):
        app.task(autoretry_for="OSError")
