"""Hundreds of messages that are almost right, or not at all, for one worker: it must not care."""

import json
import random
import struct
import uuid
from collections.abc import Callable, Iterator

import pytest

from tests.integration.raw import (
    APP_ID,
    CONTENT_ENCODING,
    CORRELATION_ID,
    EXPIRATION,
    MESSAGE_ID,
    REPLY_TO,
    Raw,
    array,
    send,
    short,
    table,
    text,
)
from tests.queues import BrokerConsole
from tests.rabbit import Node, wait_for
from tests.workers import PATIENCE, Worker

#: messages of one seed
MESSAGES = 150
DEEP = 100_000
#: how the log says that a message is done with, one line each
DONE = r"Task .* (succeeded in|raised unexpected|refused: )|Discarding expired task"
#: what must not be heard
ALARM = r"No connection to|cannot be settled|could not be handed on|Unhandled|ExceptionGroup|exited with"

Fields = dict[bytes, bytes]
PLAIN: Fields = {b"task": text(b"worker.add"), b"id": text(b"odd")}


# ---- odd messages ----------------------------------------------------------------------------------------------------


def odd_field(chance: random.Random, depth: int = 0) -> bytes:
    """Return a field of any type; what no AMQP client can send on stands in `test_poison`."""
    makers: list[Callable[[], bytes]] = [
        lambda: b"V",
        lambda: b"t" + chance.randbytes(1),
        lambda: chance.choice([b"b", b"B"]) + chance.randbytes(1),
        lambda: chance.choice([b"s", b"u"]) + chance.randbytes(2),
        lambda: chance.choice([b"I", b"i"]) + chance.randbytes(4),
        lambda: b"l" + chance.randbytes(8),
        lambda: b"l" + struct.pack(">q", chance.choice([2**63 - 1, -(2**63)])),
        lambda: b"d" + struct.pack(">d", chance.choice([-0.0, 1e-300, 3e38, -1.5, 1e300])),
        lambda: b"f" + struct.pack(">f", chance.choice([-0.0, 1.5, 3e38])),
        lambda: b"T" + struct.pack(">Q", chance.choice([0, chance.randrange(2**30), 2**40, 2**62])),
        lambda: b"D" + chance.randbytes(5),
        lambda: b"x" + struct.pack(">I", 3) + chance.randbytes(3),
        lambda: text(odd_text(chance)),
    ]
    if depth < 4:
        makers += [
            lambda: array(odd_field(chance, depth + 1) for _ in range(chance.randrange(4))),
            lambda: b"F" + table({b"k%d" % key: odd_field(chance, depth + 1) for key in range(chance.randrange(4))}),
        ]
    return chance.choice(makers)()


def odd_text(chance: random.Random) -> bytes:
    """Return text: UTF-8 as a rule, and sometimes any bytes."""
    if chance.random() < 0.2:
        return chance.randbytes(chance.randrange(1, 20))
    odd = [
        "",
        "\0",
        "\n",
        "\x1b[31m",
        "worker.add",
        "é" * 100,
        "💥",
        "'; drop",
        "1e400",
        "9999-99-99",
        "NaN",
        "x" * 5000,
    ]
    return chance.choice(odd).encode()


def odd_headers(chance: random.Random) -> Fields:
    """Return a good head with some fields replaced by odd ones, some left out, some added."""
    known = [b"task", b"id", b"root_id", b"parent_id", b"group", b"retries", b"timelimit", b"expires", b"eta"]
    ours = [
        b"x-hybridpool-lost",
        b"x-hybridpool-history",
        b"x-delivery-count",
        b"ignore_result",
        b"compression",
        b"",
        b"\xff",
    ]
    headers = dict(PLAIN)
    for name in chance.sample(known + ours, chance.randrange(4)):
        if chance.random() < 0.2:
            headers.pop(name, None)
        else:
            headers[name] = odd_field(chance)
    return headers


def odd_body(chance: random.Random) -> bytes:
    """Return a body: flipped, cut, doubled, nested without end, no text, or no JSON at all."""
    good = json.dumps([[chance.randrange(9), 3], {}, {"callbacks": None, "chain": None}]).encode()
    flipped = bytearray(good)
    for _ in range(chance.randrange(1, 4)):
        flipped[chance.randrange(len(good))] ^= 1 << chance.randrange(8)
    return chance.choice(
        [
            bytes(flipped),
            bytes(flipped),
            good[: chance.randrange(len(good))],
            good * 2,
            b"[" * DEEP,
            b'{"a":' * 20_000,
            b"[[" + b"9" * 5000 + b", 1], {}, {}]",
            b"[[1e400, -1e400], {}, {}]",
            b'[["\\ud800", "x"], {"\\udfff": 1}, {}]',
            b'[[{"__type__": "%s", "__value__": [1]}, 3], {}, {}]' % chance.choice([b"datetime", b"uuid", b"?"]),
            b"\xff\xfe" + chance.randbytes(20),
            b"\x1f\x8b\x08" + chance.randbytes(50),
            b"\0" * chance.randrange(2000),
            chance.randbytes(chance.randrange(200)),
        ]
    )


