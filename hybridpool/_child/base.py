"""What every child has, however many calls it runs at once: its end of the channel, and what may be said from anywhere.

`loop.Child` runs one call at a time, `concurrent_child.ConcurrentChild` several.
"""

import abc
import json
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from types import FrameType
from typing import Final, NoReturn

from hybridpool import _task_context
from hybridpool._child.channel import Channel, ChannelClosed, ForkMark
from hybridpool._child.failure_rules import DEFAULT_RULES, Rules
from hybridpool._child.process_state import get_handler, set_handler
from hybridpool._child.rendering import escape_surrogates
from hybridpool._ipc import frames
from hybridpool._ipc.frames import Enqueue, EnqueueAnswer, LogLines, RunCall
from hybridpool._ipc.framing import MAX_INLINE_BYTES
from hybridpool._ipc.large_objects import BodyFiles, LargeObject
from hybridpool._ipc.shared_page import SharedPage
from hybridpool.errors import BrokerError

#: "look at your channel, even in the middle of a task"
ATTENTION: Final = signal.SIGUSR1
#: characters of a piece of text that fits into a message without a file, however it is encoded
_MAX_PIECE_CHARACTERS: Final = MAX_INLINE_BYTES // 4 - 64


class ChildBase(abc.ABC):
    """One child's end of its channel."""

    def __init__(self, name: str, channel: socket.socket, shared_page: SharedPage) -> None:
        self.name = name
        #: of the tasks whose failures are not dealt with in the default way
        self.rules: Mapping[str, Rules] = {}
        self._channel = Channel(channel)
        self._shared_page = shared_page
        self._files = BodyFiles()
        mark = ForkMark()
        #: index 0 is 1 here, and 0 in every process that a task forks
        self._own = mark.page
        self._mark = mark
        #: one for all calls
        self._sends = self.enqueue
        #: `post` waits as `ask` does
        self.posts_wait = False
        # One object, to be compared by identity.
        self._handler = self._on_attention
        set_handler(ATTENTION, self._handler)
        # As the guard has set them.
        mark.handlers.update({number: get_handler(number) for number in (signal.SIGTERM, signal.SIGINT)})
        mark.handlers[ATTENTION] = self._handler

    def close(self) -> None:
        """Close its own descriptors; for a process that goes on without it. The channel is the caller's."""
        self._channel.close()

    @abc.abstractmethod
    def _on_attention(self, number: int, frame: FrameType | None, /) -> None:
        """Look what the parent wants, in the middle of whatever the main thread does."""

    @abc.abstractmethod
    def _flush(self) -> None:
        """Send the outcomes that wait."""

    def _write_line(self, frame: LogLines) -> None:
        """Write whole lines for the parent's log."""
        self._channel.write(frames.pack((frame,)))

    def _publish(self, frame: Enqueue) -> EnqueueAnswer:
        """Have the parent publish a message, and return its answer."""
        return self._channel.ask_apart(frame)

    def send(self, *sent: frames.FromChild) -> None:
        """Write frames as one message, after the outcomes that wait; for the main thread, outside of tasks.

        A parent that is gone ends the process, and so does this in a process that was forked.
        """
        if not self._own[0]:
            os._exit(0)
        self._flush()
        self._channel.write(frames.pack(sent))

    def say(self, text: str) -> None:
        """Pass whole lines to the parent's log; from any thread, handler, or process that a task has forked."""
        try:
            self._write_line(LogLines(text))
        except ChannelClosed:
            write_to_stderr(text)
        except OSError as error:
            if error.errno is None or len(text) <= _MAX_PIECE_CHARACTERS:
                raise
            # It is large, and there can be no file.
            for start in range(0, len(text), _MAX_PIECE_CHARACTERS):
                self.say(text[start : start + _MAX_PIECE_CHARACTERS])

    def enqueue(self, message: bytes) -> None:
        """Have the parent publish a message, and wait until the broker has confirmed it; from anywhere, as `say`.

        :raises HybridpoolError: if the parent could not publish it: what a client's call would raise.
        """
        self.ask(Enqueue(0, message))

    def ask(self, frame: Enqueue) -> None:
        """As `enqueue`, for a frame of any kind.

        :raises HybridpoolError: if the parent could not do it.
        """
        try:
            answer = self._publish(frame)
        except (ChannelClosed, OSError) as error:
            if isinstance(error, OSError) and error.errno is None:
                raise  # not of ours: a handler's TimeoutError
            raise BrokerError(f"the message could not be handed to the parent: {error}") from error
        if answer.error is not None:
            raise _task_context.not_published(answer.kind, answer.error)

    def post(self, frame: Enqueue) -> None:
        """As `ask`, but do not wait for the answer where `confirm` can do that.

        :raises HybridpoolError: if it cannot be sent, or if the answer was waited for and is an error.
        """
        self.ask(frame)

    def confirm(self) -> list[EnqueueAnswer]:
        """Wait for the answers to all that was posted; return those that are errors."""
        return []

    def drop_posts(self) -> None:
        """Do not wait for the answers to what was posted."""
        return  # here each answer was waited for

    def _task_of(
        self, call: RunCall, post: Callable[[bytes], Awaitable[None]] | None = None
    ) -> _task_context.RunningTask:
        """Return what the code of a call sees of itself."""
        most = self.rules.get(call.task, DEFAULT_RULES).max_retries
        return _task_context.RunningTask(
            call.id, call.task, call.retries, call.root_id, self.name, self._sends, most, post
        )

    def _report_stacks(self, describe: Callable[[], str]) -> None:
        """Send the stacks of this process; in the middle of a task, which must not end by what may go wrong here."""
        try:
            text = describe()
        except Exception as error:
            text = f"the stacks cannot be shown: {error!r}"
        text = escape_surrogates(text)
        try:
            self._channel.write(frames.pack((frames.Stacks(text),)))
        except ChannelClosed:
            return
        except OSError as error:
            if error.errno is None:
                raise  # not of ours: a handler's TimeoutError
            # It is large, and there can be no file.
            with suppress(OSError):
                self._channel.write(frames.pack((frames.Stacks(text[:_MAX_PIECE_CHARACTERS]),)))

    def _end_now(self, why: object) -> NoReturn:
        """End this process: what has ended its parent finds on the shared page."""
        write_to_stderr(f"{self.name}: {why}; this child ends, and another takes its place\n")
        os._exit(1)


def no_room(call: RunCall, size: int, why: Exception) -> str:
    """Say why the outcome of a call is not sent."""
    return f"{call.task} ended with {size} bytes of outcome, for which there is no room: {why}"


def end_copy(outcome: frames.ChildOutcome | LargeObject) -> NoReturn:
    """End a process that the task has forked and that has come back from it, as Python ends a program.

    Its parent's outcome is not its to send. What it raised is shown where a program shows it.
    """
    status = 0
    if isinstance(outcome, frames.Raised):
        status, text = 1, f"{outcome.traceback}\n"
        if (outcome.module, outcome.kind) == ("builtins", "SystemExit"):
            status, text = _exit_status(json.loads(outcome.arguments))
        write_to_stderr(text)
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    os._exit(status)


def _exit_status(arguments: Sequence[object]) -> tuple[int, str]:
    """Return status and text of `sys.exit`, as Python has them."""
    match arguments:
        case [] | [None]:
            return 0, ""
        case [int() as status]:
            return status & 0xFF, ""
        case [other]:
            return 1, f"{other}\n"
        case _:
            return 1, f"{arguments}\n"


def write_to_stderr(text: str) -> None:
    """Write to the real standard error, if there is one."""
    with suppress(OSError):
        os.write(2, text.encode(errors="backslashreplace"))
