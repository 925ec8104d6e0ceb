"""What user code logs and prints."""
# ruff: noqa: LOG015, T201  printing and logging as users do, without care

import io
import json
import logging
import logging.config
import os
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from rich.logging import RichHandler

from hybridpool._child.log_formats import FORMAT
from hybridpool._child.log_forwarding import PRINTED, LogForwarder
from hybridpool._ipc import frames
from hybridpool._ipc.frames import ChildOrders, LogLines

PREFIX = r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}: (\w+)/ForkPoolWorker-7\] "


class Heard(list[str]):
    """What was said, as the parent would get it."""

    def __call__(self, text: str) -> None:
        [said] = frames.read_from_child(frames.pack([LogLines(text)]))
        assert isinstance(said, LogLines)
        self.append(said.text)

    def lines(self) -> list[tuple[str, str]]:
        """Return level and text of each line, which must be complete, and empty the list."""
        found = []
        for text in self:
            match = re.fullmatch(PREFIX + "(.*)\n", text, re.DOTALL)
            assert match, text
            found.append((match[1], match[2]))
        self.clear()
        return found


@pytest.fixture
def heard() -> Heard:
    """Collect what was said."""
    return Heard()


@pytest.fixture(autouse=True)
def our_own_voice() -> Iterator[None]:
    """Give this process its own forwarder back."""
    root = logging.getLogger()
    handlers, level, raising = list(root.handlers), root.level, logging.raiseExceptions
    streams = sys.stdout, sys.stderr
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.disable(logging.NOTSET)
    logging.getLogger(PRINTED).setLevel(logging.NOTSET)
    for logger in root.manager.loggerDict.values():
        if isinstance(logger, logging.Logger):
            logger.disabled = False
    logging.raiseExceptions = raising
    sys.stdout, sys.stderr = streams


def forwarder(heard: Heard, *, level: int = logging.INFO, redirect: bool = True, layout: str = FORMAT) -> LogForwarder:
    """Redirect as a child does at its start; pytest gets none of it, since it cannot report text that is not UTF-8."""
    log = logging.getLogger(PRINTED)
    log.handlers[:] = [one for one in log.handlers if not type(one).__module__.startswith("_pytest")]
    orders = ChildOrders(log_level=level, log_format=layout, redirect_stdouts=redirect, memory_watch=0)
    return LogForwarder("ForkPoolWorker-7", orders, heard)


def test_logging(heard: Heard) -> None:
    """Log lines of a task are forwarded at the configured level."""
    forwarder(heard)
    logging.getLogger("shop").info("sold %d", 3)
    logging.getLogger("shop").debug("not this")
    assert heard.lines() == [("INFO", "sold 3")]


def test_level(heard: Heard) -> None:
    """The configured level holds in the child."""
    forwarder(heard, level=logging.ERROR)
    logging.warning("not this")
    logging.error("this")
    assert heard.lines() == [("ERROR", "this")]


@pytest.mark.parametrize("kind", [logging.StreamHandler, RichHandler])
def test_handlers_of_the_app_for_the_terminal_are_replaced(kind: type[logging.Handler], heard: Heard) -> None:
    """The app's root handlers that write to the terminal are replaced, so that each line comes once."""
    logging.getLogger().addHandler(kind())
    forwarder(heard)
    logging.error("once")
    assert heard.lines() == [("ERROR", "once")]


def test_handlers_of_the_app_that_write_elsewhere_stay(heard: Heard) -> None:
    """The app's root handlers that write to a file or a service work beside ours."""
    stream = io.StringIO()
    logging.getLogger().addHandler(logging.StreamHandler(stream))
    forwarder(heard)
    logging.error("once")
    assert (heard.lines(), stream.getvalue()) == ([("ERROR", "once")], "once\n")


BRIEF: dict[str, Any] = {
    "formatters": {"brief": {"format": "%(processName)s|%(task_id)s|%(message)s"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "brief"}},
}


