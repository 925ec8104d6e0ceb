"""The project's commands.

    python3 noxfile.py demo       from a bare Python: sets up .venv beside this file, then runs
    python3 noxfile.py tests      likewise, the whole test suite
    nox -s lint types             the same sessions from an environment of your own

Upper half: set up, standard library only, in a syntax that an old Python can still read, so that it can say that
it is too old. Lower half: the sessions. They run in the environment that runs nox; no further ones are made.
"""

import hashlib
import importlib.util
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
OLDEST = (3, 11)


def main(argv: "list[str]") -> None:
    """Make .venv ready, then replace this process by nox; arguments after the names go to the session."""
    if sys.version_info < OLDEST:
        sys.exit(f"hybridpool needs Python {OLDEST[0]}.{OLDEST[1]} or newer, this is {sys.version.split()[0]}")
    count = next((at for at, word in enumerate(argv) if word.startswith("-")), len(argv))
    names, rest = argv[:count], argv[count:]
    posargs = rest[1:] if rest[:1] == ["--"] else rest
    python = str(VENV / "bin" / "python")
    os.chdir(ROOT)
    if names == ["demo"]:
        # needs neither nox nor the tools, and should start soon: it is the first command that a newcomer runs
        set_up("")
        os.execv(python, [python, "-m", "hybridpool", "demo", *posargs])
    set_up("[dev]")
    chosen = ["-s", *names] if names else []
    os.execv(python, [python, "-m", "nox", *chosen, "--", *posargs])


def set_up(extra: str) -> None:
    """Bring .venv up to date with pyproject.toml; instant if it is.

    :param extra: ``""`` for what running needs, ``"[dev]"`` for all.
    """
    # the path is part of it, because an editable install holds it
    want = hashlib.sha256((ROOT / "pyproject.toml").read_bytes() + str(ROOT).encode()).hexdigest()
    stamp = VENV / f"ready{extra}"
    # the tools' environment holds all that running needs
    if any(ready.exists() and ready.read_text() == want for ready in (stamp, VENV / "ready[dev]")):
        return
    print(f"setting up {VENV.name} (once, about a minute) …", flush=True)
    python = VENV / "bin" / "python"
    if not python.exists() or subprocess.call([python, "-m", "pip", "--version"], stdout=subprocess.DEVNULL):
        make_venv()
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    if subprocess.call([*pip, "--editable", f".{extra}"]):
        sys.exit("could not install hybridpool's dependencies: pip's message above says why")
    stamp.write_text(want)


def make_venv() -> None:
    """Create .venv; install Debian's venv package first if it is missing and this user may."""
    if importlib.util.find_spec("ensurepip") is None:
        package = f"python{sys.version_info[0]}.{sys.version_info[1]}-venv"
        if os.geteuid() != 0 or subprocess.call(["which", "apt-get"], stdout=subprocess.DEVNULL):
            sys.exit(f"this Python cannot make environments; please run: sudo apt-get install {package}")
        quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for words in (["update"], ["install", "--no-install-recommends", "-y", package]):
            subprocess.check_call(["apt-get", "-qq", *words], env=quiet, stdout=subprocess.DEVNULL)
    # in a fresh process: this one looked for ensurepip before it was installed
    subprocess.check_call([sys.executable, "-m", "venv", "--clear", str(VENV)])


if __name__ == "__main__":
    main(sys.argv[1:])

import nox  # noqa: E402 - a bare Python has left by now

nox.needs_version = ">=2025.2.9"
nox.options.sessions = ["lint", "types", "unit"]
nox.options.default_venv_backend = "none"

#: four files at a time, since tests mostly wait; in the order of their folders, the long ones first
SEVERAL = ("--numprocesses=4", "--dist=loadfile", "--no-loadscope-reorder")


def run(session: nox.Session, module: str, *args: str) -> None:
    """Run a module with the Python that runs nox, wherever PATH points."""
    session.run(sys.executable, "-m", module, *args)


