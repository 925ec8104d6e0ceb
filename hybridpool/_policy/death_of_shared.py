"""Decides what becomes of the calls of a child that ran several at once, when it died.

At most one of them was the cause. If it is known, because the parent killed the child for it or its code was running,
it alone has failed; the others run again. If it is not known, all are under suspicion and run again. A call that stood
beside too many deaths runs in a child of its own from then on, where a death is its own. So a call that kills its child
each time is found out after at most `MAX_SUSPECTED` deaths of shared children.

Whose code was running says nothing about a death by the parent's own hand: a child that is killed for a call that does
not stop may run the code of any other at that moment.
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
    #: it is not known of what its child died
    SUSPECT = "suspect"
    #: it is not to be started twice, and is lost with its child
    LOST = "lost"


@attrs.frozen(kw_only=True)
class SharedDeath:
    """The death of a child with several calls."""

    #: calls that had begun, by number, and whether each may be started again
    begun: Mapping[int, bool]
    #: the call that the parent killed it for, 0 if that has ended; None: the parent did not kill it
    killed_for: int | None = None
    #: the call whose code was running; 0: none, or not known
    on_stage: int = 0
    #: the child ran this one call alone
    is_apart: bool = False
    #: its zygote died, and all children with it
    with_zygote: bool = False
    #: `death_blame` has found the call that ran alone to blame for that
    is_blamed: bool = False


def fates(death: SharedDeath) -> dict[int, Fate]:
    """Return the fate of each call that had begun."""
    alone = next(iter(death.begun)) if death.is_apart and len(death.begun) == 1 else 0
    guilty: int | None = death.on_stage or None
    if death.with_zygote:
        # Mostly it was none of them. One that kills the zygote each time is found out when it runs alone.
        guilty = alone if death.is_blamed else 0
    elif death.killed_for is not None:
        guilty = death.killed_for
    elif alone:
        guilty = alone
    return {number: _fate(number, guilty, may_rerun=may_rerun) for number, may_rerun in death.begun.items()}


def _fate(number: int, guilty: int | None, *, may_rerun: bool) -> Fate:
    """Return the fate of one call.

    :param guilty: the call that was the cause, which may have ended before, or been given up; None: it is not known.
    """
    if number == guilty:
        return Fate.GUILTY
    if not may_rerun:
        return Fate.LOST
    return Fate.SUSPECT if guilty is None else Fate.BESIDE


def runs_apart(*, suspected: int, beside: int) -> bool:
    """Tell whether a call is to run in a child of its own.

    :param suspected: deaths without a known cause that it was in.
    :param beside: deaths of which another call was the cause.
    """
    return suspected >= MAX_SUSPECTED or beside >= MAX_BESIDE
