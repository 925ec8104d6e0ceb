"""Whatever others send: only the documented errors come out, and every message is settled in exactly one way."""

import datetime as dt
import json
from collections.abc import Callable, Mapping
from contextlib import suppress

import anyio
import attrs
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hybridpool import events
from hybridpool._brokers.memory import MemoryBroker, MemoryServer
from hybridpool._brokers.rabbitmq.amqp.codec import write_publish
from hybridpool._child import execute
from hybridpool._config import init_layer, resolve
from hybridpool._ipc import frames
from hybridpool._ipc.codec import JSON
from hybridpool._lanes.base import Job
from hybridpool._message import Delivery, Head, Outgoing, QueueSpec, unpack
from hybridpool._outcome import Lost
from hybridpool._policy.admission import Admission, AdmissionRules, admit
from hybridpool._protocol import dead_letter, remote_control, result_message
from hybridpool._protocol.dead_letter_view import read_dead_letter
from hybridpool._protocol.task_headers import LOST_BEFORE, read_head
from hybridpool._results.rpc import RpcStore
from hybridpool._task import TaskOptions
from hybridpool._worker.intake import Intake
from hybridpool._worker.redelivery import RedeliveryTracker
from hybridpool._worker.settlement import Settler
from hybridpool.errors import CannotEncode, ProtocolError
from tests.contract.inbox import Events
from tests.strategies import NOON, deliveries, offsets

TASK = "shop.add"
GATE = AdmissionRules(tasks=[TASK], accepts=[JSON], max_size=200)
SETTINGS = resolve([init_layer({"worker_concurrency": 1, "worker_max_message_size": 1024})]).settings
DEEP = 100_000
#: of the loop; more than settling takes
TURNS = 20
#: how a message that is not run shows itself, one each
REFUSALS = (events.TaskRefused, events.TaskExpired, events.TaskPostponed)

moments = st.datetimes(timezones=st.none() | offsets)
#: what AMQP has, as pamqp reads it
fields: st.SearchStrategy[object] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats()
    | st.text(max_size=20)
    | st.binary(max_size=10)
    | st.binary(max_size=10).map(bytearray)
    | st.decimals()
    | moments,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
#: those that every AMQP client can send on: the rest is in `test_what_came_goes_out`
tame = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=20) | st.lists(st.text(max_size=5))
)
times = st.sampled_from(["0001-01-01T00:00+23:59", "9999-12-31T23:59:59.999999-23:59", "2030-W01-1", "24:00", "-1"])
#: header values, some of them valid
known: dict[str, st.SearchStrategy[object]] = {
    "task": st.sampled_from([TASK, "shop.gone"]) | fields,
    "id": st.just("id-1") | fields,
    "root_id": fields,
    "group": fields,
    "retries": st.integers() | fields,
    "timelimit": st.lists(st.integers() | st.floats() | fields, min_size=2, max_size=2) | fields,
    "eta": times | moments.map(dt.datetime.isoformat) | fields,
    "expires": times | moments.map(dt.datetime.isoformat) | fields,
    "ignore_result": fields,
    LOST_BEFORE: st.integers() | fields,
    "x-delivery-count": st.integers() | fields,
    dead_letter.HISTORY: st.lists(fields, max_size=3) | fields,
    dead_letter.MOMENT: fields,
    "x-death": fields,
}
#: a good head but for one field, so that readers of the later ones have their turn too
nearly: st.SearchStrategy[dict[str, object]] = st.sampled_from(sorted(known)).flatmap(
    lambda name: known[name].map(lambda value: {"task": TASK, "id": "id-1", name: value})
)
headers = nearly | st.fixed_dictionaries({}, optional=known) | st.dictionaries(st.text(max_size=10), fields, max_size=5)
bodies = st.binary(max_size=60) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=5), inner, max_size=3)
        | st.fixed_dictionaries(
            {
                "__type__": st.sampled_from(["datetime", "date", "time", "decimal", "uuid", "bytes", "base64", "?"]),
                "__value__": inner | times,
            }
        )
    ),
    max_leaves=8,
).map(lambda value: json.dumps(value).encode())


def delivery(given_headers: Mapping[str, object], body: bytes = b"", content_type: str | None = JSON) -> Delivery:
    """Return a delivery."""
    return Delivery(
        queue="celery",
        tag=1,
        channel=1,
        redelivered=False,
        headers=given_headers,
        content_type=content_type,
        content_encoding=None,
        correlation_id=None,
        reply_to=None,
        priority=None,
        exchange="",
        routing_key="celery",
        body=body,
    )


