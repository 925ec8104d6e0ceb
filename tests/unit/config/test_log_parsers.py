"""The settings of the log."""

import json
from pathlib import Path

import pytest

from hybridpool._config import init_layer, logging_config, resolve
from hybridpool.errors import ConfigError


@pytest.mark.parametrize("layout", ["no message", "%(message)q", "%(message)s %(levelno)", "%(name)d %(message)s", ""])
def test_format_that_cannot_be_used(layout: str) -> None:
    """A format without a message, or one that `logging` cannot apply, is refused."""
    with pytest.raises(ConfigError, match=r"worker_log_format must be a format with %\(message\)s"):
        init_layer({"worker_log_format": layout})


def test_dict_must_be_plain() -> None:
    """A configuration with objects in it is refused, with a hint at how to name them."""
    with pytest.raises(ConfigError, match="plain data: name a class or a stream by its path"):
        init_layer({"worker_logging": {"handlers": {"a": {"class": Path}}}})


def test_dict_is_copied() -> None:
    """A dict is taken as it is at that moment."""
    given = {"loggers": {"shop": {"level": "DEBUG"}}}
    layer = init_layer({"worker_logging": given})
    given["loggers"].clear()
    assert logging_config(resolve([layer])) == {"loggers": {"shop": {"level": "DEBUG"}}}


def test_files(tmp_path: Path) -> None:
    """TOML is read from a name that ends so, JSON from any other."""
    toml, other = tmp_path / "a.toml", tmp_path / "b.conf"
    toml.write_text('[root]\nlevel = "DEBUG"\n')
    other.write_text(json.dumps({"root": {"level": "DEBUG"}}))
    for path in (toml, other):
        assert logging_config(resolve([init_layer({"worker_logging": str(path)})])) == {"root": {"level": "DEBUG"}}
    assert logging_config(resolve([])) is None


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("a.toml", b"root", "is not TOML: "),
        ("a.json", b"root", "is not JSON"),
        ("a.json", b'"text"', "must hold an object"),
        ("a.json", b"\xff", "cannot be read: it is not UTF-8"),
    ],
)
def test_file_that_cannot_be_used(name: str, text: bytes, told: str, tmp_path: Path) -> None:
    """The error names the setting, its file, its source and the reason."""
    (tmp_path / name).write_bytes(text)
    resolved = resolve([init_layer({"worker_logging": str(tmp_path / name)})])
    with pytest.raises(ConfigError, match=r"worker_logging '.*' \(from App\(worker_logging=…\)\) .*") as wrong:
        logging_config(resolved)
    assert told in str(wrong.value)
