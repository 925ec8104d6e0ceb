"""A chord of Celery's client: what its parts carry, and what follows them (Celery, `celery.canvas`, `embed["chord"]`).

Each part carries the signature of the chord's body. Only that is decoded here: arguments and values are put from one
message into the other as they are.
"""

import datetime as dt
import os
import socket
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import attrs
import msgspec

from hybridpool._ipc import codec
from hybridpool._message import Delivery, Outgoing, whole_seconds

_NULL: Final = msgspec.Raw(b"null")
#: states that end a part, and whether the chord goes on
_GOES_ON: Final[Mapping[str, bool]] = {"SUCCESS": True, "FAILURE": False, "REVOKED": False}


class _Embed(msgspec.Struct):
    chord: msgspec.Raw = _NULL


class _Options(msgspec.Struct):
    task_id: str | None = None
    queue: str | None = None
    routing_key: str | None = None
    priority: int | None = None
    expires: float | str | None = None
    countdown: float | None = None
    time_limit: float | None = None
    soft_time_limit: float | None = None
    group_id: str | None = None
    group_index: int | None = None
    root_id: str | None = None
    ignore_result: bool | None = None
    headers: dict[str, Any] | None = None
    stamped_headers: list[str] | None = None
    link: msgspec.Raw = _NULL
    link_error: msgspec.Raw = _NULL
    chain: msgspec.Raw = _NULL
    chord: msgspec.Raw = _NULL


class _Signature(msgspec.Struct):
    task: str
    args: list[msgspec.Raw] | None = None
    kwargs: dict[str, msgspec.Raw] | None = None
    options: _Options = msgspec.field(default_factory=_Options)
    subtask_type: str | None = None
    immutable: bool = False


class _Result(msgspec.Struct):
    status: str
    result: msgspec.Raw


class _Failure(msgspec.Struct):
    exc_type: str = "Exception"
    exc_message: Any = None


class _Nesting(msgspec.Struct):
    result: Any


@attrs.frozen
class Chord:
    """A chord, as one of its parts tells of it."""

    group: str
    #: of the part that tells of it
    index: int | None
    body: _Signature

    @property
    def body_id(self) -> str | None:
        """The id under which the chord's result is waited for."""
        return self.body.options.task_id


@attrs.frozen
class Failed:
    """Why a chord's body is not run."""

    reason: str


_decode_message = msgspec.json.Decoder(tuple[msgspec.Raw, msgspec.Raw, _Embed]).decode
_decode_signature = msgspec.json.Decoder(_Signature).decode
_decode_part = msgspec.json.Decoder(tuple[int, str, str, msgspec.Raw]).decode


def read_chord(delivery: Delivery) -> Chord | None:
    """Read the chord that a message is a part of; None: of none, or of one that cannot be counted here.

    It cannot if the message is compressed or is not JSON, or if more than one task follows.
    """
    headers = delivery.headers
    group, index = headers.get("group"), headers.get("group_index")
    if not isinstance(group, str) or delivery.missing or headers.get("compression") is not None:
        return None
    if delivery.content_type != codec.JSON or b'"chord"' not in delivery.body:
        return None
    try:
        chord = _decode_message(delivery.body)[2].chord
        body = None if bytes(chord) == b"null" else _decode_signature(chord)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    if body is None or body.subtask_type is not None or body.task.startswith("celery."):
        return None
    return Chord(group, index if isinstance(index, int) else None, body)


def with_chord(delivery: Delivery, body: bytes) -> bytes:
    """Return another body for the same task: one that was a part of a chord still is."""
    if read_chord(delivery) is None:
        return body
    args, kwargs, _ = msgspec.json.decode(body, type=tuple[msgspec.Raw, msgspec.Raw, msgspec.Raw])
    return msgspec.json.encode((args, kwargs, _decode_message(delivery.body)[2]))


def write_part(task_id: str, meta: bytes) -> bytes | None:
    """Write what is kept of a part until the others are there, as Celery does; None: its result is not final.

    :param meta: its result meta.
    """
    found = msgspec.json.decode(meta, type=_Result)
    if found.status not in _GOES_ON:
        return None
    return msgspec.json.encode((1, task_id, found.status, found.result))


def join(parts: Sequence[bytes], nesting: bytes) -> bytes | Failed:
    """Return the list of the parts' results, as JSON; or why there is none.

    :param nesting: how the parts are nested, if groups are among them; else empty.
    :raises msgspec.MsgspecError, LookupError, TypeError: if a part, or the nesting, cannot be read.
    """
    results: dict[str, bytes] = {}
    in_order: list[bytes] = []
    for part in parts:
        _, task_id, state, value = _decode_part(part)
        if not _GOES_ON.get(state, False):
            return Failed(f"Dependency {task_id} raised {_describe(value)}")
        results[task_id] = bytes(value)
        in_order.append(results[task_id])
    if not nesting:
        return b"[" + b",".join(in_order) + b"]"
    _, children = msgspec.json.decode(nesting, type=_Nesting).result
    return _nested(children, results)


