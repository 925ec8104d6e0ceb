"""One call: bytes → arguments → the function → outcome.

The body is Celery's, protocol 2: ``[args, kwargs, embed]``, embed holding callbacks, errbacks, chain and chord.
"""

import os
from collections.abc import Callable, Mapping
from types import MappingProxyType, TracebackType
from typing import Any

from hybridpool import _task_context
from hybridpool._child import functions
from hybridpool._child.failure_rules import DEFAULT, Rules, failed
from hybridpool._child.rendering import described, plain, raised, shown
from hybridpool._ipc import codec
from hybridpool._ipc.frames import ChildOutcome, Refused, Returned, RunCall
from hybridpool._ipc.large_objects import LargeObject
from hybridpool.errors import TaskSignal


def runner(
    tasks: Mapping[str, Callable[..., Any]], rules: Mapping[str, Rules] = MappingProxyType({})
) -> Callable[[RunCall, int | None], ChildOutcome | LargeObject]:
    """Return what runs a call of either kind: a task of the app, or a function of the pool's user.

    :param rules: of tasks that have other than the default ones.
    """

    def run_either(call: RunCall, file: int | None) -> ChildOutcome | LargeObject:
        if call.content_type.startswith(functions.PREFIX):
            return functions.run(call, file)
        if file is not None:
            call.body = os.pread(file, call.parts[0], 0)
        return run(call, tasks, rules.get(call.task, DEFAULT))

    return run_either


def run(call: RunCall, tasks: Mapping[str, Callable[..., Any]], rules: Rules = DEFAULT) -> ChildOutcome:
    """Run a task; whatever it raises becomes an outcome: `SystemExit` and `KeyboardInterrupt` are failures like others.

    What an exception or a value does when it is looked at (its repr, its pickle, its `args`) is the task's, too.
    """
    function = tasks.get(call.task)
    if function is None:
        return refuse(f"unknown task {call.task!r}", "NotRegistered", "celery.exceptions", [call.task])
    try:
        args, kwargs = _arguments(call)
    except _Unsupported as error:
        return refuse(str(error), "NotImplementedError", "builtins", [str(error)])
    except ValueError as error:
        return refuse(f"undecodable body: {error}", "ValueError", "builtins", [str(error)])
    given = [_task_context.current_task(), *args] if rules.bind else args
    try:
        value = function(*given, **kwargs)
    except BaseException as error:
        if type(error) is TypeError and _never_entered(error.__traceback__):
            return refuse(f"arguments do not fit: {error}", "TypeError", "builtins", [str(error)])
        try:
            return failed(rules, error, call.retries, args, kwargs)
        except BaseException:
            # The exception has a __class__ of its own, a reason without a repr, or the like.
            return raised(error)
    try:
        return Returned(codec.encode(value), shown(value))
    except TaskSignal:
        raise
    except BaseException as error:
        why = f"{call.task} returned a value of type {type(value).__qualname__} that cannot be sent as JSON"
        return raised(TypeError(f"{why}: {described(error)}"))


def refuse(reason: str, kind: str, module: str, arguments: list[object]) -> Refused:
    """Say that the task was not run, and why, also in the form of an exception for whoever waits."""
    return Refused(reason=plain(reason), kind=kind, module=module, arguments=codec.encode(arguments))


class _Unsupported(Exception):
    """The message asks for something of Celery's that is not there yet; to run it without would be wrong."""


def _arguments(call: RunCall) -> tuple[list[Any], dict[str, Any]]:
    """:raises ValueError: if the body cannot be decoded or is not what protocol 2 says."""
    match codec.decode_as(call.content_type, call.body):
        case [list() | tuple() as args, dict() as kwargs, dict() | None as embed]:
            for name, value in (embed or {}).items():
                if value:
                    raise _Unsupported(f"the message asks for {name!r}, which this worker does not do yet")
            return list(args), kwargs
        case other:
            raise ValueError(f"expected [args, kwargs, embed], got {shown(other)[:80]}")


def _never_entered(frames: TracebackType | None) -> bool:
    """Tell whether the traceback ends where we called: then the call itself did not fit, not code inside it."""
    return frames is not None and frames.tb_next is None and frames.tb_frame.f_code is run.__code__