# ---- heads -----------------------------------------------------------------------------------------------------------


@given(headers, bodies, st.just(JSON) | st.sampled_from([None, "", "text/plain"]))
@settings(max_examples=200)
def test_head_and_admission(found: Mapping[str, object], body: bytes, content_type: str | None) -> None:
    """Any message is either refused with ProtocolError or admitted with a verdict."""
    came = delivery(found, body, content_type)
    try:
        head = read_head(came)
    except ProtocolError:
        return
    assert isinstance(head, Head)
    assert isinstance(admit(GATE, head, came, NOON), Admission)


@given(st.lists(st.tuples(headers, bodies, st.sampled_from([JSON, "text/plain"])), min_size=1, max_size=4))
@settings(max_examples=60)
def test_intake_settles_once(found: list[tuple[dict[str, object], bytes, str]]) -> None:
    """Any message is settled exactly once by the intake."""
    anyio.run(
        taken_in,
        [Outgoing(body=body, routing_key="celery", headers=head, content_type=kind) for head, body, kind in found],
    )


async def taken_in(messages: list[Outgoing]) -> None:
    """Let an intake take the messages, and assert that each went one way."""
    server, observed, bus = MemoryServer(), Events(), events.Bus()
    jobs: list[Job] = []
    bus.subscribe(observed)
    async with MemoryBroker(server, lambda _: None) as broker, anyio.create_task_group() as tasks:
        for queue in ("celery", dead_letter.dead_queue("celery")):
            await broker.declare(QueueSpec(name=queue))
        tracker = RedeliveryTracker(broker, bus)
        settler = Settler(broker, RpcStore(broker, None), tracker, bus, tasks, "hybridpool@host", "classic")
        intake = Intake(broker, settler, tracker, jobs.append, {TASK: TaskOptions(name=TASK)}, SETTINGS, bus)
        await broker.consume("celery", 0, intake.take)
        sent = 0
        for message in messages:
            with suppress(CannotEncode):  # what no broker has taken comes to no worker
                server.put(message)
                sent += 1
        for _ in range(TURNS):  # what follows sleeps for long if it finds anything at work
            await anyio.lowlevel.checkpoint()
        await anyio.wait_all_tasks_blocked()
        held = len(intake.drop_held())
        assert not observed.of(events.SettleFailed)
        ended = [len(observed.of(kind)) for kind in REFUSALS]
        assert len(jobs) == len(observed.of(events.TaskReceived))
        assert len(jobs) + held + sum(ended) == sent
        assert await broker.depth(dead_letter.dead_queue("celery")) == ended[0]
        # only messages that run, or are about to, are still the broker's
        await broker.__aexit__(None, None, None)
        async with MemoryBroker(server, lambda _: None) as other:
            assert await other.depth("celery") == len(jobs) + held


# ---- dead letters ----------------------------------------------------------------------------------------------------


@given(headers, deliveries, st.integers(0, 2**63), st.none() | st.integers(), st.text(max_size=300), st.floats(0, 1e9))
def test_written_again(
    found: dict[str, object], came: Delivery, times: int, exitcode: int | None, cause: str, wait: float
) -> None:
    """A message with any headers can be retried, dead-lettered, delayed, shown and sent back."""
    came = attrs.evolve(came, headers=found)
    lost = Lost(cause, "ForkPoolWorker-1", exitcode=exitcode)
    for message in (
        dead_letter.write_dead_letter(came, cause, "w", NOON, lost, times),
        dead_letter.write_redelivery(came, times, lost, "w", NOON),
        dead_letter.write_retry(came, times, wait, NOON, None),
        dead_letter.write_delayed(came, wait),
        dead_letter.copy_message(came, "other"),
        dead_letter.restore_message(came, "other", NOON),
    ):
        assert message.body == came.body
        assert message.headers.keys() >= found.keys() & {"task", "id"}
    assert len(dead_letter.notes(dead_letter.write_redelivery(came, times, lost, "w", NOON).headers)) <= 10
    assert read_dead_letter(came).size == len(came.body)


@given(st.dictionaries(st.text(max_size=10), tame, max_size=5))
def test_tame_headers_go_out(found: dict[str, object]) -> None:
    """A message with ordinary headers can be encoded again."""
    assert written(dead_letter.write_delayed(delivery(found), 0))


