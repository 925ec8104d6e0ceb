"""Find the app by the name given on the command line, and put into words what is wrong when it is not there.

The name is ``module:attribute``, ``module.attribute`` or ``module`` alone (then its ``app``, ``celery`` or only app).
"""

import difflib
import importlib
import os
import pkgutil
import sys
import traceback
from collections.abc import Sequence
from types import ModuleType
from typing import cast

from hybridpool._child.program import HasProgram, Program
from hybridpool.errors import AppLoadError, HybridpoolError


def load(name: str, imports: Sequence[str] = ()) -> Program:
    """Import the app and the further modules.

    :raises AppLoadError: if a module or the attribute is not there, is no app, or fails while it is imported.
    """
    module_name, _, attribute = name.partition(":")
    if attribute:
        found = _attribute(_import(module_name), attribute, name)
    else:
        found = _by_dots(name)
    load_modules((*imports, *found.further_imports()))
    return found


def load_modules(names: Sequence[str]) -> None:
    """Import modules.

    :raises AppLoadError: if one is not there, or fails while it is imported.
    """
    for name in names:
        _import(name)


def _by_dots(name: str) -> Program:
    if name.rpartition(".")[0]:
        try:
            module = _import(name)
        except _NoSuchModule as missing:
            parent, _, attribute = name.rpartition(".")
            if missing.wanted != name:
                raise
            return _attribute(_import(parent), attribute, name)
    else:
        module = _import(name)
    return _only_app(module, name)


class _NoSuchModule(AppLoadError):
    def __init__(self, wanted: str) -> None:
        last = wanted.rpartition(".")[2]
        near = difflib.get_close_matches(last, _neighbours(wanted), 1)
        hint = f"; did you mean {wanted[: len(wanted) - len(last)] + near[0]!r}?" if near else ""
        super().__init__(f"there is no module {wanted!r} here or on PYTHONPATH{hint}")
        self.wanted = wanted


def _neighbours(wanted: str) -> list[str]:
    """Names of modules beside the one that was wanted."""
    parent = sys.modules.get(wanted.rpartition(".")[0])
    path = getattr(parent, "__path__", None) if parent is not None else [""]
    return [module.name for module in pkgutil.iter_modules(path)] if path is not None else []


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(error.name + ".")):
            raise _NoSuchModule(error.name) from None
        raise failed(name, error) from None
    except (Exception, SystemExit) as error:
        raise failed(name, error) from None


def failed(name: str, error: BaseException) -> AppLoadError:
    """Put an exception of user code into one line, with the user's part of its traceback as details."""
    if isinstance(error, HybridpoolError):
        # It says in one line what is wrong. A traceback would show the source, where a password may stand.
        return AppLoadError(f"{name!r} failed{_place(error)}: {_short(error)}", "")
    return AppLoadError(f"{name!r} failed: {_short(error)}", _user_traceback(error))


def _place(error: BaseException) -> str:
    """Name the last line of the user's code that an error came through."""
    library = os.path.dirname(os.path.dirname(__file__)) + os.sep
    places = [
        (frame.f_code.co_filename, line)
        for frame, line in traceback.walk_tb(error.__traceback__)
        if not frame.f_code.co_filename.startswith((library, "<frozen", importlib.__file__))
    ]
    return f" in {places[-1][0]}, line {places[-1][1]}" if places else ""


def _short(error: BaseException) -> str:
    try:
        name, text = type(error).__qualname__, str(error).strip()
    except Exception:
        return f"{type(error).__qualname__}, whose text cannot be shown"
    return f"{name}: {text.splitlines()[0]}" if text else name


def _user_traceback(error: BaseException) -> str:
    """Format the traceback from the first frame that is neither ours nor the import machinery's."""
    frames = error.__traceback__
    own = (__file__, importlib.__file__)
    while frames is not None:
        filename = frames.tb_frame.f_code.co_filename
        if filename not in own and not filename.startswith("<frozen importlib"):
            break
        frames = frames.tb_next
    try:
        return "".join(traceback.format_exception(type(error), error, frames)).rstrip("\n")
    except Exception as failure:
        return f"its traceback cannot be formatted: {type(failure).__qualname__}"


def _attribute(module: ModuleType, attribute: str, name: str) -> Program:
    found = getattr(module, attribute, None)
    if found is None:
        near = difflib.get_close_matches(attribute, vars(module), 1)
        hint = f"; did you mean {module.__name__}:{near[0]}?" if near else ""
        raise AppLoadError(f"module {module.__name__!r} has no attribute {attribute!r}{hint}")
    if isinstance(found, ModuleType):
        return _only_app(found, name)
    if not _is_app(found):
        kind = type(found).__qualname__
        raise AppLoadError(f"{module.__name__}:{attribute} is not a hybridpool App, but of type {kind}")
    return cast("HasProgram", found).__hybridpool_program__()


def _only_app(module: ModuleType, name: str) -> Program:
    """Return the app of a module, or of its submodule `celery`, which is where Celery's users have it."""
    found = _app_in(module)
    if found is None and hasattr(module, "__path__") and _has_submodule(module, "celery"):
        found = _app_in(_import(f"{module.__name__}.celery"))
    if found is None:
        raise AppLoadError(f"module {module.__name__!r} has no hybridpool App; define app = App({name!r}) or name it")
    return found


def _has_submodule(package: ModuleType, name: str) -> bool:
    return any(module.name == name for module in pkgutil.iter_modules(package.__path__))


def _app_in(module: ModuleType) -> Program | None:
    apps = {key: value for key, value in vars(module).items() if _is_app(value)}
    for usual in ("app", "celery"):
        if usual in apps:
            return cast("HasProgram", apps[usual]).__hybridpool_program__()
    different = list({id(value): value for value in apps.values()}.values())
    if len(different) == 1:
        return cast("HasProgram", different[0]).__hybridpool_program__()
    if different:
        choices = ", ".join(f"{module.__name__}:{key}" for key in sorted(apps))
        raise AppLoadError(f"module {module.__name__!r} has several apps; say which: {choices}")
    return None


def _is_app(value: object) -> bool:
    try:
        return (
            not isinstance(value, type)
            and callable(getattr(value, "__hybridpool_program__", None))
            and hasattr(value, "tasks")
        )
    except Exception:
        # A lazy object of another library, which does not like to be asked here.
        return False
