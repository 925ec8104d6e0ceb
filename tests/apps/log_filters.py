"""A filter that a configuration of logging names; it knows nothing of the app."""

import logging


class NoSecrets(logging.Filter):
    """Drops what must not be logged."""

    def __init__(self, word: str) -> None:
        super().__init__()
        self._word = word

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether to log it."""
        return self._word not in record.getMessage()
