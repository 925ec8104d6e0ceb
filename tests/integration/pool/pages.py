"""The how-to's examples, so that its code is tested."""

import re
from pathlib import Path

PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "use-a-pool.md"


def example(word: str) -> str:
    """Return the one block of Python on the page that has this word."""
    [found] = [block for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL) if word in block]
    return str(found)
