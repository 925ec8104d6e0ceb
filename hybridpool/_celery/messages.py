"""A message, in the forms in which Celery's code wants it."""

from typing import Any, Final

from amqp.serialization import decode_properties_basic
from celery.worker.strategy import hybrid_to_proto2
from kombu.message import Message

from hybridpool._ipc.envelope import Envelope

#: how the names of our headers begin. Celery copies headers that it does not know to a task's next attempt, which must
#: not count what happened to this one
_OWN_HEADERS: Final = "x-hybridpool-"


def to_message(envelope: Envelope, accept: frozenset[str]) -> Any:
    """Return the message as Celery's consumer gets it; its body is decoded when `payload` is read; of protocol 1 now.

    :param accept: the content types that may be decoded.
    """
    properties, _ = decode_properties_basic(envelope.properties, 0)
    headers = {
        name: value
        for name, value in (properties.get("application_headers") or {}).items()
        # a name that is not UTF-8 comes as bytes, and is none that Celery reads
        if isinstance(name, str) and not name.startswith(_OWN_HEADERS)
    }
    properties["application_headers"] = headers
    make: Any = Message
    message = make(
        body=envelope.body,
        content_type=envelope.content_type,
        content_encoding=properties.get("content_encoding"),
        delivery_info={
            "exchange": envelope.exchange,
            "routing_key": envelope.routing_key,
            "redelivered": envelope.redelivered,
        },
        properties=properties,
        headers=headers,
        accept=accept,
    )
    if "task" not in headers:
        _to_protocol_two(message)
    return message


def _to_protocol_two(message: Any) -> None:
    """Give a message of protocol 1 the headers and the body of protocol 2.

    The parent has decoded the body, or it would not be here. Its times are the parent's matter.
    """
    body = message.payload
    body.setdefault("group", body.get("taskset"))
    message._decoded_cache, message.headers, _, _ = hybrid_to_proto2(message, body)


def to_request(message: Any, node: str) -> tuple[dict[str, Any], Any, Any]:
    """Return the request as `celery.worker.request.Request` and `fast_trace_task` write it; and args and kwargs.

    :param node: the worker's name.
    :raises Exception: whatever the serializer raises for a body that it cannot decode.
    """
    args, kwargs, embed = message.payload
    properties = message.properties
    request = {
        **message.headers,
        "properties": properties,
        "reply_to": properties.get("reply_to"),
        "correlation_id": properties.get("correlation_id"),
        "hostname": node,
        "delivery_info": {
            "exchange": message.delivery_info["exchange"],
            "routing_key": message.delivery_info["routing_key"],
            "priority": properties.get("priority"),
            "redelivered": message.delivery_info["redelivered"],
        },
        "args": args,
        "kwargs": kwargs,
        "is_eager": False,
        **(embed or {}),
    }
    return request, args, kwargs