def odd_message(chance: random.Random) -> Raw:
    """Return a message with one thing odd, or several."""
    oddities = chance.sample(["headers", "body", "type", "encoding", "correlation"], chance.randrange(1, 4))
    kinds = [
        b"",
        b"application/x-python-serialize",
        b"text/plain; charset=utf-16",
        b"x" * 255,
        b"\xff/\xfe",
        b"application/json; charset=utf-8",
        "é".encode(),
        b"\xff/\xfe",
    ]
    properties = {}
    if "encoding" in oddities:
        properties[CONTENT_ENCODING] = short(chance.choice([b"gzip", b"utf-16", b"", b"binary", b"no-such"]))
    if "correlation" in oddities:
        properties[CORRELATION_ID] = short(chance.choice([b"", b"\0", b"y" * 255, b"\xff\xfe"]))
        properties[REPLY_TO] = short(chance.choice([b"", b"\xff", b"nobody"]))
        properties[EXPIRATION] = short(b"600000")
        properties[MESSAGE_ID] = short(chance.choice([b"1", b"\xff", b""]))
        properties[APP_ID] = short(chance.choice([b"\xfe", b"app"]))
    return Raw(
        odd_headers(chance) if "headers" in oddities else PLAIN,
        odd_body(chance) if "body" in oddities else b"[[2, 3], {}, {}]",
        chance.choice(kinds) if "type" in oddities else b"application/json",
        properties,
    )


# ---- what becomes of them --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def queue() -> str:
    """The queue of this file's worker."""
    return f"test-fuzz-{uuid.uuid4().hex}"


@pytest.fixture(scope="module")
def worker(rabbit_node: Node, queue: str) -> Iterator[Worker]:
    """One worker for everything."""
    with Worker(rabbit_node.url, queue, "--concurrency=2", ready=2) as started:
        yield started


@pytest.mark.parametrize("seed", range(4))
def test_odd_messages(seed: int, worker: Worker, queue: str, broker_url: str) -> None:
    """Random odd messages are each settled once or dead-lettered, and cost no child."""
    chance = random.Random(seed)
    before, children = len(worker.seen(DONE)), worker.children()
    with BrokerConsole(broker_url) as console:
        send(broker_url, queue, [odd_message(chance) for _ in range(MESSAGES)])
        good = console.call(queue, "worker.add", 2, 3)
        worker.see(rf"Task worker\.add\[{good}\] succeeded in \S+: 5$")
        worker.see(DONE, before + MESSAGES + 1)
        assert len(worker.seen(DONE)) == before + MESSAGES + 1
        console.until_depth(f"{queue}.dead", len(worker.seen(r"refused: .*; dead-lettered to")))
        assert console.depth(queue) == 0
    assert worker.children() == children
    assert not worker.seen(ALARM)


def nested(depth: int) -> bytes:
    """Return a list in a list in a list."""
    return array([nested(depth - 1)]) if depth else b"V"


UNKNOWN: Fields = {b"task": text(b"worker.ad"), b"id": text(b"odd")}
POISON = {
    "a header's name that is no UTF-8": Raw({**UNKNOWN, b"\xff\xfe": text(b"x")}),
    "texts that are no UTF-8": Raw(
        UNKNOWN,
        properties={name: short(b"\xff\xfe") for name in (CONTENT_ENCODING, CORRELATION_ID, REPLY_TO, MESSAGE_ID)},
    ),
    "a copy to a queue that is not there": Raw({**UNKNOWN, b"CC": array([text(b"test-fuzz-nowhere")])}),
    "a message id of digits": Raw(UNKNOWN, properties={MESSAGE_ID: short(b"1")}),
    "very many headers": Raw({**UNKNOWN, **{b"h%d" % number: b"V" for number in range(16_000)}}),
    "a reason beside headers that just fit": Raw({**UNKNOWN, b"x": text(b"y" * 129_500)}),
    "a double that is no float": Raw({**UNKNOWN, b"x": b"d" + struct.pack(">d", 1e300)}),
    "a header that is no UTF-8": Raw({**UNKNOWN, b"x": text(b"\xff\xfe")}),
    "a content type that is no UTF-8": Raw(UNKNOWN, content_type=b"\xff\xfe"),
    "a time after the year 9999": Raw({**UNKNOWN, b"x": b"T" + struct.pack(">Q", 2**62)}),
    "headers that leave no room for a story": Raw({**UNKNOWN, b"x": text(b"y" * 130_950)}),
    "headers nested too deeply": Raw({**UNKNOWN, b"x": nested(900)}),
}


@pytest.mark.parametrize("message", [pytest.param(raw, id=name) for name, raw in POISON.items()])
def test_poison(message: Raw, broker_url: str, queue_name: str) -> None:
    """A poisonous message is dead-lettered, raises no alarm, and the worker runs the next task."""
    dead = f"{queue_name}.dead"
    with BrokerConsole(broker_url) as console, Worker(broker_url, queue_name, "--concurrency=1") as worker:
        send(broker_url, queue_name, [message])
        assert wait_for(lambda: bool(console.depth(dead) == 1 or worker.seen(ALARM)), PATIENCE)
        assert not worker.seen(ALARM)
        good = console.call(queue_name, "worker.add", 2, 3)
        worker.see(rf"Task worker\.add\[{good}\] succeeded in \S+: 5$")
        console.delete(dead)
