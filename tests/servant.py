"""Start servers as somebody who may be one: PostgreSQL and pgbouncer refuse to be root.

If we are root, they run as Debian's account for them, or as nobody; else as we do.
"""

import os
import pwd
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.rabbit import MARK


def own_folder(prefix: str) -> Path:
    """Make a temporary folder that belongs to whom the servers run as."""
    made = Path(tempfile.mkdtemp(prefix=prefix))
    give_away(made)
    return made


def give_away(path: Path) -> None:
    """Let a file belong to whom the servers run as, and nobody else read it."""
    if path.is_file():
        path.chmod(0o600)
    if servant := account():
        os.chown(path, servant.pw_uid, servant.pw_gid)


def start(words: Sequence[str | Path], folder: Path) -> subprocess.Popen[bytes]:
    """Start a program in a folder, with its output in the file ``log`` there."""
    servant = account()
    # without the mark of orphans, and without whatever points the user's own clients to the user's own server
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
            user=servant and servant.pw_uid,
            group=servant and servant.pw_gid,
            extra_groups=[] if servant else None,
        )


def drain_outcomes(folder: Path) -> str:
    """Return the end of the log."""
    return (folder / "log").read_text(errors="replace")[-1000:].strip()


def account() -> pwd.struct_passwd | None:
    """Return the account that servers run as; None: our own."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        return pwd.getpwnam("nobody")
