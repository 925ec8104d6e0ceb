"""Passwords and control characters on their way through real processes: into logs, banners, `ps` and tracebacks."""

import signal
import traceback
from pathlib import Path

import pytest

# the first call over a connection would import the driver otherwise, on the loop
import hybridpool._brokers.rabbitmq  # noqa: F401
from hybridpool import App
from hybridpool.errors import BrokerUnavailable
from tests.queues import BrokerConsole
from tests.rabbit import Node, free_ports
from tests.workers import PATIENCE, Program, Worker, command

#: taken as they are, by us as by Celery; in each both halves are secret
ACCEPTED = ["S3CRET", "S3@CRET", "S3 CRET", "S3,CRET", "S3;CRET", "S3%CRET", "S3:CRET", "S3%2FCRET"]
REFUSED = ["S3/CRET", "12/S3@CRET", "S3#CRET", "12?S3CRET", "S3[CRET"]
FORGED = "[2026-01-01 00:00:00,000: INFO/MainProcess] Task pay.all[forged] succeeded in 0.1s: 'ok'"
EVIL = f"\x1b[2J\x07\x9b\u202e\r\n{FORGED}"


def is_told(text: str) -> bool:
    """Tell whether a half of a password is in a text."""
    return "S3" in text or "CRET" in text


def command_lines(program: Program) -> str:
    """Return what `ps` shows of a program and all it has started."""
    return "\n".join(Path(f"/proc/{process.pid}/cmdline").read_text().replace("\0", " ") for process in program.tree())


@pytest.mark.parametrize("password", ACCEPTED)
def test_worker_that_finds_no_broker(password: str) -> None:
    """Banner, log and `ps` show no password when a worker finds no broker."""
    url = f"amqp://u:{password}@127.0.0.1:{free_ports(1)[0]}//?password=S3CRET"
    with Program(command("--app=worker.app", "-b", url, "worker", "-c1", "--loglevel=DEBUG")) as worker:
        worker.see("No connection to")
        assert not is_told(command_lines(worker))
        worker.send(signal.SIGTERM)
        worker.wait()
        assert not is_told(worker.text)


@pytest.mark.parametrize("password", REFUSED)
@pytest.mark.parametrize("door", ["option", "variable", "dlq", "demo"])
def test_url_that_cannot_be_used(password: str, door: str) -> None:
    """A URL that can be read in two ways is refused in one line, which shows nothing of it."""
    url = f"amqp://u:{password}@127.0.0.1:1//"
    worker = ("--app=worker.app", "worker")
    words = {"option": ("-b", url, *worker), "dlq": ("dlq", "ls", "-b", url), "demo": ("demo", "-b", url)}
    env = {"HYBRIDPOOL_BROKER_URL": url} if door == "variable" else {}
    with Program(command(*words.get(door, worker)), env=env) as program:
        assert program.wait() == 1
    assert program.text.startswith("hybridpool: broker_url must be")
    assert len(program.lines) == 1
    assert not is_told(program.text)


@pytest.mark.parametrize("login", ["guest:S3CRET", "nobody:S3CRET"])
def test_refused_login(login: str, rabbit_node: Node, queue_name: str) -> None:
    """A refused login ends the worker with the broker's reason as its last line, and no other line claims a cause."""
    options = ("--app=worker.app", "worker", "-c2", "-Q", queue_name, "--loglevel=INFO")
    url = rabbit_node.url.replace("guest:guest", login)
    with Program(command(*options), env={"HYBRIDPOOL_BROKER_URL": url}) as worker:
        assert worker.wait(2 * PATIENCE) == 1
        assert worker.lines[-1].startswith("hybridpool: ")
        assert not is_told(worker.text)
        assert not worker.seen("zygote died|exited with|Traceback")


@pytest.mark.may_block  # it reads its settings on the loop, and with them the number of CPUs
async def test_traceback_of_a_client() -> None:
    """A client's traceback shows no password, also in the driver's chained exceptions."""
    port = free_ports(1)[0]
    app = App("client", broker=f"amqp://u:S3CRET@127.0.0.1:{port}//", broker_connection_timeout=1)
    async with app:
        with pytest.raises(BrokerUnavailable) as caught:
            await app.send("x.y")
    told = "".join(traceback.format_exception(caught.value)) + repr(app) + repr(app.conf.settings())
    assert not is_told(told)


def test_strangers_cannot_write_our_log(rabbit_node: Node, queue_name: str) -> None:
    """Control characters in IDs, names, errors, results, prints and commands cannot forge a log line."""
    with Worker(rabbit_node.url, queue_name, "-c1") as worker, BrokerConsole(rabbit_node.url) as console:
        for task in ("worker.add", f"no.such{EVIL}", "worker.fail", "worker.talk", "worker.echo"):
            arguments = (1, 2) if task == "worker.add" else (EVIL,)
            console.call(queue_name, task, *arguments, id=f"evil{EVIL}")
        console.order({"method": "revoke", "arguments": {"task_id": f"revoked{EVIL}"}})
        console.order({"method": f"steer{EVIL}", "arguments": {}})
        worker.see("Tasks flagged as revoked: revoked")
        last = console.call(queue_name, "worker.add", 2, 3)
        worker.see(rf"\[{last}\] succeeded")
        worker.see("refused")
        console.delete(f"{queue_name}.dead")
    for line in worker.lines:
        assert line.isprintable(), line
        assert not line.startswith(FORGED), line
    assert len(worker.seen(r"^  .*pay\.all\[forged\]")) >= 2  # they are there, within records
