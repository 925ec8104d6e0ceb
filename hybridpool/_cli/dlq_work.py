"""The commands of `hybridpool dlq`.

Nothing is printed while letters are held only to be read: a pager that is open would hold them as long.
"""

from collections.abc import Awaitable, Callable, Sequence

import anyio
import click

from hybridpool._brokers.factory import open_broker
from hybridpool._cli import dlq_view as view
from hybridpool._cli.app_settings import Source
from hybridpool._client.asynclib import plain_error
from hybridpool._client.sync_portal import has_uvloop
from hybridpool._config import Settings
from hybridpool._dead_letters import DeadLetters, Found, WantsBody, dead_letters
from hybridpool._protocol.dead_letter import dead_queue
from hybridpool.errors import BrokerError, BrokerUnavailable, HybridpoolError
from hybridpool.events import Event

NONE = "no dead letters"
Act = Callable[[DeadLetters], Awaitable[int]]


def ls(source: Source, *, as_json: bool) -> int:
    """List the letters; exit code 0, however many there are."""
    texts: list[str] = []

    async def look(letters: DeadLetters) -> int:
        found = [one.letter for one in letters.found]
        texts.append(view.as_json(found) if as_json else view.table(found) if found else NONE)
        return 0

    code = _work(source, look, lambda _: False)
    click.echo("\n".join(texts))
    return code


def show(source: Source, ids: Sequence[str], *, with_body: bool) -> int:
    """Show letters."""
    texts: list[str] = []

    async def look(letters: DeadLetters) -> int:
        for one in _chosen(letters.found, ids):
            texts.append(view.details(one.letter))
            if with_body:
                texts.append(view.body(one.letter, one.delivery.body))
        return 0

    code = _work(source, look, lambda letter: with_body and _matches(letter.id, ids))
    click.echo("\n\n".join(texts))
    return code


def replay(source: Source, ids: Sequence[str], to: str | None) -> int:
    """Send letters back; exit code 1 if one was not sent."""

    async def send(letters: DeadLetters) -> int:
        chosen, failed = _chosen(letters.found, ids), 0
        for one in chosen:
            try:
                queue = await letters.send_back(one, to)
            except BrokerUnavailable:
                raise
            except BrokerError as error:
                failed += 1
                click.echo(f"{view.name(one.letter)} stays in {one.letter.dead}: {view.plain(str(error))}", err=True)
            else:
                click.echo(f"{view.name(one.letter)} sent to {view.plain(queue)}")
        if not chosen:
            click.echo(NONE)
        return 1 if failed else 0

    return _work(source, send, lambda letter: not ids or _matches(letter.id, ids))


def purge(source: Source, ids: Sequence[str]) -> int:
    """Delete letters."""

    async def delete(letters: DeadLetters) -> int:
        chosen = _chosen(letters.found, ids)
        for one in chosen:
            letters.drop(one)
            click.echo(f"{view.name(one.letter)} deleted from {one.letter.dead}")
        if not chosen:
            click.echo(NONE)
        return 0

    return _work(source, delete, lambda _: False)


def _chosen(found: Sequence[Found], ids: Sequence[str]) -> list[Found]:
    """Return the letters of these IDs; without IDs, all.

    :raises HybridpoolError: if an ID matches no letter, or several.
    """
    for wanted in ids:
        known = {one.letter.id for one in found if _matches(one.letter.id, [wanted])}
        if not known:
            raise HybridpoolError(f"there is no dead letter {wanted}")
        if len(known) > 1 and wanted not in known:
            raise HybridpoolError(f"{wanted} may be {' or '.join(sorted(known))}")
    exact = {one.letter.id for one in found} & set(ids)
    cut = [wanted for wanted in ids if wanted not in exact]
    return [one for one in found if not ids or one.letter.id in exact or _matches(one.letter.id, cut)]


def _matches(letter_id: str, ids: Sequence[str]) -> bool:
    return any(letter_id.startswith(wanted) for wanted in ids)


def _work(source: Source, act: Act, wants_body: WantsBody) -> int:
    """Run a command on the letters; return its exit code.

    :raises HybridpoolError: if there is no broker, or if the command fails.
    """
    settings = source.settings()
    try:
        return anyio.run(_main, settings, act, wants_body, backend_options={"use_uvloop": has_uvloop()})
    except BaseExceptionGroup as group:
        raise plain_error(group) from None


async def _main(settings: Settings, act: Act, wants_body: WantsBody) -> int:
    broker = open_broker(
        settings.broker_url,
        _ignore,
        heartbeat=settings.broker_heartbeat,
        connect_timeout=settings.broker_connection_timeout,
        name="hybridpool dlq",
    )
    async with broker:
        await broker.connected(settings.broker_connection_timeout)
        async with dead_letters(broker, settings.queues, wants_body) as letters:
            if letters.missed:
                where = ", ".join(map(dead_queue, settings.queues))
                click.echo(f"{letters.missed} more in {where} could not be read: another client holds them", err=True)
            return await act(letters)


def _ignore(event: Event) -> None:
    """Ignore the connection's events: a failure is reported by the call that fails."""
