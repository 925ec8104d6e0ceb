"""Start servers under an unprivileged account, because PostgreSQL and pgbouncer refuse to run as root.

Started by root, they run under Debian's account for them, or as "nobody"; else under the account of the tests.
"""

import os
import pwd
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.rabbit import MARK


def own_folder(prefix: str) -> Path:
    """Make a temporary folder that belongs to the servers' account."""
    made = Path(tempfile.mkdtemp(prefix=prefix))
    give_away(made)
    return made


def give_away(path: Path) -> None:
    """Make the servers' account the owner of a file, and its only reader."""
    if path.is_file():
        path.chmod(0o600)
    if owner := account():
        os.chown(path, owner.pw_uid, owner.pw_gid)


def start(words: Sequence[str | Path], folder: Path) -> subprocess.Popen[bytes]:
    """Start a program in a folder, with its output in the file ``log`` there."""
    owner = account()
    # without the mark of orphans, and without the variables that point the user's clients to the user's server
    env = {key: value for key, value in os.environ.items() if not key.startswith(("PG", MARK))}
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(
            words,
            env=env | {"LC_ALL": "C"},
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            # a ^C or a killpg aimed at the tests spares it
            start_new_session=True,
            user=owner and owner.pw_uid,
            group=owner and owner.pw_gid,
            extra_groups=[] if owner else None,
        )


def log_tail(folder: Path) -> str:
    """Return the end of the log."""
    return (folder / "log").read_text(errors="replace")[-1000:].strip()


def account() -> pwd.struct_passwd | None:
    """Return the account that servers run under; None: that of the tests."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        return pwd.getpwnam("nobody")
