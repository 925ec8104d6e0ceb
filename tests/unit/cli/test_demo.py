"""The demo's own thinking: what it counts, and when it says that something went wrong."""

import pytest

from hybridpool import events
from hybridpool._cli import main
from hybridpool._cli.demo_tally import Tally, percentiles

STORY: list[events.Event] = [
    events.ChildSpawned("ForkPoolWorker-1", 11),
    events.TaskSucceeded(events.TaskRef("demo.quick", "a"), "ForkPoolWorker-1", 0.1, "1"),
    events.PoolScaled(1, 2),
    events.ChildRetired("ForkPoolWorker-1", 11, "max_tasks_per_child: 1 tasks"),
    events.ChildGone("ForkPoolWorker-1", 11, "exit code 0", expected=True),
    events.TaskFailed(events.TaskRef("demo.fail", "b"), "ForkPoolWorker-2", 0.1, "ValueError()", ""),
    events.ChildGone("ForkPoolWorker-3", 13, "signal 9 (SIGKILL)", expected=False),
    events.TaskLost(
        events.TaskRef("demo.die_once", "c"), "ForkPoolWorker-3", "signal 9 (SIGKILL)", 1, "it is queued again"
    ),
    events.PoolScaled(2, 1),
    events.ChildRetired("ForkPoolWorker-4", 14, "more children than needed"),
]
#: without the event of this place, the tally says so
TOLD = {
    2: "the pool did not grow",
    3: "no child was recycled",
    6: "0 children died, not one",
    7: "0 tasks were delivered again, not one",
    8: "the pool did not shrink",
}


def tally(observed: list[events.Event]) -> Tally:
    """Return a tally of two tasks, that has heard these events."""
    heard = Tally(2)
    for event in observed:
        heard(event)
    heard.answered(0.2, None)
    heard.answered(0.4, ValueError())
    return heard


def test_as_expected() -> None:
    """A demo that went as expected has no surprises and a full summary."""
    heard = tally(STORY)
    assert heard.surprises() == []
    lines = dict(heard.summary(6.0))
    assert lines["tasks"] == "2 sent, 1 succeeded, 1 failed (ValueError), 1 redelivered"
    assert lines["children"] == "1 forked, 1 recycled, 1 killed"
    assert lines["tasks per child"] == "1: 1, 2: 1"
    assert lines["pool size"] == "1 → 2; 2 → 1"


@pytest.mark.parametrize(("place", "told"), TOLD.items())
def test_surprises(place: int, told: str) -> None:
    """Everything that did not happen in a demo is a surprise."""
    assert tally([event for index, event in enumerate(STORY) if index != place]).surprises() == [told]


def test_wrong_results() -> None:
    """Missing results, other failures and processes left behind are surprises."""
    heard = tally(STORY)
    heard.total, heard.left = 3, 2
    heard.answered(0.1, KeyError())
    assert heard.surprises() == [
        "1 of 2 tasks succeeded",
        "failures should be one ValueError, and are {'ValueError': 1, 'KeyError': 1}",
        "2 processes were left behind",
    ]


def test_percentiles() -> None:
    """The percentiles of no values are 0."""
    assert percentiles([]) == (0.0, 0.0)
    assert percentiles([float(value) for value in range(101)]) == (50.0, 99.0)


def test_too_few_tasks(capsys: pytest.CaptureFixture[str]) -> None:
    """Too few tasks for a demo are refused."""
    assert main(["demo", "--tasks=3"]) == 2
    assert "--tasks" in capsys.readouterr().err


def test_bad_broker(capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong broker address is refused with its source."""
    assert main(["demo", "--broker=http://here"]) == 1
    assert "http://here (from --broker)" in capsys.readouterr().err
