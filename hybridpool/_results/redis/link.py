"""The worker's connection: scripts that are run until Redis has taken them."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final

from redis.exceptions import NoScriptError

from hybridpool import events
from hybridpool._config.redis_url import RedisUrl
from hybridpool._results.redis.client import (
    ANSWER_S,
    ERRORS,
    check_files,
    is_denied,
    is_passing,
    make_client,
    raise_if_cancelled,
    translated,
    words,
)
from hybridpool._results.redis.scripts import STORE, Script

#: bytes that Redis takes in another second
_BYTES_PER_S: Final = 1024 * 1024
#: connections: one for results, the rest for chords
CONNECTIONS: Final = 4
#: seconds until the second attempt, twice as long until each that follows, up to this
_FIRST_PAUSE_S: Final = 0.05
_MAX_PAUSE_S: Final = 2.0
#: bytes that one value may have, unless the server says otherwise (`proto-max-bulk-len`)
MAX_VALUE_BYTES: Final = 512 * 1024 * 1024


class RedisLink:
    """Runs scripts, for as long as it takes; says once when Redis does not take them, and once when it does again."""

    def __init__(self, url: RedisUrl, announce: Callable[[events.Event], None], connect_timeout: float) -> None:
        """:param connect_timeout: seconds."""
        self.url = url
        self._announce = announce
        self._client = make_client(url, connect_timeout, CONNECTIONS)
        self._slots = asyncio.Semaphore(CONNECTIONS)
        #: why Redis does not take what it is given; empty: it does
        self._trouble = ""
        #: bytes that one value may have
        self.max_bytes = MAX_VALUE_BYTES

    async def open(self) -> None:
        """Connect; that Redis cannot be reached is said, and is no error: what is written waits.

        :raises ConfigError: if a file that the URL names cannot be used.
        :raises BrokerError: if Redis refuses this user, or has no such database.
        """
        await check_files(self.url)
        try:
            async with asyncio.timeout(ANSWER_S):
                await self._eval(STORE, [], ["0"])
                await self._read_limit()
        except ERRORS as error:
            if is_denied(error) or not is_passing(error):
                raise translated(error, self.url) from None
            self.in_trouble(words(error))

    async def run(self, script: Script, keys: Sequence[str], args: Sequence[str | bytes | int]) -> Any:
        """Run a script and return its answer; waits while Redis cannot be reached, or takes nothing.

        :raises BrokerError: if Redis refuses that request for good.
        """
        failures, size = 0, sum(len(arg) for arg in args if isinstance(arg, bytes))
        while True:
            raise_if_cancelled()
            try:
                async with self._slots, asyncio.timeout(ANSWER_S + size / _BYTES_PER_S):
                    answer = await self._eval(script, keys, args)
            except ERRORS as error:
                if not is_passing(error):
                    raise translated(error, self.url) from None
                failures += 1
                self.in_trouble(words(error))
                await asyncio.sleep(pause(failures))
            else:
                return answer

    def in_trouble(self, reason: str) -> None:
        """Say why Redis does not take what it is given, unless that was said."""
        if reason != self._trouble:
            self._trouble = reason
            self._announce(events.ResultsDelayed(self.url.masked, reason))

    def well(self) -> None:
        """Say that Redis takes what it is given, if it did not before."""
        if self._trouble:
            self._trouble = ""
            self._announce(events.ResultsResumed(self.url.masked))

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()
        await self._client.connection_pool.disconnect()

    async def _eval(self, script: Script, keys: Sequence[str], args: Sequence[str | bytes | int]) -> Any:
        client: Any = self._client  # the library's types are those of its synchronous client too
        try:
            return await client.evalsha(script.sha, len(keys), *keys, *args)
        except NoScriptError:
            return await client.eval(script.text, len(keys), *keys, *args)

    async def _read_limit(self) -> None:
        """Read how large a value may be; a server may not tell."""
        client: Any = self._client
        try:
            found = await client.config_get("proto-max-bulk-len")
            self.max_bytes = int(found["proto-max-bulk-len"])
        except (*ERRORS, KeyError, ValueError, TypeError):
            pass


def pause(failures: int) -> float:
    """Return the seconds before the next attempt.

    :param failures: from 1.
    """
    return min(_MAX_PAUSE_S, _FIRST_PAUSE_S * 2.0 ** min(failures - 1, 32))