def configured(heard: Heard, config: dict[str, Any]) -> None:
    """Redirect as a child does that has `worker_logging`."""
    orders = ChildOrders(logging.INFO, FORMAT, True, 0, logging=json.dumps(config).encode())
    LogForwarder("ForkPoolWorker-7", orders, heard)


@pytest.mark.parametrize("where", ["root", "loggers"])
def test_configuration_for_the_root_logger(where: str, heard: Heard) -> None:
    """Handlers that `worker_logging` gives the root logger, by either of its names, take the place of ours."""
    of_root = {"handlers": ["console"]}
    configured(heard, {**BRIEF, **({"root": of_root} if where == "root" else {"loggers": {"": of_root}})})
    logging.warning("logged")
    print("printed")
    assert heard == ["ForkPoolWorker-7|-|logged\n", "ForkPoolWorker-7|-|printed\n"]


@pytest.mark.parametrize("root", [{}, {"root": {"level": "DEBUG"}}])
def test_configuration_without_root_handlers(root: dict[str, Any], heard: Heard) -> None:
    """Without handlers for the root logger ours stays, and loggers and levels add to it."""
    configured(heard, {**BRIEF, **root, "loggers": {"shop.loud": {"level": "DEBUG"}}, "disable_existing_loggers": True})
    logging.getLogger("shop.loud").debug("loud")
    logging.debug("of the root logger")
    print("printed")
    of_root = [("DEBUG", "of the root logger")] if root else []
    assert heard.lines() == [("DEBUG", "loud"), *of_root, ("WARNING", "printed")]
    logging.getLogger("shop.loud").setLevel(logging.NOTSET)


