"""The frames between parent, zygote and children.

A *message* is a msgpack array of frames; `wire` carries it across a socket. Nothing here knows a socket.
"""

import mmap

import msgspec


class Frame(msgspec.Struct, array_like=True, gc=False):
    """Base of everything on the wire: a tagged msgpack array."""


# ---- how a call ended, as the child saw it -------------------------------------------------------------------


class Returned(Frame, tag=1):
    #: the value, encoded (JSON; a pickle, for a call that came as one)
    value: bytes
    #: its repr, cut at 1024 characters
    text: str
    #: if the value came along as a file: the sizes of its parts, as `bulk` names them; then `value` is empty
    parts: tuple[int, ...] = ()


class Raised(Frame, tag=2):
    #: qualified name of the exception's type, and its module
    kind: str
    module: str
    #: JSON array of its arguments
    arguments: bytes
    #: its repr
    text: str
    traceback: str
    #: the exception itself, for a call that came pickled; empty if it cannot be
    pickled: bytes = b""
    #: the task's option `throws` names it
    expected: bool = False


class Refused(Frame, tag=3):
    """The task was not run: its body or arguments cannot be used. The fields of `Raised` are for whoever waits."""

    reason: str
    kind: str
    module: str
    arguments: bytes


class Retrying(Frame, tag=4):
    """The task wants to be run again. Says of the cause what `Raised` says."""

    kind: str
    module: str
    arguments: bytes
    text: str
    traceback: str
    #: seconds until then; None: as the task's options say
    countdown: float | None
    #: the next attempt's body; None: the same
    body: bytes | None


class Rejected(Frame, tag=5):
    """The task wants its message dead-lettered, or given back to its queue."""

    reason: str
    requeue: bool


class Ignored(Frame, tag=6):
    """The task wants its message acknowledged, and no result kept."""


ChildOutcome = Returned | Raised | Refused | Retrying | Rejected | Ignored


# ---- parent → child ------------------------------------------------------------------------------------------


class RunCall(Frame, tag=10):
    """Run this."""

    seq: int
    task: str
    id: str
    content_type: str
    body: bytes
    #: attempts before this one (Celery's `retries`)
    retries: int = 0
    root_id: str | None = None
    #: if the body came along as a file: the sizes of its parts, as `bulk` names them; then `body` is empty
    parts: tuple[int, ...] = ()


class Interrupt(Frame, tag=12):
    """Raise in the call with this number if it is the one at work. Comes with the signal ATTENTION."""

    seq: int
    #: "soft time limit", "cancelled"
    why: str
    #: seconds of the limit, if it is one
    limit: float = 0.0


class Recall(Frame, tag=13):
    """Give back the calls that were read and not begun. Comes with the signal ATTENTION."""


class EnqueueAnswer(Frame, tag=11):
    """The answer to `Enqueue`: the parent has published, or says why not."""

    ticket: int
    error: str | None
    #: name of the error's class in `hybridpool.errors`
    kind: str = ""


# ---- child → parent ------------------------------------------------------------------------------------------


class Ready(Frame, tag=20):
    """Birth is done; calls may come. It may be heard before `Forked`, which takes another way."""

    pid: int


class StartFailed(Frame, tag=21):
    """Birth failed; the child exits."""

    text: str


class Done(Frame, tag=22):
    seq: int
    outcome: ChildOutcome
    #: seconds
    runtime: float
    #: bytes this child owns alone, when that was looked at; else 0
    owned: int


class CallsGivenBack(Frame, tag=25):
    """Calls given back, not begun."""

    seqs: list[int]


class LogLines(Frame, tag=23):
    """Whole lines that user code logged or printed."""

    text: str


class Enqueue(Frame, tag=24):
    """Please publish this message for me and answer with `EnqueueAnswer`."""

    ticket: int
    #: an encoded message; the app's client side writes and reads it, the wire does not look inside
    message: bytes


# ---- parent → zygote -----------------------------------------------------------------------------------------


class ChildOrders(Frame, tag=31):
    """What a child is told at birth."""

    log_level: int
    #: empty: leave logging and printing as they are
    log_format: str
    redirect_stdouts: bool
    #: bytes of own memory above which an exact reading is worth its price; 0: never look
    memory_watch: int
    #: pickled: a callable to call at birth; a generator function's first value is kept, its rest run at retirement
    initializer: bytes = b""


class Fork(Frame, tag=32):
    """Fork a child; its end of the channel comes along."""

    name: str
    orders: ChildOrders


class Signal(Frame, tag=34):
    """Send ATTENTION to the child alone, not to what it started."""

    pid: int


class Kill(Frame, tag=33):
    """Signal a child's process group. Only the zygote, who reaps, knows that a pid is still that child's."""

    pid: int
    signum: int


# ---- zygote → parent -----------------------------------------------------------------------------------------


class Imported(Frame, tag=40):
    """The app is there."""

    #: JSON, from the app itself: settings and tasks
    manifest: bytes
    #: names of threads that importing the app left running; a fork does not carry them over
    threads: tuple[str, ...] = ()


class ImportFailed(Frame, tag=41):
    message: str
    #: the user's part of the traceback
    details: str


class Forked(Frame, tag=42):
    name: str
    pid: int


class ForkFailed(Frame, tag=43):
    name: str
    reason: str


class Exited(Frame, tag=44):
    """A child was reaped: `wait4`'s status, and its high-water mark of resident memory in KiB."""

    pid: int
    status: int
    max_resident: int


ToChild = RunCall | EnqueueAnswer | Interrupt | Recall
FromChild = Ready | StartFailed | Done | CallsGivenBack | LogLines | Enqueue
ToZygote = Fork | Kill | Signal
FromZygote = Imported | ImportFailed | Forked | ForkFailed | Exited

#: a message as it comes out of a socket
Message = bytes | mmap.mmap

_encoder = msgspec.msgpack.Encoder()
pack = _encoder.encode
read_to_child = msgspec.msgpack.Decoder(list[ToChild]).decode
read_from_child = msgspec.msgpack.Decoder(list[FromChild]).decode
read_to_zygote = msgspec.msgpack.Decoder(list[ToZygote]).decode
read_from_zygote = msgspec.msgpack.Decoder(list[FromZygote]).decode