def pytest(session: nox.Session, *words: str, broker: bool = True) -> None:
    """Run tests; words after ``--`` go to pytest.

    :param broker: whether they need RabbitMQ, PostgreSQL and Redis, which are then found or installed first: outside of
        any test's time limit.
    """
    if broker:
        run(session, "tests.rabbit_install")
        run(session, "tests.postgres_install")
        run(session, "tests.redis_install")
    run(session, "pytest", *words, *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Style, import contracts, spelling."""
    run(session, "ruff", "check")
    run(session, "ruff", "format", "--check")
    session.run(sys.executable, "-c", "from importlinter.cli import lint_imports_command as lint; lint()", "--no-logo")
    run(session, "codespell_lib")


@nox.session
def precommit(session: nox.Session) -> None:
    """Check what is quick to check before a commit; ``-- install`` makes git do so.

    Not the pre-commit framework: it would install these tools a second time, in other versions than `.venv` has.
    """
    if session.posargs == ["install"]:
        install_hook(session)
        return
    lint(session)
    run(session, "mypy")


def install_hook(session: nox.Session) -> None:
    """Write git's hook, unless there is one."""
    told = session.run("git", "rev-parse", "--git-path", "hooks/pre-commit", external=True, silent=True)
    hook = Path(str(told).strip())
    if hook.exists():
        session.error(f"{hook} exists; let it run: python3 noxfile.py precommit")
    hook.parent.mkdir(parents=True, exist_ok=True)
    hook.write_text("#!/bin/sh\nexec python3 noxfile.py precommit\n")
    hook.chmod(0o755)


@nox.session
def types(session: nox.Session) -> None:
    """Static types, by two checkers."""
    run(session, "mypy")
    run(session, "pyright", "--pythonpath", sys.executable)


@nox.session
def unit(session: nox.Session) -> None:
    """Unit tests and the rules of the code: no broker needed."""
    pytest(session, "tests/unit", "tests/architecture", broker=False)


@nox.session
def tests(session: nox.Session) -> None:
    """Run the suite, a file per process at a time; the benchmarks and the long tests (`deep`) are left out."""
    pytest(session, "tests", "--ignore=tests/benchmarks", "-m", "not deep", *SEVERAL)


@nox.session
def deep(session: nox.Session) -> None:
    """Run the tests that take long: faults planted in the pool's code, clusters of nodes, many faults at once."""
    pytest(session, "tests", "--ignore=tests/benchmarks", "-m", "deep", *SEVERAL)


@nox.session
def integration(session: nox.Session) -> None:
    """Real children, a real RabbitMQ node."""
    pytest(session, "tests/contract", "tests/integration")


def chaos(session: nox.Session, *words: str) -> None:
    """Run the chaos once for each kind of queue, with a seed of its own."""
    for kind in ("quorum", "classic"):
        run(session, "tests.faults.chaos", "--queues", kind, *words)


@nox.session
def faults(session: nox.Session) -> None:
    """Processes killed, connections cut, nodes frozen; then all at once, by seeds that are printed first."""
    pytest(session, "tests/faults")
    chaos(session)
    run(session, "tests.redis_install")
    run(session, "tests.faults.hosted")


@nox.session
def fuzz(session: nox.Session) -> None:
    """Atheris looks for bytes that a reader cannot take: ``-- payload -max_total_time=600``; default: all, briefly."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--only-binary=:all:", "atheris"]
    # not among the tools in pyproject.toml: there is none for every Python, and then nothing could be installed
    if importlib.util.find_spec("atheris") is None and subprocess.run(pip, capture_output=True, check=False).returncode:
        session.error("atheris cannot be installed on this Python and machine: nothing is fuzzed")
    known = ("head", "control", "payload")
    names = [word for word in session.posargs if not word.startswith("-")]
    options = [word for word in session.posargs if word.startswith("-")] or ["-max_total_time=20"]
    for name in names or known:
        if name not in known:
            session.error(f"there is no reader {name!r} to be fuzzed; there are {', '.join(known)}")
        run(session, "tests.fuzz.run", name, *options)


@nox.session
def rabbitmq4(session: nox.Session) -> None:
    """Test what touches the broker with RabbitMQ 4, fetched from Debian's archive into .venv."""
    told = session.run(sys.executable, "-m", "tests.rabbit_four", str(VENV / "rabbitmq4"), silent=True)
    session.env["HPTEST_RABBITMQ"] = str(told).split()[-1]
    names = (f"tests/integration/test_{name}.py" for name in ("delay", "retries", "dlq"))
    pytest(session, "tests/contract", *names, "tests/faults/test_node.py", "tests/faults/test_cluster.py")
    chaos(session, "--rabbitmq", "4")


@nox.session
def aiormq(session: nox.Session) -> None:
    """Test what relies on the inside of aiormq and aio-pika, with the oldest and the newest versions allowed."""
    needed = nox.project.load_toml("pyproject.toml")["project"]["dependencies"]
    clients = [line for line in needed if line.startswith(("aiormq", "aio-pika"))]
    with_versions(session, clients, "tests/contract/test_aiormq_compat.py")


@nox.session
def redis(session: nox.Session) -> None:
    """Test results in Redis with the oldest and the newest versions of its client library that are allowed."""
    extra = nox.project.load_toml("pyproject.toml")["project"]["optional-dependencies"]["redis"]
    run(session, "tests.redis_install")
    with_versions(session, extra, "tests/contract/test_redis.py")


def with_versions(session: nox.Session, needed: Sequence[str], test: str) -> None:
    """Run a test with the oldest and the newest versions of packages.

    :param needed: requirements as ``name>=oldest,<too-new``.
    """
    oldest = [line.partition(",")[0].replace(">=", "==") for line in needed]
    for name, wanted in (("oldest", oldest), ("newest", needed)):
        folder = str(Path(session.create_tmp()).resolve() / name)
        run(session, "pip", "install", "--quiet", "--upgrade", "--target", folder, *wanted)
        session.env["PYTHONPATH"] = folder
        run(session, "pytest", test, *session.posargs)


@nox.session
def interop(session: nox.Session) -> None:
    """With a real Celery."""
    pytest(session, "tests/interop")


@nox.session
def celery_suite(session: nox.Session) -> None:
    """Celery's own tests, downloaded, against our worker and against Celery's; takes an hour.

    ``-- recycle``: children that are replaced all the time. ``-- mixed``: both workers on one queue. ``-- smoke``: the
    scenarios of Celery's smoke tests. Further words, paths of tests or ``-k``, go to pytest.
    """
    for name in ("tests.rabbit_install", "tests.redis_install"):
        run(session, name)
    run(session, "tests.interop.celery_suite", *session.posargs)


@nox.session
def flower(session: nox.Session) -> None:
    """With Flower in Chromium, which is found or installed first."""
    run(session, "tests.chromium_install")
    pytest(session, "tests/interop/test_flower.py")


@nox.session
def demo(session: nox.Session) -> None:
    """Show the pool at work."""
    run(session, "hybridpool", "demo", *session.posargs)


@nox.session
def examples(session: nox.Session) -> None:
    """Run every example to its end, and compare with what its README says."""
    names = ("test_demo.py", "test_transfers.py", "pool/test_embed_fastapi.py")
    pytest(session, *(f"tests/integration/{name}" for name in names), "-k", "quickstart or readme or requests")


@nox.session
def bench(session: nox.Session) -> None:
    """Figures, on a quiet machine: ``-- recycle``, …; without a name, all of them; options after the names."""
    run(session, "tests.rabbit_install")
    known = ("pool", "recycle", "memory", "faults", "worker", "lanes", "celery-app")
    # up to the first option: what follows one may be its value
    count = next((at for at, word in enumerate(session.posargs) if word.startswith("-")), len(session.posargs))
    names, rest = session.posargs[:count], session.posargs[count:]
    for name in names or known:
        if name not in known:
            session.error(f"there is no benchmark {name!r}; there are {', '.join(known)}")
        run(session, f"tests.benchmarks.{name.replace('-', '_')}", *rest)
