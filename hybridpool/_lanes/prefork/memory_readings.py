"""Readings of memory: of children, cgroups and the host. They read files, so they run in a thread."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from hybridpool._child.memory import private_bytes, resident_bytes
from hybridpool._config import cgroup
from hybridpool._policy.headroom import Bound

#: the part of a limit that is to stay free: what the kernel and others need when it gets tight
_RESERVE = 0.1


def owned(pids: Iterable[int], above: int = 0) -> dict[int, int]:
    """Tell how many bytes processes own alone; one that is gone owns nothing.

    :param above: bytes; processes that have less than this resident are left out, because an exact look is dear.
    """
    found = {}
    for pid in pids:
        try:
            if resident_bytes(pid) > above:
                found[pid] = private_bytes(pid)
        except (OSError, ValueError, IndexError):
            # it has just gone
            continue
    return found


def bounds(root: Path = Path("/")) -> list[Bound]:
    """Tell what host and cgroups allow this process and its children together.

    :param root: where /proc and /sys are.
    """
    return [Bound(name=name, limit=limit, used=used, reserve=int(limit * _RESERVE)) for name, limit, used in _all(root)]


def _all(root: Path) -> Iterator[tuple[str, int, int]]:
    host = _table(cgroup.read(root / "proc/meminfo"))
    if "MemTotal" in host and "MemAvailable" in host:
        total = host["MemTotal"] * 1024
        yield "the host's memory", total, total - host["MemAvailable"] * 1024
    for version, folder in cgroup.folders("memory", root):
        limit, used, cache = (
            ("memory.max", "memory.current", "inactive_file")
            if version == 2
            else ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        )
        allowed, taken = cgroup.read(folder / limit).strip(), cgroup.read(folder / used).strip()
        if allowed.isdecimal() and taken.isdecimal():
            # The kernel gives up cached files before it kills anybody.
            reclaimable = _table(cgroup.read(folder / "memory.stat")).get(cache, 0)
            yield "the cgroup's memory", int(allowed), max(0, int(taken) - reclaimable)


def _table(text: str) -> dict[str, int]:
    """Read lines such as ``MemTotal:  1024 kB`` or ``inactive_file 4096``."""
    rows = (line.split() for line in text.splitlines())
    return {row[0].rstrip(":"): int(row[1]) for row in rows if len(row) > 1 and row[1].isdecimal()}
