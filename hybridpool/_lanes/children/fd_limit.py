"""The limit of file descriptors: how many the children take, and the error texts when there are not enough.

The soft limit is raised by what the children take, and no further, as far as the hard limit lets us. That harms no code
of others in this process: where a number beyond the old limit is handed out, there would have been none.
"""

import errno
import os
import resource
from typing import Final

from hybridpool.errors import ConfigError

#: descriptors that the parent holds for each child: the channel's two ends, and the shared page's memory
FDS_PER_CHILD: Final = 3
#: for children that exit while others start, for large messages, for a new zygote
_RESERVED_FDS: Final = 32
#: descriptors that are probed one by one where the kernel does not list them
_MAX_PROBED_FDS: Final = 4096


def ensure_fd_limit(children: int) -> None:
    """See to it that this process may have the descriptors of so many children beside those it has.

    :raises ConfigError: if it may not.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = _open_descriptors() + _RESERVED_FDS
    need = used + FDS_PER_CHILD * children
    if soft == resource.RLIM_INFINITY or need <= soft:
        return
    if hard != resource.RLIM_INFINITY and need > hard:
        fit = max(0, hard - used) // FDS_PER_CHILD
        raise ConfigError(
            f"{children} children take {FDS_PER_CHILD * children} file descriptors, and this process may have {hard} "
            f"(RLIMIT_NOFILE, `ulimit -Hn`) and uses {used - _RESERVED_FDS}: raise the limit, or have {fit} children"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (need, hard))


def check_memory_is_readable(limit: int) -> None:
    """See to it that children can tell how much memory they own, if there is a limit.

    :param limit: bytes; 0: none.
    :raises ConfigError: if they cannot.
    """
    if limit and not os.access("/proc/self/statm", os.R_OK):
        raise ConfigError("a limit of memory per child needs /proc, which is not there: mount it, or set no limit")


def _open_descriptors() -> int:
    try:
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    except OSError:
        # There is no /proc. What a program opens first has the low numbers, so it is enough to probe some.
        return sum(map(_is_open, range(_MAX_PROBED_FDS)))


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def why_no_descriptor(error: OSError, children: int) -> str:
    """Say why there is no channel for one more child.

    :param children: how many have theirs.
    """
    if error.errno != errno.EMFILE:
        return f"no channel for it: {error.strerror}"
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return (
        f"no file descriptor is left for it: this process may have {limit} (RLIMIT_NOFILE, `ulimit -n`), "
        f"each child takes {FDS_PER_CHILD}, and {children} have theirs"
    )
