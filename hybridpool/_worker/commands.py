"""The table of remote control commands: functions by name, and what is answered when one fails, as in Celery."""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from hybridpool._child.rendering import safe_repr
from hybridpool.errors import ProtocolError

log = logging.getLogger(__name__)
#: a command returns this if its sender is sent no answer; None is an answer
NO_ANSWER: Final = object()
#: what runs a command: the arguments of the order are its keyword arguments. It returns the answer, or an awaitable of
#: it, and must not block
Command = Callable[..., Any]


def error_answer(error: BaseException) -> dict[str, str]:
    """Return what the sender of a command that raised is told."""
    return {"error": safe_repr(error)}


class Commands:
    """Remote control commands by name."""

    def __init__(self) -> None:
        self._commands: dict[str, Command] = {}

    def add(self, name: str, command: Command, *, aliases: Sequence[str] = ()) -> None:
        """Add a command; one that has the name already is replaced."""
        for each in (name, *aliases):
            self._commands[each] = command

    def __contains__(self, name: str) -> bool:
        return name in self._commands

    def run(self, name: str, arguments: Mapping[str, Any]) -> Any:
        """Run a command; returns its answer, an awaitable of it, or `NO_ANSWER`.

        What it raises is logged, and is its answer: of an unknown command `KeyError`, as in Celery.
        """
        try:
            return self._commands[name](**arguments)
        except ProtocolError as error:
            log.warning("an order is not understood: %s", error)
            return error_answer(error)
        except Exception as error:  # noqa: BLE001  # whatever is wrong with an order, the worker goes on
            if name in self._commands:
                log.warning("order %s failed: %s", name[:80], safe_repr(error))
            else:
                log.debug("order %r is not one of ours", name[:80])
            return error_answer(error)
