"""Keeps one session open, for ever: connect, restore the declarations, watch, wait, again."""

import asyncio
import logging
import random
from collections.abc import Callable

import anyio

from hybridpool._brokers.rabbitmq.connection import ConnectTarget, open_pair
from hybridpool._brokers.rabbitmq.declarations import MAX_REMEMBERED_QUEUES, Declarations
from hybridpool._brokers.rabbitmq.errors import is_refusal, reason
from hybridpool._brokers.rabbitmq.session import Session
from hybridpool._brokers.url import BrokerUrl
from hybridpool._policy import backoff
from hybridpool.errors import BrokerError, BrokerUnavailable
from hybridpool.events import (
    BrokerConnected,
    BrokerConnectFailed,
    BrokerLost,
    Event,
    PublishingBlocked,
    PublishingResumed,
    QueueDiffers,
)

log = logging.getLogger(__name__)

#: seconds: the first retry is quick, because most losses are a broker's restart or a closed channel
FIRST_RETRY_S, RETRY_FACTOR, MAX_RETRY_S = 0.2, 1.5, 10.0
#: seconds a session must last to count as a success; one that dies sooner is one more failure
STABLE_AFTER_S = 5.0
#: seconds for opening channels, and for each queue to be declared and consumed again
RESTORE_TIMEOUT_S = 30.0
#: seconds until a queue that was refused at a reconnect is tried again
REFUSED_AGAIN_S = 10.0


