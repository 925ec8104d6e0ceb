"""The remote control commands that `hybridpool inspect` and `hybridpool control` know, and the arguments of each.

They are Celery's, as its workers and ours obey them. Pure.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import attrs

from hybridpool._config import find_similar

INSPECT: Final = "inspect"
CONTROL: Final = "control"


class WrongArguments(ValueError):
    """The arguments of a command do not fit; the text says what it takes."""


@attrs.frozen(kw_only=True)
class RemoteCommand:
    """One command."""

    name: str
    help: str
    #: how its arguments are shown
    signature: str = ""
    #: the names of its arguments, and what makes them of text
    args: tuple[tuple[str, Callable[[str], object]], ...] = ()
    #: how many of these must be given
    required: int = 0
    #: the name of the argument that takes all further words; empty: there is none
    variadic: str = ""

    def arguments(self, words: Sequence[str]) -> dict[str, object]:
        """Make the arguments of an order.

        :raises WrongArguments: if there are too few or too many words, or one has the wrong form.
        """
        if len(words) < self.required or (len(words) > len(self.args) and not self.variadic):
            raise WrongArguments(f"{self.name} takes {self.signature or 'no arguments'}")
        made: dict[str, object] = {}
        for (name, parse), word in zip(self.args, words, strict=False):
            try:
                made[name] = parse(word)
            except ValueError:
                raise WrongArguments(f"{name} of {self.name} cannot be {word!r}; it takes {self.signature}") from None
        if self.variadic:
            made[self.variadic] = list(words[len(self.args) :])
        return made


def _switch(word: str) -> bool:
    known = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
    try:
        return known[word.lower()]
    except KeyError:
        raise ValueError from None


def _table(*commands: RemoteCommand) -> dict[str, RemoteCommand]:
    return {command.name: command for command in sorted(commands, key=lambda one: one.name)}


_IDS: Final = "[ID...]"
_COMMANDS: Final[Mapping[str, Mapping[str, RemoteCommand]]] = {
    INSPECT: _table(
        RemoteCommand(name="active", help="Tasks that run."),
        RemoteCommand(name="active_queues", help="Queues that are consumed."),
        RemoteCommand(name="clock", help="Value of the logical clock."),
        RemoteCommand(
            name="conf", help="Settings.", signature="[INCLUDE_DEFAULTS]", args=(("with_defaults", _switch),)
        ),
        RemoteCommand(
            name="memdump", help="Memory at the last calls of memsample.", signature="[N]", args=(("samples", int),)
        ),
        RemoteCommand(name="memsample", help="Memory of the main process."),
        RemoteCommand(
            name="objgraph",
            help="Draw objects of the main process (Celery only).",
            signature="[TYPE [N [MAX_DEPTH]]]",
            args=(("type", str), ("num", int), ("max_depth", int)),
        ),
        RemoteCommand(name="ping", help="Whether workers answer."),
        RemoteCommand(name="query_task", help="Where tasks are, by their IDs.", signature=_IDS, variadic="ids"),
        RemoteCommand(
            name="registered",
            help="Tasks that are known, with attributes.",
            signature="[ATTRIBUTE...]",
            variadic="taskinfoitems",
        ),
        RemoteCommand(name="report", help="Text for bug reports."),
        RemoteCommand(name="reserved", help="Tasks that wait in the worker."),
        RemoteCommand(name="revoked", help="IDs of tasks that are revoked."),
        RemoteCommand(name="scheduled", help="Tasks that wait in the worker for their time."),
        RemoteCommand(name="stats", help="Numbers of the worker."),
    ),
    CONTROL: _table(
        RemoteCommand(
            name="add_consumer",
            help="Consume a queue.",
            signature="QUEUE [EXCHANGE [TYPE [ROUTING_KEY]]]",
            args=(("queue", str), ("exchange", str), ("exchange_type", str), ("routing_key", str)),
            required=1,
        ),
        RemoteCommand(
            name="autoscale",
            help="Change the range of the pool's size.",
            signature="[MAX [MIN]]",
            args=(("max", int), ("min", int)),
        ),
        RemoteCommand(
            name="cancel_consumer",
            help="Do not consume a queue any more.",
            signature="QUEUE",
            args=(("queue", str),),
            required=1,
        ),
        RemoteCommand(name="disable_events", help="Send no events of tasks."),
        RemoteCommand(
            name="election",
            help="Hold an election among workers.",
            signature="ID TOPIC [ACTION]",
            args=(("id", str), ("topic", str), ("action", str)),
            required=2,
        ),
        RemoteCommand(name="enable_events", help="Send events of tasks."),
        RemoteCommand(name="heartbeat", help="Send a heartbeat event."),
        RemoteCommand(name="pool_grow", help="Have more children.", signature="[N]", args=(("n", int),)),
        RemoteCommand(name="pool_restart", help="Load the app anew; children are replaced."),
        RemoteCommand(name="pool_shrink", help="Have fewer children.", signature="[N]", args=(("n", int),)),
        RemoteCommand(
            name="rate_limit",
            help="Change how often calls of a task may start.",
            signature="TASK RATE (10/s, 10/m, 10/h; 0: no limit)",
            args=(("task_name", str), ("rate_limit", str)),
            required=2,
        ),
        RemoteCommand(name="revoke", help="Do not run tasks, by their IDs.", signature=_IDS, variadic="task_id"),
        RemoteCommand(
            name="revoke_by_stamped_headers",
            help="Do not run tasks that have a stamp.",
            signature="[HEADER=STAMP...]",
            variadic="headers",
        ),
        RemoteCommand(name="shutdown", help="Stop warmly; there is no answer."),
        RemoteCommand(
            name="terminate",
            help="Stop tasks that run, by their IDs.",
            signature="SIGNAL [ID...]",
            args=(("signal", str),),
            required=1,
            variadic="task_id",
        ),
        RemoteCommand(
            name="time_limit",
            help="Change the time limits of a task.",
            signature="TASK SOFT_SECONDS [HARD_SECONDS]",
            args=(("task_name", str), ("soft", float), ("hard", float)),
            required=2,
        ),
    ),
}
#: by the name of their type in the app
_PARSERS: Final[Mapping[str, Callable[[str], object]]] = {
    "str": str,
    "int": int,
    "float": float,
    "bool": _switch,
    "strtobool": _switch,
}


def commands_of(kind: str, apps_own: Mapping[str, Mapping[str, Any]]) -> dict[str, RemoteCommand]:
    """Return the commands of one kind, `INSPECT` or `CONTROL`, by name.

    :param apps_own: further ones, as an app of Celery's declares them.
    """
    own = _table(*(_apps_own(name, meta) for name, meta in apps_own.items() if meta.get("type") == kind))
    return {**_COMMANDS[kind], **own}


def _apps_own(name: str, meta: Mapping[str, Any]) -> RemoteCommand:
    args = tuple((arg, _PARSERS.get(kind, str)) for arg, kind in meta.get("args") or ())
    variadic = meta.get("variadic") or ""
    words = " ".join(f"[{arg.upper()}]" for arg, _ in args)
    signature = meta.get("signature") or words + (f" [{variadic.upper()}...]" if variadic else "")
    return RemoteCommand(name=name, help=meta.get("help") or "", signature=signature, args=args, variadic=variadic)


def unknown(kind: str, name: str, known: Mapping[str, RemoteCommand]) -> str:
    """Return what to say of a command that is not there."""
    other = CONTROL if kind == INSPECT else INSPECT
    if name in _COMMANDS[other]:
        return f"{name} is a command of hybridpool {other}"
    near = find_similar(name, known)
    return f"no such command {name}" + (f"; did you mean {near}?" if near else f"; see hybridpool {kind} --list")
