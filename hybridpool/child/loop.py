"""The life of a child: take a call, run it, answer; until the channel ends.

The parent ends the channel to retire a child; a channel that breaks means that the parent is gone. Both end the loop.
"""

import os
import socket
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from hybridpool.child import context, frames, payload, wire
from hybridpool.child.frames import Call, Done, Enqueue, Said, Sent
from hybridpool.child.memory import Gauge

#: nobody reads what we would still say: the parent is gone
_PARENT_GONE = 1


class Child:
    """One child's end of its channel."""

    def __init__(self, name: str, channel: socket.socket) -> None:
        self.name = name
        self._channel = channel
        self._inbox: deque[frames.ToChild] = deque()
        self._tickets = 0

    def send(self, *said: frames.FromChild) -> None:
        """Write frames as one message; a parent that is gone ends the process."""
        try:
            wire.send(self._channel, frames.pack(said))
        except OSError:
            os._exit(_PARENT_GONE)

    def say(self, text: str) -> None:
        """Pass whole lines to the parent's log."""
        self.send(Said(text))

    def enqueue(self, message: bytes) -> None:
        """Have the parent publish a message, and wait until the broker has confirmed it.

        :raises RuntimeError: if the parent could not publish it; the message says why.
        """
        self._tickets += 1
        ticket = self._tickets
        self.send(Enqueue(ticket, message))
        while True:
            frame = self._receive()
            if frame is None:
                os._exit(_PARENT_GONE)
            if isinstance(frame, Sent) and frame.ticket == ticket:
                if frame.error is not None:
                    raise RuntimeError(frame.error)
                return
            # Calls that were pipelined behind the one at work wait for their turn.
            self._inbox.append(frame)

    def work(self, tasks: Mapping[str, Callable[..., Any]], gauge: Gauge, after_each: Callable[[], None]) -> None:
        """Serve calls until the channel ends.

        :param after_each: called after each task, before its outcome is sent.
        """
        while True:
            frame = self._inbox.popleft() if self._inbox else self._receive()
            match frame:
                case None:
                    return
                case Call():
                    self._serve(frame, tasks, gauge, after_each)
                case Sent():
                    # The answer to an enqueue that was broken off by an exception.
                    continue

    def _serve(
        self, call: Call, tasks: Mapping[str, Callable[..., Any]], gauge: Gauge, after_each: Callable[[], None]
    ) -> None:
        root = call.root_id or call.id
        context.set_current_task(
            context.Running(
                id=call.id, name=call.task, retries=call.retries, root_id=root, child=self.name, enqueue=self.enqueue
            )
        )
        started = time.perf_counter()
        outcome = payload.run(call, tasks)
        runtime = time.perf_counter() - started
        context.set_current_task(None)
        after_each()
        self.send(Done(seq=call.seq, outcome=outcome, runtime=runtime, owned=gauge.owned()))

    def _receive(self) -> frames.ToChild | None:
        try:
            message = wire.receive(self._channel)
        except OSError:
            return None
        if not len(message):
            return None
        first, *more = frames.read_to_child(message)
        self._inbox.extend(more)
        return first
