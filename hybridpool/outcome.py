"""How a call ended.

The first three are said by the child and cross the wire as they are; `Lost` is what the parent says of a child that can
no longer speak.
"""

import attrs

from hybridpool.child.frames import Raised, Refused, Returned


@attrs.frozen
class Lost:
    """The child died while the call was its."""

    #: "signal 9 (SIGKILL)", "exit code 3", …
    cause: str
    child: str


Outcome = Returned | Raised | Refused | Lost

__all__ = ["Lost", "Outcome", "Raised", "Refused", "Returned"]
