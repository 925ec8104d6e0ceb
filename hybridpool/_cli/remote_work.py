"""Sends remote control commands, to workers of ours and of Celery, and shows their answers."""

import platform
import uuid
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from typing import Any, Final

import anyio
import click
import msgspec

from hybridpool._brokers.factory import open_broker
from hybridpool._child.printable import lines, one_line
from hybridpool._cli.app_settings import Source
from hybridpool._cli.remote_table import INSPECT, WrongArguments, commands_of, unknown
from hybridpool._client.asynclib import plain_error
from hybridpool._client.sync_portal import has_uvloop
from hybridpool._config import SETTINGS, Settings, masked
from hybridpool._message import Delivery, QueueSpec
from hybridpool._protocol import remote_control as protocol
from hybridpool.errors import BrokerError, ProtocolError
from hybridpool.events import Event

#: sysexits' EX_UNAVAILABLE, as Celery's commands have it
NO_ANSWER_CODE: Final = 69
#: answers that may wait here
_PREFETCH: Final = 1000
#: a node and its answer
Show = Callable[[str, object], None]


def list_commands(source: Source, kind: str) -> int:
    """Print the commands of a kind."""
    rows = [(f"{one.name} {one.signature}".rstrip(), one.help) for one in commands_of(kind, _apps_own(source)).values()]
    width = min(44, max(len(name) for name, _ in rows)) + 2
    click.echo("\n".join(f"{name:{width}}{text}" for name, text in rows))
    return 0


def ask(source: Source, kind: str, words: Sequence[str], nodes: Sequence[str], timeout: float, *, as_json: bool) -> int:
    """Send a command, and show the answers; exit code 69 if there is none.

    :param words: its name and its arguments.
    :param nodes: workers that it is for; none: all.
    :param timeout: seconds.
    :raises click.UsageError: if there is no such command, or its arguments do not fit.
    """
    known = commands_of(kind, {} if words[0] in commands_of(kind, {}) else _apps_own(source))
    if words[0] not in known:
        raise click.UsageError(unknown(kind, words[0], known))
    try:
        arguments = known[words[0]].arguments(words[1:])
    except WrongArguments as wrong:
        raise click.UsageError(str(wrong)) from None
    answers = _send(source, words[0], arguments, nodes, timeout, _silent if as_json else _show)
    if not answers:
        return _no_answer()
    if as_json:
        # as Celery's commands print them
        told = answers if kind == INSPECT else [{node: answer} for node, answer in answers.items()]
        click.echo(msgspec.json.encode(told).decode())
    elif kind == INSPECT:
        _say_count(answers)
    return 0


def status(source: Source, nodes: Sequence[str], timeout: float, *, as_json: bool) -> int:
    """Show the workers that answer; exit code 69 if there is none."""
    answers = _send(source, "ping", {}, nodes, timeout, _silent if as_json else _show_name)
    if not answers:
        return _no_answer()
    if as_json:
        click.echo(msgspec.json.encode(answers).decode())
    else:
        _say_count(answers)
    return 0


def report(source: Source) -> int:
    """Print versions, platform and settings."""
    settings, manifest = source.read()
    try:
        version = metadata.version("hybridpool")
    except metadata.PackageNotFoundError:
        version = "(not installed)"
    told = [
        "",
        f"software -> hybridpool:{version} py:{platform.python_version()}",
        f"platform -> system:{platform.system()} {platform.release()} imp:{platform.python_implementation()}",
    ]
    guest = manifest.get("guest")
    if guest is not None:
        told.append(guest["remote"]["report"].strip("\n"))
    else:
        told += ["", *(f"{name}: {_shown(settings, name)}" for name in SETTINGS if _differs(settings, name))]
    click.echo(lines("\n".join([*told, ""])))
    return 0


def _differs(settings: Settings, name: str) -> bool:
    return name in ("broker_url", "result_backend") or getattr(settings, name) != getattr(Settings(), name)


def _shown(settings: Settings, name: str) -> str:
    value = getattr(settings, name)
    if name == "worker_logging" and value is not None:
        return "(hidden)"
    return repr(masked(value) if SETTINGS[name].secret and isinstance(value, str) else value)


