"""Has the app's child that finishes tasks tell listeners of what the worker does: it is ready, it stops.

Nothing is sent, and no child is made, for what has no listener.
"""

import logging
from collections.abc import Collection
from typing import Final

import anyio

from hybridpool._ipc.envelope import SIGNAL_PREFIX
from hybridpool._policy.fallback import NotFinished
from hybridpool._worker.finisher import Finisher

#: seconds that listeners may take while the worker stops
STOP_LIMIT_S: Final = 5.0
log = logging.getLogger(__name__)


class GuestSignals:
    """Sends the signals of one app."""

    def __init__(self, finisher: Finisher | None, heard: Collection[str]) -> None:
        """:param heard: names of the signals that have listeners."""
        self._finisher = finisher
        self._heard = heard

    async def send_when(self, event: anyio.Event, name: str) -> None:
        """Send one as soon as something has happened."""
        if name in self._heard:
            await event.wait()
            await self.send(name)

    async def send(self, name: str, *, limit: float | None = None, **arguments: object) -> None:
        """Send one, and wait until its listeners have returned.

        :param limit: seconds; None: as long as a call to that child may take.
        """
        if self._finisher is None or name not in self._heard:
            return
        why: object = f"it took more than {limit} s"
        with anyio.move_on_after(limit):
            try:
                await self._finisher.command(SIGNAL_PREFIX + name, arguments)
            except NotFinished as error:
                why = error
            else:
                return
        log.warning("signal %s: %s", name, why)
