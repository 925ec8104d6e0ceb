"""The end of a process whose own threads do not end: a name server or a file system that does not answer.

Python joins them when a loop is closed and when the interpreter ends. Nothing of the worker's needs that.
"""

import os
import threading
from typing import Final

#: seconds that the rest of an ordinary end may take
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
        # There can be no more threads; then the end takes as long as it takes.
        return
