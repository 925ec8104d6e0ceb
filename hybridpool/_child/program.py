"""The interface of an app towards the zygote and the children."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from hybridpool._child.failure_rules import Rules
from hybridpool._child.lifespans import LifespanState
from hybridpool._ipc.frames import ChildOrders, Enqueue, EnqueueAnswer

if TYPE_CHECKING:
    from hybridpool._child.loop import Runs


class Sender(Protocol):
    """What a child has its parent do for the code that runs in it; from any thread."""

    #: `post` waits as `ask` does
    posts_wait: bool

    def ask(self, frame: Enqueue) -> None:
        """Have the parent do it, and wait until it is done.

        :raises HybridpoolError: if the parent could not.
        """

    def post(self, frame: Enqueue) -> None:
        """Have the parent publish a message; in the main thread, in a task, do not wait until it is done.

        :raises HybridpoolError: if it cannot be sent, or was waited for and failed.
        """

    def confirm(self) -> list[EnqueueAnswer]:
        """Wait until all that was posted is done; return the answers that are errors."""
        ...

    def drop_posts(self) -> None:
        """Do not wait for what was posted."""


class Program(Protocol):
    """An app, as the zygote and the children use it: ours, or one of another library (`hybridpool._celery`)."""

    def prepare_children(self, orders: ChildOrders) -> None:
        """Do in the zygote what all children would do in the same way. Once for each lane, before its first child.

        :raises Exception: whatever the app's code raises; then there can be no children.
        """

    def child_runner(self, orders: ChildOrders, sender: Sender) -> "Runs":
        """Return what runs a call in a child that runs one at a time. Asked for once in each, before its hooks.

        :param sender: the child's way to its parent, for messages that another library's app publishes.
        """
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
