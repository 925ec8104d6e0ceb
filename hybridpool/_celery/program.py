"""The app, as the zygote and the children use it: implements `_child.program.Program`."""

import logging
import multiprocessing.util
import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import billiard.util
from celery import _state, signals
from celery.app import trace
from celery.exceptions import SoftTimeLimitExceeded
from celery.loaders.base import BaseLoader
from celery.worker import state

from hybridpool._celery import manifest, publishing
from hybridpool._celery.runner import Runner
from hybridpool._child.failure_rules import Rules
from hybridpool._child.lifespans import LifespanState
from hybridpool._child.loop import Runs
from hybridpool._child.program import Sender
from hybridpool._ipc.frames import ChildOrders

#: lines of Celery's that the parent writes too, for each task: by logger, those of children and of Celery's parent
_TOLD_BY_PARENT: Final = {
    "celery.app.trace": frozenset(
        line.strip()
        for line in (trace.LOG_SUCCESS, trace.LOG_FAILURE, trace.LOG_IGNORED, trace.LOG_REJECTED, trace.LOG_RETRY)
    ),
    "celery.worker.request": frozenset(("Task handler raised error: %r", "Hard time limit (%ss) exceeded for %s[%s]")),
}
#: methods of a loader that run in a child at its start
_INIT_METHODS: Final = ("init_worker_process", "on_worker_process_init")


class CeleryProgram:
    """One app of Celery's."""

    #: listeners of `worker_init` look at their sender, which in Celery is a `WorkController`
    pool_cls = "celery.concurrency.prefork:TaskPool"

    def __init__(self, app: Any) -> None:
        self.app = app
        self._node = ""
        self._outlet = publishing.Outlet()
        #: made when children are prepared
        self._runner: Runner | None = None
        #: what the app does when a child starts, if it does anything
        self._init_hooks: list[Callable[[], object]] = []

    # ---- the zygote --------------------------------------------------------------------------------------

    def further_imports(self) -> Sequence[str]:
        """Import what the app's own settings name, by its own loader."""
        self.app.set_current()
        self.app.set_default()
        self.app.loader.init_worker()
        self.app.finalize()
        return ()

    def manifest(self) -> bytes:
        """What the parent must know, as JSON. Connections that importing the app has opened are closed."""
        written = manifest.write(self.app)
        manifest.preload(self.app)
        manifest.close_connections(self.app)
        return written

    def child_hooks(self, moment: str) -> Sequence[Callable[[], object]]:
        """Celery's signals of that moment, and what the app's loader does then."""
        match moment:
            case "worker_init":
                return (lambda: signals.worker_init.send(sender=self),)
            case "worker_process_init":
                return self._init_hooks
            case "worker_process_shutdown":
                return (lambda: signals.worker_process_shutdown.send(sender=self._node, pid=os.getpid(), exitcode=0),)
            case _:
                return ()

    def prepare_children(self, orders: ChildOrders) -> None:
        """Do what `celery.concurrency.prefork.process_initializer` does, as far as it is the same in all children."""
        if self._runner is not None:
            return
        app, self._node = self.app, orders.node
        if orders.broker:
            for name in manifest.BROKER_VARIABLES:
                os.environ.pop(name, None)
            # Options of TLS in a query are for the parent's client library; children have `broker_use_ssl`.
            app.conf.broker_url = re.sub(r"\?[^;]*", "", orders.broker)
            app.conf.broker_read_url = app.conf.broker_write_url = None
        publishing.install(app, self._outlet)
        forbid_join: Callable[[bool], None] = getattr(_state, "_set_task_join_will_block")  # noqa: B009  # private
        forbid_join(True)
        trace.setup_worker_optimizations(app, orders.node)
        state.reset_state()
        for task in app.tasks.values():
            task.__trace__ = None
        runner = Runner(app, orders.node, self._outlet)
        if not orders.logging:
            # Otherwise levels change in the child, and tracers keep whether they log.
            runner.prepare()
        self._runner = runner
        loader = type(app.loader)
        if any(getattr(loader, name) is not getattr(BaseLoader, name) for name in _INIT_METHODS):
            self._init_hooks.append(app.loader.init_worker_process)
        if signals.worker_process_init.receivers:
            self._init_hooks.append(lambda: signals.worker_process_init.send(sender=self._node))

    # ---- a child -----------------------------------------------------------------------------------------

    def child_runner(self, orders: ChildOrders, sender: Sender) -> Runs:  # noqa: ARG002  # of the interface
        """Do the rest of what `celery.concurrency.prefork.process_initializer` does; return what runs a message."""
        # The fork was ours, so these have not run: they drop the zygote's connection pools, result consumers and
        # mailboxes.
        for library in (billiard.util, multiprocessing.util):
            run_after_fork: Callable[[], None] = getattr(library, "_run_after_forkers")  # noqa: B009  # private
            run_after_fork()
        self._outlet.sender = sender
        _state.set_default_app(self.app)
        for handler in logging.getLogger().handlers:
            handler.addFilter(_is_told_here)
        assert self._runner is not None
        return self._runner

    def child_soft_limit(self, limit: float) -> BaseException:  # noqa: ARG002  # Celery does not say it
        """Celery's exception; tasks catch it by that name."""
        error: BaseException = SoftTimeLimitExceeded()
        return error

    def child_tasks(self) -> Mapping[str, Callable[..., Any]]:
        """None: Celery's tasks run in children of the process lane only."""
        return {}

    def child_rules(self) -> Mapping[str, Rules]:
        """None: Celery decides what follows from a failure."""
        return {}

    def child_lifespans(self, lane: str) -> Sequence[LifespanState[Any]]:  # noqa: ARG002  # of the interface
        """None: these are of our own apps."""
        return ()


def _is_told_here(record: logging.LogRecord) -> bool:
    """Tell whether a record is not one that the parent writes too. Other handlers than ours get them all."""
    told = _TOLD_BY_PARENT.get(record.name)
    return told is None or str(record.msg).strip() not in told
