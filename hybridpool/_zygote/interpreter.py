"""Starts another process of this interpreter, with the same options, library and folders of modules.

`multiprocessing` does the same for its processes. Options that concern a prompt or the main script are left out.
"""

import marshal
import os
import sys
from typing import Final

import msgspec

from hybridpool._ipc.descriptors import move_number_above_standard
from hybridpool._zygote import bootstrap
from hybridpool.errors import PoolError

#: what `ps` shows of a zygote: operators and their scripts find it by this name, which its module had once
PROCESS_LABEL: Final = "hybridpool.child.zygote"
#: option letter by the name in `sys.flags`; a flag of 2 is the letter twice
_LETTERS: Final = {
    "debug": "d",
    "optimize": "O",
    "dont_write_bytecode": "B",
    "no_site": "S",
    "verbose": "v",
    "bytes_warning": "b",
}
#: the same, for those that `-I` includes
_ISOLATION: Final = {"ignore_environment": "E", "no_user_site": "s", "safe_path": "P"}


def zygote_command(control: int, start: int, folders: int) -> list[str]:
    """Return the command line of a zygote.

    :param control: descriptor of its end of the socket.
    :param start: descriptor of the `start_file`.
    :param folders: descriptor of `SharedFolders`.
    :raises PoolError: if this process does not know its interpreter.
    """
    if getattr(sys, "frozen", False):
        # Its executable is the program itself: the child would start the program, and that another pool, without end.
        raise PoolError(
            "this program is frozen (PyInstaller and the like): children need a Python interpreter to run in"
        )
    if not sys.executable:
        raise PoolError("this program does not know its Python interpreter: set sys.executable to its path")
    arguments = [PROCESS_LABEL, str(control), str(start), str(folders), str(os.getpid())]
    file = bootstrap.__file__
    if os.path.isfile(file):  # a name as Python gives it, of any bytes
        return [sys.executable, *interpreter_options(), file, *arguments]
    # the library is in a zip file
    assert bootstrap.__spec__ is not None
    source = getattr(bootstrap.__spec__.loader, "get_source")(bootstrap.__name__)  # noqa: B009  # of an importer
    return [sys.executable, *interpreter_options(), "-c", source, *arguments]


def interpreter_options() -> list[str]:
    """Return the options with which this interpreter runs, as far as code can notice them."""
    letters = {**_LETTERS, **({} if sys.flags.isolated else _ISOLATION)}
    options = ["-I"] if sys.flags.isolated else []
    for name, letter in letters.items():
        count = int(getattr(sys.flags, name))
        if count > 0:
            options.append("-" + letter * count)
    if getattr(sys.__stdout__, "write_through", False):
        options.append("-u")
    for category in _warning_options():
        options += ["-W", category]
    for name, value in sys._xoptions.items():  # pyright: ignore[reportPrivateUsage]  # documented, for CPython
        options += ["-X", name if value is True else f"{name}={value}"]
    return options


def _warning_options() -> list[str]:
    """Return what `-W` said; `sys.warnoptions` also holds what the environment and other options bring."""
    options = list(sys.warnoptions)
    implied = ["default"] if sys.flags.dev_mode else []
    if not sys.flags.ignore_environment:
        implied += filter(None, os.environ.get("PYTHONWARNINGS", "").split(","))
    implied += ["error::BytesWarning" if sys.flags.bytes_warning > 1 else "default::BytesWarning"]
    for option in implied:
        if option in options:
            options.remove(option)
    return options


def module_folders() -> list[str]:
    """Return `sys.path` without the entries that importing ignores."""
    # Programs put objects of any type there.
    # A subclass of str (some path libraries have one) cannot be marshalled.
    return [str.__str__(folder) for folder in list[object](sys.path) if isinstance(folder, str)]


def start_file(app: str, imports: tuple[str, ...]) -> int:
    """Write what the bootstrap of a zygote reads; return its descriptor, which the caller must close.

    It holds the folders of the library and its dependencies, `sys.path`, the app, the script and `sys.argv`. Names
    of folders may hold bytes that are not UTF-8, which a frame cannot: so it is marshalled.

    :raises OSError: if there is no descriptor or no memory.
    """
    child = os.path.dirname(os.path.abspath(bootstrap.__file__))  # names of any bytes
    above = os.path.dirname(os.path.dirname(child))
    beside = os.path.dirname(os.path.abspath(msgspec.__path__[0]))
    library = list(dict.fromkeys((above, beside)))
    file = move_number_above_standard(os.memfd_create("hybridpool-start", os.MFD_CLOEXEC))
    try:
        with open(file, "wb", closefd=False) as writer:  # a descriptor
            arguments = [str.__str__(word) for word in list[object](sys.argv) if isinstance(word, str)]
            marshal.dump((library, module_folders(), app, imports, main_script(), arguments), writer)
        os.lseek(file, 0, os.SEEK_SET)
    except BaseException:
        os.close(file)
        raise
    return file


def main_script() -> str | None:
    """Return where a child finds what ``__main__`` defines: a script, or ``-m module``; None if it is not a file."""
    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    # A folder or zip file that is run has a spec of the name __main__, under which it cannot be imported again.
    if spec is not None and spec.name != "__main__":
        return f"-m {spec.name}"
    path = getattr(main, "__file__", None)
    return os.path.abspath(path) if path else None  # as multiprocessing names it
