"""The command line: help, and what happens when it is mistyped."""

from pathlib import Path

import pytest

from hybridpool._cli import main
from hybridpool._cli.options import layer_of
from hybridpool._cli.worker import worker
from hybridpool._config import KINDS, SETTINGS

MISTYPED = [
    ("workr", "no such command workr; did you mean worker?"),
    ("beat", "no such command beat: run Celery's, as before: celery -A APP beat"),
    (
        "multi start 3",
        "no such command multi: start each worker with --detach, --pidfile and --logfile, or let systemd start it",
    ),
    ("zebra", "no such command zebra; see hybridpool --help"),
    ("worker --concurency=2", "no such option --concurency; did you mean --concurrency?"),
    ("worker --max-memory=200MB", "no such option --max-memory; did you mean --max-memory-per-child?"),
    ("worker --no-ack-late", "no such option --no-ack-late; did you mean --no-acks-late?"),
    ("worker -y", "no such option -y; see hybridpool worker --help"),
    ("--ap=proj worker", "no such option --ap; did you mean --app?"),
    ("--concurrency=2 worker", "--concurrency is an option of the command worker; write it after worker"),
    ("-A proj", "Missing command."),
    ("worker", "no app is named; give --app=module or --app=module:name, or set HYBRIDPOOL_APP"),
    (
        "worker -A proj -- worker.pool_limit=3",
        "worker.pool_limit is not a setting that the command line takes; set it in the app's configuration",
    ),
    ("worker -A proj -c", "Option '-c' requires an argument."),
    ("--workdir=/no/such/folder worker", "Directory '/no/such/folder' does not exist."),
]
POOLS = "prefork, threads, asyncio or solo"
REFUSED = [
    ("-c 0", "worker_concurrency must be a whole number of at least 1, not 0 (from --concurrency)"),
    (
        "--autoscale=0",
        "worker_autoscale must be two whole numbers such as 1,3 (the larger is the maximum, at least 1)",
    ),
    ("-P prefrok", f"worker_pool must be {POOLS} (also written processes), not prefrok (from --pool); did you mean"),
    ("--pool=gevent", f"worker_pool must be {POOLS} (gevent patches the whole interpreter: write async def, or use"),
    ("--max-memory-per-child=12_bananas", "worker_max_memory_per_child must be an amount of memory such as 200MB"),
    ("-b amqp:/me:secret@h", "broker_url must be an AMQP URL"),
]


@pytest.mark.parametrize(("line", "told"), MISTYPED)
def test_mistyped(line: str, told: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A mistyped command line ends in one line with a suggestion."""
    monkeypatch.delenv("HYBRIDPOOL_APP", raising=False)
    assert main(line.split()) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("hybridpool: ")
    assert shown.err.endswith(f"{told}\n")
    assert shown.err.count("\n") == 1


@pytest.mark.parametrize(("words", "told"), REFUSED)
def test_wrong_value(words: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong value ends in one line that shows no password."""
    assert main(["worker", "-A", "proj", *words.split()]) == 1
    shown = capsys.readouterr()
    assert shown.err.startswith(f"hybridpool: {told}")
    assert shown.err.count("\n") == 1
    assert "secret" not in shown.err


def test_app_from_the_environment(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """`HYBRIDPOOL_APP` names the app."""
    monkeypatch.setenv("HYBRIDPOOL_APP", "proj")
    assert main(["worker", "-c", "0"]) == 1
    assert "worker_concurrency" in capsys.readouterr().err


def test_workdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--workdir` changes the current folder before the app is looked for."""
    monkeypatch.chdir("/")
    assert main(["--workdir", str(tmp_path), "worker", "-A", "proj", "-c", "0"]) == 1
    assert Path.cwd() == tmp_path.resolve()


def test_broker_may_stand_before_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    """`-b` is accepted before and after the command, and the one after it wins."""
    assert main(["-b", "http://before", "worker", "-A", "proj"]) == 1
    assert "http://before (from --broker)" in capsys.readouterr().err
    assert main(["-b", "http://before", "worker", "-A", "proj", "-b", "http://after"]) == 1
    assert "http://after (from --broker)" in capsys.readouterr().err


def test_only_given_options_count() -> None:
    """Only the options that were given become settings."""
    params = worker.make_context("worker", ["-A", "proj", "-c", "2", "--no-acks-late"]).params
    assert dict(layer_of(params).values) == {"worker_concurrency": 2, "task_acks_late": False}


def test_help_of_the_group(capsys: pytest.CaptureFixture[str]) -> None:
    """The help of the group names its commands."""
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert "worker   Run tasks from RabbitMQ in forked children." in shown
    assert "--workdir" in shown


def test_nothing_shows_help(capsys: pytest.CaptureFixture[str]) -> None:
    """`hybridpool` alone shows its usage, and ends with code 2."""
    assert main([]) == 2
    assert "Usage: hybridpool" in capsys.readouterr().err


def test_help_of_the_worker(capsys: pytest.CaptureFixture[str]) -> None:
    """The help of the worker has every option, with its section and default."""
    assert main(["worker", "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    places = [shown.index(f"{kind}: -") for kind in ("Options", *KINDS)]
    assert places == sorted(places)
    for setting in SETTINGS.values():
        assert f"{', '.join(setting.options)} " in shown
        assert setting.help in shown
        assert f"[default: {setting.default_text}]" in shown or not setting.metavar
    assert "guest:guest" not in shown


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """`--version` prints the version."""
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("hybridpool ")
