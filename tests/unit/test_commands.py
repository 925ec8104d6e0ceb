"""The table of remote control commands."""

import pytest

from hybridpool._worker.commands import Commands


def rate_limit(task_name: str, rate_limit: str) -> str:
    """Return the arguments."""
    return f"{task_name} {rate_limit}"


@pytest.fixture
def commands() -> Commands:
    """A table with a command that has another name too."""
    made = Commands()
    made.add("rate_limit", rate_limit, aliases=["slow_down"])
    return made


def test_a_command_is_run(commands: Commands) -> None:
    """A command gets the arguments of the order, by any of its names."""
    for name in ("rate_limit", "slow_down"):
        assert commands.run(name, {"task_name": "t", "rate_limit": "1/s"}) == "t 1/s"


def test_errors_are_celerys(commands: Commands) -> None:
    """An unknown command and missing arguments are answered with the text that Celery's workers have."""
    assert commands.run("nope", {}) == {"error": "KeyError('nope')"}
    missing = commands.run("rate_limit", {"task_name": "t"})
    assert missing == {"error": "TypeError(\"rate_limit() missing 1 required positional argument: 'rate_limit'\")"}


def test_another_command_of_the_name(commands: Commands) -> None:
    """A command that is added later takes the place of one with its name."""
    commands.add("rate_limit", lambda: "other")
    assert commands.run("rate_limit", {}) == "other"
    assert "nope" not in commands
