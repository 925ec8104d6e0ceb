"""Finding the app by its name, and the errors when it is missing."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hybridpool._zygote.loader import load, load_error
from hybridpool.errors import AppLoadError

Write = Callable[[str, str], None]

APP = "from hybridpool._app import App\n"


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Give what writes modules to a folder on the path, and forget them in the end."""
    known = set(sys.modules)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)

    def write_one(name: str, text: str) -> None:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)

    yield write_one
    for name in set(sys.modules) - known:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def loaded(name: str, *imports: str) -> str:
    """Return the name of the app that was found."""
    found: str = json.loads(load(name, imports).manifest())["app"]
    return found


def refusal(name: str, *imports: str) -> AppLoadError:
    """Load what cannot be loaded; the words are one line."""
    with pytest.raises(AppLoadError) as caught:
        load(name, imports)
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize("name", ["zproj:app", "zproj.app", "zproj", "zproj:other", "zproj.other"])
def test_forms_of_the_name(write: Write, name: str) -> None:
    """Every form of --app that Celery knows is understood."""
    write("zproj.py", APP + "app = App('one')\nother = App('two')\n")
    assert loaded(name) == ("two" if name.endswith("other") else "one")


@pytest.mark.parametrize("name", ["zpack.sub:app", "zpack.sub.app", "zpack.sub", "zpack:sub"])
def test_packages(write: Write, name: str) -> None:
    """An app in a package is found."""
    write("zpack/__init__.py", "from . import sub\n")
    write("zpack/sub.py", APP + "app = App('deep')\n")
    assert loaded(name) == "deep"


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ("celery = App('c')\nzzz = App('z')\n", "c"),
        ("celery = App('c')\napp = App('a')\n", "a"),
        ("anything = App('only')\n", "only"),
        ("one = App('same')\ntwo = one\n", "same"),
        ("app = 5\nreal = App('r')\n", "r"),
    ],
)
def test_module_alone(write: Write, text: str, chosen: str) -> None:
    """A module alone leads to the app that Celery would take."""
    write("zalone.py", APP + text)
    assert loaded("zalone") == chosen


def test_objects_that_resist(write: Write) -> None:
    """Objects that raise at any attribute are passed over when an app is looked for."""
    write(
        "zproxy.py",
        APP
        + """class Proxy:
    def __getattr__(self, name):
        raise RuntimeError("working outside of a request")

current = Proxy()
shop = App("shop")
""",
    )
    assert loaded("zproxy") == "shop"


def test_further_modules(write: Write) -> None:
    """Tasks of the modules named by --include and by `imports` are registered."""
    write("zmain.py", APP + "app = App('m', imports=['zmore'])\n")
    write("zmore.py", "from zmain import app\n@app.task(name='more')\ndef more(): ...\n")
    write("zextra.py", "from zmain import app\n@app.task(name='extra')\ndef extra(): ...\n")
    assert set(load("zmain:app", ["zextra"]).child_tasks()) == {"more", "extra"}


def test_missing_module(write: Write) -> None:
    """A missing module is named, with a suggestion."""
    write("zshop.py", "")
    error = refusal("zshp")
    assert str(error) == "there is no module 'zshp' here or on PYTHONPATH; did you mean 'zshop'?"
    assert error.details == ""


def test_missing_module_in_a_package(write: Write) -> None:
    """The suggestion for a missing module of a package is in that package."""
    write("zpkg/__init__.py", "")
    write("zpkg/tasks.py", "")
    assert "no module 'zpkg.tasksy'" in str(refusal("zpkg.tasksy:app"))
    assert str(refusal("zpkg.tasksy:app")).endswith("did you mean 'zpkg.tasks'?")


def test_nothing_near(write: Write) -> None:
    """There is no suggestion if no name is near."""
    assert str(refusal("zqwvxqwvx")) == "there is no module 'zqwvxqwvx' here or on PYTHONPATH"


@pytest.mark.parametrize("name", ["zattr:ap", "zattr.ap"])
def test_missing_attribute(write: Write, name: str) -> None:
    """A missing attribute is named, with a suggestion."""
    write("zattr.py", APP + "app = App('a')\n")
    assert str(refusal(name)) == "module 'zattr' has no attribute 'ap'; did you mean zattr:app?"


def test_missing_further_module(write: Write) -> None:
    """A missing further module is refused."""
    write("zmain2.py", APP + "app = App('m')\n")
    assert "no module 'zgone'" in str(refusal("zmain2", "zgone"))


def test_not_an_app(write: Write) -> None:
    """An object that is not an app is refused with its type."""
    write("znot.py", APP + "app = dict()\nkind = App\n")
    assert str(refusal("znot:app")) == "znot:app is not a hybridpool App or a Celery app, but of type dict"
    assert str(refusal("znot:kind")) == "znot:kind is not a hybridpool App or a Celery app, but of type type"


def test_no_app(write: Write) -> None:
    """A module without an app is refused with advice."""
    write("znone.py", "")
    assert (
        str(refusal("znone"))
        == "module 'znone' has no hybridpool App or Celery app; define app = App('znone') or name it"
    )


