"""An app, as the zygote and the children use it: functions, hooks, and a manifest for the parent."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from hybridpool._child import execute
from hybridpool._child.failure_rules import DEFAULT_RULES, Rules
from hybridpool._child.lifespans import LifespanState
from hybridpool._child.loop import Runs
from hybridpool._child.program import Sender
from hybridpool._client.tasks import BaseTask, rules_of
from hybridpool._config import Conf
from hybridpool._ipc.frames import ChildOrders
from hybridpool._task import tasks_to_plain


class AppManifest:
    """Implements `_child.program.Program` for an app."""

    def __init__(
        self,
        name: str,
        conf: Conf,
        tasks: Mapping[str, BaseTask[..., Any]],
        hooks: Mapping[str, Sequence[Callable[[], object]]],
        lifespans: Sequence[LifespanState[Any]],
    ) -> None:
        self._name = name
        self._conf = conf
        self._tasks = tasks
        self._hooks = hooks
        self._lifespans = lifespans

    def prepare_children(self, orders: ChildOrders) -> None:
        """Nothing: importing the app was all."""

    def child_runner(self, orders: ChildOrders, sender: Sender) -> Runs:  # noqa: ARG002  # of the interface
        """What runs a call, in a child that runs one at a time."""
        return execute.runner(self.child_tasks(), self.child_rules())

    def child_soft_limit(self, limit: float) -> None:
        """At a soft time limit, what the child raises by itself."""

    def child_tasks(self) -> Mapping[str, Callable[..., Any]]:
        """The functions by task name."""
        return {name: task.function for name, task in self._tasks.items()}

    def child_rules(self) -> Mapping[str, Rules]:
        """What the options of tasks say about their failures."""
        return {name: rules for name, task in self._tasks.items() if (rules := rules_of(task)) != DEFAULT_RULES}

    def child_hooks(self, moment: str) -> Sequence[Callable[[], object]]:
        """The hooks of one kind, in the order of their registration."""
        return self._hooks.get(moment, ())

    def child_lifespans(self, lane: str) -> Sequence[LifespanState[Any]]:
        """The lifespans of children of one lane, in the order of their declaration."""
        return [lifespan for lifespan in self._lifespans if lane in lifespan.lanes]

    def further_imports(self) -> Sequence[str]:
        """The setting `imports`."""
        return self._conf.settings().imports

    def manifest(self) -> bytes:
        """Settings and tasks, as JSON, for the parent."""
        tasks = tasks_to_plain({name: task.declared for name, task in self._tasks.items()})
        return msgspec.json.encode({"app": self._name, "settings": self._conf.export(), "tasks": tasks})
