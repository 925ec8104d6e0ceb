"""Fuzzing that looks for new paths through the code (atheris, libFuzzer): for longer than the tests have time.

    python3 noxfile.py fuzz                                  each of the readers, for a short while
    python3 noxfile.py fuzz -- payload -max_total_time=600   one of them, for longer

What comes out besides the documented errors ends the run; the last lines show the bytes which did that. Other options
are libFuzzer's.
"""

import datetime as dt
import importlib
import json
import struct
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from pamqp import decode

#: optional, and not for every Python: so it is not an import that type checkers must find
atheris = importlib.import_module("atheris")

with atheris.instrument_imports(include=["hybridpool"]):
    from hybridpool._child import execute
    from hybridpool._ipc import codec, frames
    from hybridpool._message import Delivery
    from hybridpool._policy.admission import AdmissionRules, admit
    from hybridpool._protocol import dead_letter, dead_letter_view, remote_control
    from hybridpool._protocol.task_headers import read_head
    from hybridpool.errors import ProtocolError

#: what was found stays here, and the next run begins with it
FOUND = Path(__file__).parents[2] / ".hypothesis" / "fuzz"
NOON = dt.datetime(2030, 1, 1, 12, tzinfo=dt.UTC)
TASK = "t"
GATE = AdmissionRules(tasks=[TASK], accepts=[codec.JSON], max_size=4096)
#: bytes: too few to be nested beyond the recursion limit, which has tests of its own (tests/unit/protocol/test_fuzz.py)
LONGEST = 900
#: such as readers look for, so that they need not be guessed
SEEDS = {
    "head": [
        b"\x04taskS\0\0\0\x01t\x02idS\0\0\0\x01i\x07retriesb\x01\x09timelimitA\0\0\0\x03b\x01V\x03etaS\0\0\0\x042030"
    ],
    "control": [json.dumps({"method": "revoke", "arguments": {"task_id": ["a"]}, "destination": ["w"]}).encode()],
    "payload": [
        codec.encode([[1, b"\xff", NOON], {"a": None}, {"chain": None}]),
        b'[[{"__type__":"uuid","__value__":{}}]',
    ],
}


def head(data: bytes) -> None:
    """Read a table of headers as it comes over the wire, and all that is made of it."""
    try:
        _, headers = decode.field_table(struct.pack(">I", len(data)) + data)
    except (ValueError, TypeError, KeyError, RecursionError):
        return  # what a client library cannot read does not come as far as this
    came = Delivery(
        queue="q",
        tag=1,
        channel=1,
        redelivered=False,
        headers=headers,
        content_type=codec.JSON,
        content_encoding=None,
        correlation_id=None,
        reply_to=None,
        priority=None,
        exchange="",
        routing_key="q",
        body=b"",
    )
    with suppress(ProtocolError):
        admit(GATE, read_head(came), came, NOON)
    dead_letter.write_dead_letter(came, "reason", "w", NOON)
    dead_letter.restore_message(came, "q", NOON)
    dead_letter_view.read_dead_letter(came)


def order(data: bytes) -> None:
    """Read an order to workers."""
    with suppress(ProtocolError):
        remote_control.revoked_ids(remote_control.read_order(data))


def body(data: bytes) -> None:
    """Run a call as a child does."""
    call = frames.RunCall(seq=1, task=TASK, id="i", content_type=codec.JSON, body=data)
    outcome = execute.run(call, {TASK: lambda *args, **kwargs: [args, kwargs]})
    frames.read_from_child(frames.pack([frames.Done(1, outcome, 0.0, 0)]))


TARGETS: dict[str, Callable[[bytes], None]] = {"head": head, "control": order, "payload": body}


def main(name: str, *options: str) -> None:
    """Fuzz one of them; the process ends in it.

    :param options: libFuzzer's.
    """
    corpus = FOUND / name
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(SEEDS[name]):
        (corpus / f"seed-{number}").write_bytes(seed)
    words = [f"-max_len={LONGEST}", "-print_final_stats=1", f"-artifact_prefix={FOUND}/{name}-", *options]
    atheris.Setup([sys.argv[0], *words, str(corpus)], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
