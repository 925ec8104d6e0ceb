"""A private RabbitMQ node: own name, ports, data, cookie and epmd; no systemd, no Docker, nothing left behind.

It may be stopped, killed, frozen and started again on the same data and ports. The system's node is never touched.
Everything lies in one temporary folder, which `destroy` removes.
"""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple, Self

import psutil

from tests.private_server import PrivateServer
from tests.rabbit_install import find_server

#: below the ephemeral range, or an outgoing connection could take a port between our look and the node's bind
PORTS = range(20000, 30000)
#: set in the environment of all that tests start, so that orphans are known (see conftest); nodes go without it
MARK = "HPTEST_RUN"
#: seconds
BOOT_LIMIT = 120.0
STOP_LIMIT = 60.0
LOOK_AGAIN = 0.02
#: local only; and members of a cluster (of RabbitMQ 4.3) do not wait long for one that is gone with messages in hand
ERL_ARGS = "-kernel inet_dist_use_interface {127,0,0,1} -rabbit consumer_disconnected_timeout 1000"
#: bytes
MEMORY = 2 * 1024**3


class Papers(NamedTuple):
    """What a node needs for TLS: files in PEM format."""

    ca: Path
    certificate: Path
    key: Path


class Node(PrivateServer):
    """One node; it is not started yet.

    :param name: short name of the Erlang node.
    :param memory: the high watermark of memory, in bytes; a tiny one raises the alarm at once.
    :param tls: listen with TLS too, and take only clients with a certificate of the same CA.
    :param kin: share cookie and epmd with this node, as members of one cluster must.
    """

    def __init__(
        self, name: str = "hybridpool", *, memory: int = MEMORY, tls: Papers | None = None, kin: "Node | None" = None
    ) -> None:
        self._bin = find_server()
        self._base = Path(tempfile.mkdtemp(prefix="rabbit-"))
        self.port, self.tls_port, self._dist_port, epmd_port, self._ctl_port = free_ports(5)
        self._cookie: str = secrets.token_hex(12) if kin is None else kin._cookie
        self._epmd_port: int = epmd_port if kin is None else kin._epmd_port
        self.name = f"{name}@localhost"
        self._process: subprocess.Popen[bytes] | None = None
        self._write_files(memory)
        self._has_tls = tls is not None
        if tls is not None:
            self._add_tls(tls)

    @property
    def url(self) -> str:
        """The AMQP address of the default vhost."""
        return f"amqp://guest:guest@127.0.0.1:{self.port}//"

    @property
    def pid(self) -> int:
        """The Erlang VM's process id.

        :raises RuntimeError: if the node does not run.
        """
        if self._process is None or not self.is_running():
            raise RuntimeError(f"{self.name} does not run")
        return self._process.pid

    def configure(self, *lines: str) -> None:
        """Add lines to rabbitmq.conf, for the next start."""
        with (self._base / "rabbitmq.conf").open("a") as conf:
            conf.write("\n".join(lines) + "\n")

    def is_running(self) -> bool:
        """Tell whether there is a VM, frozen or not."""
        return self._process is not None and self._process.poll() is None

    def is_frozen(self) -> bool:
        """Tell whether the VM is stopped by `freeze`."""
        return self.is_running() and psutil.Process(self.pid).status() == psutil.STATUS_STOPPED

    def start(self) -> Self:
        """Boot the node and wait until it speaks AMQP; takes three to six seconds.

        :raises RuntimeError: if it runs already, dies, or is not ready in time; says where its log is.
        """
        if self.is_running():
            raise RuntimeError(f"{self.name} runs already")
        with (self._base / "log" / "console.log").open("ab") as log:
            # a session of its own: a ^C or a killpg aimed at the tests spares it
            self._process = subprocess.Popen(
                [self._bin / "rabbitmq-server"],
                env=self._env(),
                cwd=self._base,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        ready = wait_for(lambda: self._is_ready() or not self.is_running(), BOOT_LIMIT)
        if not (ready and self.is_running()):
            raise RuntimeError(f"{self.name} did not become ready; its log is in {self._base / 'log'}")
        return self

    def _is_ready(self) -> bool:
        return speaks_amqp(self.port) and (not self._has_tls or is_open(self.tls_port))

    def stop(self) -> None:
        """End the node in good order; its data stay. SIGTERM does what `rabbitmqctl stop` takes two seconds for."""
        if self._process is not None and self.is_running():
            self._process.terminate()
            try:
                self._process.wait(STOP_LIMIT)
            except subprocess.TimeoutExpired:
                self.kill()

    def kill(self) -> None:
        """SIGKILL, frozen or not; what was on disk stays."""
        if self._process is not None and self.is_running():
            self._process.kill()
            self._process.wait(STOP_LIMIT)

    def restart(self, *, hard: bool = False) -> None:
        """Stop (or kill) and start again, same data and ports."""
        if hard:
            self.kill()
        else:
            self.stop()
        self.start()

    def freeze(self) -> None:
        """Stop the VM in its tracks: connections stay open, nothing answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen VM go on."""
        os.kill(self.pid, signal.SIGCONT)

    def ctl(self, *words: str) -> str:
        """Run `rabbitmqctl` against this node and return what it printed; takes one to two seconds.

        :raises RuntimeError: if the command fails; carries its message.
        """
        done = subprocess.run(
            [self._bin / "rabbitmqctl", "-q", "-n", self.name, *words],
            env=self._env(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"rabbitmqctl {' '.join(words)}: {(done.stderr or done.stdout).strip()}")
        return done.stdout

    def raise_alarm(self) -> None:
        """Make the node believe that it is short of memory: it blocks publishers."""
        self.ctl("set_vm_memory_high_watermark", "0.0001")

    def clear_alarm(self) -> None:
        """Give it memory again."""
        self.ctl("set_vm_memory_high_watermark", "absolute", str(MEMORY))

    def destroy(self) -> None:
        """Kill the node and its epmd, remove its files."""
        self.kill()
        self._kill_epmd()
        shutil.rmtree(self._base, ignore_errors=True)

    def _kill_epmd(self) -> None:
        # epmd is a daemon that outlives the VM, and refuses to go until it has noticed that the VM is gone
        words = ["epmd", "-port", str(self._epmd_port), "-kill"]

        def gone() -> bool:
            done = subprocess.run(words, env=self._env(), capture_output=True, text=True, check=False)
            return any(sign in done.stdout + done.stderr for sign in ("Killed", "Cannot connect"))

        wait_for(gone, 5.0)

    def _write_files(self, memory: int) -> None:
        for folder in ("home", "mnesia", "log"):
            (self._base / folder).mkdir()
        cookie = self._base / "home" / ".erlang.cookie"
        cookie.touch(0o600)
        cookie.write_text(self._cookie)
        # Erlang refuses a cookie that others can read
        cookie.chmod(0o400)
        (self._base / "enabled_plugins").write_text("[].\n")
        # the default limits are relative to the machine, and could block publishers on a small one
        self.configure(
            f"listeners.tcp.1 = 127.0.0.1:{self.port}",
            "disk_free_limit.absolute = 50MB",
            f"vm_memory_high_watermark.absolute = {memory}",
            "log.console = false",
            "log.file.level = info",
        )

    def _add_tls(self, papers: Papers) -> None:
        self.configure(
            f"listeners.ssl.1 = 127.0.0.1:{self.tls_port}",
            f"ssl_options.cacertfile = {papers.ca}",
            f"ssl_options.certfile = {papers.certificate}",
            f"ssl_options.keyfile = {papers.key}",
            "ssl_options.verify = verify_peer",
            "ssl_options.fail_if_no_peer_cert = true",
        )

    def _env(self) -> dict[str, str]:
        strangers = ("RABBITMQ_", "ERL_", MARK)
        base = self._base
        return {key: value for key, value in os.environ.items() if not key.startswith(strangers)} | {
            "HOME": str(base / "home"),
            "PATH": f"{self._bin}:{os.environ['PATH']}",  # a server that brings its own Erlang has it there
            "LANG": "C.UTF-8",
            "LC_ALL": "C.UTF-8",
            # makes the script exec the VM: the process we start is the node
            "detached": "1",
            # point at nothing, or what lies in /etc leaks in
            "RABBITMQ_CONF_ENV_FILE": str(base / "absent-env.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(base / "absent.config"),
            "RABBITMQ_CONFIG_FILE": str(base / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(base / "enabled_plugins"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(base / "config"),
            "RABBITMQ_LOG_BASE": str(base / "log"),
            "RABBITMQ_MNESIA_BASE": str(base / "mnesia"),
            "RABBITMQ_PID_FILE": str(base / "node.pid"),
            "RABBITMQ_NODENAME": self.name,
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self._dist_port),
            "RABBITMQ_CTL_DIST_PORT_MIN": str(self._ctl_port),
            "RABBITMQ_CTL_DIST_PORT_MAX": str(self._ctl_port + 10),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": ERL_ARGS,
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
        }


def free_ports(count: int) -> list[int]:
    """Return free ports of 127.0.0.1; all differ."""
    ports: list[int] = []
    with ExitStack() as held:
        while len(ports) < count:
            port = secrets.choice(PORTS)
            probe = held.enter_context(socket.socket())
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            ports.append(port)
    return ports


def speaks_amqp(port: int) -> bool:
    """Tell whether a broker answers the AMQP header with a method frame; an open port alone says too little."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as child:
            child.sendall(b"AMQP\x00\x00\x09\x01")
            return child.recv(1) == b"\x01"
    except OSError:
        return False


def is_open(port: int) -> bool:
    """Tell whether a server listens."""
    with socket.socket() as child:
        return child.connect_ex(("127.0.0.1", port)) == 0


def wait_for(true: Callable[[], bool], limit: float) -> bool:
    """Look until it is true, at most ``limit`` seconds. For things of other processes which announce nothing."""
    end = time.monotonic() + limit
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(LOOK_AGAIN)
    return True
