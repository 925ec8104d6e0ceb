"""One call: bytes → arguments → the function → outcome.

The body is Celery's, protocol 2: ``[args, kwargs, embed]``, embed holding callbacks, errbacks, chain and chord.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from types import CodeType, CoroutineType, MappingProxyType, TracebackType
from typing import Any

from hybridpool import _task_context
from hybridpool._child import functions
from hybridpool._child.failure_rules import DEFAULT_RULES, Rules, to_outcome
from hybridpool._child.rendering import describe_exception, escape_surrogates, safe_repr, to_raised
from hybridpool._ipc import codec
from hybridpool._ipc.frames import ChildOutcome, Refused, Returned, RunCall
from hybridpool._ipc.large_objects import LargeObject
from hybridpool.errors import TaskSignal


def runner(
    tasks: Mapping[str, Callable[..., Any]], rules: Mapping[str, Rules] = MappingProxyType({})
) -> Callable[[RunCall, int | None], ChildOutcome | LargeObject]:
    """Return a function that runs a call of either kind: a task of the app, or a function given to a pool.

    :param rules: by task name, for tasks whose rules are not the default.
    """

    def run_either(call: RunCall, file: int | None) -> ChildOutcome | LargeObject:
        if call.content_type.startswith(functions.CONTENT_TYPE_PREFIX):
            return functions.run(call, file)
        if file is not None:
            call.body = os.pread(file, call.parts[0], 0)
        return run(call, tasks, rules.get(call.task, DEFAULT_RULES))

    return run_either


def run(call: RunCall, tasks: Mapping[str, Callable[..., Any]], rules: Rules = DEFAULT_RULES) -> ChildOutcome:
    """Run a task; whatever it raises becomes an outcome: `SystemExit` and `KeyboardInterrupt` are failures like others.

    The repr, the pickle and the `args` of an exception or a value are the code of the task too, and may raise.
    """
    function = tasks.get(call.task)
    if function is None:
        return refuse(f"unknown task {call.task!r}", "NotRegistered", "celery.exceptions", [call.task])
    try:
        args, kwargs = _decode_arguments(call)
    except _Unsupported as error:
        return refuse(str(error), "NotImplementedError", "builtins", [str(error)])
    except ValueError as error:
        return refuse(f"undecodable body: {error}", "ValueError", "builtins", [str(error)])
    all_args = [_task_context.current_task(), *args] if rules.bind else args
    try:
        value = function(*all_args, **kwargs)
        if type(value) is CoroutineType:
            value = functions.run_to_end(value)
    except BaseException as error:
        if type(error) is TypeError and _never_entered(error.__traceback__, run.__code__):
            return _do_not_fit(error)
        return _failed(rules, error, call.retries, args, kwargs)
    return _returned(call.task, value)


class Prepared:
    """A call whose arguments are read: what to call, and what its end becomes. For children that run many at once.

    One is kept for each call that waits, so it holds values, and no functions made for it: those took six times the
    memory.
    """

    __slots__ = ("args", "function", "kwargs", "task")

    def __init__(self, task: str, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        self.task = task
        self.function = function
        self.args = args
        self.kwargs = kwargs

    def returned(self, value: Any) -> ChildOutcome | LargeObject:
        """Return the outcome of a call that returned."""
        return functions.returned(self.task, value)

    def raised(self, error: BaseException, _caller: CodeType, /) -> ChildOutcome:
        """Return the outcome of a call that raised.

        :param _caller: code of the function that made the call.
        """
        return functions.failed(self.task, error)


class _PreparedTask(Prepared):
    """A call of a task of the app."""

    __slots__ = ("retries", "rules")

    def __init__(
        self,
        task: str,
        function: Callable[..., Any],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        retries: int,
        rules: Rules,
    ) -> None:
        super().__init__(task, function, [_task_context.current_task(), *args] if rules.bind else args, kwargs)
        self.retries = retries
        self.rules = rules

    def returned(self, value: Any) -> ChildOutcome | LargeObject:
        return _returned(self.task, value)

    def raised(self, error: BaseException, caller: CodeType, /) -> ChildOutcome:
        if type(error) is TypeError and _never_entered(error.__traceback__, caller):
            return _do_not_fit(error)
        args = self.args[1:] if self.rules.bind else self.args
        return _failed(self.rules, error, self.retries, args, self.kwargs)


def preparer(
    tasks: Mapping[str, Callable[..., Any]], all_rules: Mapping[str, Rules] = MappingProxyType({})
) -> Callable[[RunCall, int | None], Prepared | ChildOutcome]:
    """Return a function that reads a call of either kind, or tells why it cannot be run; as `runner` otherwise."""

    def prepare(call: RunCall, file: int | None) -> Prepared | ChildOutcome:
        if call.content_type.startswith(functions.CONTENT_TYPE_PREFIX):
            try:
                return Prepared(call.task, *functions.read(call, file))
            except BaseException as error:
                return functions.failed(call.task, error)
        if file is not None:
            call.body = os.pread(file, call.parts[0], 0)
        found = tasks.get(call.task)
        if found is None:
            return refuse(f"unknown task {call.task!r}", "NotRegistered", "celery.exceptions", [call.task])
        try:
            args, kwargs = _decode_arguments(call)
        except _Unsupported as error:
            return refuse(str(error), "NotImplementedError", "builtins", [str(error)])
        except ValueError as error:
            return refuse(f"undecodable body: {error}", "ValueError", "builtins", [str(error)])
        return _PreparedTask(call.task, found, args, kwargs, call.retries, all_rules.get(call.task, DEFAULT_RULES))

    return prepare


def _do_not_fit(error: TypeError) -> Refused:
    return refuse(f"arguments do not fit: {error}", "TypeError", "builtins", [str(error)])


def _failed(
    rules: Rules, error: BaseException, retries: int, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> ChildOutcome:
    try:
        return to_outcome(rules, error, retries, args, kwargs)
    except BaseException:
        # Code of the exception itself raised: its __class__, or the repr of its reason.
        return to_raised(error)


def _returned(task: str, value: Any) -> ChildOutcome:
    """:raises TaskSignal: if one comes while the value is encoded."""
    try:
        return Returned(codec.encode(value), safe_repr(value))
    except TaskSignal:
        raise
    except BaseException as error:
        why = f"{task} returned a value of type {type(value).__qualname__} that cannot be sent as JSON"
        return to_raised(TypeError(f"{why}: {describe_exception(error)}"))


def refuse(reason: str, kind: str, module: str, arguments: list[object]) -> Refused:
    """Return the outcome of a task that was not run: the reason, and the exception that the caller gets for it."""
    return Refused(reason=escape_surrogates(reason), kind=kind, module=module, arguments=codec.encode(arguments))


class _Unsupported(Exception):
    """The message asks for a feature of Celery that is not supported; to run the task without it would be wrong."""


def _decode_arguments(call: RunCall) -> tuple[list[Any], dict[str, Any]]:
    """:raises ValueError: if the body cannot be decoded or is not what protocol 2 says."""
    match codec.decode_as(call.content_type, call.body):
        case [list() | tuple() as args, dict() as kwargs, dict() | None as embed]:
            for name, value in (embed or {}).items():
                if value and not (name == "chord" and codec.CHORD_IS_COUNTED in call.content_type):
                    raise _Unsupported(f"the message asks for {name!r}, which this worker does not do yet")
            return list(args), kwargs
        case other:
            raise ValueError(f"expected [args, kwargs, embed], got {safe_repr(other)[:80]}")


def _never_entered(frames: TracebackType | None, caller: CodeType) -> bool:
    """Tell whether the traceback ends at the call: then the arguments did not fit, and no code of the task ran."""
    return frames is not None and frames.tb_next is None and frames.tb_frame.f_code is caller
