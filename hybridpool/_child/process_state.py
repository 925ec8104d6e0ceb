"""The state of the process, which all calls of a child share.

A task may leave a signal handler, a blocked signal, a running timer, another folder, mask or limit; these would
affect the next task, and the child's own loop relies on most of them as well. So the state is saved once, after the
hooks of the app have run, and restored after calls (`loop` says how often). What an app's hooks have set up stays.

Restored are: the three signals that are the child's own, and any other that was set to be ignored or to its default;
blocked signals; timers; folder and file mode mask; resource limits; the recursion limit; closed standard descriptors.
Not restored is what a library may have set up for good: handlers that are functions, environment, logging,
locale, `sys.path`, threads, open files.
"""

import _signal  # pyright: ignore[reportMissingImports]  # it has no stubs
import fcntl
import os
import resource
import signal
import sys
from collections.abc import Callable, Iterable
from typing import Any, Final

Handler = Callable[..., Any] | int | None

# As in `signal`, without the enumerations that it builds for each answer: five times as fast.
get_handler: Callable[[int], Handler] = _signal.getsignal
set_handler: Callable[[int, Handler], Handler] = _signal.signal
set_mask: Callable[[int, Iterable[int]], set[int]] = _signal.pthread_sigmask
DEFAULT_HANDLER: Final[Handler] = _signal.SIG_DFL
IGNORE_HANDLER: Final[Handler] = _signal.SIG_IGN

#: signals that programs ignore, or reset to their default
_SIGNALS: Final = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGPIPE,
    signal.SIGALRM,
    signal.SIGTERM,
    signal.SIGCHLD,
    signal.SIGXFSZ,
)
_RARE_TIMERS: Final = (signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)
#: RLIMIT_LOCKS, in which `process_isolation` stores the tag of a child's descendants
_RLIMIT_LOCKS: Final = 10
_LIMITS: Final = (resource.RLIMIT_AS, resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE)
_RARE_LIMITS: Final = (
    resource.RLIMIT_CPU,
    resource.RLIMIT_DATA,
    resource.RLIMIT_NPROC,
    resource.RLIMIT_STACK,
    _RLIMIT_LOCKS,
)
_STANDARD_DESCRIPTORS: Final = (0, 1, 2)


class ProcessState:
    """The state of the process when this was made; `restore` brings it back."""

    def __init__(self, attention: int, own: dict[int, Handler]) -> None:
        """Save the state.

        :param attention: the signal by which the parent asks for attention.
        :param own: the child's own handlers by signal, `attention` included; they are set here.
        """
        self._attention = attention
        self._own = own
        for number, handler in own.items():
            set_handler(number, handler)
        self._handlers: list[Handler] = list(map(get_handler, _SIGNALS))
        self._blocked = set(map(int, _signal.pthread_sigmask(signal.SIG_BLOCK, ()))) - own.keys()
        # A timer that a hook has started, as a profiler does, is left running.
        self._stops_alarm = not _signal.getitimer(signal.ITIMER_REAL)[0]
        self._rare_timers = tuple(timer for timer in _RARE_TIMERS if not _signal.getitimer(timer)[0])
        self._mode_mask = os.umask(0o077)
        os.umask(self._mode_mask)
        self._folder, self._folder_id = _current_folder(), _folder_id()
        self._limits = [(limit, resource.getrlimit(limit)) for limit in _LIMITS]
        self._rare_limits = [(limit, resource.getrlimit(limit)) for limit in _RARE_LIMITS]
        self._recursion_limit = sys.getrecursionlimit()

    def restore(self) -> bool:
        """Restore what tasks often change, and what would break the next task.

        What cannot be restored, for example a limit that only root may raise, stays.

        :returns: whether anything was different.
        """
        changed = False
        if list(map(get_handler, _SIGNALS)) != self._handlers:
            changed = True
            self._restore_handlers()
        # Always: `faulthandler.register` replaces it without Python's knowledge.
        set_handler(self._attention, self._own[self._attention])
        if _signal.pthread_sigmask(signal.SIG_SETMASK, self._blocked) != self._blocked:
            changed = True
        if self._stops_alarm and _signal.setitimer(signal.ITIMER_REAL, 0)[0]:
            changed = True
        if os.umask(self._mode_mask) != self._mode_mask:
            changed = True
        if _current_folder() != self._folder:
            changed = True
            self._restore_folder()
        for limit, values in self._limits:
            if resource.getrlimit(limit) != values:
                changed = True
                _restore_limit(limit, values)
        if sys.getrecursionlimit() != self._recursion_limit:
            changed = True
            sys.setrecursionlimit(self._recursion_limit)
        return changed

    def restore_all(self) -> bool:
        """As `restore`, and restore rare changes too."""
        changed = self.restore()
        for timer in self._rare_timers:
            if _signal.setitimer(timer, 0)[0]:
                changed = True
        for limit, values in self._rare_limits:
            if resource.getrlimit(limit) != values:
                changed = True
                _restore_limit(limit, values)
        for descriptor in _STANDARD_DESCRIPTORS:
            if _reopen_if_closed(descriptor):
                changed = True
        return changed

    def _restore_handlers(self) -> None:
        for at, (number, handler) in enumerate(zip(_SIGNALS, self._handlers, strict=True)):
            now = get_handler(number)
            is_not_a_function = now in (signal.SIG_IGN, signal.SIG_DFL)
            if now == handler:
                continue
            if handler is not None and (is_not_a_function or number in self._own):
                set_handler(number, handler)
            else:
                # A function: a library may have set it up for good.
                self._handlers[at] = now

    def _restore_folder(self) -> None:
        if self._folder is None or (_current_folder() is not None and _folder_id() == self._folder_id):
            # It did not exist then, or was renamed since.
            self._folder = _current_folder()
            return
        try:
            os.chdir(self._folder)
        except OSError:
            # It was deleted, so it cannot be restored.
            return


def _current_folder() -> str | None:
    try:
        return os.getcwd()  # a Path costs more than the system call
    except OSError:
        return None


def _folder_id() -> tuple[int, int]:
    try:
        status = os.stat(".")
    except OSError:
        return 0, 0
    return status.st_dev, status.st_ino


def _restore_limit(limit: int, values: tuple[int, int]) -> None:
    hard = resource.getrlimit(limit)[1]
    for attempt in (values, (values[0], hard), (hard, hard)):
        try:
            resource.setrlimit(limit, attempt)
        except (OSError, ValueError):
            continue
        return


def _reopen_if_closed(descriptor: int) -> bool:
    """Open the null device for a closed standard descriptor: the next file would get its number and the prints.

    :returns: whether it was closed.
    """
    try:
        fcntl.fcntl(descriptor, fcntl.F_GETFD)
    except OSError:
        pass
    else:
        return False
    try:
        null = os.open(os.devnull, os.O_RDWR)
    except OSError:
        # There is no free descriptor.
        return True
    if null == descriptor:
        os.set_inheritable(descriptor, True)
    else:
        os.dup2(null, descriptor)
        os.close(null)
    return True
