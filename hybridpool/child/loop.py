"""The life of a child: take a call, run it, answer; until the channel ends.

The parent ends the channel to retire a child; a channel that breaks means that the parent is gone. Both end the loop.

The parent may put several calls into the channel. Outcomes of short ones wait some milliseconds and leave together;
until then they stand on the slate, where they survive the child.
When one takes longer than expected the parent sends `Recall` and the signal ATTENTION: its handler runs in the middle
of the task, sends what waits, and gives back the calls behind it. `Stop` comes by the same way and raises in the task,
only if it is the very call that was meant.
"""

import os
import pickle
import signal
import socket
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from hybridpool.child import context, frames, wire
from hybridpool.child.bulk import Bulk, Files
from hybridpool.child.frames import Back, Call, Done, Enqueue, Recall, Said, Sent, Stop
from hybridpool.child.memory import Gauge
from hybridpool.child.rules import DEFAULT, Rules
from hybridpool.child.slate import Slate
from hybridpool.child.words import raised
from hybridpool.errors import CannotSend, SoftTimeLimitExceeded, TaskCancelled, TaskSignal

#: "look at your channel, even in the middle of a task"
ATTENTION: Final = signal.SIGUSR1
#: nobody reads what we would still say: the parent is gone
_PARENT_GONE: Final = 1
#: how long an outcome may wait for company, in seconds, and how many may wait
_WAIT, _CROWD = 0.004, 64

#: the call, and the file in which its body came along, if it did
Runs = Callable[[Call, int | None], frames.ChildOutcome | Bulk]


