"""Decides whether two functions of one name are one function that was defined again, or two functions.

A module that is reloaded, or a cell of a notebook that is run again, defines its functions anew, and the new function
takes the place of the old one. Two functions that one run of a module's body declares under one name are two tasks, and
one of them would never be called.

To tell these apart takes more than the functions: a decorator without `functools.wraps`, a factory and a lambda in a
loop give all their functions the same name, file, line and code object. What differs is what the functions captured,
and which run of the module's body declared them.
"""

import functools
import inspect
import sys
import weakref
from collections.abc import Callable, Iterator
from types import CodeType, FrameType, FunctionType, MethodType
from typing import Any, Final

import attrs

#: decorators around one function that are searched
_MAX_NESTED_DECORATORS: Final = 8


@attrs.frozen(kw_only=True)
class Origin:
    """Where a function was declared, and by which run of which module's body."""

    #: file and line of the declaration
    location: str
    #: the code of the module's body, script or cell that was being run; None: none was
    body: "weakref.ref[CodeType] | None"
    #: the body itself declares it, and no function or class in it
    is_direct: bool
    #: the module's spec: each reload makes another one; None: the module has none, as a script or a notebook
    spec: object


def origin_of(function: Callable[..., Any], frame: FrameType | None) -> Origin:
    """Find out where a function is being declared.

    :param frame: of the code that declares it.
    """
    location = f"{frame.f_code.co_filename}:{frame.f_lineno}" if frame is not None else "somewhere"
    module = sys.modules.get(getattr(function, "__module__", None) or "")
    body = _body(function, frame)
    return Origin(
        location=location,
        body=None if body is None else weakref.ref(body),
        is_direct=frame is not None and frame.f_code is body,
        spec=getattr(module, "__spec__", None),
    )


def is_same(old: Callable[..., Any], before: Origin, new: Callable[..., Any], now: Origin) -> bool:
    """Tell whether two functions of one name are the same function, perhaps defined again.

    :param before: where the old one was declared.
    :param now: where the new one is being declared.
    """
    is_loop = before.is_direct and now.is_direct and not getattr(new, "__closure__", True)
    if (is_loop or getattr(new, "__name__", "") == "<lambda>") and _is_one_run(before, now):
        # A loop over a `def` or a lambda: what differs stands in a variable that they share, and changes later.
        return old is new
    return is_alike(old, new) or _is_renewed(old, before, new, now)


def is_alike(one: object, other: object) -> bool:
    """Tell whether two objects do the same: equal code in one module, equal defaults, and the same things captured."""
    return _are_alike(one, other, set())


def _is_renewed(old: Callable[..., Any], before: Origin, new: Callable[..., Any], now: Origin) -> bool:
    if _is_one_run(before, now):
        return False
    is_one_space = getattr(old, "__globals__", None) is getattr(new, "__globals__", "other")
    source = _source(new)
    if source is not None and source == _source(old) and (is_one_space or not source[0].startswith("<")):
        return True
    if getattr(old, "__module__", None) != getattr(new, "__module__", None):
        return False
    if before.spec is not now.spec:
        return True
    # Two cells of one notebook, two inputs at one prompt.
    has_bodies = before.body is not None and now.body is not None
    return has_bodies and is_one_space and getattr(old, "__qualname__", "") == getattr(new, "__qualname__", "")


def _is_one_run(before: Origin, now: Origin) -> bool:
    if before.body is not None and now.body is not None:
        return before.body() is now.body()
    # Declared by a function that was called later: all until the next reload counts as one run.
    return now.spec is not None and before.spec is now.spec


def _source(function: Callable[..., Any]) -> tuple[str, int, str] | None:
    code = getattr(inspect.unwrap(function), "__code__", None)
    return (code.co_filename, code.co_firstlineno, code.co_qualname) if isinstance(code, CodeType) else None


def _are_alike(one: object, other: object, seen: set[tuple[int, int]]) -> bool:
    if one is other or (id(one), id(other)) in seen:
        return True
    if type(one) is not type(other):
        return False
    seen.add((id(one), id(other)))
    if isinstance(one, FunctionType) and isinstance(other, FunctionType):
        return (
            one.__module__ == other.__module__
            and one.__code__ == other.__code__
            and one.__code__.co_filename == other.__code__.co_filename
            and _are_alike(one.__defaults__, other.__defaults__, seen)
            and _are_alike(one.__kwdefaults__, other.__kwdefaults__, seen)
            and _are_alike(_captured(one), _captured(other), seen)
        )
    if isinstance(one, MethodType) and isinstance(other, MethodType):
        return _are_alike(one.__func__, other.__func__, seen) and _are_alike(one.__self__, other.__self__, seen)
    if isinstance(one, functools.partial) and isinstance(other, functools.partial):
        return all(
            _are_alike(a, b, seen)
            for a, b in ((one.func, other.func), (one.args, other.args), (one.keywords, other.keywords))
        )
    if isinstance(one, tuple | list) and isinstance(other, tuple | list):
        return len(one) == len(other) and all(_are_alike(a, b, seen) for a, b in zip(one, other, strict=True))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_are_alike(one[key], other[key], seen) for key in one)
    try:
        return bool(one == other)
    except Exception:  # noqa: BLE001  # whatever comparing user values raises
        return False


def _captured(function: FunctionType) -> list[object]:
    """Return the values of a closure; a cell that is still empty counts as a value too."""
    values: list[object] = []
    for cell in function.__closure__ or ():
        try:
            values.append(cell.cell_contents)
        except ValueError:
            values.append(cell)
    return values


def _body(function: Callable[..., Any], frame: FrameType | None) -> CodeType | None:
    """Return the code of the module's body that is running: the outermost one, as a body may run others by `exec`."""
    namespaces = [id(namespace) for namespace in _module_namespaces(function, 0)]
    found = None
    while frame is not None:
        code = frame.f_code
        if (
            not code.co_flags & inspect.CO_NEWLOCALS
            and id(frame.f_globals) in namespaces
            and frame.f_locals is frame.f_globals
        ):
            found = code
        frame = frame.f_back
    return found


def _module_namespaces(value: object, depth: int) -> Iterator[dict[str, Any]]:
    """Yield the namespaces of the modules that define a callable and what it wraps."""
    if isinstance(value, FunctionType):
        yield value.__globals__
        inner = [*_captured(value), getattr(value, "__wrapped__", None)]
    elif isinstance(value, MethodType):
        inner = [value.__func__]
    elif isinstance(value, functools.partial):
        inner = [value.func]
    else:
        module = sys.modules.get(getattr(value, "__module__", None) or getattr(type(value), "__module__", None) or "")
        if callable(value) and module is not None:
            yield vars(module)
        inner = []
    for one in inner if depth < _MAX_NESTED_DECORATORS else ():
        if callable(one):
            yield from _module_namespaces(one, depth + 1)
