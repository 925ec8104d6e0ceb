"""The cgroups (version 1 and 2) that this process is in, from its own up to the root: the tightest limit counts."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath


def folders(controller: str, root: Path = Path("/")) -> Iterator[tuple[int, Path]]:
    """Yield version and folder of each cgroup in which a controller may limit this process.

    :param controller: "cpu", "memory".
    :param root: where /proc and /sys are.
    """
    mounted = root / "sys/fs/cgroup"
    for line in read(root / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        for group in _with_parents(path):
            if number == "0" and not controllers:
                yield 2, mounted / group
            elif controller in controllers.split(","):
                yield 1, mounted / controllers / group


def read(file: Path) -> str:
    """Return the content of a kernel file; empty if there is no such file."""
    try:
        return file.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""


def _with_parents(path: str) -> Iterator[str]:
    """Yield a cgroup's path below the mount point, then those of its parents.

    In a container the path may be the host's and lead nowhere, or climb out of the namespace (`/../x`); the root of
    the mount is the container's own group then.
    """
    group = PurePosixPath(path.strip().lstrip("/"))
    if ".." not in group.parts:
        yield from map(str, (group, *group.parents))
    else:
        yield "."