def _nested(children: Sequence[Any], results: Mapping[str, bytes]) -> bytes:
    """Write the results of a group: each child is `[[id, parent], its own children or null]`."""
    written = [results[child_id] if inner is None else _nested(inner, results) for (child_id, _), inner in children]
    return b"[" + b",".join(written) + b"]"


def _describe(value: msgspec.Raw) -> str:
    """Describe the exception of a part, as Celery's text has it."""
    try:
        failure = msgspec.json.decode(value, type=_Failure)
    except msgspec.MsgspecError:
        return bytes(value).decode(errors="replace")
    arguments = failure.exc_message if isinstance(failure.exc_message, list) else [failure.exc_message]
    shown = ", ".join(map(repr, arguments))
    return f"{failure.exc_type}({shown})"


def write_body(
    chord: Chord,
    results: bytes,
    parent_id: str,
    headers: Mapping[str, object],
    reply_to: str | None,
    now: dt.datetime,
) -> Outgoing:
    """Write the message of the chord's body; its routing key is empty if the signature names no queue.

    :param results: of its parts, as JSON: its first argument.
    :param parent_id: the part that was the last one.
    :param headers: those of that part.
    :param now: UTC.
    """
    body = chord.body
    given = [bytes(arg) for arg in body.args or ()]
    args = given if body.immutable else [results, *given]
    return _message(body, args, parent_id, headers, reply_to, now)


def write_error_tasks(chord: Chord, headers: Mapping[str, object], now: dt.datetime) -> Iterator[Outgoing]:
    """Write the messages of the tasks that follow if the body fails; each is called with the body's id."""
    linked = bytes(chord.body.options.link_error)
    many = b"[" + linked + b"]" if linked.startswith(b"{") else linked
    try:
        signatures = msgspec.json.decode(many, type=list[_Signature] | None)
    except msgspec.MsgspecError:
        return
    for signature in signatures or ():
        given = [bytes(arg) for arg in signature.args or ()]
        args = given if signature.immutable else [msgspec.json.encode(chord.body_id), *given]
        yield _message(signature, args, chord.body_id, headers, None, now)


def write_failure(chord: Chord, failed: Failed, now: dt.datetime) -> bytes:
    """Write the result meta of a body that is not run."""
    return msgspec.json.encode(
        {
            "status": "FAILURE",
            "result": {
                "exc_type": "ChordError",
                "exc_message": [failed.reason],
                "exc_module": "celery.exceptions",
            },
            "traceback": None,
            "children": [],
            "date_done": now.isoformat(),
            "task_id": chord.body_id,
            "group_id": chord.body.options.group_id,
        }
    )


def _message(
    signature: _Signature,
    args: Sequence[bytes],
    parent_id: str | None,
    headers: Mapping[str, object],
    reply_to: str | None,
    now: dt.datetime,
) -> Outgoing:
    options, kwargs = signature.options, signature.kwargs or {}
    task_id = options.task_id or str(uuid.uuid4())
    countdown = options.countdown or 0.0
    expires = options.expires
    if isinstance(expires, int | float):
        expires = (now + dt.timedelta(seconds=expires)).isoformat()
    embed = {
        "callbacks": _as_list(options.link),
        "errbacks": _as_list(options.link_error),
        "chain": options.chain,
        "chord": options.chord,
    }
    body = b"[[%b],%b,%b]" % (b",".join(args), msgspec.json.encode(kwargs), msgspec.json.encode(embed))
    root_id = headers.get("root_id")
    stamps = {name: (options.headers or {}).get(name) for name in options.stamped_headers or ()}
    return Outgoing(
        body=body,
        routing_key=options.queue or options.routing_key or "",
        headers={
            **(options.headers or {}),
            "lang": "py",
            "task": signature.task,
            "id": task_id,
            "shadow": None,
            "eta": (now + dt.timedelta(seconds=countdown)).isoformat() if countdown > 0 else None,
            "expires": expires,
            "group": options.group_id,
            "group_index": options.group_index,
            "retries": 0,
            "timelimit": [options.time_limit, options.soft_time_limit],
            "root_id": options.root_id or (root_id if isinstance(root_id, str) else task_id),
            "parent_id": parent_id,
            "argsrepr": "(…)",
            "kwargsrepr": "{…}" if kwargs else "{}",
            "origin": f"gen{os.getpid()}@{socket.gethostname()}",
            "ignore_result": bool(options.ignore_result),
            "replaced_task_nesting": 0,
            "stamped_headers": options.stamped_headers,
            "stamps": stamps,
        },
        correlation_id=task_id,
        reply_to=reply_to,
        priority=options.priority,
        delay=whole_seconds(countdown) if countdown > 0 else 0,
        mandatory=True,
    )


def _as_list(signatures: msgspec.Raw) -> msgspec.Raw:
    """Return one signature, or several, as a list of them."""
    return msgspec.Raw(b"[" + bytes(signatures) + b"]") if bytes(signatures).startswith(b"{") else signatures
