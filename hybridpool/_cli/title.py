"""The command line that `ps` shows: passwords in it are masked, where that can be done."""

from collections.abc import Sequence

from hybridpool._config.urls import without_logins


def masked_words(words: Sequence[str]) -> list[str]:
    """Return the words of a command line without the passwords of URLs."""
    return [without_logins(word) for word in words]


def hide_passwords(words: Sequence[str]) -> bool:
    """Let `ps` show the command line without passwords; return False if there is one and it cannot be hidden.

    :param words: the command line, the interpreter first.
    """
    masked = masked_words(words)
    if masked == list(words):
        return True
    try:
        from setproctitle import setproctitle
    except ImportError:
        return False
    setproctitle(" ".join(masked))
    return True
