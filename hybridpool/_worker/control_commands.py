"""Remote control commands that change what the worker does."""

from collections.abc import Awaitable

from hybridpool._worker.commands import Commands
from hybridpool._worker.controlled import ControlledWorker


def add_app_commands(commands: Commands, worker: ControlledWorker) -> None:
    """Add the commands that another library's app has of its own; a child of it runs them."""
    guest, finisher = worker.prepared.guest, worker.finisher
    if guest is None or finisher is None:
        return

    def add(name: str, alias: object) -> None:
        def run(**arguments: object) -> Awaitable[object]:
            return finisher.command(name, arguments)

        commands.add(name, run, aliases=[alias] if isinstance(alias, str) else [])

    for name, meta in guest.remote.commands.items():
        add(name, meta.get("alias"))
