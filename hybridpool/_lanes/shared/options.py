"""What a lane whose children run several calls at once is told at its start."""

from typing import Final

import attrs

#: seconds that a call has to stop by itself after its hard limit, or when the worker stops, before it is given up
STOP_GRACE_S: Final = 1.0


@attrs.frozen(kw_only=True)
class SharedOptions:
    """Options of an async or a thread lane."""

    #: its children run an event loop
    has_loop: bool
    #: seconds that a child which takes no more calls has for those it has, before it is killed
    drain_timeout: float = 30.0
    #: seconds a loop may stand still before the call that holds it is named; None: it is not
    block_warning: float | None = 0.25
    #: seconds a loop may stand still before the call that holds it is stopped; None: no limit
    block_timeout: float | None = 10.0
