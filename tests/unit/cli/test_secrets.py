"""Passwords that come in by the wrong door: a URL where something else belongs is never shown with its password."""

import pytest

from hybridpool._cli import main
from hybridpool._cli.title import masked_words
from hybridpool._config import environment_layer
from hybridpool.errors import ConfigError

#: in each of them both halves are secret
PASSWORDS = [
    "S3CRET",
    "S3/CRET",
    "12/S3CRET",
    "S3@CRET",
    "12/S3@CRET",
    "S3 CRET",
    "S3,CRET",
    "S3;CRET",
    "S3#CRET",
    "12#S3CRET",
    "S3?CRET",
    "S3%CRET",
    "S3:CRET",
    "S3[CRET",
    "S3\nCRET",
    "S3'CRET\"",
    "S3=CRET",
]
URLS = [
    *(f"amqp://u:{password}@127.0.0.1:1//" for password in PASSWORDS),
    "amqp://u:S3CRET",
    "amqp://:S3CRET@h",
    "amqp://u%3AS3CRET@h",
    "amqp://u:p@h//?password=S3CRET",
    "amqp://u:p@h//#S3CRET",
    "amqp://u:p@h1//;amqp://u:S3CRET@h2//",
    "amqp://u:p@h1//;ampq://u:S3CRET@h2//",
    "amqp://u:p@h1//,amqp://u:S3CRET@h2//",
    "AMQP://u:S3CRET@h",
    "redis://:S3CRET@h/no-number",
    "u:S3CRET@h",
    "amqp:/u:S3CRET@h",
]
#: command lines that are refused, whatever URL is put in
DOORS = [
    ["{}"],
    ["{}", "worker"],
    ["worker", "{}", "-A", "x"],
    ["worker", "-A", "x", "--brokr={}"],
    ["worker", "-A", "x", "--acks-late={}"],
    ["worker", "-A", "x", "-y{}"],
    ["worker", "-A", "x", "-c", "{}"],
    ["worker", "-A", "x", "--pool={}"],
    ["worker", "-A", "x", "--loglevel={}"],
    ["worker", "-A", "x", "--result-backend={}"],
    ["worker", "-A", "x", "--result-backend=http://h?password=S3CRET"],
    ["worker", "-A", "x", "-I", "{}"],
    ["worker", "-A", "x", "--max-memory-per-child", "{}"],
    ["--workdir={}", "worker", "-A", "x"],
    ["demo", "--tasks={}"],
    ["demo", "{}"],
    ["demo", "-b", "http{}"],
    ["dlq", "{}"],
    ["dlq", "replay", "--all", "{}"],
    ["dlq", "ls", "-b", "http{}"],
    ["dlq", "ls", "{}"],
]


def is_told(text: str) -> bool:
    """Tell whether a half of a password is in a text."""
    return "S3" in text or "CRET" in text


@pytest.mark.parametrize("door", DOORS, ids=" ".join)
def test_refused_command_lines(
    door: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message about a wrong command line is one line, and shows no password of it."""
    monkeypatch.delenv("HYBRIDPOOL_APP", raising=False)
    for url in URLS:
        if url.startswith("redis") and any("result-backend" in word for word in door):
            # Celery has it: the app decides.
            continue
        assert main([word.format(url) for word in door]) != 0
        shown = capsys.readouterr()
        assert not is_told(shown.out + shown.err), url
        assert shown.err.count("\n") == 1


@pytest.mark.parametrize("url", URLS)
@pytest.mark.parametrize(
    "variable",
    ["BROKER_URl", "BROKER", "WORKER_CONCURRENCY", "RESULT_BACKEND", "WORKER_QUEUES", "WORKER_LOGLEVEL", "IMPORTS"],
)
def test_refused_variables(variable: str, url: str) -> None:
    """The message about a wrong variable shows no password of it."""
    if variable == "WORKER_QUEUES" and "://" not in url:
        return  # without a scheme it looks like any other name
    with pytest.raises(ConfigError) as caught:
        environment_layer({f"HYBRIDPOOL_{variable}": url})
    assert not is_told(str(caught.value))


@pytest.mark.parametrize("url", URLS)
def test_command_line_as_ps_shows_it(url: str) -> None:
    """A command line is masked for `ps`, in whatever form the URL is given."""
    for words in (["-b", url], [f"-b{url}"], [f"--broker={url}"], [url]):
        assert not is_told(" ".join(masked_words(["python", "-m", "hybridpool", *words, "worker"])))


def test_control_characters_of_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    """The message about a command line shows no control characters of it."""
    for line in (["wor\x1b[2Jker"], ["worker", "--\x9b2J=1"], ["worker", "-A", "x", "-c", "\x1b]0;t\x07\n"]):
        assert main(line) != 0
        assert capsys.readouterr().err.rstrip("\n").isprintable()
