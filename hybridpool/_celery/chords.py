"""A chord whose last part died when it was about to send the chord's body.

With Redis the part that is counted last claims the chord for some seconds, and sends its body. If its worker is killed
then, the part is delivered again and counted once more, but the claim is not free yet: nothing is sent, and the chord
waits for ever. So a part that comes again waits until the chord is done, or the claim is free. Claims end by
themselves: after some seconds, and as long as a message may be tried. The wait counts for the task's time limits.
"""

import time
from typing import Any, Final

from celery import states

from hybridpool._ipc.envelope import Envelope

#: what the claim says of a chord whose body was sent
_DONE: Final = b"done"
#: seconds between two looks
_PAUSE_S: Final = 0.2
#: header of a message that a worker has sent again since a child died in its task, as it is encoded
_LOST_HEADER: Final = b"x-hybridpool-lost"


def comes_again(envelope: Envelope) -> bool:
    """Tell whether the message may have been run before."""
    return envelope.redelivered or _LOST_HEADER in envelope.properties


def finish_claimed(backend: Any, request: Any, result: Any) -> None:
    """Count the part of a chord once more if the chord is claimed by a part that is no more.

    :param request: of a part that comes again, and has been counted.
    """
    if not request.group or not hasattr(backend, "_chord_part_return_script"):
        return
    claim, size = (backend.get_key_for_group(request.group, suffix) for suffix in (".c", ".s"))
    while (holder := backend.client.get(claim)) is not None:
        if holder == _DONE:
            return
        time.sleep(_PAUSE_S)
    if backend.client.exists(size):
        backend.on_chord_part_return(request, states.SUCCESS, result)
