"""An app whose import fails in its second frame."""


def look_up(name: str) -> str:
    """Fail."""
    known: dict[str, str] = {}
    return known[name]


app = look_up("database")