def test_several_apps(write: Write) -> None:
    """A module with several apps is refused with their names."""
    write("zsev.py", APP + "b = App('b')\na = App('a')\n")
    assert str(refusal("zsev")) == "module 'zsev' has several apps; say which: zsev:a, zsev:b"


def test_failing_module(write: Write) -> None:
    """A module that fails is refused, with the user's own frames only."""
    write("zfail.py", "import zfail2\n")
    write("zfail2.py", "def deep():\n    return {}['database']\n\ndeep()\n")
    error = refusal("zfail:app")
    assert str(error) == "'zfail' failed: KeyError: 'database'"
    assert error.details.startswith('Traceback (most recent call last):\n  File "')
    assert error.details.splitlines()[1].split('"')[1].endswith("/zfail.py")
    assert error.details.endswith("KeyError: 'database'")
    for foreign in ("load.py", "importlib", "<frozen"):
        assert foreign not in error.details


def test_failing_import_inside(write: Write) -> None:
    """A missing package inside the user's module is the module's failure."""
    write("zlacks.py", "import zlacking\n")
    error = refusal("zlacks")
    assert str(error) == "'zlacks' failed: ModuleNotFoundError: No module named 'zlacking'"
    assert 'zlacks.py", line 1' in error.details


def test_failing_import_of_its_own_part(write: Write) -> None:
    """A missing part of the user's package, imported by it, is the package's failure."""
    write("zowner/__init__.py", "import zowner.gone\n")
    error = refusal("zowner:app")
    assert "failed: ModuleNotFoundError" in str(error)
    assert "zowner/__init__.py" in error.details


def test_syntax_error(write: Write) -> None:
    """A syntax error is shown with its line."""
    write("zsyntax.py", "x = = 1\n")
    error = refusal("zsyntax")
    assert str(error) == "'zsyntax' failed: SyntaxError: invalid syntax (zsyntax.py, line 1)"
    assert "x = = 1" in error.details


def test_exit_while_importing(write: Write) -> None:
    """A module that calls sys.exit() is refused with its message."""
    write("zexit.py", "import sys\nsys.exit('no configuration')\n")
    assert str(refusal("zexit")) == "'zexit' failed: SystemExit: no configuration"


def test_interrupt_while_importing(write: Write) -> None:
    """KeyboardInterrupt during an import is passed on."""
    write("zintr.py", "raise KeyboardInterrupt\n")
    with pytest.raises(KeyboardInterrupt):
        load("zintr")


@pytest.mark.parametrize("message", ["first\nsecond", "first\n\nthird\n"])
def test_a_message_of_several_lines(message: str) -> None:
    """An error message of several lines is shown by its first line."""
    told = str(load_error("proj", ValueError(message)))
    assert told.startswith("'proj' failed: ValueError: first")
    assert "\n" not in told


def test_a_message_with_notes() -> None:
    """An error with notes is shown by its own text."""
    error = ValueError("boom")
    error.add_note("see the manual")
    assert str(load_error("proj", error)).startswith("'proj' failed: ValueError: boom")


@pytest.mark.parametrize("name", ["", ":app", ".app", "a b:app", "..", "zproj:"])
def test_nonsense(name: str, write: Write) -> None:
    """A text that names no module is refused."""
    refusal(name)


CELERY = "from celery import Celery\n"


@pytest.mark.parametrize("name", ["zcelery:app", "zcelery.app", "zcelery"])
def test_celery_apps(write: Write, name: str) -> None:
    """A Celery app is found as one of ours is."""
    write("zcelery.py", CELERY + "app = Celery('guest', broker='amqp://')\n")
    assert loaded(name) == "guest"


def test_several_celery_apps(write: Write) -> None:
    """Of several Celery apps in a module the first is taken, as Celery does; a proxy is none."""
    text = "from celery import current_app\none = Celery('one', broker='amqp://')\ntwo = Celery('two')\n"
    write("zseveral.py", CELERY + text)
    assert loaded("zseveral") == "one"


def test_what_a_celery_app_imports_fails(write: Write) -> None:
    """An error in a module that the app's settings name is one line with the cause."""
    write("zincludes.py", CELERY + "app = Celery('one', broker='amqp://', include=['zbreaks'])\n")
    write("zbreaks.py", "1 / 0\n")
    assert "ZeroDivisionError" in str(refusal("zincludes"))


@pytest.mark.parametrize(
    ("given", "broker"),
    [
        ("None", "amqp://guest:guest@localhost:5672//"),
        ("'amqps://me:a%40b@there:5671/v'", "amqps://me:a%40b@there:5671/v"),
        ("['amqp://one', 'amqp://two']", "amqp://one;amqp://two"),
    ],
)
def test_the_broker_of_a_celery_app(write: Write, given: str, broker: str) -> None:
    """The worker gets the app's broker as it is written, and each of several."""
    write("zbroker.py", CELERY + f"app = Celery('one', broker={given})\n")
    assert json.loads(load("zbroker").manifest())["settings"]["conf"]["broker_url"] == broker