class Supervisor:
    """Owns the current session and replaces it when it fails."""

    def __init__(self, target: ConnectTarget, announce: Callable[[Event], None]) -> None:
        self.declarations = Declarations()
        #: the session whose deliveries may be settled: the live one, or the one being restored
        self.current: Session | None = None
        self._target = target
        self._announce = announce
        #: see the port; called before listeners are told
        self.on_disconnect: Callable[[], None] = lambda: None
        self._number = 0
        #: rises with each failure; modulo the number of URLs it is the index of the current one
        self._url_turn = 0
        self._differing: set[str] = set()
        self._last_error = "not connected yet"
        self._refusal: str | None = None
        self._was_up = False
        #: the broker is being closed: no further session is opened
        self.is_ending = False
        self._changed = anyio.Event()

    def unavailable(self) -> BrokerUnavailable:
        """Return the error for a caller that needs a connection now."""
        return BrokerUnavailable(f"no connection to {self._target.masked}: {self._last_error}")

    async def connected(self, timeout: float | None) -> None:
        """Wait for the live session; see the port."""
        if self.declarations.session is not None and self.declarations.session.cause is None:
            return
        with anyio.move_on_after(timeout):
            # a session that has just failed is replaced some loop ticks later
            while self.declarations.session is None or self.declarations.session.cause is not None:
                if self._refusal is not None:
                    raise BrokerError(f"cannot connect to {self._refusal}")
                await self._changed.wait()
            return
        raise self.unavailable()

    async def run(self) -> None:
        """Go on until `is_ending` is set; then cancel it, to close the connection at once."""
        attempt = brief = 0
        while not self.is_ending:
            known = self._refusal
            session = await self._round()
            if session is None:
                attempt += 1
                # the caller that waits in `connected` gets the first refusal as an error
                is_silent = known is None and self._refusal is not None
                await self._pause(attempt, None if is_silent else BrokerConnectFailed)
                self._url_turn += 1
                continue
            began = asyncio.get_running_loop().time()
            try:
                self._last_error = await self._watch(session)
            except Exception as error:
                # Otherwise this task would end, and no connection would ever be made again.
                log.exception("an error in hybridpool itself ended the connection to the broker; connecting again")
                self._last_error = reason(error)
            lasted = asyncio.get_running_loop().time() - began
            # Failed attempts before this session do not count any more; sessions that end soon do.
            attempt = brief = backoff.next_attempt(brief, lasted=lasted, settled_after=STABLE_AFTER_S)
            if not self.is_ending:
                await self._pause(attempt, BrokerLost)
            if attempt > 1:
                # This broker accepts connections and drops them; the next URL may be better.
                self._url_turn += 1

    @property
    def _url(self) -> BrokerUrl:
        return self._target.urls[self._url_turn % len(self._target.urls)]

    async def _round(self) -> Session | None:
        """Try each URL once, beginning with the current one; on failure its cause is in `_last_error`."""
        refusals: list[str] = []
        for left in reversed(range(len(self._target.urls))):
            url = self._url
            try:
                return await self._connect(url)
            except Exception as error:  # noqa: BLE001  every failure is followed by another attempt
                self._last_error = reason(error)
                if is_refusal(_root(error)) and not self._was_up:
                    refusals.append(f"{url.masked}: {self._last_error}")
            if left:
                self._url_turn += 1
                self.on_disconnect()
                self._announce(BrokerConnectFailed(url.masked, self._last_error, 0.0, self._url.masked))
        # A broker that is only down may come back, so all must have refused.
        self._refusal = "; ".join(refusals) if len(refusals) == len(self._target.urls) else None
        return None

    async def _connect(self, url: BrokerUrl) -> Session:
        self._number += 1
        consuming, publishing = await open_pair(self._target, url)
        publishing.on_blocked(self._blocked)
        with anyio.fail_after(RESTORE_TIMEOUT_S):
            session = await Session.open(self._number, consuming, publishing, self._differs)
        self.current = session
        try:
            with anyio.fail_after(RESTORE_TIMEOUT_S) as limit:

                def step() -> None:
                    limit.deadline = anyio.current_time() + RESTORE_TIMEOUT_S

                await self.declarations.restore(session, step, is_first=not self._was_up)
        except BaseException:
            await self._drop(session)
            raise
        self._refusal, self._was_up = None, True
        return session

    async def _watch(self, session: Session) -> str:
        """Renew the session's consumers until it fails; return why."""
        try:
            self._notify()
            self._announce(BrokerConnected(self._url.masked))
            while session.cause is None:
                queues: list[str] = []
                with anyio.move_on_after(REFUSED_AGAIN_S if self.declarations.refused else None):
                    queues = await session.next_cancelled()
                if not queues and session.cause is None:
                    await self._try_refused(session)
                for queue in queues:
                    log.warning("the broker ended the consumer of queue %s (deleted?); consuming it again", queue)
                    try:
                        await self.declarations.renew(session, queue)
                    except BrokerUnavailable as error:
                        session.fail(str(error))
                    except BrokerError as error:
                        self.declarations.leave_out(queue, error)
            return session.cause
        finally:
            await self._drop(session)

    async def _try_refused(self, session: Session) -> None:
        """Try again to consume the queues that the broker has refused."""
        for queue in sorted(self.declarations.refused):
            try:
                await self.declarations.renew(session, queue)
            except BrokerUnavailable:
                return
            except BrokerError as error:
                log.debug("queue %s is still refused: %s", queue, error)
            else:
                log.warning("queue %s is consumed again", queue)

    async def _drop(self, session: Session) -> None:
        self.declarations.session = None
        self._last_error = session.cause or "closed"
        await session.close()
        self.current = None

    async def _pause(self, attempt: int, kind: type[BrokerLost | BrokerConnectFailed] | None) -> None:
        """Wait before the next round.

        :param kind: the event to announce; None: announce nothing.
        """
        wait = backoff.delay(
            attempt, first=FIRST_RETRY_S, factor=RETRY_FACTOR, limit=MAX_RETRY_S, jitter=random.random()
        )
        self._notify()
        self.on_disconnect()
        if kind is not None:
            self._announce(kind(self._url.masked, self._last_error, wait))
        await anyio.sleep(wait)

    def _notify(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()

    def _blocked(self, why: str | None) -> None:
        url = self._url.masked
        self._announce(PublishingResumed(url) if why is None else PublishingBlocked(url, why))

    def _differs(self, queue: str, why: str) -> None:
        if queue not in self._differing:
            if len(self._differing) >= MAX_REMEMBERED_QUEUES:
                self._differing.clear()
            self._differing.add(queue)
            self._announce(QueueDiffers(queue, why))


def _root(error: BaseException) -> BaseException:
    return error.__cause__ if isinstance(error, BrokerError) and error.__cause__ is not None else error
