"""Fetch RabbitMQ 4 with its own Erlang and its own libraries, beside whatever this machine has; nothing is installed.

Debian's packages are unpacked into a folder, and each program of Erlang's is started by the loader that came with them.
apt checks their signatures, as always. Needs Debian or a relative of it, on x86-64 or arm64; no root.

    python -m tests.rabbit_four FOLDER [SUITE]     prints the value for HPTEST_RABBITMQ
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.rabbit_install import first_real

MIRROR = "http://deb.debian.org/debian"
KEYS = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
#: trixie has 4.0; sid has the newest
SUITE = "trixie"
#: what Erlang's programs are linked with
LIBRARIES = (
    *("libc6", "libcap2", "libgcc-s1", "libsctp1", "libssl3t64"),
    *("libstdc++6", "libsystemd0", "libtinfo6", "libzstd1", "zlib1g"),
)
#: what the server's scripts find by PATH, and so must find first
PROGRAMS = ("erl", "escript", "epmd")


def main(argv: Sequence[str]) -> None:
    """Fetch it unless it is there, and print where its scripts are."""
    root = Path(argv[0]).resolve()
    found = scripts(root)
    if found is None:
        fetch(root, argv[1] if len(argv) > 1 else SUITE)
        found = scripts(root)
    if found is None:
        sys.exit(f"no RabbitMQ server among what was unpacked into {root}")
    sys.stdout.write(f"{found}\n")


def scripts(root: Path) -> Path | None:
    """Return the folder of the server's scripts; None unless all is there."""
    # the last thing that is made
    folders = root.glob("usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin")
    return first_real(folder for folder in folders if all((folder / name).exists() for name in PROGRAMS))


def fetch(root: Path, suite: str) -> None:
    """Download the packages and make them run where they are."""
    apt = Apt(root / "apt", suite)
    apt("update")
    wanted = apt("install", "--no-install-recommends", "--simulate", "rabbitmq-server").splitlines()
    # the rest of what the package needs is for its installation, or is on every machine
    erlang = {line.split()[1] for line in wanted if line.startswith("Inst erlang-")}
    apt("download", "rabbitmq-server", *sorted(erlang), *LIBRARIES)
    for package in sorted(apt.folder.glob("*.deb")):
        subprocess.run(["dpkg-deb", "-x", package, root], check=True)
        package.unlink()
    settle(root)


class Apt:
    """apt-get with a memory of its own, in which nothing is installed."""

    def __init__(self, folder: Path, suite: str) -> None:
        self.folder = folder
        (folder / "lists" / "partial").mkdir(parents=True, exist_ok=True)
        (folder / "status").touch()
        (folder / "sources.list").write_text(f"deb [signed-by={KEYS}] {MIRROR} {suite} main\n")
        options = {
            "Dir::State": folder,
            "Dir::State::status": folder / "status",
            "Dir::Cache": folder / "cache",
            "Dir::Etc::sourcelist": folder / "sources.list",
            "Dir::Etc::sourceparts": "-",
            # it is our own folder, which apt's user may not write to
            "APT::Sandbox::User": "root",
        }
        self._words = ["apt-get", "-qq", *(f"-o{name}={value}" for name, value in options.items())]

    def __call__(self, *words: str) -> str:
        """Run it; returns what it printed."""
        done = subprocess.run([*self._words, *words], cwd=self.folder, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"apt-get {words[0]}: {done.stderr.strip()[-400:]}")
        return done.stdout


def settle(root: Path) -> None:
    """Make Erlang believe in the folder as its home, and start its programs by their own loader."""
    erlang = root / "usr/lib/erlang"
    loader = next(root.glob("usr/lib/*-linux-gnu/ld-linux-*.so.*"))
    for path in sorted(erlang.rglob("*")):
        if path.is_symlink() or not path.is_file() or not os.access(path, os.X_OK):
            continue
        start = path.read_bytes()[:4]
        if start == b"\x7fELF" and path.suffix != ".so":
            real = path.rename(path.with_name(f"{path.name}.real"))
            path.write_text(f'#!/bin/sh\nexec {loader} --argv0 "$0" --library-path {loader.parent} {real} "$@"\n')
            path.chmod(0o755)
        elif start.startswith(b"#!"):
            # "…=/usr/lib/erlang", with and without quotes
            path.write_text(path.read_text().replace("/usr/lib/erlang", str(erlang)))
    [sbin] = root.glob("usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin")
    for name in PROGRAMS:
        (sbin / name).symlink_to(erlang / "bin" / name)


if __name__ == "__main__":
    main(sys.argv[1:])
