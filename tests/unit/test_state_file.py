"""The file that keeps the revoked IDs."""

import json
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from hybridpool._worker.state_file import StateFile, write

KNOWN = {"id-1": 1.5, "id-2": 2.5}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the file is to be."""
    return tmp_path / "state"


@pytest.fixture
def state(path: Path) -> Iterator[StateFile]:
    """Give a state file of the first worker."""
    made = StateFile(path)
    yield made
    made.close()


def test_what_is_saved_is_loaded(path: Path, state: StateFile, caplog: pytest.LogCaptureFixture) -> None:
    """What was saved is loaded, and a missing file is empty."""
    assert state.load() == {}
    state.save({"old": 1.0})
    state.save(KNOWN)
    state.close()
    after = StateFile(path)
    assert after.load() == KNOWN
    after.close()
    assert caplog.messages == []
    assert sorted(one.name for one in path.parent.iterdir()) == ["state", "state.lock"]


def test_mode(path: Path, state: StateFile) -> None:
    """The file and its lock are readable by the owner only."""
    path.write_text("{}")
    path.chmod(0o666)
    before = os.umask(0)
    try:
        state.save(KNOWN)
    finally:
        os.umask(before)
    assert {stat.S_IMODE(one.stat().st_mode) for one in path.parent.iterdir()} == {0o600}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xfe\x00{",
        b"[1]",
        b'{"a": "b"}',
        b'{"a": NaN}',
        b'{"a": {"b": 1}}',
        b"null",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"a": 1',
        bytes(range(256)) * 16,
    ],
    ids=lambda data: repr(data[:12]),
)
def test_file_of_something_else(path: Path, state: StateFile, data: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """A file with other content is kept aside and begun anew, with one log line."""
    path.write_bytes(data)
    assert state.load() == {}
    assert path.with_name("state.bad").read_bytes() == data
    assert not path.exists()
    [line] = caplog.messages
    assert line.startswith(f"the state file {path} cannot be read, and is begun anew; what it held is in state.bad: ")
    state.save(KNOWN)
    assert json.loads(path.read_bytes()) == KNOWN


def test_file_that_is_too_large(path: Path, state: StateFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is too large is not read."""
    monkeypatch.setattr("hybridpool._worker.state_file.MAX_FILE_BYTES", 1000)
    path.write_text(json.dumps({"x" * 2000: 1.0}))
    assert state.load() == {}
    assert path.with_name("state.bad").exists()


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["fifo", "folder"])
def test_what_is_no_file(path: Path, state: StateFile, make: object, caplog: pytest.LogCaptureFixture) -> None:
    """A FIFO or a folder of the file's name is left alone, delays nothing, and is logged once per operation."""
    assert callable(make)
    make(path)
    assert state.load() == {}
    for _ in range(3):
        state.save(KNOWN)
    assert not path.is_file()
    assert len(caplog.messages) == 2
    assert all(str(path) in line for line in caplog.messages)


def test_device(caplog: pytest.LogCaptureFixture) -> None:
    """A device is not replaced."""
    state = StateFile(Path("/dev/null"))
    try:
        assert state.load() == {}
        state.save(KNOWN)
    finally:
        state.close()
    assert not Path("/dev/null.lock").exists()
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)  # noqa: PTH116
    assert caplog.messages


def test_folder_that_is_not_there(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A missing folder is named in the log."""
    state = StateFile(tmp_path / "no" / "state")
    assert state.load() == {}
    assert caplog.messages == [
        f"the state file {tmp_path}/no/state cannot be written: there is no folder {tmp_path}/no",
    ]
    state.save(KNOWN)
    state.close()


def test_link(tmp_path: Path, path: Path, state: StateFile) -> None:
    """A symbolic link is read through and then replaced; its target is not written."""
    other = tmp_path / "other"
    other.write_text('{"id": 1.0}')
    path.symlink_to(other)
    assert state.load() == {"id": 1.0}
    state.save(KNOWN)
    assert other.read_text() == '{"id": 1.0}'
    assert not path.is_symlink()


def test_links_of_names_that_are_known(tmp_path: Path, path: Path, state: StateFile) -> None:
    """Symbolic links at the names of the new, the bad and the lock file are not followed."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    for name in ("state.new", "state.bad", "state.lock"):
        path.with_name(name).symlink_to(victim)
    path.write_text("no state")
    state.load()
    state.save(KNOWN)
    write(path, b"{}")
    assert victim.read_text() == "precious"


def test_two_workers_of_one_file(path: Path, state: StateFile, caplog: pytest.LogCaptureFixture) -> None:
    """A second worker reads the file, says once that another worker keeps it, and writes it when that one has gone."""
    state.save(KNOWN)
    second = StateFile(path)
    try:
        assert second.load() == KNOWN
        second.save({})
        second.save({})
        assert json.loads(path.read_bytes()) == KNOWN
        [line] = caplog.messages
        assert "is kept by another worker" in line
        state.close()
        second.save({"id-3": 3.0})
        assert json.loads(path.read_bytes()) == {"id-3": 3.0}
    finally:
        second.close()


def test_bad_file_of_another_worker(path: Path, state: StateFile) -> None:
    """A bad file that another worker keeps is not moved."""
    state.save(KNOWN)
    path.write_text("torn by hand")
    second = StateFile(path)
    assert second.load() == {}
    second.close()
    assert path.exists()


def test_disk_without_room(path: Path, state: StateFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """A save that fails leaves the old file alone, and the next one tries again."""
    state.save(KNOWN)

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        state.save({})
    assert json.loads(path.read_bytes()) == KNOWN
    assert sorted(one.name for one in path.parent.iterdir()) == ["state", "state.lock"]
    state.save({})
    assert json.loads(path.read_bytes()) == {}


def test_rest_of_a_save_that_was_killed(path: Path) -> None:
    """A temporary file that a killed worker left is removed."""
    path.with_name(".state.new-abc").write_text("{")
    state = StateFile(path)
    state.load()
    state.close()
    assert [one.name for one in path.parent.iterdir()] == ["state.lock"]


@pytest.mark.slow
def test_reader_beside_writers(path: Path) -> None:
    """A reader beside writers finds a complete file."""
    write(path, b"{}")

    def writes(number: int) -> None:
        for _ in range(50):
            write(path, msgspec.json.encode({f"{number}-{one}": 1.0 for one in range(500)}))

    threads = [threading.Thread(target=writes, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        json.loads(path.read_bytes())
    for thread in threads:
        thread.join()
