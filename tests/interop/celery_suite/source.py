"""Celery's tests, from its source distribution; they are kept in .venv, and not part of this repository."""

import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Final

import celery

from tests.workers import ROOT

FOLDER: Final[Path] = ROOT / ".venv" / "celery-suite"
_LIBRARIES: Final = ("django>=5,<6", "pydantic>=2")


def get_suite() -> Path:
    """Return the folder that holds `t`; download it first if it is not there."""
    version: str = celery.__version__
    found = FOLDER / version
    if (found / "t" / "integration").is_dir():
        return found
    FOLDER.mkdir(parents=True, exist_ok=True)
    # Without dependencies and without building: only the archive is wanted.
    options = ("--quiet", "--no-deps", "--no-binary", ":all:", "--dest", str(FOLDER))
    subprocess.run([sys.executable, "-m", "pip", "download", *options, f"celery=={version}"], check=True)
    (archive,) = FOLDER.glob(f"celery-{version}.tar.gz")
    with tarfile.open(archive) as packed:
        inside = [member for member in packed.getmembers() if member.name.split("/")[1:2] == ["t"]]
        packed.extractall(FOLDER, inside, filter="data")
    (FOLDER / f"celery-{version}").rename(found)
    archive.unlink()
    return found


def get_libraries() -> Path:
    """Return a folder with what some of the tests import, beside what our own tests need."""
    found = FOLDER / "libraries"
    if not found.is_dir():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(found), *_LIBRARIES]
        subprocess.run(command, check=True)
    return found
