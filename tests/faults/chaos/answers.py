"""The answers that callers get."""

from collections import defaultdict
from collections.abc import Collection, Mapping
from typing import Final

import attrs
import msgspec

from tests.faults.chaos.calls import ANSWERS, FAILURE, SUCCESS
from tests.queues import BrokerConsole

#: words that end the waiting; the others say that there will be another attempt
FINAL: Final = frozenset((SUCCESS, FAILURE, "REJECTED", "REVOKED"))


@attrs.frozen
class Answer:
    """One answer."""

    status: str
    #: the result, or the error, as JSON
    text: str


def take_answers(broker: str, names: Collection[str]) -> Mapping[str, list[Answer]]:
    """Take all answers out of their queue.

    :param names: of calls; an answer whose result is one of them belongs to that, else to its id.
    """
    found: dict[str, list[Answer]] = defaultdict(list)
    with BrokerConsole(broker) as console:
        for _ in range(console.depth(ANSWERS)):
            meta = msgspec.json.decode(console.take(ANSWERS).body)
            if meta["status"] in FINAL:
                result = meta["result"]
                name = result if isinstance(result, str) and result in names else meta["task_id"]
                found[name].append(Answer(meta["status"], msgspec.json.encode(result).decode()))
    return found
