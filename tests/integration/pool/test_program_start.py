"""How a pool's processes are started by programs of all kinds: options, folders, signals, shortages, copies by fork.

Each program is a file of its own, run by an interpreter of its own.
"""

import os
import signal
import sys
import textwrap
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.workers import PATIENCE, Program

HEAD = """
import asyncio, os, signal, sys, time, warnings
from hybridpool import Pool
"""
TAIL = """
if __name__ == "__main__":
    asyncio.run(main())
"""
RUNS_POW = """
async def main():
    async with Pool(1) as pool:
        print("RESULT", await pool.run(pow, 2, 5))
"""


def program(
    folder: Path,
    text: str,
    *words: str,
    options: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> Program:
    """Start a program that has a pool."""
    folder.mkdir(exist_ok=True)
    file = folder / "program.py"
    file.write_text(textwrap.dedent(HEAD) + textwrap.dedent(text) + TAIL)
    return Program([sys.executable, *options, str(file), *words], env=env, cwd=cwd or folder)


@pytest.mark.parametrize(
    "options",
    ["-O", "-OO", "-B", "-b", "-u", "-P", "-s", "-W error::UserWarning", "-X dev", "-X utf8=1", "-X pycache_prefix=x"],
)
def test_interpreter_options(options: str, tmp_path: Path) -> None:
    """Children run under the interpreter options with which the program was started."""
    text = """
        def options():
            caught = None
            try:
                warnings.warn("old", UserWarning)
            except UserWarning:
                caught = "raised"
            more = sys.__stdout__.write_through, sys.pycache_prefix
            return list(sys.flags), sys.warnoptions, sys._xoptions, caught, *more

        async def main():
            async with Pool(1) as pool:
                print("RESULT", await pool.run(options) == options(), await pool.run(options), options())
    """
    # what the tests' environment says is not to be taken for an option
    env = {"PYTHONUNBUFFERED": "", "PYTHONWARNINGS": "ignore::ResourceWarning"}
    with program(tmp_path, text, options=options.split(), env=env) as at_work:
        at_work.see("RESULT True")
        assert at_work.wait() == 0


@pytest.mark.parametrize("option", ["-I", "-E"])
def test_options_that_shut_out_the_environment(option: str, tmp_path: Path) -> None:
    """Children find the library even if an option makes the interpreter ignore PYTHONPATH."""
    root = Path(__file__).parents[3]
    file = tmp_path / "program.py"
    file.write_text(
        f"import sys\nsys.path.append({str(root)!r})\nimport asyncio\nfrom hybridpool import Pool\n{RUNS_POW}{TAIL}"
    )
    with Program([sys.executable, option, str(file)], cwd=tmp_path) as at_work:
        at_work.see("RESULT 32")
        assert at_work.wait() == 0


@pytest.mark.parametrize("name", ["random", "select", "resource", "logging", "msgspec", "hybridpool", "sitecustomize"])
def test_files_in_the_current_folder(name: str, tmp_path: Path) -> None:
    """Children do not import modules from the current folder if the program itself does not."""
    here = tmp_path / "here"
    here.mkdir()
    (here / f"{name}.py").write_text("print('RUN IN', __name__)\n")
    with program(tmp_path / "elsewhere", RUNS_POW, cwd=here) as at_work:
        at_work.see("RESULT 32")
        assert at_work.wait() == 0
        assert not at_work.seen("RUN IN")


def test_folders_whose_names_are_not_utf8(tmp_path: Path) -> None:
    """A pool works in a folder whose name is not UTF-8, and finds the script and its functions."""
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/odd\xe9"))
    text = """
        def inc(value):
            return value + 1

        async def main():
            async with Pool(1) as pool:
                print("RESULT", await pool.run(inc, 2))
                try:
                    await pool.run(os.stat, "/nowhere/\\udce9")
                except OSError as error:
                    print("RAISED", ascii(error.filename))
    """
    with program(odd, text) as at_work:
        at_work.see("RESULT 3")
        at_work.see("RAISED '/nowhere/.udce9'")
        assert at_work.wait() == 0


def test_folders_added_later(tmp_path: Path) -> None:
    """Children find functions, classes and new files in folders that `sys.path` got after the pool was opened."""
    text = """
        async def main():
            async with Pool(1, max_tasks_per_child=2) as pool:
                for name in ("one", "two", "three"):
                    folder = f"{os.getcwd()}/{name}"
                    os.mkdir(folder)
                    with open(f"{folder}/late_{name}.py", "w") as file:
                        file.write("class P:\\n    pass\\ndef kind(p): return type(p).__name__\\n")
                    sys.path.insert(0, folder)
                    module = __import__(f"late_{name}")
                    print(name, await pool.run(module.kind, module.P()), await pool.run(repr, module.P) != "")
                with open(f"{folder}/late_four.py", "w") as file:
                    file.write("def four(): return 4\\n")
                import importlib
                importlib.invalidate_caches()
                import late_four
                print("four", await pool.run(late_four.four))
                try:
                    await pool.run(sys.modules["late_one"].missing)
                except AttributeError:
                    print("ended")
    """
    with program(tmp_path / "p", text) as at_work:
        at_work.see("^(one|two|three) P True", 3)
        at_work.see("four 4")
        at_work.see("ended")
        assert at_work.wait() == 0


SIGNALS = {
    "CHLD blocked": "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})",
    "all blocked": "signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals() - {signal.SIGINT})",
    "CHLD ignored": "signal.signal(signal.SIGCHLD, signal.SIG_IGN)",
    "USR1 ignored": "signal.signal(signal.SIGUSR1, signal.SIG_IGN)",
    "TERM and INT ignored": "[signal.signal(n, signal.SIG_IGN) for n in (signal.SIGTERM, signal.SIGINT)]",
}


@pytest.mark.parametrize("how", list(SIGNALS))
def test_signals_that_the_program_blocks_or_ignores(how: str, tmp_path: Path) -> None:
    """Deaths and limits are noticed if the program blocks or ignores signals, and tasks inherit none of that."""
    text = f"""
        if __name__ == "__main__":
            {SIGNALS[how]}

        def die():
            os.kill(os.getpid(), signal.SIGKILL)

        def state():
            ignored = [n.name for n in signal.Signals if signal.getsignal(n) is signal.SIG_IGN]
            return sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())), sorted(set(ignored) - {{"SIGPIPE", "SIGXFSZ"}})

        async def tell(name, call):
            try:
                print(name, await asyncio.wait_for(call, 20))
            except Exception as error:
                print(name, type(error).__name__)

        async def main():
            async with Pool(1) as pool:
                await tell("death", pool.run(die))
                await tell("state", pool.run(state))
                await tell("hard", pool.run(time.sleep, 60, timeout=0.5))
                await tell("after", pool.run(pow, 2, 5))
            print("left")
    """
    with program(tmp_path, text) as at_work:
        at_work.see("death ChildLost")
        at_work.see(r"state \(\[\], \[\]\)")
        at_work.see("hard TimeLimitExceeded")
        at_work.see("after 32")
        at_work.see("left")
        assert at_work.wait() == 0


FORKS = """
def sleeper():
    time.sleep(600)

async def main():
    async with Pool(2) as pool:
        await pool.resize(2)
        copy = os.fork()
        if not copy:
            sleeper()
        print("COPY", copy, flush=True)
        if sys.argv[1] == "wait":
            await asyncio.sleep(600)
        began = time.monotonic()
    print("left", time.monotonic() - began < 1.5, flush=True)
"""


def family(at_work: Program, copy: int) -> list[psutil.Process]:
    """Return zygote and children of a program."""
    return [one for one in psutil.Process(at_work.pid).children(recursive=True) if one.pid != copy]


def test_leaving_while_a_copy_of_the_program_lives(tmp_path: Path) -> None:
    """Leaving the pool ends zygote and children at once while a fork of the program still shares its sockets."""
    with program(tmp_path, FORKS, "leave") as at_work:
        copy = int(at_work.see(r"COPY (\d+)")[0][1])
        at_work.see("left True")
        psutil.Process(copy).kill()
        assert at_work.wait() == 0


@pytest.mark.parametrize("stopped", ["none", "zygote", "both"])
def test_killed_while_a_copy_of_the_program_lives(stopped: str, tmp_path: Path) -> None:
    """Zygote and children end when the program is killed, also if a fork holds its sockets or they were stopped."""
    with program(tmp_path, FORKS, "wait") as at_work:
        copy = int(at_work.see(r"COPY (\d+)")[0][1])
        everybody = family(at_work, copy)
        main = psutil.Process(at_work.pid)
        zygote = next(one for one in everybody if one.ppid() == at_work.pid)
        if stopped != "none":
            zygote.suspend()
        if stopped == "both":
            main.suspend()
        main.kill()
        gone, alive = psutil.wait_procs(everybody, timeout=PATIENCE)
        assert len(everybody) == 3
        assert not alive, gone
        psutil.Process(copy).kill()
        assert at_work.wait() == -signal.SIGKILL


@pytest.mark.parametrize("first", ["zygote", "program"])
def test_zygote_and_program_killed_together(first: str, tmp_path: Path) -> None:
    """No child outlives zygote and program, in whichever order they are killed."""
    with program(tmp_path, FORKS, "wait") as at_work:
        copy = int(at_work.see(r"COPY (\d+)")[0][1])
        everybody = family(at_work, copy)
        main = psutil.Process(at_work.pid)
        zygote = next(one for one in everybody if one.ppid() == at_work.pid)
        main.suspend()
        for one in (zygote, main) if first == "zygote" else (main, zygote):
            with suppress(psutil.NoSuchProcess):
                one.kill()
        assert not psutil.wait_procs(everybody, timeout=PATIENCE)[1]
        psutil.Process(copy).kill()
        assert at_work.wait() == -signal.SIGKILL


def test_a_copy_of_the_program_that_uses_and_leaves_the_pool(tmp_path: Path) -> None:
    """A fork of the program that uses the pool gets an error, and may leave the pool without harm to the program."""
    text = """
        def double(value):
            return 2 * value

        async def main():
            async with Pool(2) as pool:
                print("before", await pool.run(double, 1))
                if not os.fork():
                    try:
                        pool.submit(double, 2)
                    except Exception as error:
                        print("COPY", error, flush=True)
                    supervised = pool._supervised
                    await supervised._zygote.close()
                    os._exit(0)
                assert os.wait()[1] == 0
                print("after", [await pool.run(double, n) for n in range(3)])
                try:
                    await pool.run(os._exit, 1)
                except Exception as error:
                    print("death", type(error).__name__)
                print("again", await pool.run(double, 3))
    """
    with program(tmp_path, text) as at_work:
        at_work.see("before 2")
        at_work.see(r"COPY this pool belongs to process \d+, from which this one was forked")
        at_work.see(r"after \[0, 2, 4\]")
        at_work.see("death ChildLost")
        at_work.see("again 6")
        assert at_work.wait() == 0


def test_no_descriptor_for_a_zygote(tmp_path: Path) -> None:
    """A pool that gets no descriptor says why at once, holds nothing, and can be opened later."""
    text = """
        import resource

        async def main():
            used = len(os.listdir("/proc/self/fd")) - 1
            hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
            for more in range(9):
                resource.setrlimit(resource.RLIMIT_NOFILE, (used + more, hard))
                try:
                    async with Pool(1) as pool:
                        pass
                except Exception as error:
                    print(type(error).__name__, error)
                resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
                assert len(os.listdir("/proc/self/fd")) - 1 == used
            async with Pool(1) as pool:
                print("RESULT", await pool.run(pow, 2, 5))
    """
    with program(tmp_path, text) as at_work:
        at_work.see("RESULT 32")
        assert at_work.seen("^PoolError the zygote, which forks the children, cannot be started: ")
        assert not at_work.seen("^(AttributeError|OSError)")
        assert at_work.wait() == 0


def test_no_process_for_a_zygote(tmp_path: Path) -> None:
    """A fork that the kernel refuses raises a PoolError, and a later attempt succeeds."""
    text = """
        import errno, subprocess

        async def main():
            real = subprocess.Popen

            class Refused(real):
                def _execute_child(self, *args):
                    raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

            subprocess.Popen = Refused
            try:
                await Pool(1).open()
            except Exception as error:
                print(type(error).__name__, error)
            subprocess.Popen = real
            async with Pool(1) as pool:
                print("RESULT", await pool.run(pow, 2, 5))
    """
    with program(tmp_path, text) as at_work:
        at_work.see("^PoolError the zygote, which forks the children, cannot be started: fork: Resource temporarily")
        at_work.see("RESULT 32")
        assert at_work.wait() == 0


def test_interpreter_that_is_not_known(tmp_path: Path) -> None:
    """A program without `sys.executable` gets an error that says to set it."""
    text = """
        async def main():
            sys.executable = ""
            try:
                await Pool(1).open()
            except Exception as error:
                print(type(error).__name__, error)
    """
    with program(tmp_path, text) as at_work:
        at_work.see("^PoolError this program does not know its Python interpreter: set sys.executable to its path")
        assert at_work.wait() == 0


def test_zygote_closes_all_descriptors(tmp_path: Path) -> None:
    """An import that closes all descriptors ends the start with an error, and leaves no process."""
    (tmp_path / "closes.py").write_text("import os, time\nos.closerange(3, 256)\ntime.sleep(600)\n")
    text = """
        async def main():
            try:
                async with Pool(1, preload=["closes"]) as pool:
                    print(await pool.run(pow, 2, 5))
            except Exception as error:
                print(type(error).__name__, error)
    """
    with program(tmp_path, text) as at_work:
        at_work.see("^AppLoadError the process that imports the app ended")
        assert at_work.wait() == 0


def test_app_that_forks_while_it_is_imported(tmp_path: Path) -> None:
    """A zygote's death is noticed though a process that the import forked holds its socket."""
    (tmp_path / "forks.py").write_text(
        "import os, time\nif not os.fork():\n    time.sleep(600)\nif not os.fork():\n    raise SystemExit('a copy')\n"
    )
    text = """
        async def main():
            async with Pool(1, preload=["forks"], on_event=lambda event: print(event, flush=True)) as pool:
                print("RESULT", await pool.run(pow, 2, 5))
                os.kill(pool._supervised._zygote.pid, signal.SIGKILL)
                print("RESULT", await pool.run(pow, 2, 5))
            print("left", flush=True)
    """
    with program(tmp_path, text) as at_work:
        at_work.see("ZygoteLost")
        at_work.see("RESULT 32", 2)
        at_work.see("left")
        for one in at_work.tree():
            # what the import has started is the app's own
            one.kill()


HOSTILE = """
import os, select, signal, socket

def refuse(*args, **kwargs):
    raise RuntimeError("this was replaced")

# as gevent and others replace them; what Python's own modules need later stays
for module, names in ((os, ("fork", "wait4", "waitid", "killpg")), (select, ("poll", "select"))):
    for name in names:
        setattr(module, name, refuse)
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGCONT, signal.SIGUSR1):
    signal.signal(number, lambda *_: os._exit(9))
signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
real = signal.signal
signal.signal = lambda number, handler: (refuse if number == signal.SIGCHLD else real)(number, handler)
socket.socket = refuse
"""


def test_import_that_changes_signals_and_the_standard_library(tmp_path: Path) -> None:
    """A module that takes and blocks signals and patches the standard library does not harm the zygote."""
    (tmp_path / "hostile.py").write_text(HOSTILE)
    text = """
        async def tell(name, call):
            try:
                print(name, await asyncio.wait_for(call, 20))
            except Exception as error:
                print(name, type(error).__name__)

        async def main():
            async with Pool(1, preload=["hostile"]) as pool:
                os.kill(pool._supervised._zygote.pid, signal.SIGTERM)
                await tell("works", pool.run(pow, 2, 5))
                await tell("death", pool.run(os._exit, 3))
                await tell("hard", pool.run(time.sleep, 60, timeout=0.5))
                await tell("after", pool.run(pow, 2, 6))
            print("left", flush=True)
    """
    with program(tmp_path, text) as at_work:
        at_work.see("works 32")
        at_work.see("death ChildLost")
        at_work.see("hard TimeLimitExceeded")
        at_work.see("after 64")
        at_work.see("left")
        assert at_work.wait() == 0


OWN_CLASSES = """
    class Thing:
        def __init__(self, number):
            self.number = number

    class Mine(Exception):
        pass

    def make(number):
        return Thing(number)

    def fail():
        raise Mine("own")

    async def main():
        async with Pool(1, preload=sys.argv[1:]) as pool:
            await pool.run(eval, "__import__('multiprocessing').__name__")
            print("RESULT", (await pool.run(make, 5)).number)
            try:
                await pool.run(fail)
            except Mine as error:
                print("CAUGHT", error)
"""


@pytest.mark.parametrize("preload", [[], ["multiprocessing"]])
def test_classes_of_a_script(preload: list[str], tmp_path: Path) -> None:
    """Values and exceptions of a script's own classes keep their type, also beside multiprocessing."""
    with program(tmp_path, OWN_CLASSES, *preload) as at_work:
        at_work.see("RESULT 5")
        at_work.see("CAUGHT own")
        assert at_work.wait() == 0


def test_program_that_is_a_folder(tmp_path: Path) -> None:
    """Children find the functions that a folder's `__main__.py` defines."""
    (tmp_path / "__main__.py").write_text(textwrap.dedent(HEAD) + textwrap.dedent(OWN_CLASSES) + TAIL)
    with Program([sys.executable, str(tmp_path)], cwd=tmp_path) as at_work:
        at_work.see("RESULT 5")
        at_work.see("CAUGHT own")
        assert at_work.wait() == 0


def test_pool_in_a_process_that_multiprocessing_started(tmp_path: Path) -> None:
    """A process that multiprocessing spawned can run its script's functions in a pool of its own."""
    text = f"""
        import multiprocessing
        {textwrap.indent(textwrap.dedent(OWN_CLASSES), " " * 8).strip()}

        run, main_here = asyncio.run, main

        def spawned():
            run(main_here())

        async def main():
            process = multiprocessing.get_context("spawn").Process(target=spawned)
            process.start()
            process.join()
            print("LEFT", process.exitcode)
    """
    with program(tmp_path, text) as at_work:
        at_work.see("RESULT 5")
        at_work.see("CAUGHT own")
        at_work.see("LEFT 0")
        assert at_work.wait() == 0


def test_odd_entries_of_the_module_path(tmp_path: Path) -> None:
    """Entries of `sys.path` that are a subclass of str, or not text, do not harm a pool."""
    text = """
        class Folder(str):
            pass

        sys.path.append(Folder("/nowhere"))
        sys.path.append(__import__("pathlib").Path("/nowhere/else"))

        async def main():
            async with Pool(1) as pool:
                print("RESULT", await pool.run(pow, 2, 5), "/nowhere" in await pool.run(eval, "__import__('sys').path"))
    """
    with program(tmp_path, text) as at_work:
        at_work.see("RESULT 32 True")
        assert at_work.wait() == 0


def test_frozen_program(tmp_path: Path) -> None:
    """A frozen program gets an error, and does not start itself again and again."""
    with program(tmp_path, f"sys.frozen = True\n{RUNS_POW}") as at_work:
        at_work.see("PoolError: this program is frozen")
        assert at_work.wait() == 1


def test_value_that_exits_when_it_is_unpickled(tmp_path: Path) -> None:
    """A value whose unpickling exits fails its call, small or large, and the program goes on."""
    text = """
        class Exits:
            def __init__(self, size):
                self.ballast = b"x" * size

            def __setstate__(self, state):
                raise SystemExit(3)

        def make(size):
            return Exits(size)

        async def main():
            async with Pool(1) as pool:
                for size in 1, 3_000_000:
                    try:
                        await pool.run(make, size)
                    except Exception as error:
                        print("FAILED", error)
                print("RESULT", await pool.run(pow, 2, 5))
    """
    with program(tmp_path, text) as at_work:
        at_work.see(r"FAILED make\(.*SystemExit\(3\)|FAILED .*SystemExit", 2)
        at_work.see("RESULT 32")
        assert at_work.wait() == 0


def test_words_of_the_command_line(tmp_path: Path) -> None:
    """Children find the program's `sys.argv`, also while its script is imported."""
    text = """
        is_loud = "--loud" in sys.argv[1:]

        def tell():
            return is_loud, sys.argv

        async def main():
            async with Pool(1) as pool:
                print("RESULT", await pool.run(tell) == (True, sys.argv))
    """
    with program(tmp_path, text, "--loud", "again") as at_work:
        at_work.see("RESULT True")
        assert at_work.wait() == 0
