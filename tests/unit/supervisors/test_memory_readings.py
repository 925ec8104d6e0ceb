"""Readings of memory: on made-up machines, and of real processes."""

import mmap
import os
import subprocess
import sys
from pathlib import Path

from hybridpool._lanes.prefork import memory_readings

MIB = 1024 * 1024


def machine(root: Path, cgroup: str, **files: str) -> Path:
    """Make a tree of /proc and /sys."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(cgroup)
    (root / "proc/meminfo").write_text("MemTotal:  1000 kB\nMemFree: 1 kB\nMemAvailable:  400 kB\nHugePages: x\n")
    for name, text in files.items():
        file = root / "sys/fs/cgroup" / name.replace("__", "/").replace("_DOT_", ".")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


def found(root: Path) -> list[tuple[str, int, int]]:
    """Return the readings of that machine."""
    return [(bound.name, bound.limit, bound.used) for bound in memory_readings.bounds(root)]


def test_the_host(tmp_path: Path) -> None:
    """The host's bound is its total memory, less what is in use and a reserve."""
    [host] = memory_readings.bounds(machine(tmp_path, ""))
    assert (host.limit, host.used, host.free) == (1000 * 1024, 600 * 1024, 400 * 1024 - 102400)


def test_version_2(tmp_path: Path) -> None:
    """The limit of a cgroup of version 2 is found, and inactive files do not count as used."""
    root = machine(
        tmp_path,
        "0::/app/inner\n",
        app__memory_DOT_max="5000\n",
        app__memory_DOT_current="3000\n",
        app__memory_DOT_stat="anon 1\ninactive_file 1000\n",
        app__inner__memory_DOT_max="max\n",
        app__inner__memory_DOT_current="3000\n",
    )
    assert found(root)[1:] == [("the cgroup's memory", 5000, 2000)]


def test_version_1(tmp_path: Path) -> None:
    """The limit of a cgroup of version 1 is found."""
    root = machine(
        tmp_path,
        "4:cpu,cpuacct:/x\n7:memory:/x\n",
        memory__x__memory_DOT_limit_in_bytes="7000",
        memory__x__memory_DOT_usage_in_bytes="1000",
        memory__x__memory_DOT_stat="total_inactive_file 4000",
    )
    assert found(root)[1:] == [("the cgroup's memory", 7000, 0)]


def test_a_machine_that_tells_nothing(tmp_path: Path) -> None:
    """A machine without these files has no bounds."""
    assert memory_readings.bounds(tmp_path) == []


def test_own_memory() -> None:
    """A process owns the pages that it wrote."""
    before = memory_readings.owned([os.getpid()])[os.getpid()]
    with mmap.mmap(-1, 64 * MIB, flags=mmap.MAP_PRIVATE) as page:
        page[:: mmap.PAGESIZE] = b"x" * (64 * MIB // mmap.PAGESIZE)
        held = memory_readings.owned([os.getpid()])[os.getpid()]
    assert 60 * MIB < held - before < 80 * MIB


def test_the_light_and_the_gone_are_left_out() -> None:
    """Processes that are gone or light are left out."""
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        gone.wait()
    assert memory_readings.owned([gone.pid]) == {}
    assert memory_readings.owned([os.getpid()], above=10**12) == {}
