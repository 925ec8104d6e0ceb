"""The first code of a zygote: finds the library where the parent found it, then the parent's modules.

It runs as a file, with the parent's interpreter options, and imports only what is built in until `sys.path` is right.
The standard library comes first while the library is imported: a file `random.py` in a folder where the program's own
modules are is for the program, not for us. The arguments of the command line are in `_zygote/interpreter.py`.
"""

import sys


def _find_library(folders: list[str]) -> None:
    """Have the standard library found first, then what is in these folders, then the rest."""
    import os

    standard = [
        entry
        for entry in sys.path
        if entry == os.path.dirname(os.__file__)
        or os.path.basename(entry) in ("lib-dynload", f"python{sys.version_info.major}{sys.version_info.minor}.zip")
    ]
    sys.path[:] = [*standard, *folders, *(entry for entry in sys.path if entry not in standard)]


def main() -> None:
    """Read what `_zygote/interpreter.py` has written, and become the zygote."""
    import marshal

    if not sys.flags.safe_path:
        # the folder of this file, which Python has put first
        del sys.path[0]
    with open(int(sys.argv[3]), "rb") as file:
        library, path, app, imports, script, arguments = marshal.load(file)
    _find_library(library)
    from hybridpool._zygote import server

    control, folders, parent = int(sys.argv[2]), int(sys.argv[4]), int(sys.argv[5])
    # Settings and scripts look there for how their program was called.
    sys.path[:], sys.argv[:] = path, arguments
    server.main(control, folders, parent, app, imports, script)


if __name__ == "__main__":
    main()
