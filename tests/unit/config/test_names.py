"""Names and URLs: which ones are accepted, and how they are shown."""

from collections.abc import Callable

import click
import pytest
from celery.app.backends import BACKEND_ALIASES
from celery.app.defaults import NAMESPACES, flatten
from celery.bin.celery import celery as celery_cli
from celery.bin.worker import worker as celery_worker
from hypothesis import given
from hypothesis import strategies as st

from hybridpool._celery import manifest, setting_states
from hybridpool._cli.main import cli
from hybridpool._client.call_options import CALL_OPTIONS
from hybridpool._client.task_arguments import TaskOptionsDict
from hybridpool._config import SETTINGS, celery_names, find_similar, masked, names, node_name
from hybridpool._config.names import module_name, node_pattern, queue_name
from hybridpool._config.units import BadValue
from hybridpool._config.urls import broker, without_logins


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("celery@%h", "celery@db1.example.org"),
        ("%n@%d", "db1@example.org"),
        ("w1@100%%", "w1@100%"),
        ("w1", "celery@w1"),
        ("w1@%%h", "w1@%h"),
    ],
)
def test_node_name(pattern: str, name: str) -> None:
    """A node name's escapes are expanded as Celery expands them."""
    assert node_name(node_pattern(pattern), "db1.example.org") == name


@pytest.mark.parametrize("pattern", ["", "w1@%x", "w1@%", "two words", "a\nb"])
def test_node_pattern_refused(pattern: str) -> None:
    """A wrong pattern for a node name is refused."""
    with pytest.raises(BadValue):
        node_pattern(pattern)


@pytest.mark.parametrize("name", ["", "amq.direct", "x" * 251, "ü" * 126, "a\x00b", None])
def test_queue_name_refused(name: object) -> None:
    """A queue name that the broker would refuse is refused."""
    with pytest.raises(BadValue):
        queue_name(name)


@pytest.mark.parametrize("name", ["proj.tasks.py/x", "proj..tasks", ".proj", "proj-x", ""])
def test_module_name_refused(name: str) -> None:
    """A text that is not a module name is refused."""
    with pytest.raises(BadValue):
        module_name(name)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("amqp://guest:guest@localhost:5672//", "amqp://guest:**@localhost:5672//"),
        ("amqp://guest@localhost//", "amqp://guest@localhost//"),
        ("amqp://localhost:5672", "amqp://localhost:5672"),
        ("amqp://[::1]:5672//", "amqp://[::1]:5672//"),
        ("amqp://u:p@q@h/v", "amqp://u:**@h/v"),
        ("amqp://u:p;q r,s%t@h", "amqp://u:**@h"),
        ("amqp://u:p/q@r@h/v", "amqp://(hidden)"),
        ("amqp://u:12/secret@h/v", "amqp://(hidden)"),
        ("amqp://u:p@h//?password=secret", "amqp://u:**@h//?**"),
        ("amqp://u:p@h//#secret", "amqp://(hidden)"),
        ("amqp://u%3Asecret@h", "amqp://**@h"),
        ("amqp://u:p@h1//;ampq://u:q@h2//", "amqp://(hidden)"),
        ("amqp://u:p@h1//,amqp://u:q@h2//", "amqp://(hidden)"),
        ("AMQP://u:p@h", "AMQP://u:**@h"),
        ("amqp://u:p@h1;amqp://u:q@h2", "amqp://u:**@h1;amqp://u:**@h2"),
        ("redis://:p@h/0", "redis://:**@h/0"),
        ("amqp://u:p", "amqp://(hidden)"),
        ("not a url", "(hidden)"),
    ],
)
def test_masked(url: str, shown: str) -> None:
    """A URL's password is masked, and the rest is shown."""
    assert masked(url) == shown


@given(
    st.text("abc", min_size=1),
    st.text(st.characters(exclude_categories=["C"]), min_size=1).map(lambda text: f"SECRET{text}SECRET"),
    st.text("abc.", min_size=1),
)
def test_masked_hides_any_password(user: str, password: str, host: str) -> None:
    """Any password is masked whole, whatever characters it has."""
    assert "SECRET" not in masked(f"amqp://{user}:{password}@{host}:5672//")
    assert "SECRET" not in masked(password)
    assert "SECRET" not in without_logins(f"Got unexpected extra argument (amqp://{user}:{password}@{host}:5672//)")
    assert "SECRET" not in without_logins(f"--broker={user}:{password}@{host}")