def _apps_own(source: Source) -> Mapping[str, Mapping[str, Any]]:
    """Return the commands that an app of Celery's has of its own."""
    guest = source.read()[1].get("guest") if source.app else None
    return guest["remote"]["commands"] if guest is not None else {}


# ---- asking --------------------------------------------------------------------------------------------------


def _send(
    source: Source, method: str, arguments: dict[str, object], nodes: Sequence[str], timeout: float, show: Show
) -> dict[str, Any]:
    """Send an order, and return the answers that come in time, by node.

    :param show: called with each of them as it comes.
    :raises BrokerError: if the broker does not take the order.
    """
    settings = source.settings()
    try:
        return anyio.run(
            _ask, settings, method, arguments, nodes, timeout, show, backend_options={"use_uvloop": has_uvloop()}
        )
    except BaseExceptionGroup as group:
        raise plain_error(group) from None


async def _ask(
    settings: Settings, method: str, arguments: dict[str, object], nodes: Sequence[str], timeout: float, show: Show
) -> dict[str, Any]:
    broker = open_broker(
        settings.broker_url,
        _ignore,
        heartbeat=settings.broker_heartbeat,
        connect_timeout=settings.broker_connection_timeout,
        name=f"hybridpool {method}",
    )
    answers: dict[str, Any] = {}
    queue, complete = f"{uuid.uuid4()}.{protocol.REPLIES}", anyio.Event()

    def take(delivery: Delivery) -> None:
        broker.ack(delivery)
        try:
            told = protocol.read_replies(delivery.body)
        except ProtocolError as error:
            click.echo(f"an answer is not understood: {one_line(str(error))}", err=True)
            return
        for node, answer in told.items():
            answers[node] = answer
            show(node, answer)
        if nodes and answers.keys() >= set(nodes):
            complete.set()

    async with broker:
        await broker.connected(settings.broker_connection_timeout)
        await broker.declare(QueueSpec(name=queue, private=True))
        await broker.consume(queue, _PREFETCH, take, keeps=protocol.MAX_ORDER_BYTES)
        reply_to = protocol.ReplyTarget(exchange="", routing_key=queue)
        try:
            await broker.publish(protocol.write_order(method, arguments, reply_to, nodes))
        except BrokerError as error:
            # There is no worker whose queue could take it, and so not even the exchange may be there.
            click.echo(f"the order was not sent: {one_line(str(error))}", err=True)
            return {}
        with anyio.move_on_after(timeout):
            await complete.wait()
    return answers


def _ignore(event: Event) -> None:
    """Ignore the connection's events: a failure is reported by the call that fails."""


# ---- showing -------------------------------------------------------------------------------------------------


def _silent(_node: str, _answer: object) -> None:
    """Print nothing before the end."""


def _show_name(node: str, answer: object) -> None:
    click.echo(f"-> {one_line(node)}: {_state(answer)}")


def _show(node: str, answer: object) -> None:
    _show_name(node, answer)
    text = _pretty(answer)
    if text:
        click.echo("\n".join(f"    {line}" for line in lines(text).split("\n")))


def _state(answer: object) -> str:
    return "ERROR" if isinstance(answer, dict) and "error" in answer and "ok" not in answer else "OK"


def _pretty(answer: object) -> str:
    match answer:
        case {"ok": told} | {"error": told}:
            return f"    {_pretty(told)}"
        case None:
            return ""
        case []:
            return "- empty -"
        case list():
            return "\n".join(f"* {one if isinstance(one, str) else _compact(one)}" for one in answer)
        case str():
            return answer
        case _:
            return msgspec.json.format(msgspec.json.encode(answer, order="deterministic"), indent=4).decode()


def _compact(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _say_count(answers: Mapping[str, object]) -> None:
    click.echo(f"\n{len(answers)} {'node' if len(answers) == 1 else 'nodes'} online.")


def _no_answer() -> int:
    click.echo("hybridpool: no worker has answered in time (--timeout); is one running on this broker?", err=True)
    return NO_ANSWER_CODE
