"""See the package."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import attrs

from tests.interop.celery_suite import selection
from tests.interop.celery_suite.source import get_libraries, get_suite
from tests.rabbit import Node
from tests.redis_server import Redis
from tests.workers import ROOT

APP: Final = "tests.interop.celery_suite.suite_app"
#: with Celery's prefetch: RabbitMQ drops an expired message that waits in a queue, and no worker records it. One test
#: relies on the worker having it by then, and with long tasks before it our own default takes it later
OURS: Final = (
    *(sys.executable, "-m", "hybridpool", "-A", APP, "worker", "-l", "INFO", "-n", "{node}"),
    *("--prefetch-multiplier", "4"),
)
CELERY: Final = (
    *(sys.executable, "-m", "celery", "-A", APP, "worker", "-c", "1", "-l", "INFO", "-n", "{node}"),
    *("--without-gossip", "--without-mingle", "--without-heartbeat"),
)
#: the workers of each kind of run
WORKERS: Final = {
    "ours": ((*OURS, "-c", "1"),),
    "celery": (CELERY,),
    "recycle": ((*OURS, "-c", "3", "--max-tasks-per-child", "3"),),
    "mixed": ((*OURS, "-c", "1"), CELERY),
}
#: how many tests a run of all has to pass, by the result backend. With Redis Celery itself passes 367 of 377, of which
#: 8 are skipped; two of its own leave no room for subscriptions of other tests
BARS: Final = {"redis": 360, "rpc": 92}
#: seconds; a run takes about a quarter of an hour
RUN_LIMIT: Final = 3600.0


@attrs.frozen
class Run:
    """The outcomes of one run: of each test the last one, as a test that failed is run once more."""

    kind: str
    backend: str
    outcomes: dict[str, str]
    reasons: dict[str, str]
    #: passed when they were run again
    flaky: tuple[str, ...]
    seconds: float

    def with_outcome(self, outcome: str) -> set[str]:
        """Return the tests that ended so."""
        return {test for test, ended in self.outcomes.items() if ended == outcome}

    @property
    def passed(self) -> int:
        """How many passed."""
        return len(self.with_outcome("passed"))

    def describe(self) -> str:
        """Return a line with the counts, and one for each failure."""
        failed = sorted(self.with_outcome("failed"))
        counts = f"{self.passed} passed, {len(failed)} failed, {len(self.with_outcome('skipped'))} skipped"
        lines = [f"{self.kind}, {self.backend}: {counts}, in {self.seconds:.0f} s"]
        lines += [f"  again     {test}" for test in self.flaky]
        lines += [f"  FAILED    {test}\n            {self.reasons[test]}" for test in failed]
        return "\n".join(lines)


def main(words: Sequence[str]) -> str | int | None:
    """Run what the words say; returns what is wrong, or an exit code."""
    if words[:1] == ["smoke"]:
        command = [sys.executable, "-m", "pytest", str(Path(__file__).parent / "smoke.py"), *words[1:]]
        return subprocess.run(command, cwd=ROOT, check=False).returncode
    kinds = [word for word in words if word in WORKERS]
    backends = [word for word in words if word in BARS] or list(BARS)
    rest = [word for word in words if word not in WORKERS and word not in BARS]
    if not kinds:
        kinds = ["ours", "celery"]
    folder = get_suite()
    wrong: list[str] = []
    for backend in backends:
        runs = [_run(folder, kind, backend, rest) for kind in kinds]
        for run in runs:
            print(run.describe(), flush=True)
        wrong += _judge(runs, backend, is_whole=not rest)
    return "\n".join(wrong) or None


def _judge(runs: Sequence[Run], backend: str, *, is_whole: bool) -> list[str]:
    """Compare each run with the bar, and with Celery's if there is one."""
    wrong = []
    theirs = next((run for run in runs if run.kind == "celery"), None)
    for run in runs:
        if run is theirs:
            continue
        if theirs is not None and run.passed < theirs.passed:
            only = sorted(theirs.with_outcome("passed") - run.with_outcome("passed"))
            wrong.append(f"{run.kind}, {backend}: {run.passed} passed, and {theirs.passed} with Celery: {only}")
        if is_whole and run.passed < BARS[backend]:
            wrong.append(f"{run.kind}, {backend}: {run.passed} passed, fewer than {BARS[backend]}")
    return wrong


def _run(folder: Path, kind: str, backend: str, rest: Sequence[str]) -> Run:
    """Run the tests once, and those that fail once more."""
    report = folder / f"report-{kind}-{backend}{'-part' if rest else ''}"
    for old in (report, *folder.glob(f"{report.name}.*")):
        old.unlink(missing_ok=True)
    began = time.monotonic()
    with Node() as node, Redis() as redis:
        env = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("HYBRIDPOOL_", "CELERY_"))},
            "TEST_BROKER": node.url,
            "TEST_BACKEND": redis.url if backend == "redis" else "rpc://",
            "REDIS_HOST": "127.0.0.1",
            "REDIS_PORT": str(redis.port),
            "PYTHONPATH": f"{folder}:{ROOT}:{get_libraries()}",
            # Some tests call programs by their names.
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "SUITE_WORKERS": json.dumps(WORKERS[kind]),
            "SUITE_REPORT": str(report),
        }
        paths = () if any("t/integration" in word for word in rest) else ("t/integration",)
        _pytest(folder, env, (*rest, *paths))
        outcomes, reasons = _read(report)
        failed = sorted(test for test, outcome in outcomes.items() if outcome == "failed")
        if failed:
            _pytest(folder, env, failed)
            outcomes, reasons = _read(report)
    flaky = tuple(test for test in failed if outcomes[test] == "passed")
    return Run(kind, backend, outcomes, reasons, flaky, time.monotonic() - began)


def _pytest(folder: Path, env: dict[str, str], words: Sequence[str]) -> None:
    skipped = [word for name in selection.IGNORED for word in ("--ignore", f"t/integration/{name}")]
    skipped += [word for test in selection.DESELECTED for word in ("--deselect", f"t/integration/{test}")]
    plugins = ("-p", "celery.contrib.pytest", "-p", "tests.interop.celery_suite.plugin", "-p", "no:cacheprovider")
    options = ("-c", str(Path(__file__).parent / "suite.ini"), "--rootdir", str(folder), "-q", "-rfE")
    with Path(f"{env['SUITE_REPORT']}.txt").open("ab") as output:
        subprocess.run(
            [sys.executable, "-m", "pytest", *plugins, *options, *skipped, *words],
            cwd=folder,
            env=env,
            stdout=output,
            stderr=output,
            timeout=RUN_LIMIT,
            check=False,
        )


def _read(report: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Return the last outcome of each test, and the last line of its failure."""
    outcomes: dict[str, str] = {}
    reasons: dict[str, str] = {}
    for line in report.read_text().splitlines() if report.exists() else ():
        told = json.loads(line)
        outcomes[told["test"]] = told["outcome"]
        reasons[told["test"]] = told.get("why", "")
    return outcomes, reasons


if __name__ == "__main__":
    # A run that is ended early leaves nothing behind either.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main(sys.argv[1:]))
