"""The search for a RabbitMQ server, on made-up folders."""

from pathlib import Path

import pytest

from tests.rabbit_install import ABSENT, ServerAbsent, first_real, locate_or_install


def test_absent_says_what_to_do() -> None:
    """The error for a missing server says in one line how to install it."""
    with pytest.raises(ServerAbsent, match="sudo apt-get install rabbitmq-server") as caught:
        locate_or_install(lambda: None, None)
    assert "\n" not in str(caught.value)
    assert str(caught.value) == ABSENT


def test_absent_is_installed_once(tmp_path: Path) -> None:
    """A missing server is installed once."""
    calls: list[str] = []
    found = locate_or_install(lambda: tmp_path if calls else None, lambda: calls.append("install"))
    assert found == tmp_path
    assert calls == ["install"]


def test_present_is_not_installed(tmp_path: Path) -> None:
    """A server that is present is not installed."""
    assert locate_or_install(lambda: tmp_path, lambda: pytest.fail("installed")) == tmp_path


def test_wrapper_is_passed_over(tmp_path: Path) -> None:
    """Debian's wrapper script is not taken for the server."""
    for folder, text in (("sbin", "su rabbitmq -c …"), ("bin", ". rabbitmq-env")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "rabbitmq-server").write_text(text)
    assert first_real([tmp_path / "absent", tmp_path / "sbin", tmp_path / "bin"]) == tmp_path / "bin"