class Child:
    """One child's end of its channel."""

    def __init__(self, name: str, channel: socket.socket, slate: Slate) -> None:
        self.name = name
        #: of the tasks whose failures are not dealt with in the default way
        self.rules: Mapping[str, Rules] = {}
        self._channel = channel
        self._slate = slate
        self._inbox: deque[frames.ToChild] = deque()
        self._files = Files()
        #: since when the first of the outcomes on the slate waits
        self._waiting_since = 0.0
        self._tickets = 0
        #: number of the call at work
        self._at_work = 0
        #: the number of the last call that was stopped, and of the last that was cancelled
        self._stopped = self._cancelled = 0
        #: the main thread waits for a message in the middle of a task, so the handler must leave the channel to it
        self._receiving = False
        #: ATTENTION came when its handler could not act
        self._missed = False
        signal.signal(ATTENTION, self._attend)

    def send(self, *said: frames.FromChild, fds: Sequence[int] = ()) -> None:
        """Write frames as one message, after the outcomes that wait; a parent that is gone ends the process.

        :param fds: to go along; they stay the caller's.
        """
        try:
            if self._slate.count:
                wire.send(self._channel, self._slate.message())
                self._slate.clear()
            if said:
                wire.send(self._channel, frames.pack(said), fds)
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
        self._receiving = True
        try:
            answer = self._answer_to(ticket)
        finally:
            self._receiving = False
            self._make_good()
        if answer.error is not None:
            raise RuntimeError(answer.error)

    def work(self, run: Runs, gauge: Gauge, after_each: Callable[[], None]) -> None:
        """Serve calls until the channel ends.

        :param run: turns a call into its outcome.
        :param after_each: called after each task, before its outcome is sent.
        """
        while True:
            if not self._inbox:
                if self._slate.count:
                    self.send()
                if not self._read():
                    return
            match self._inbox.popleft():
                case Call() as call:
                    self._serve(call, run, gauge, after_each)
                case Recall():
                    self._give_back()
                case _:
                    # The answer to an enqueue that was broken off, or a stop for a call that is done.
                    continue

    def _serve(self, call: Call, run: Runs, gauge: Gauge, after_each: Callable[[], None]) -> None:
        most = self.rules.get(call.task, DEFAULT).max_retries
        running = context.Running(call.id, call.task, call.retries, call.root_id, self.name, self.enqueue, most)
        context.set_current_task(running)
        self._slate.start(call.seq)
        started = time.perf_counter()
        self._at_work = call.seq
        try:
            self._make_good()
            outcome = run(call, self._files.of(call.seq))
            self._at_work = 0
        except TaskSignal as late:
            # It came between the function's end and the line before this one.
            self._at_work = 0
            outcome = raised(late)
            outcome.pickled = pickle.dumps(late)
        ended = time.perf_counter()
        context.set_current_task(None)
        after_each()
        self._files.drop(call.seq)
        if isinstance(outcome, Bulk):
            self._answer_in_file(call, outcome, ended - started, gauge)
        else:
            self._answer(Done(call.seq, outcome, ended - started, gauge.owned()), ended)

    def _answer_in_file(self, call: Call, value: Bulk, runtime: float, gauge: Gauge) -> None:
        try:
            file = value.write()
        except OSError as error:
            failure = raised(
                CannotSend(f"{call.task} returned {value.total} bytes, for which there is no room: {error}")
            )
            self.send(Done(call.seq, failure, runtime, gauge.owned()))
            return
        try:
            self.send(Done(call.seq, frames.Returned(b"", "", value.sizes), runtime, gauge.owned()), fds=(file,))
        finally:
            os.close(file)

    def _answer(self, done: Done, now: float) -> None:
        """Note the outcome, and send what is noted unless company may come soon."""
        if not self._slate.count:
            self._waiting_since = now
        if not self._slate.add(frames.pack(done)):
            self.send(done)
        elif is_time_to_send(self._slate.count, len(self._inbox), now - self._waiting_since):
            self.send()

    def _read(self, flags: int = 0) -> bool:
        """Put one message's frames into the inbox; False at the channel's end."""
        try:
            message, fds = wire.receive_with_fds(self._channel, flags)
        except BlockingIOError:
            raise
        except OSError:
            return False
        if not len(message):
            return False
        said = frames.read_to_child(message)
        if fds:
            # Such a call is alone in its message.
            [call] = said
            assert isinstance(call, Call)
            self._files.keep(call.seq, *fds)
        self._inbox.extend(said)
        return True

    def _answer_to(self, ticket: int) -> Sent:
        while True:
            for frame in list(self._inbox):
                if isinstance(frame, Sent):
                    self._inbox.remove(frame)
                    if frame.ticket == ticket:
                        return frame
            self._obey()
            if not self._read():
                os._exit(_PARENT_GONE)

    def _attend(self, *_: object) -> None:
        """The handler of ATTENTION: runs in the main thread, between two instructions of the task."""
        if not self._at_work or self._receiving:
            # It is made good when a call is at work, and nobody else reads the channel.
            self._missed = True
            return
        # One handler at a time: two that read in turns would mix up the order of calls.
        self._receiving = True
        try:
            self._look()
        finally:
            self._receiving = False
        self._make_good()

    def _look(self) -> None:
        """Read what is there now, and do what the parent wants.

        :raises TaskSignal: if the task at work is to stop.
        """
        try:
            while self._read(socket.MSG_DONTWAIT):
                continue
        except BlockingIOError:
            pass
        self._obey()

    def _make_good(self) -> None:
        """Look at the channel if ATTENTION was missed: what it announced may be about this very call."""
        if self._missed:
            self._missed = False
            self._attend()

    def _obey(self) -> None:
        """Do what the parent wants in the middle of a task.

        :raises TaskSignal: if the task at work is to stop.
        """
        for frame in list(self._inbox):
            if isinstance(frame, Recall):
                self._inbox.remove(frame)
                self._give_back()
        for frame in list(self._inbox):
            if isinstance(frame, Stop):
                self._inbox.remove(frame)
                # One that goes on after its soft limit can still be cancelled; what cleans up is left alone.
                done = self._stopped if frame.limit else self._cancelled
                if frame.seq == self._at_work and frame.seq != done:
                    self._stopped = frame.seq
                    if frame.limit:
                        raise SoftTimeLimitExceeded(frame.limit)
                    self._cancelled = frame.seq
                    raise TaskCancelled(frame.why)

    def _give_back(self) -> None:
        calls = [frame for frame in self._inbox if isinstance(frame, Call)]
        for call in calls:
            self._inbox.remove(call)
            self._files.drop(call.seq)
        self.send(Back([call.seq for call in calls]))


def is_time_to_send(waiting: int, ahead: int, waited: float) -> bool:
    """Tell whether outcomes that wait for company should go now.

    :param waiting: how many outcomes there are.
    :param ahead: how many calls lie here.
    :param waited: seconds since the first of them.
    """
    return not ahead or waiting >= _CROWD or waited > _WAIT
