"""Result metas: Celery's own backend reads ours, and we read Celery's."""

import json
import sys
from typing import Any

import msgspec
import pytest
from billiard.exceptions import SoftTimeLimitExceeded, TimeLimitExceeded, WorkerLostError
from celery import Celery
from celery.backends.base import Backend
from celery.exceptions import MaxRetriesExceededError, NotRegistered, Reject, TaskRevokedError
from hypothesis import given

from hybridpool import errors
from hybridpool._child import rendering
from hybridpool._ipc.codec import encode
from hybridpool._message import Head
from hybridpool._outcome import Ignored, Lost, Outcome, Raised, Refused, Rejected, Retrying, Returned, TimedOut
from hybridpool._protocol.result_message import Expired, is_final, read_meta, write_meta
from tests.strategies import NOON, outcomes, values

CELERY = Celery("test", set_as_current=False)
BACKEND = Backend(app=CELERY)
HEAD = Head("shop.add", "id-1", "root", None, None, 0, None, None, None, None, False, 0)
TREE = Head("shop.add", "id-1", "root", "parent", "group", 0, None, None, None, None, False, 0)


class ShopError(Exception):
    """A type that is known where the result is read, as this module is imported."""


class Demanding(Exception):
    """A type that cannot be made again from its `args`."""

    def __init__(self, one: object, *, two: object = None) -> None:
        super().__init__(one, two)
        if two is None:
            raise ValueError("two is needed")


def meta(outcome: Outcome | Expired, head: Head = HEAD) -> bytes:
    """Write a meta."""
    return write_meta(head, outcome, NOON)


def to_celery(outcome: Outcome | Expired) -> Any:
    """Have Celery's backend decode what we write."""
    return BACKEND.decode_result(meta(outcome).decode())


def from_celery(result: object, state: str = "SUCCESS", traceback: str | None = None) -> bytes:
    """Have Celery's backend write a meta."""
    written = BACKEND._get_result_meta(BACKEND.encode_result(result, state), state, traceback, None)
    text: str = BACKEND.encode({**written, "task_id": "id-1"})
    return text.encode()


def raised(error: Exception) -> Raised:
    """Return the outcome of a task that raised."""
    try:
        raise error
    except Exception as caught:  # noqa: BLE001  # it is what we just raised
        return rendering.to_raised(caught)


def test_keys_are_celerys() -> None:
    """A result message has the keys of Celery's."""
    ours, celerys = json.loads(meta(Returned(b"5", "5"))), json.loads(from_celery(5))
    assert ours.keys() - celerys.keys() <= {"parent_id", "group_id"}
    # Celery writes null for unknown values, and readers take both for none
    assert {name: ours[name] for name in celerys} == {**celerys, "date_done": NOON.isoformat(), "children": []}


def test_the_tree_is_told() -> None:
    """A result message names the task's parent and group."""
    tree = json.loads(meta(Returned(b"5", "5"), TREE))
    assert (tree["parent_id"], tree["group_id"], tree["date_done"]) == ("parent", "group", NOON.isoformat())


@given(value=values)
def test_any_value_to_celery(value: object) -> None:
    """A Celery client decodes any JSON value that a task returned."""
    decoded = to_celery(Returned(encode(value), ""))
    assert (decoded["status"], decoded["result"]) == ("SUCCESS", value)


@given(value=values)
def test_any_value_from_celery(value: object) -> None:
    """Our client decodes any value that a Celery worker sends."""
    assert read_meta(from_celery(value)) == value


@given(value=values)
def test_any_value_between_us(value: object) -> None:
    """Our client decodes any value that our worker sends."""
    assert read_meta(meta(Returned(encode(value), ""))) == value


