"""Ends a process whose threads do not end, because a name server or a file system does not answer.

Python joins threads when a loop is closed and when the interpreter ends. The worker does not need those joins.
"""

import os
import threading
from typing import Final

#: seconds that an ordinary exit may take after the worker has stopped
TEARDOWN_S: Final = 1.5


def exit_within(seconds: float, code: int, text: str = "") -> None:
    """End this process with a code after so many seconds, if it has not ended by itself.

    :param text: for standard error in that case.
    """

    def end() -> None:
        if text:
            os.write(2, text.encode(errors="backslashreplace") + b"\n")
        os._exit(code)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    try:
        timer.start()
    except RuntimeError:
        # No thread can be started any more; the exit is then not limited in time.
        return
