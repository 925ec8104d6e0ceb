"""The frames between parent, zygote and children.

A *message* is a msgpack array of frames; `framing` sends it over a socket. Nothing here does I/O.
"""

import mmap

import msgspec


class Frame(msgspec.Struct, array_like=True, gc=False):
    """Base of all frames: a tagged msgpack array."""


# ---- how a call ended, as the child reports it -------------------------------------------------------------------


class Returned(Frame, tag=1):
    #: the value, encoded (JSON; a pickle, for a call that came as one)
    value: bytes
    #: its repr, cut at 1024 characters
    text: str
    #: if the value is sent as a file: the sizes of its parts (`LargeObject.sizes`); then `value` is empty
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
    #: the pickled exception, if the call was pickled; empty if it cannot be pickled
    pickled: bytes = b""
    #: the task's option `throws` names it
    expected: bool = False


class Refused(Frame, tag=3):
    """The task was not run: its body or arguments cannot be used. The exception is for the caller."""

    reason: str
    kind: str
    module: str
    arguments: bytes


class Retrying(Frame, tag=4):
    """The task wants to be run again. The cause is described as in `Raised`."""

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
    """Run this call."""

    seq: int
    task: str
    id: str
    content_type: str
    body: bytes
    #: attempts before this one (Celery's `retries`)
    retries: int = 0
    root_id: str | None = None
    #: if the body is sent as a file: the sizes of its parts (`LargeObject.sizes`); then `body` is empty
    parts: tuple[int, ...] = ()


class Interrupt(Frame, tag=12):
    """Raise in the call with this number if it is running. Sent together with the signal ATTENTION."""

    seq: int
    #: "soft time limit", "cancelled"
    why: str
    #: seconds of the limit, if it is one
    limit: float = 0.0


class Recall(Frame, tag=13):
    """Give back the calls that were read and not begun. Sent together with the signal ATTENTION."""


class ReportHolder(Frame, tag=14):
    """Report the call whose code holds the loop, by `LoopHeld`. Sent together with the signal ATTENTION."""


class ReportStacks(Frame, tag=15):
    """Report all stacks of this process, by `Stacks`. Sent together with the signal ATTENTION."""


class EnqueueAnswer(Frame, tag=11):
    """The answer to `Enqueue`: the message is published, or the error."""

    ticket: int
    error: str | None
    #: name of the error's class in `hybridpool.errors`
    kind: str = ""


# ---- child → parent ------------------------------------------------------------------------------------------


class Ready(Frame, tag=20):
    """The child has started and accepts calls. May arrive before `Forked`, which comes over the zygote's socket."""

    pid: int


class StartFailed(Frame, tag=21):
    """The child could not start, and exits."""

    text: str


class Done(Frame, tag=22):
    seq: int
    outcome: ChildOutcome
    #: seconds
    runtime: float
    #: bytes this child owns alone; 0: not measured
    owned: int
    #: percent of its runtime that the call used the CPU, at most; -1: not measured, as it was short
    cpu: int = -1


class CallsGivenBack(Frame, tag=25):
    """The answer to `Recall`: calls that were not begun."""

    seqs: list[int]


class LoopHeld(Frame, tag=26):
    """The answer to `ReportHolder`: a call whose code does not let the loop go on, and where that code is."""

    seq: int
    stack: str


class Stacks(Frame, tag=27):
    """The answer to `ReportStacks`."""

    text: str


class LogLines(Frame, tag=23):
    """Whole lines that user code logged or printed."""

    text: str


class Enqueue(Frame, tag=24):
    """Publish this message for the child, and answer with `EnqueueAnswer`."""

    ticket: int
    #: a message encoded by `_message.pack`
    message: bytes


class EnqueueRaw(Enqueue, tag=28):
    """Publish a message whose properties another library has written; `message` is its body."""

    exchange: str = ""
    routing_key: str = ""
    #: as AMQP encodes them
    properties: bytes = b""
    #: an error if no queue takes it
    mandatory: bool = False


class Declare(Enqueue, tag=29):
    """Make an exchange, a queue or a binding exist, and answer with `EnqueueAnswer`."""

    #: of a queue, or of a queue that is bound; empty: an exchange is declared
    queue: str = ""
    exchange: str = ""
    #: "direct", "fanout" or "topic"
    exchange_type: str = "direct"
    durable: bool = True
    routing_key: str = ""
    #: of a queue, as the broker names them; msgpack
    arguments: bytes = b"\x80"


# ---- parent → zygote -----------------------------------------------------------------------------------------


class ChildOrders(Frame, tag=31):
    """The options of a child."""

    log_level: int
    #: empty: leave logging and printing as they are
    log_format: str
    redirect_stdouts: bool
    #: bytes of own memory above which it is measured exactly; 0: never
    memory_watch: int
    #: pickled: a callable to call at the start; of a generator function the first value is kept, the rest runs when the
    #: child retires
    initializer: bytes = b""
    #: what the child runs: one call at a time ("process"), coroutines ("async"), or threads ("thread"); or, for an app
    #: of another library, no tasks but what other children left unfinished ("finish")
    lane: str = "process"
    #: how many calls it runs at once
    slots: int = 1
    #: of an async lane: "auto" (uvloop if it is installed), "uvloop" or "asyncio"
    loop: str = "auto"
    #: format of lines that a task logs; empty: as other lines
    task_log_format: str = ""
    #: a JSON object a line, in place of formats
    log_json: bool = False
    log_in_colour: bool = False
    #: JSON for `logging.config.dictConfig`; empty: none
    logging: bytes = b""
    #: for an app of another library: the worker's name, and its broker if that is not the one in the app's own settings
    node: str = ""
    broker: str = ""


class Fork(Frame, tag=32):
    """Fork a child; the descriptors of its socket and its shared page are sent along."""

    name: str
    orders: ChildOrders


class Signal(Frame, tag=34):
    """Send ATTENTION to the child alone, not to its descendants."""

    pid: int


class Kill(Frame, tag=33):
    """Signal a child's process group. Only the zygote, which reaps, knows that a pid is still that child's."""

    pid: int
    signum: int


# ---- zygote → parent -----------------------------------------------------------------------------------------


class Imported(Frame, tag=40):
    """The app is imported."""

    #: settings and tasks of the app, as JSON
    manifest: bytes
    #: names of threads that importing the app has started; a child does not have them
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


ToChild = RunCall | EnqueueAnswer | Interrupt | Recall | ReportHolder | ReportStacks
FromChild = Ready | StartFailed | Done | CallsGivenBack | LogLines | Enqueue | EnqueueRaw | Declare | LoopHeld | Stacks
ToZygote = Fork | Kill | Signal
FromZygote = Imported | ImportFailed | Forked | ForkFailed | Exited

#: a message as received: bytes of a packet, or a mapped file
Message = bytes | mmap.mmap

_encoder = msgspec.msgpack.Encoder()
pack = _encoder.encode
read_to_child = msgspec.msgpack.Decoder(list[ToChild]).decode
read_from_child = msgspec.msgpack.Decoder(list[FromChild]).decode
read_to_zygote = msgspec.msgpack.Decoder(list[ToZygote]).decode
read_from_zygote = msgspec.msgpack.Decoder(list[FromZygote]).decode