@pytest.mark.parametrize(
    "error", [ValueError("wrong", 3), KeyError("k"), ShopError("x"), UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad")]
)
def test_known_exceptions(error: Exception) -> None:
    """A builtin exception keeps its type and arguments, from and to Celery."""
    outcome = raised(error)
    decoded = to_celery(outcome)
    assert decoded["status"] == "FAILURE"
    assert (type(decoded["result"]), decoded["result"].args) == (type(error), error.args)
    assert decoded["traceback"] == outcome.traceback
    for written in (meta(outcome), from_celery(error, "FAILURE", "Traceback: …")):
        with pytest.raises(type(error)) as caught:
            read_meta(written)
        assert caught.value.args == error.args
        assert "In the child:\nTraceback" in "".join(caught.value.__notes__)


def test_unknown_exceptions() -> None:
    """An exception of an unknown module becomes TaskFailed with its name, arguments and traceback."""
    outcome = Raised("Deep.Error", "shop.secret", b'["a", 1]', "Deep.Error('a', 1)", "Traceback …")
    with pytest.raises(errors.TaskFailed, match=r"shop\.secret\.Deep\.Error\('a', 1\)") as caught:
        read_meta(meta(outcome))
    assert (caught.value.kind, caught.value.arguments) == ("shop.secret.Deep.Error", ("a", 1))
    assert caught.value.traceback == "Traceback …"
    assert type(to_celery(outcome)["result"]).__name__ == "Deep.Error"


def test_exceptions_that_cannot_be_made_again() -> None:
    """An exception that its arguments cannot make again becomes TaskFailed."""
    with pytest.raises(errors.TaskFailed, match="Demanding"):
        read_meta(meta(raised(Demanding(1, two=2))))


@pytest.mark.parametrize(
    ("module", "kind"),
    [
        ("os", "system"),
        ("builtins", "eval"),
        ("builtins", "SystemExit"),
        ("builtins", "object"),
        ("builtins", "ValueError.__init__"),
        ("builtins", ""),
        ("", "ValueError"),
    ],
)
def test_only_exceptions_are_made(module: str, kind: str) -> None:
    """Only exception classes are made from a message (CVE-2021-23727)."""
    with pytest.raises(errors.TaskFailed):
        read_meta(meta(Raised(kind, module, b'["true"]', "", "")))


def test_nothing_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading a result imports no module."""
    monkeypatch.delitem(sys.modules, "this", raising=False)
    with pytest.raises(errors.TaskFailed):
        read_meta(meta(Raised("Error", "this", b"[]", "", "")))
    assert "this" not in sys.modules


def test_a_lost_child() -> None:
    """A lost child is WorkerLostError to a Celery client and ChildLost to ours."""
    decoded = to_celery(Lost("signal 9 (SIGKILL)", "ForkPoolWorker-1"))
    assert isinstance(decoded["result"], WorkerLostError)
    assert str(decoded["result"]) == "Worker exited prematurely: signal 9 (SIGKILL)."
    for written in (
        meta(Lost("signal 9 (SIGKILL)", "ForkPoolWorker-1")),
        from_celery(WorkerLostError("Worker exited prematurely: signal 9 (SIGKILL)."), "FAILURE"),
    ):
        with pytest.raises(errors.ChildLost, match=r"^Worker exited prematurely: signal 9 \(SIGKILL\)\.$"):
            read_meta(written)


def test_an_unknown_task() -> None:
    """An unknown task is NotRegistered to both clients."""
    outcome = Refused("unknown task 'gone'", "NotRegistered", "celery.exceptions", b'["gone"]')
    assert isinstance(to_celery(outcome)["result"], NotRegistered)
    for written in (meta(outcome), from_celery(NotRegistered("gone"), "FAILURE")):
        with pytest.raises(errors.NotRegistered, match="no task 'gone'"):
            read_meta(written)


def test_an_expired_task() -> None:
    """An expired task is TaskRevokedError to a Celery client and TaskRevoked to ours."""
    decoded = to_celery(Expired())
    assert decoded["status"] == "REVOKED"
    assert isinstance(decoded["result"], TaskRevokedError)
    for written in (meta(Expired()), from_celery(TaskRevokedError("expired"), "REVOKED")):
        with pytest.raises(errors.TaskRevoked, match="expired"):
            read_meta(written)


@pytest.mark.parametrize(
    "written",
    [
        b"",
        b"nonsense",
        b"\xff",
        b"[]",
        b"5",
        b"null",
        b"{}",
        b'{"status": "SUCCESS"}',
        b'{"status": "FAILURE", "result": null}',
        b'{"status": "FAILURE", "result": "text"}',
        b'{"status": "FAILURE", "result": [1]}',
        b'{"status": "FAILURE", "result": {"exc_type": "X", "exc_module": "m", "exc_message": []}, "traceback": 5}',
    ],
)
def test_unreadable_metas(written: bytes) -> None:
    """An unreadable result message raises an error of ours."""
    with pytest.raises(errors.HybridpoolError):
        read_meta(written)


@given(outcome=outcomes)
def test_any_outcome(outcome: Outcome) -> None:
    """Every outcome has a result message that both clients can read."""
    written = meta(outcome)
    assert msgspec.json.decode(written)["task_id"] == "id-1"
    assert BACKEND.decode_result(written.decode())["status"] in ("SUCCESS", "FAILURE", "REVOKED")
    if isinstance(outcome, Returned):
        read_meta(written)
        return
    with pytest.raises((errors.TaskFailed, errors.ChildLost, errors.TimeLimitExceeded, errors.TaskRevoked)):
        read_meta(written)


def test_over_its_time() -> None:
    """A task killed at its hard limit is TimeLimitExceeded to both clients."""
    written = meta(TimedOut(1.5, "ForkPoolWorker-1"))
    told = to_celery(TimedOut(1.5, "ForkPoolWorker-1"))["result"]
    assert (type(told), told.args) == (TimeLimitExceeded, (1.5,))
    with pytest.raises(errors.TimeLimitExceeded, match=r"1\.5 s"):
        read_meta(written)
    with pytest.raises(errors.TimeLimitExceeded):
        read_meta(written.replace(b"[1.5]", b"[]"))


def test_over_its_soft_limit() -> None:
    """A task over its soft limit is SoftTimeLimitExceeded to a Celery client."""
    told = to_celery(rendering.to_raised(errors.SoftTimeLimitExceeded(2.0)))["result"]
    assert (type(told), told.args) == (SoftTimeLimitExceeded, (2.0,))


# ---- retries and verdicts --------------------------------------------------------------------------------------------


def retrying(error: Exception | None) -> Retrying:
    """Return the outcome of a task that is to be run again."""
    said = raised(error) if error is not None else rendering.to_raised(errors.Retry())
    return Retrying(said.kind, said.module, said.arguments, said.text, said.traceback, None, None)


@pytest.mark.parametrize("error", [OSError("away"), ShopError("x")])
def test_a_retry(error: Exception) -> None:
    """A retry is RETRY with its exception to a Celery client, and final to no client."""
    outcome = retrying(error)
    decoded = to_celery(outcome)
    assert (decoded["status"], decoded["traceback"]) == ("RETRY", outcome.traceback)
    assert (type(decoded["result"]), decoded["result"].args) == (type(error), error.args)
    assert not is_final(meta(outcome))
    assert not is_final(from_celery(error, "RETRY"))


def test_a_retry_without_a_reason() -> None:
    """A retry without an exception has None as its result, as in Celery."""
    decoded = to_celery(retrying(None))
    assert (decoded["status"], decoded["result"]) == ("RETRY", None)


def test_retries_exhausted() -> None:
    """A task out of retries is MaxRetriesExceededError to a Celery client and RetriesExhausted to ours."""
    error = errors.RetriesExhausted("shop.add was retried 3 times")
    decoded = to_celery(raised(error))
    assert decoded["status"] == "FAILURE"
    assert type(decoded["result"]) is MaxRetriesExceededError
    assert str(decoded["result"]) == "shop.add was retried 3 times"
    for written in (meta(raised(error)), from_celery(MaxRetriesExceededError("shop.add was …"), "FAILURE")):
        with pytest.raises(errors.RetriesExhausted, match=r"shop\.add was"):
            read_meta(written)


def test_rejected() -> None:
    """A rejected task is Reject to a Celery client and TaskFailed to ours."""
    decoded = to_celery(Rejected("no", False))
    assert decoded["status"] == "FAILURE"
    assert type(decoded["result"]) is Reject
    assert (decoded["result"].reason, decoded["result"].requeue) == ("no", False)
    # also where Celery is imported, as it is here
    with pytest.raises(errors.TaskFailed, match=r"celery\.exceptions\.Reject\('no', False\)"):
        read_meta(meta(Rejected("no", False)))


def test_verdicts_are_metas_too() -> None:
    """Ignored and rejected tasks have result messages."""
    assert json.loads(meta(Ignored()))["status"] == "IGNORED"
    assert is_final(meta(Rejected("no", False)))
