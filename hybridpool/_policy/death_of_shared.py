"""Decides what becomes of the calls of a child that ran several at once, when it died.

At most one of them was the cause. If it is known, because the parent killed the child for it or its code was running,
it alone has failed; the others run again. If it is not known, all are under suspicion and run again. A call that stood
beside too many deaths runs in a child of its own from then on, where a death is its own. So a call that kills its child
each time is found out after at most `MAX_SUSPECTED` deaths of shared children, and none beside it is ever blamed.
"""

import enum
from collections.abc import Mapping
from typing import Final

import attrs

#: deaths without a known cause after which a call runs apart
MAX_SUSPECTED: Final = 2
#: deaths whose cause was another call, after which a call runs apart: it is started no more often
MAX_BESIDE: Final = 5


class Fate(enum.Enum):
    """What becomes of a call of a child that died."""

    #: its child died of it
    GUILTY = "guilty"
    #: its child died of another call
    BESIDE = "beside"
    #: nobody knows of what its child died
    SUSPECT = "suspect"
    #: it is not to be started twice, and is lost with its child
    LOST = "lost"


@attrs.frozen(kw_only=True)
class SharedDeath:
    """The death of a child with several calls."""

    #: calls that had begun, by number, and whether each may be started again
    begun: Mapping[int, bool]
    #: the call that the parent killed it for; 0: none
    killed_for: int = 0
    #: the call whose code was running; 0: none, or not known
    on_stage: int = 0
    #: the child ran this one call alone
    is_apart: bool = False


def fates(death: SharedDeath) -> dict[int, Fate]:
    """Return the fate of each call that had begun."""
    guilty = death.killed_for or death.on_stage
    if not guilty and death.is_apart and len(death.begun) == 1:
        guilty = next(iter(death.begun))
    if guilty not in death.begun:
        # It had ended: whatever killed the child, it was none of those that are left.
        guilty = 0
    return {number: _fate(number, guilty, may_rerun=may_rerun) for number, may_rerun in death.begun.items()}


def _fate(number: int, guilty: int, *, may_rerun: bool) -> Fate:
    if number == guilty:
        return Fate.GUILTY
    if not may_rerun:
        return Fate.LOST
    return Fate.BESIDE if guilty else Fate.SUSPECT


def runs_apart(*, suspected: int, beside: int) -> bool:
    """Tell whether a call is to run in a child of its own.

    :param suspected: deaths without a known cause that it was in.
    :param beside: deaths of which another call was the cause.
    """
    return suspected >= MAX_SUSPECTED or beside >= MAX_BESIDE