def written(message: Outgoing) -> bytes:
    """Write it as RabbitMQ gets it."""
    return write_publish(1, message, "", message.routing_key, message_id="1", max_frame_bytes=131_072)


@pytest.mark.parametrize(
    "value", [1e300, b"\xff", 2**63 - 1], ids=["a double", "text that is no UTF-8", "a large number"]
)
def test_what_came_goes_out(value: object) -> None:
    """A header of any value that AMQP delivers can be encoded again."""
    assert written(dead_letter.write_delayed(delivery({"x": value}), 0))


@pytest.mark.parametrize(
    "message",
    [
        dead_letter.write_retry(delivery({}), 1_000_000_001, 0, NOON, None),
        dead_letter.write_redelivery(delivery({}), 1_000_000_001),
        dead_letter.write_dead_letter(
            delivery({}), "", "w", NOON, Lost("exit code 3", "ForkPoolWorker-1"), 1_000_000_001
        ),
    ],
    ids=["one more retry", "one more death", "too many deaths"],
)
def test_largest_counts(message: Outgoing) -> None:
    """A message with counts above the largest that is read can be encoded."""
    assert written(message)


@pytest.mark.parametrize("header", ["retries", LOST_BEFORE, "x-delivery-count"])
@pytest.mark.parametrize("count", [1_000_000_001, 2**63 - 1])
def test_no_count(header: str, count: int) -> None:
    """A count that is too large is refused."""
    with pytest.raises(ProtocolError, match="not a count"):
        read_head(delivery({"task": TASK, "id": "i", header: count}))


# ---- bodies ----------------------------------------------------------------------------------------------------------


@given(bodies, st.just(JSON) | st.text(max_size=10))
@example(b"[" * DEEP, JSON)
@example(b'{"__type__":"decimal","__value__":' * 5000, JSON)
@example(b"[[" + b"9" * 5000 + b"],{},{}]", JSON)
@example(b"[[],{},{}]".decode().encode("utf-16"), JSON)
@example(b'[[],{"\\ud800":1},{}]', JSON)
def test_payload(body: bytes, content_type: str) -> None:
    """Any body leads to an outcome that can be sent to the parent."""
    call = frames.RunCall(seq=1, task=TASK, id="i", content_type=content_type, body=body)
    outcome = execute.run(call, {TASK: lambda *args, **kwargs: [args, kwargs]})
    done = frames.Done(1, outcome, 0.0, 0)
    assert frames.read_from_child(frames.pack([done])) == [done]
    assert isinstance(outcome, frames.Returned | frames.Refused | frames.Raised)


# ---- orders, answers, words of children ------------------------------------------------------------------------------

orders = bodies | st.fixed_dictionaries(
    {"method": st.sampled_from(["revoke", "ping"])},
    optional={
        "arguments": st.fixed_dictionaries({}, optional={"task_id": st.none() | st.integers() | st.lists(st.text())}),
        "destination": st.none() | st.lists(st.text()) | st.integers(),
    },
).map(lambda order: json.dumps(order).encode())


@given(orders)
def test_order(body: bytes) -> None:
    """Any remote-control message is either read or refused with ProtocolError."""
    try:
        remote_control.revoked_ids(remote_control.read_order(body))
    except ProtocolError:
        return


@given(bodies)
def test_answer(body: bytes) -> None:
    """Any answer is either final or not."""
    assert isinstance(result_message.is_final(body), bool)


@pytest.mark.parametrize(
    ("read", "data"),
    [
        (remote_control.read_order, b'{"x":' + b"[" * DEEP),
        (remote_control.read_order, b'{"method":"x","arguments":{"\xff":1}}'),
        (unpack, b"\x91" * DEEP),
        (unpack, b"\xa1\xff"),
    ],
    ids=["an order", "an order, no UTF-8", "a child's message", "a child's message, no UTF-8"],
)
def test_errors_nobody_expects(read: Callable[[bytes], object], data: bytes) -> None:
    """Remote-control and child messages that are nested too deeply, or are not UTF-8, raise ProtocolError."""
    with pytest.raises(ProtocolError):
        read(data)


def test_a_deep_answer() -> None:
    """An answer that is nested too deeply counts as final."""
    assert result_message.is_final(b'{"status":"SUCCESS","result":' + b"[" * DEEP)
