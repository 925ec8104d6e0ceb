"""How a call ended.

The first six are said by the child and cross the wire as they are; the others are what the parent says of a child that
can no longer speak.
"""

import attrs

from hybridpool._ipc.frames import Ignored, Raised, Refused, Rejected, Retrying, Returned


@attrs.frozen
class Lost:
    """The child died while the call was its."""

    #: "signal 9 (SIGKILL)", "exit code 3", …
    cause: str
    child: str
    #: as subprocess gives it: negative for a signal; None: unknown, or it was never run
    exitcode: int | None = None
    #: bytes of memory it had resident at most; 0: unknown
    peak: int = 0
    #: where to look for the cause; empty: nothing to add
    hint: str = ""
    #: the death counts as one of the deliveries that the call may have; `policy.blame` decides
    blamed: bool = True


@attrs.frozen
class TimedOut:
    """The call ran over its hard time limit."""

    #: seconds
    limit: float
    child: str
    #: its child was killed for it; False: it was told to stop, or given up, as others ran in the same child
    is_killed: bool = True


@attrs.frozen
class Cancelled:
    """Whoever called gave it up; if it was at work and did not stop, its child was killed."""

    child: str


Outcome = Returned | Raised | Refused | Retrying | Rejected | Ignored | Lost | TimedOut | Cancelled

__all__ = [
    "Cancelled",
    "Ignored",
    "Lost",
    "Outcome",
    "Raised",
    "Refused",
    "Rejected",
    "Retrying",
    "Returned",
    "TimedOut",
]