@pytest.mark.parametrize(
    "text", ["--app=proj.app", "celery@%h", "-n", "amqp://h:5672//", "Invalid value for '--tasks': 'a@b' is no number"]
)
def test_what_holds_no_login_is_shown_as_it_is(text: str) -> None:
    """A text without a login is shown unchanged."""
    assert without_logins(text) == text


@pytest.mark.parametrize("check", [names.text, names.queue_name, names.node_pattern])
def test_a_url_with_a_login_is_no_name(check: Callable[[object], str]) -> None:
    """A URL with a login is refused as a name of a queue, node or file."""
    with pytest.raises(BadValue):
        check("amqp://me:secret@h")


def test_several_brokers() -> None:
    """Several brokers can be given as a list or as one text with semicolons."""
    assert broker(["pyamqp://h1//", "amqps://h2//"]) == "amqp://h1//;amqps://h2//"
    assert broker(" amqp://h1// ; pyamqp://h2//; ") == "amqp://h1//;amqp://h2//"


@pytest.mark.parametrize(
    "url", [[], ["amqp://h", 1], "amqp://h;memory://", "amqp:/h", "http://h", "amqp://h:port/", "", None, b"amqp://h"]
)
def test_broker_refused(url: object) -> None:
    """A text that is not a broker's URL is refused."""
    with pytest.raises(BadValue):
        broker(url)


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("workr", "worker"),
        ("owrker", "worker"),
        ("max_memory", "worker_max_memory_per_child"),
        ("time_limit", "task_time_limit"),
        ("worker_concurency", "worker_concurrency"),
        ("concurrenc", "worker_concurrency"),
        ("task_hard_time_limit", None),
        ("task_track_started", None),
        ("worker_timeout", None),
        ("limit", None),
        ("zebra", None),
        ("y", None),
        ("", None),
    ],
)
def test_nearest(name: str, near: str | None) -> None:
    """The suggestion for a mistyped name has nearly its letters or its words, and none is made otherwise."""
    assert find_similar(name, ["worker", "call", *SETTINGS]) == near


@given(st.sampled_from(sorted(SETTINGS)), st.data())
def test_one_slip_is_forgiven(name: str, data: st.DataObject) -> None:
    """A setting with one letter left out is found."""
    at = data.draw(st.integers(0, len(name) - 1))
    if name[at] != "_":
        assert find_similar(name[:at] + name[at + 1 :], SETTINGS) == name


def test_what_celery_has() -> None:
    """The table of Celery's names has all names of Celery that are missing here, and no other."""
    theirs = {name for name, _ in flatten(NAMESPACES)}
    assert theirs - SETTINGS.keys() == celery_names.SETTINGS
    assert not celery_names.TASK_OPTIONS & {*TaskOptionsDict.__annotations__}
    assert not celery_names.CALL_OPTIONS & {*CALL_OPTIONS}
    assert BACKEND_ALIASES.keys() == celery_names.BACKENDS
    assert not celery_names.COMMANDS & cli.commands.keys()


def test_states_of_celerys_settings() -> None:
    """Each setting of Celery's has one state, and the tables name no other."""
    theirs = {name for name, _ in flatten(NAMESPACES)}
    tables = (setting_states.NOT_HONOURED, setting_states.DIFFERS, setting_states.SAME)
    names = [name for table in tables for name in table]
    assert set(names) <= theirs
    assert len(names) == len(set(names))
    assert [name for name in theirs if setting_states.state_of(name)[1].endswith(".")] == []
    # What is handed on to the worker under its name is obeyed.
    assert not set(manifest.SAME) & {*setting_states.NOT_HONOURED}


def options_of(command: click.Command) -> set[str]:
    """Return the options of a command."""
    return {word for param in command.params if isinstance(param, click.Option) for word in param.opts}


def test_options_of_celerys_worker() -> None:
    """The command line takes every option of Celery's worker, and every one that stands before its command."""
    assert options_of(celery_worker) - options_of(cli.commands["worker"]) == set()
    assert options_of(celery_cli) - options_of(cli) == set()
    assert options_of(celery_worker) >= celery_names.SHARED_OPTIONS


def test_file_name() -> None:
    """A file's name is expanded as Celery expands it for its main process."""
    assert names.file_name("/log/%n%I.%i.log", "w1@a.org", "db1.example.org") == "/log/w1.0.log"
    assert names.file_name("%h.%d.%p.%%.%x", "w1@a.org", "db1.example.org") == (
        "db1.example.org.example.org.w1@a.org.%.%x"
    )
