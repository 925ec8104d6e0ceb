"""A private Redis server: own port and folder, nothing on disk, nothing left behind."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import Self

from tests.private_server import PrivateServer
from tests.rabbit import MARK, free_ports, wait_for
from tests.redis_install import find_redis

#: seconds
BOOT_LIMIT = 60.0
STOP_LIMIT = 30.0


class Redis(PrivateServer):
    """One server; it is not started yet. Started again, it has its port, and nothing of what it held.

    :param options: more words of its command line.
    """

    def __init__(self, *options: str) -> None:
        self._program = find_redis()
        self._base = Path(tempfile.mkdtemp(prefix="redis-"))
        self.port, self.tls_port = free_ports(2)
        self._options = [*options]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it is, as Celery's setting `result_backend` has it."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def socket(self) -> Path:
        """Its Unix socket."""
        return self._base / "socket"

    @property
    def pid(self) -> int:
        """Its process id.

        :raises RuntimeError: if it does not run.
        """
        if self._process is None:
            raise RuntimeError("the Redis server does not run")
        return self._process.pid

    def start(self) -> Self:
        """Start it, and wait until it answers.

        :raises RuntimeError: if it does not become ready.
        """
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", str(self._base)]
        options += ["--unixsocket", str(self.socket), *self._options]
        with (self._base / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._program, *options], stdout=log, stderr=log, env={"PATH": "/usr/bin:/bin", MARK: ""},
                start_new_session=True,
            )  # fmt: skip
        if not wait_for(lambda: self._answers() or not self.is_running(), BOOT_LIMIT) or not self.is_running():
            raise RuntimeError(f"Redis did not become ready: {(self._base / 'log').read_text()[-1000:]}")
        return self

    def is_running(self) -> bool:
        """Tell whether there is a process."""
        return self._process is not None and self._process.poll() is None

    def stop(self) -> None:
        """Kill it; what it held is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(STOP_LIMIT)
            self._process = None

    def listen_with_tls(self) -> None:
        """Listen on `tls_port` too, when it is started; its options must name the papers."""
        self._options += ["--tls-port", str(self.tls_port)]

    def freeze(self) -> None:
        """Stop it in its place: connections stay, and nothing is answered."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        os.kill(self.pid, signal.SIGCONT)

    def destroy(self) -> None:
        """Kill it, and remove its files."""
        self.stop()
        shutil.rmtree(self._base, ignore_errors=True)

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1.0) as there:
                there.sendall(b"PING\r\n")
                return there.recv(16).startswith((b"+PONG", b"-NOAUTH"))
        except OSError:
            return False