def test_handlers_of_other_loggers_write_through_the_parent(heard: Heard) -> None:
    """What the app's handler of a logger would write to the terminal goes to the parent, in that handler's format."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(name)s says %(message)s"))
    shop = logging.getLogger("shop.own")
    shop.addHandler(handler)
    shop.propagate = False
    try:
        forwarder(heard)
        shop.warning("two\nlines")
    finally:
        shop.removeHandler(handler)
        shop.propagate = True
    assert heard == ["shop.own says two\n  lines\n"]


def test_format(heard: Heard) -> None:
    """The configured format holds in the child."""
    forwarder(heard, layout="%(processName)s says %(message)s")
    logging.error("this")
    assert heard == ["ForkPoolWorker-7 says this\n"]


def test_prints_become_lines(heard: Heard) -> None:
    """Printed text is logged, one record per print."""
    forwarder(heard)
    print("one")
    print("two", "three", sep="\n")
    print("to stderr", file=sys.stderr)
    assert heard.lines() == [("WARNING", text) for text in ("one", "two", "three", "to stderr")]


def test_prints_have_a_logger(heard: Heard) -> None:
    """Printed text has a logger of its own, which can be silenced."""
    forwarder(heard)
    logging.getLogger(PRINTED).setLevel(logging.ERROR)
    print("silenced")
    logging.getLogger(PRINTED).setLevel(logging.NOTSET)
    assert heard == []


def test_half_a_line_waits_for_its_end(heard: Heard) -> None:
    """Half a line waits for its end."""
    forwarder(heard)
    for part in ("a", "b", "c\nd"):
        print(part, end="", flush=True)
    assert heard.lines() == [("WARNING", "abc")]


def test_half_a_line_ends_with_its_task(heard: Heard) -> None:
    """Half a line is logged at the end of its task."""
    made = forwarder(heard)
    print("half", end="")
    print("of stderr", end="", file=sys.stderr)
    made.finish()
    made.finish()
    assert heard.lines() == [("WARNING", "half"), ("WARNING", "of stderr")]


def test_long_lines(heard: Heard) -> None:
    """A long line stays whole."""
    forwarder(heard)
    print("x" * 200_000)
    assert heard.lines() == [("WARNING", "x" * 200_000)]


def test_percent_signs(heard: Heard) -> None:
    """A percent sign in a printed line is not a placeholder."""
    forwarder(heard)
    print("100 % done %s %d")
    assert heard.lines() == [("WARNING", "100 % done %s %d")]


def test_tracebacks_stay_together(heard: Heard) -> None:
    """A traceback is one record."""
    forwarder(heard)
    try:
        raise ValueError("boom")
    except ValueError:
        logging.exception("it failed")
    [(level, text)] = heard.lines()
    assert level == "ERROR"
    assert text.startswith("it failed\n  Traceback (most recent call last):\n")
    assert text.endswith("ValueError: boom")


@pytest.mark.parametrize("text", ["ä€😀", "file-\udc80.txt"], ids=ascii)
def test_any_text(heard: Heard, text: str) -> None:
    """Any text can be printed and logged."""
    made = forwarder(heard)
    print(text)
    logging.error("%s", text)
    print(text, end="")
    made.finish()
    assert len(heard.lines()) == 3


def test_a_bad_log_call_is_not_the_tasks_end(heard: Heard) -> None:
    """A log call with wrong arguments is logged as such, and does not fail the task."""
    forwarder(heard)
    logging.error("%d", "no number")
    [line] = heard
    assert "a log call cannot be shown: '%d' with ('no number',)" in line


def test_streams_look_like_streams(heard: Heard) -> None:
    """The replaced streams have the attributes and methods of text streams."""
    forwarder(heard)
    for number, stream in enumerate((sys.stdout, sys.stderr), 1):
        assert (stream.fileno(), stream.isatty(), stream.writable()) == (number, False, True)
        assert stream.encoding
        assert stream.write("whole\n") == 6
        stream.writelines(["a", "b\n"])
        stream.flush()
    assert [text for _, text in heard.lines()] == ["whole", "ab"] * 2


class Later(logging.Handler):
    """A handler that a task adds, as one that writes to a file would be."""

    def __init__(self) -> None:
        super().__init__()
        self.got: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.got.append(record.getMessage())


def configure_anew() -> None:
    """As scripts do."""
    logging.basicConfig(level=logging.DEBUG, format="MINE %(message)s", force=True)


def configure_by_table() -> None:
    """As web frameworks do."""
    handler = {"class": "logging.StreamHandler", "stream": "ext://sys.stdout"}
    logging.config.dictConfig(
        {"version": 1, "handlers": {"it": handler}, "root": {"handlers": ["it"], "level": "INFO"}}
    )


def configure_without_root() -> None:
    """With a table that names nothing."""
    logging.config.dictConfig({"version": 1})


def take_all_handlers() -> None:
    """As some libraries do before they add theirs."""
    logging.getLogger().handlers.clear()


def add_one_more() -> None:
    """As functions that set up logging do each time."""
    logging.getLogger().addHandler(logging.StreamHandler())


def silence() -> None:
    """Configure logging as an app that wants no output."""
    logging.getLogger().setLevel(logging.CRITICAL)
    logging.disable(logging.CRITICAL)


@pytest.mark.parametrize(
    "configure",
    [
        configure_anew,
        configure_by_table,
        configure_without_root,
        take_all_handlers,
        add_one_more,
        silence,
        logging.shutdown,
    ],
)
def test_tasks_that_configure_logging(heard: Heard, configure: Callable[[], None]) -> None:
    """A task that configures logging does not change what the next task's prints and logs do."""
    logger = logging.getLogger("a.module.of.the.app")
    made = forwarder(heard)
    for _ in range(3):
        configure()
        print("in the task")
        assert [text for _, text in heard.lines()] == ["in the task"]
        made.finish()
        print("printed after it")
        logger.info("logged after it")
        assert heard.lines() == [("WARNING", "printed after it"), ("INFO", "logged after it")]


