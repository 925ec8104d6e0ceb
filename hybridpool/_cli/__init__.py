"""The command line: the only package that reads argv and the environment.

Its import is quick: what a command needs to run is imported when it runs.
"""

from hybridpool._cli.main import main

__all__ = ["main"]
