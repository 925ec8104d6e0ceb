"""The result port: the worker's side writes, the client's side waits."""

from typing import Protocol

from hybridpool._message import Delivery


class ResultStore(Protocol):
    """The worker's side."""

    def wanted(self, delivery: Delivery) -> bool:
        """Tell whether this backend can bring a result of that message to anybody."""
        ...

    async def store(self, delivery: Delivery, task_id: str, meta: bytes) -> None:
        """Keep or send a result meta; returns when that is safe.

        :raises BrokerError: if it cannot be done.
        """
        ...


class ResultReader(Protocol):
    """The client's side."""

    #: goes into the message's reply_to
    reply_to: str | None

    async def open(self) -> None:
        """Be ready for results; call before the first message is sent.

        :raises BrokerError: if the backend cannot be reached.
        """
        ...

    def expect(self, task_id: str) -> object:
        """Return a claim on this task's result, which is kept for as long as the claim is."""
        ...

    async def wait(self, task_id: str, timeout: float | None) -> bytes:
        """Wait for the result meta.

        :raises ResultTimeout: if it does not come in so many seconds; None waits for ever.
        """
        ...

    def forget(self, task_id: str) -> None:
        """Nobody will ask for this task's result."""
        ...

    async def close(self) -> None:
        """Leave nothing behind."""
        ...
