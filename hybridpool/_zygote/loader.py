"""Finds the app by the name given on the command line, and describes why it cannot be found or imported.

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

    :raises AppLoadError: if a module or the attribute does not exist, is not an app, or fails while it is imported.
    """
    module_name, _, attribute = name.partition(":")
    if attribute:
        found = _app_from_attribute(_import(module_name), attribute, name)
    else:
        found = _app_from_dotted_name(name)
    try:
        further = found.further_imports()
    except HybridpoolError:
        raise
    except (Exception, SystemExit) as error:
        raise load_error(name, error) from None
    load_modules((*imports, *further))
    return found


def load_modules(names: Sequence[str]) -> None:
    """Import modules.

    :raises AppLoadError: if one does not exist, or fails while it is imported.
    """
    for name in names:
        _import(name)


def _app_from_dotted_name(name: str) -> Program:
    if name.rpartition(".")[0]:
        try:
            module = _import(name)
        except _NoSuchModule as missing:
            parent, _, attribute = name.rpartition(".")
            if missing.wanted != name:
                raise
            return _app_from_attribute(_import(parent), attribute, name)
    else:
        module = _import(name)
    return _app_from_module(module, name)


class _NoSuchModule(AppLoadError):
    def __init__(self, wanted: str) -> None:
        last = wanted.rpartition(".")[2]
        near = difflib.get_close_matches(last, _sibling_modules(wanted), 1)
        hint = f"; did you mean {wanted[: len(wanted) - len(last)] + near[0]!r}?" if near else ""
        super().__init__(f"there is no module {wanted!r} here or on PYTHONPATH{hint}")
        self.wanted = wanted


def _sibling_modules(wanted: str) -> list[str]:
    """Return the names of modules beside the one that was wanted."""
    parent = sys.modules.get(wanted.rpartition(".")[0])
    path = getattr(parent, "__path__", None) if parent is not None else [""]
    return [module.name for module in pkgutil.iter_modules(path)] if path is not None else []


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(error.name + ".")):
            raise _NoSuchModule(error.name) from None
        raise load_error(name, error) from None
    except (Exception, SystemExit) as error:
        raise load_error(name, error) from None


def load_error(name: str, error: BaseException) -> AppLoadError:
    """Describe an exception of user code in one line, with the user's part of its traceback as details."""
    if isinstance(error, HybridpoolError):
        # Its message is one clear line. A traceback would show source code, which may contain a password.
        return AppLoadError(f"{name!r} failed{_location(error)}: {_one_line(error)}", "")
    return AppLoadError(f"{name!r} failed: {_one_line(error)}", _user_traceback(error))


def _location(error: BaseException) -> str:
    """Name the last line of the user's code that an error came through."""
    library = os.path.dirname(os.path.dirname(__file__)) + os.sep
    locations = [
        (frame.f_code.co_filename, line)
        for frame, line in traceback.walk_tb(error.__traceback__)
        if not frame.f_code.co_filename.startswith((library, "<frozen", importlib.__file__))
    ]
    return f" in {locations[-1][0]}, line {locations[-1][1]}" if locations else ""


def _one_line(error: BaseException) -> str:
    try:
        name, text = type(error).__qualname__, str(error).strip()
    except Exception:
        return f"{type(error).__qualname__}, whose text cannot be shown"
    return f"{name}: {text.splitlines()[0]}" if text else name


def _user_traceback(error: BaseException) -> str:
    """Format the traceback from the first frame outside of this module and the import machinery."""
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


def _app_from_attribute(module: ModuleType, attribute: str, name: str) -> Program:
    found = getattr(module, attribute, None)
    if found is None:
        near = difflib.get_close_matches(attribute, vars(module), 1)
        hint = f"; did you mean {module.__name__}:{near[0]}?" if near else ""
        raise AppLoadError(f"module {module.__name__!r} has no attribute {attribute!r}{hint}")
    if isinstance(found, ModuleType):
        return _app_from_module(found, name)
    if not _is_app(found):
        kind = type(found).__qualname__
        raise AppLoadError(f"{module.__name__}:{attribute} is not a hybridpool App or a Celery app, but of type {kind}")
    return _program_of(found)


def _app_from_module(module: ModuleType, name: str) -> Program:
    """Return the app of a module, or of its submodule `celery`, which is where Celery's users have it."""
    found = _app_in(module)
    if found is None and hasattr(module, "__path__") and _has_submodule(module, "celery"):
        found = _app_in(_import(f"{module.__name__}.celery"))
    if found is None:
        raise AppLoadError(
            f"module {module.__name__!r} has no hybridpool App or Celery app; define app = App({name!r}) or name it"
        )
    return found


def _has_submodule(package: ModuleType, name: str) -> bool:
    return any(module.name == name for module in pkgutil.iter_modules(package.__path__))


def _app_in(module: ModuleType) -> Program | None:
    apps = {key: value for key, value in vars(module).items() if _is_app(value)}
    for usual in ("app", "celery"):
        if usual in apps:
            return _program_of(apps[usual])
    different = list({id(value): value for value in apps.values()}.values())
    if len(different) == 1 or (different and all(map(_is_celery, different))):
        # Of several of its apps, Celery takes the first.
        return _program_of(different[0])
    if different:
        choices = ", ".join(f"{module.__name__}:{key}" for key in sorted(apps))
        raise AppLoadError(f"module {module.__name__!r} has several apps; say which: {choices}")
    return None


def _program_of(app: object) -> Program:
    """Return what the zygote and the children need of an app, ours or Celery's."""
    if _is_celery(app):
        # Imported here: only a zygote with such an app needs it.
        return cast("Program", importlib.import_module("hybridpool._celery.program").CeleryProgram(app))
    return cast("HasProgram", app).__hybridpool_program__()


def _is_celery(value: object) -> bool:
    """Tell whether a value is an app of Celery's; by its real type, since a proxy passes for what it stands for."""
    library = sys.modules.get("celery.app.base")
    return library is not None and issubclass(type(value), library.Celery)


def _is_app(value: object) -> bool:
    if _is_celery(value):
        return True
    try:
        return (
            not isinstance(value, type)
            and callable(getattr(value, "__hybridpool_program__", None))
            and hasattr(value, "tasks")
        )
    except Exception:
        # A lazy object of another library, whose attributes cannot be read here.
        return False
