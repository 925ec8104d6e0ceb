"""How much memory a process owns itself."""

import resource
import subprocess
import sys

import pytest

from hybridpool._child import memory
from hybridpool._child.memory import MemoryGauge, private_bytes

MIB = 1024 * 1024


def test_own_memory_grows_with_what_is_kept() -> None:
    """The private memory grows with what is kept."""
    # In a process of its own: in this one other tests' memory comes and goes meanwhile.
    program = (
        "from hybridpool._child.memory import private_bytes\n"
        "before = private_bytes()\n"
        f"kept = bytearray(b'x') * {32 * MIB}\n"
        "print(private_bytes() - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=200)
    assert 30 * MIB <= int(done.stdout) <= 40 * MIB


def test_own_memory_shrinks_again() -> None:
    """The private memory shrinks when memory is freed."""
    before = private_bytes()
    del (kept := {"it": bytearray(b"x") * (64 * MIB)})["it"]
    assert kept == {}
    assert private_bytes() - before < 32 * MIB
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 > private_bytes()


def test_own_is_less_than_resident() -> None:
    """The private memory is at most the resident memory."""
    gauge = MemoryGauge(1)
    assert 0 < gauge.owned() <= resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def test_nobody_wants_to_know() -> None:
    """Without a limit nothing is measured."""
    assert MemoryGauge(0).owned() == 0


def test_far_below_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Far below the limit only the cheap reading is made."""
    monkeypatch.setattr(memory, "private_bytes", lambda: pytest.fail("nobody should look"))
    assert MemoryGauge(10**15).owned() == 0


def test_does_not_look_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Below the limit the expensive reading is made once a second."""
    readings: list[int] = []

    def reading() -> int:
        readings.append(5)
        return 5

    monkeypatch.setattr(memory, "private_bytes", reading)
    clock = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    monkeypatch.setattr("os.pread", lambda *_: b"0 100000 0")
    gauge = MemoryGauge(1000 * MIB // 4)
    assert [gauge.owned() for _ in range(5)] == [5, 0, 0, 0, 0]
    clock[0] += 1.0
    assert [gauge.owned() for _ in range(5)] == [5, 0, 0, 0, 0]
    assert len(readings) == 2


def test_looks_again_when_it_has_grown(monkeypatch: pytest.MonkeyPatch) -> None:
    """The expensive reading is made again as soon as the process has grown much."""
    monkeypatch.setattr(memory, "private_bytes", lambda: 5)
    resident = [100_000]
    monkeypatch.setattr("os.pread", lambda *_: b"0 %d 0" % resident[0])
    gauge = MemoryGauge(1000 * MIB // 4)
    assert [gauge.owned(), gauge.owned()] == [5, 0]
    resident[0] += 100_000
    assert gauge.owned() == 5


def test_keeps_looking_above_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Above the limit the expensive reading is made each time."""
    gauge = MemoryGauge(1000)
    monkeypatch.setattr(memory, "private_bytes", lambda: 2000)
    assert [gauge.owned() for _ in range(3)] == [2000, 2000, 2000]
