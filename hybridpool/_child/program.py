"""The interface of an app towards the zygote and the children."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from hybridpool._child.failure_rules import Rules
from hybridpool._child.lifespans import LifespanState
from hybridpool._ipc.frames import ChildOrders

if TYPE_CHECKING:
    from hybridpool._child.loop import Runs


class Program(Protocol):
    """An app, as the zygote and the children use it: ours, or one of another library (`hybridpool._celery`)."""

    def child_runner(self, orders: ChildOrders) -> "Runs":
        """Return what runs a call in a child that runs one at a time. Asked for once in each, before its hooks."""
        ...

    def child_soft_limit(self, limit: float) -> BaseException | None:
        """What is raised in a task at its soft time limit; None: `SoftTimeLimitExceeded`.

        :param limit: seconds.
        """
        ...

    def child_tasks(self) -> Mapping[str, Callable[..., Any]]:
        """The functions by task name, for children that run several calls at once."""
        ...

    def child_rules(self) -> Mapping[str, Rules]:
        """The rules for failures, by task name."""
        ...

    def child_hooks(self, moment: str) -> Sequence[Callable[[], object]]:
        """The functions to call at "worker_init", "worker_process_init" or "worker_process_shutdown"."""
        ...

    def child_lifespans(self, lane: str) -> Sequence[LifespanState[Any]]:
        """What to enter in a child of this lane before its first call, in this order."""
        ...

    def further_imports(self) -> Sequence[str]:
        """Further modules with tasks, from the app's own settings."""
        ...

    def manifest(self) -> bytes:
        """Settings and tasks, as JSON, for the parent."""
        ...


class HasProgram(Protocol):
    """An app: `hybridpool._app.App` is one."""

    def __hybridpool_program__(self) -> Program:
        """What is needed of it here."""
        ...
