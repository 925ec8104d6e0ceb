"""Calls of plain functions, for a pool without a broker: pickled arguments in, pickled results out.

A function travels as ``module:qualname`` and is looked up here, once. A function without such a name (a lambda, a
local function) is pickled by value, with cloudpickle, if that is installed.
"""

import functools
import importlib
import os
import pickle
import runpy
import sys
import types
import zlib
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Final

from hybridpool._child.rendering import describe_exception, to_raised
from hybridpool._ipc import large_objects
from hybridpool._ipc.frames import ChildOutcome, Raised, Returned, RunCall
from hybridpool._ipc.large_objects import LargeObject
from hybridpool._ipc.shared_folders import SharedFolders
from hybridpool.errors import CannotSend, TaskSignal, TaskVerdict

#: how the content type of a call of a function begins; the fingerprint of the function may follow
CONTENT_TYPE_PREFIX: Final = "application/x-hybridpool-"
#: the body is ``pickle.dumps((args, kwargs))``, the task ``module:qualname``
BY_NAME: Final = CONTENT_TYPE_PREFIX + "call"
#: the body is ``cloudpickle.dumps((function, args, kwargs))``
BY_VALUE: Final = CONTENT_TYPE_PREFIX + "function"

#: types of values that are never large
_SMALL_TYPES: Final = frozenset({type(None), bool, int, float, complex})
#: functions by content type with a fingerprint, or by name if they have no fingerprint
_found: dict[str, Callable[..., Any]] = {}


def run(call: RunCall, file: int | None) -> ChildOutcome | LargeObject:
    """Run the call; any exception becomes an outcome, `SystemExit` and `KeyboardInterrupt` as well.

    :param file: descriptor of the file that holds its body; None: the body is in the frame.
    :returns: the outcome, or a large value that is to be sent in a file.
    """
    try:
        function, args, kwargs = read(call, file)
        value = function(*args, **kwargs)
        del args, kwargs
        if type(value) is types.CoroutineType:
            value = run_to_end(value)
    except BaseException as error:
        return failed(call.task, error)
    return returned(call.task, value)


def read(call: RunCall, file: int | None) -> tuple[Callable[..., Any], Sequence[Any], Mapping[str, Any]]:
    """Return what to call, and with which arguments; raises whatever their unpickling raises."""
    body = call.body if file is None else functools.partial(large_objects.load, file, call.parts)
    if call.content_type.startswith(BY_NAME):
        function = _found.get(call.content_type) or _found.get(call.task) or find(call.task, call.content_type)
        return function, *loads(body)
    function, args, kwargs = loads(body)
    _check_identity(call.task, function, call.content_type.removeprefix(BY_VALUE))
    return function, args, kwargs


