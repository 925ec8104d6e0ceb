"""Names of queues, modules and nodes: checked, and a node's name expanded. Pure."""

import re

from hybridpool._config.units import BadValue
from hybridpool._config.urls import without_logins

_ESCAPE = re.compile(r"%(.?)", re.DOTALL)


def text(value: object) -> str:
    """Check a printable, non-empty text, and strip it.

    :raises BadValue: if it is not text, empty, holds control characters or looks like a URL with a login.
    """
    found = value.strip() if isinstance(value, str) else ""
    if not found or not found.isprintable() or _may_be_login(found):
        raise BadValue("a text without control characters")
    return found


def queue_name(value: object) -> str:
    """Check a queue's name.

    AMQP allows 255 bytes; five stay free for the name of its dead-letter queue, which ends in ".dead".

    :raises BadValue: if it is empty, too long, unprintable, begins with "amq.", which only the broker may do, or is a
        URL with a login: names appear in logs and messages.
    """
    name = value.strip() if isinstance(value, str) else ""
    is_fit = name.isprintable() and 0 < len(name.encode(errors="replace")) <= 250 and not name.startswith("amq.")
    if not is_fit or _may_be_login(name):
        raise BadValue('a queue\'s name of 1 to 250 bytes that does not begin with "amq."')
    return name


def module_name(value: object) -> str:
    """Check the dotted name of a Python module.

    :raises BadValue: if it cannot be one (a path, for instance).
    """
    name = value.strip() if isinstance(value, str) else ""
    if not all(part.isidentifier() for part in name.split(".")):
        raise BadValue("module names such as proj.tasks,proj.reports")
    return name


def node_pattern(value: object) -> str:
    """Check a pattern for `node_name`.

    :raises BadValue: if it is empty, has a space, an escape other than %h, %n, %d and %%, or is a URL with a login.
    """
    pattern = value.strip() if isinstance(value, str) else ""
    known = all(escape in {"h", "n", "d", "%"} for escape in _ESCAPE.findall(pattern))
    if not pattern or not pattern.isprintable() or " " in pattern or not known or _may_be_login(pattern):
        raise BadValue("a node's name such as celery@%h (%h: host, %n: its first part, %d: its domain, %%: %)")
    return pattern


def node_name(pattern: str, host: str) -> str:
    """Expand a node's name: `celery@%h` on `db1.example.org` is `celery@db1.example.org`.

    As in Celery, a name without an at-sign is a host's name: `w1` is `celery@w1`.

    :param host: this machine's full host name.
    """
    name, _, domain = host.partition(".")
    values = {"h": host, "n": name, "d": domain, "%": "%"}
    expanded = _ESCAPE.sub(lambda match: values.get(match[1], match[0]), pattern)
    return expanded if "@" in expanded else f"celery@{expanded}"


def file_name(pattern: str, node: str, host: str) -> str:
    """Expand a file's name as Celery does for a worker: %n is the node's name before its at-sign.

    `/var/log/%n%I.log` of `w1@db1` is `/var/log/w1.log`: %i and %I stand for a child's number there, and all children
    write to one file here. Other escapes stay.

    :param host: this machine's full host name.
    """
    name, domain = node.partition("@")[0], host.partition(".")[2]
    values = {"h": host, "n": name, "d": domain, "p": node, "i": "0", "I": "", "%": "%"}
    return _ESCAPE.sub(lambda match: values.get(match[1], match[0]), pattern)


def _may_be_login(name: str) -> bool:
    return "://" in name and without_logins(name) != name