def test_handlers_that_a_task_adds(heard: Heard) -> None:
    """A handler that a task adds stays, and the rest of logging is restored."""
    made, later = forwarder(heard), Later()
    configure_anew()
    logging.getLogger().addHandler(later)
    made.finish()
    logging.error("one")
    made.finish()
    logging.error("two")
    assert later.got == ["one", "two"]
    assert heard.lines() == [("ERROR", "one"), ("ERROR", "two")]


def test_what_hooks_set_up_stays(heard: Heard) -> None:
    """What a hook at the child's start set up stays."""
    made, mine, stream = forwarder(heard), Later(), io.StringIO()
    logging.getLogger().handlers[:] = [mine]
    sys.stdout = stream
    made.save_state()
    made.finish()
    logging.error("one")
    print("two")
    assert (mine.got, stream.getvalue()) == (["one"], "two\n")
    assert heard == []


@pytest.mark.parametrize("how", ["replaced", "none", "deleted", "closed", "detached"])
def test_streams_that_a_task_takes(heard: Heard, how: str) -> None:
    """A task that replaces, closes or detaches its streams leaves the next task's alone; its output is logged."""
    made = forwarder(heard)
    match how:
        case "replaced":
            sys.stdout = io.TextIOWrapper(sys.stdout.buffer, encoding="utf-8")
            print("held back by the task's own stream")
        case "none":
            sys.stdout = sys.stderr = None
        case "deleted":
            del sys.stdout, sys.stderr
        case "closed":
            sys.stdout.close()
            sys.stderr.close()
        case _:
            sys.stdout = io.TextIOWrapper(sys.stdout.detach(), write_through=True)  # type: ignore[union-attr]
            print("by the bytes", end="")
    made.finish()
    print("after")
    print("after", file=sys.stderr)
    said = [text for _, text in heard.lines()]
    assert said[-2:] == ["after"] * 2
    assert said[:-2] == {"replaced": ["held back by the task's own stream"], "detached": ["by the bytes"]}.get(how, [])


def test_handlers_of_the_printed_logger(heard: Heard) -> None:
    """A handler of the printed logger gets what is printed, and one that prints it again does not loop."""
    forwarder(heard)
    logger, mine = logging.getLogger(PRINTED), Later()
    again = logging.StreamHandler(sys.stdout)
    logger.handlers[:] = [mine, again]
    try:
        print("once")
    finally:
        logger.handlers.clear()
    assert mine.got == ["once"]
    assert heard.lines() == [("WARNING", "once")]


def test_log_call_of_a_value_that_cannot_be_shown(heard: Heard) -> None:
    """A log call whose argument raises when it is shown is logged as such."""

    class Odd:
        def __repr__(self) -> str:
            raise RuntimeError("no")

    forwarder(heard)
    logging.error("%s", Odd())
    [line] = heard
    assert "a log call cannot be shown" in line


def test_endless_record(heard: Heard) -> None:
    """A record of many megabytes is cut, and says so."""
    forwarder(heard)
    logging.error("x" * 3_000_000)
    [(_, text)] = heard.lines()
    assert len(text) < 1_100_000
    assert text.endswith("characters more)")


def test_logs_of_a_fork(heard: Heard, capfd: pytest.CaptureFixture[str]) -> None:
    """A fork of a task logs to stderr, and not to its parent's channel."""
    forwarder(heard)
    pid = os.fork()
    if pid == 0:
        logging.error("from the fork")
        os._exit(len(heard))
    assert os.waitpid(pid, 0)[1] == 0
    assert re.search(r": ERROR/\w+\] from the fork\n", capfd.readouterr().err)
    assert heard == []


def test_without_redirection(heard: Heard, capsys: pytest.CaptureFixture[str]) -> None:
    """Without worker_redirect_stdouts the streams are left alone."""
    before = sys.stdout
    made = forwarder(heard, redirect=False)
    print("as ever")
    made.finish()
    assert sys.stdout is before
    assert heard == []
    assert capsys.readouterr().out == "as ever\n"
