"""What all servers have in common that tests start for themselves, with ports and data of their own."""

import abc
from types import TracebackType
from typing import Self


class PrivateServer(abc.ABC):
    """A server that runs inside ``with``; nothing of it is left behind."""

    @property
    @abc.abstractmethod
    def pid(self) -> int:
        """The id of its process; of several, of the first."""

    @abc.abstractmethod
    def start(self) -> Self:
        """Start it, and wait until it answers."""

    @abc.abstractmethod
    def destroy(self) -> None:
        """Kill it, and remove its files."""

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.destroy()
            raise

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.destroy()
