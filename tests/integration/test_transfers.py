"""The example of tasks that wait, as its README says."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "transfers"
#: seconds
LIMIT = 120.0
SHORT = ("--count=20", "--seconds=0.5", "--every=0.1")


@contextmanager
def started(*words: str, env: dict[str, str]) -> Iterator["subprocess.Popen[str]"]:
    """Run a program of the example, and stop it in the end."""
    with subprocess.Popen(
        [sys.executable, *words], cwd=EXAMPLE, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            yield process
        finally:
            process.terminate()


def until(pattern: str, process: "subprocess.Popen[str]") -> str:
    """Read what a program prints, up to a line that has this in it; returns all of that."""
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if re.search(pattern, line):
            return said
    raise AssertionError(f"no {pattern!r} in\n{said}")


def test_what_the_readme_says(broker_url: str, queue_name: str) -> None:
    """The transfers run as the README shows: in three processes, all in one child, over shared connections."""
    readme = (EXAMPLE / "README.md").read_text()
    env = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "HYBRIDPOOL_BROKER_URL": broker_url,
        "HYBRIDPOOL_TASK_DEFAULT_QUEUE": queue_name,
    }
    with started("storage.py", "--port=0", env=env) as storage:
        env["TRANSFERS_STORAGE"] = until("^http", storage).strip()
        with started("-m", "hybridpool", "--app=worker.app", "worker", env=env) as worker:
            banner = until("ready", worker)
            words = [sys.executable, "send.py", *SHORT]
            sent = subprocess.run(
                words, cwd=EXAMPLE, env=env, capture_output=True, text=True, timeout=LIMIT, check=False
            )
            processes = [psutil.Process(worker.pid), *psutil.Process(worker.pid).children(recursive=True)]
            worker.terminate()
            log = worker.communicate(timeout=LIMIT)[0]
    assert sent.returncode == 0, sent.stdout + sent.stderr + log
    assert worker.returncode == 0, log
    assert len(processes) == 3
    assert " ".join(SHORT) in readme
    assert sent.stdout.splitlines()[:2] == block(readme, "sent         20")[:2]
    assert without_figures(sent.stdout.splitlines()) == without_figures(block(readme, "sent         20"))
    assert without_figures(sent.stdout.splitlines()) == without_figures(block(readme, "sent         60"))
    connections, requests = map(int, re.findall(r"over (\d+) connections for (\d+) requests", sent.stdout)[0])
    assert connections < requests == 42
    shown = next(line.strip() for line in readme.splitlines() if "concurrency:" in line)
    assert shown in banner
    names = re.findall(
        r"INFO/([\w-]+)\] Task worker\.transfer\[\S+\] succeeded in [\d.]+s: \([\d.]+, 262144\)$", log, re.MULTILINE
    )
    assert names == ["AsyncLane-1"] * 21, log


def block(readme: str, begin: str) -> list[str]:
    """Return the lines of output in the README that begin so."""
    text = readme[readme.index(f"    {begin}") :]
    return [line.strip() for line in text[: text.index("\n\n")].splitlines()]


def without_figures(lines: list[str]) -> list[str]:
    """Return the lines without numbers, which differ from run to run."""
    return [re.sub(r"\d+(\.\d+)?", "…", line) for line in lines]
