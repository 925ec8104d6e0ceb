"""The command line. Only this package reads the command line and the environment.

Importing it is quick: what a command needs to run is imported when it runs.
"""

from hybridpool._cli.main import main

__all__ = ["main"]