def run_to_end(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine function's call, in the lane "process", on a loop of its own."""
    # A child that never runs one does not need asyncio.
    return importlib.import_module("asyncio").run(coroutine)


def failed(task: str, error: BaseException) -> Raised:
    """Return the outcome of a call that raised."""
    if issubclass(type(error), TaskVerdict):
        failure = type(error).__name__
        why = f"{task} raised {failure}, which is for tasks of an app: there is no broker here"
        return _to_raised_with_pickle(CannotSend(why))
    return _to_raised_with_pickle(error)


def returned(task: str, value: object) -> ChildOutcome | LargeObject:
    """Return the outcome of a call that returned.

    :raises TaskSignal: if one comes while the value is pickled.
    """
    try:
        dumped = _dump(value)
        return dumped if isinstance(dumped, LargeObject) else Returned(dumped, "")
    except TaskSignal:
        raise
    except BaseException as error:
        return _cannot_send_result(task, value, error)


def dumps(value: object) -> bytes:
    """Pickle a value, with cloudpickle if pickle cannot and cloudpickle is installed."""
    try:
        return pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
    except Exception:
        try:
            import cloudpickle
        except ImportError:
            pass
        else:
            return cloudpickle.dumps(value)  # type: ignore[no-any-return]  # untyped
        raise


def _dump(value: object) -> bytes | LargeObject:
    """Pickle a result, which may be large."""
    if type(value) in _SMALL_TYPES:
        return pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
    try:
        return large_objects.dump(value)
    except Exception:
        return dumps(value)


def loads(data: bytes | Callable[[], Any]) -> Any:
    """Unpickle what the parent sent; classes and functions of its ``__main__`` are found in its script.

    :param data: a pickle, or a function that reads a large one.
    """
    load = data if callable(data) else functools.partial(pickle.loads, data)
    try:
        return _with_new_folders(load)
    except (AttributeError, ModuleNotFoundError) as error:
        # ``__main__``, or ``__mp_main__`` where the parent itself was started by multiprocessing
        if "_main__" not in str(error) or main_path() is None or _known_main() is not None:
            raise
    _main()
    return load()


def call_pickled(function: bytes) -> object:
    """Unpickle a function and call it."""
    return loads(function)()


def innermost(function: Any) -> Any:
    """Return the function inside partials and bound methods."""
    while True:
        match function:
            case functools.partial():
                function = function.func
            case types.MethodType():
                function = function.__func__
            case _:
                return function


def fingerprint(name: str, function: Any) -> str:
    """Return a text that differs between two functions of one name; empty for a function without Python code.

    A module may give a name to another function when it is imported here than where it was imported before: under a
    condition, by a decorator or a patch. File, name and, in a script, line of the code tell them apart. In modules the
    line does not count, since a file may be edited while the program runs.
    """
    function = innermost(function)
    code = getattr(function, "__code__", None)
    if not isinstance(code, types.CodeType):
        return ""
    line = code.co_firstlineno if getattr(function, "__module__", None) in ("__main__", "__mp_main__") else 0
    location = f"{os.path.basename(code.co_filename)}:{code.co_qualname}:{line}"
    return f"+{zlib.crc32(name.encode(errors='replace')):08x}{zlib.crc32(location.encode(errors='replace')):08x}"


def _check_identity(name: str, function: Any, expected: str) -> None:
    """:raises CannotSend: if it is not the caller's function."""
    if expected and fingerprint(name, function) != expected:
        raise CannotSend(
            f"{name} is another function in the child than in the program: the name was given to another one, by a "
            f"condition, a decorator or a patch, that only one of the two runs"
        )


def find(name: str, content_type: str = BY_NAME) -> Callable[..., Any]:
    """Look a function up by ``module:qualname`` and remember it.

    :param content_type: with the fingerprint of the caller's function, if it has one.
    :raises CannotSend: if there is no such function, or it is another one than the caller's.
    """
    module_name, _, qualname = name.partition(":")
    if module_name in ("__main__", "__mp_main__"):
        found: Any = _main()
    else:
        found = _with_new_folders(functools.partial(importlib.import_module, module_name))
    for part in qualname.split("."):
        found = getattr(found, part, None)
    if not callable(found):
        raise CannotSend(f"there is no function {qualname!r} in module {module_name!r} of the child")
    expected = content_type.removeprefix(BY_NAME)
    _check_identity(name, found, expected)
    _found[content_type if expected else name] = found
    return found  # type: ignore[no-any-return]  # callable, as just asked


def _with_new_folders(load: Callable[[], Any]) -> Any:
    """Import or unpickle; if a module is not found, try again with the parent's current folders."""
    try:
        return load()
    except ModuleNotFoundError:
        for shared in _shared_folders:
            folders = shared.read()
            if folders is not None:
                sys.path[:] = [*folders, *(entry for entry in sys.path if entry not in folders)]
        # Importlib caches the listing of a folder, so it would not see a file that is new there.
        importlib.invalidate_caches()
    return load()


def follow_folders(shared: SharedFolders) -> None:
    """Use the parent's module folders when a module is not found."""
    _shared_folders[:] = [shared]


def _main() -> Any:
    """Run the parent's script once, under another name, so that its ``if __name__ == "__main__"`` does not start it."""
    known = _known_main()
    if known is not None:
        return known
    path = main_path()
    if path is None:
        raise CannotSend("a function of __main__ was called, and the parent's script is not a file")
    _running_main.append(path)
    try:
        module = types.ModuleType("__mp_main__")
        if path.startswith("-m "):
            defined = runpy.run_module(path.removeprefix("-m "), run_name="__mp_main__", alter_sys=True)
        else:
            defined = runpy.run_path(path, run_name="__mp_main__")
        module.__dict__.update(defined)
    finally:
        _running_main.clear()
    # What the script defines is pickled as __main__'s on the way back.
    sys.modules["__mp_main__"] = sys.modules["__main__"] = module
    return module


def _known_main() -> types.ModuleType | None:
    """Return the parent's script if it has been run here.

    When multiprocessing is imported, it stores the current ``__main__`` there, which is the empty module of
    `hide_own_main`.
    """
    known = sys.modules.get("__mp_main__")
    return None if known in _empty_main else known


_shared_folders: list[SharedFolders] = []
_main_path: list[str] = []
_running_main: list[str] = []
#: kept alive, because its code is still running
_own_main: list[types.ModuleType] = []
_empty_main: list[types.ModuleType] = []


def is_running_main() -> bool:
    """Tell whether the parent's script is being run here, to find a function in it."""
    return bool(_running_main)


def main_path() -> str | None:
    """Return where the parent's script is: a path, or ``-m module``."""
    return _main_path[0] if _main_path else None


def set_main_path(path: str | None) -> None:
    """Set where the parent's script is."""
    _main_path[:] = [path] if path else []


def hide_own_main() -> None:
    """Put an empty module in place of the zygote's main script.

    A class of the parent's script could otherwise be found in the zygote's own script, under the same name.
    """
    _own_main.append(sys.modules["__main__"])
    _empty_main[:] = [types.ModuleType("__main__")]
    sys.modules["__main__"] = _empty_main[0]


def _to_raised_with_pickle(error: BaseException) -> Raised:
    failure = to_raised(error)
    if _is_control_flow(type(error)):
        # It is not pickled; its type, arguments and traceback are sent as text.
        return failure
    try:
        failure.pickled = dumps(error)
    except BaseException:
        # Pickling runs code of the exception's class.
        failure.pickled = b""
    return failure


def _is_control_flow(kind: type[BaseException]) -> bool:
    """Tell whether an exception of this type steers the code around it, and not only reports an error.

    It was meant for the process, coroutine or loop of the child. Raised again in the parent, it would end the program,
    a coroutine or a loop there.
    """
    cancelled = getattr(sys.modules.get("asyncio.exceptions"), "CancelledError", None)
    steering = (SystemExit, KeyboardInterrupt, GeneratorExit, StopIteration, StopAsyncIteration)
    if issubclass(kind, TaskSignal):
        return False
    return issubclass(kind, steering) or (cancelled is not None and issubclass(kind, cancelled))


def _cannot_send_result(name: str, value: object, error: BaseException) -> ChildOutcome:
    kind = type(value).__qualname__
    return _to_raised_with_pickle(
        CannotSend(f"{name} returned a {kind} that cannot be sent back: {describe_exception(error)}")
    )
