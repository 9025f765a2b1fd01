"""The documentation is true: examples run, tables name what there is and nothing else, links lead somewhere.

A python block runs in the namespace of its page, in order, and `expression  # → value` must give that value. A comment
above a block says what else it is: `<!-- not executed: reason -->`, or for the pages that build a project of their own
`<!-- file: path -->`, `<!-- append: path -->` and `<!-- shell -->`. `<!-- with a worker -->` in a page gives it a worker
that executes runs beside the examples; on other pages runs are over when `trigger` returns. `<!-- with a service at
REPORT_URL -->` starts an HTTP server and sets that variable of the environment; `<!-- with a server at RUNS_URL -->` does
so with the demo project, and with a worker, and sets RUNS_KEY too.
"""

import ast
import http.server
import importlib
import inspect
import json
import os
import re
import subprocess
import sys
import threading
import time
import types
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.core.management import BaseCommand, call_command, get_commands, load_command_class
from django.test import override_settings

import realtime_runs
from realtime_runs import batch, runs, streams, tasks, wait
from realtime_runs import checks as our_checks
from realtime_runs import exceptions as our_exceptions
from realtime_runs.access.keys import secret_keys
from realtime_runs.client import Client
from realtime_runs.conf import DEFAULTS
from realtime_runs.engine import registry
from realtime_runs.engine.paging import Page
from realtime_runs.live.closing import Closable
from tests.conftest import EMBEDDED, ROOT
from tests.in_process import worker_in_thread
from tests.services import free_port

README = ROOT / "README.md"
DOCS = ROOT / "docs"
PAGES = [README, ROOT / "CHANGELOG.md", *sorted(DOCS.rglob("*.md"))]
REFERENCE = DOCS / "reference"

FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
MARK = re.compile(r"<!-- (not executed|file|append|shell)(?:: ([^\n]+))? -->\s*\Z")
WITH_WORKER = "<!-- with a worker -->"
WITH_SERVICE = "<!-- with a service at REPORT_URL -->"
WITH_SERVER = "<!-- with a server at RUNS_URL -->"
EXPECTED = re.compile(r"# → (.*)$")
FIRST_CELL = re.compile(r"^\| `([^`]+)` \|", re.MULTILINE)


def page_id(path: Path) -> str:
    return str(path.relative_to(ROOT))


@dataclass(frozen=True)
class Block:
    language: str
    code: str
    line: int  # in the page, of the first line of code
    mark: str
    argument: str


def blocks(path: Path) -> Iterator[Block]:
    text = path.read_text(encoding="utf-8")
    for found in FENCE.finditer(text):
        indent, language, code = found.groups()
        mark = MARK.search(text, 0, found.start())
        yield Block(
            language=language,
            code=re.sub(rf"^{indent}", "", code, flags=re.MULTILINE),
            line=text.count("\n", 0, found.start(3)) + 1,
            mark=(mark.group(1) if mark else ""),
            argument=(mark.group(2) or "" if mark else ""),
        )


def examples(path: Path) -> list[Block]:
    return [block for block in blocks(path) if block.language == "python" and not block.mark]


def section(path: Path, title: str) -> str:
    """The text under a heading, up to the next one of its level or above."""
    text = path.read_text(encoding="utf-8")
    heading = re.search(rf"^(#+) {re.escape(title)}$", text, re.MULTILINE)
    assert heading, f"{page_id(path)} has no heading {title!r}"
    rest = text[heading.end() :]
    end = re.search(rf"^#{{1,{len(heading.group(1))}}} ", rest, re.MULTILINE)
    return rest[: end.start()] if end else rest


def documented(path: Path, title: str) -> list[str]:
    """The names in the first column of the first table under a heading, without those of deeper headings."""
    return FIRST_CELL.findall(re.split(r"^#", section(path, title), maxsplit=1, flags=re.MULTILINE)[0])


# -- the examples -----------------------------------------------------------------------------------------------------


@pytest.fixture
def no_new_tasks() -> Iterator[None]:
    before = dict(registry._tasks)
    yield
    registry._tasks.clear()
    registry._tasks.update(before)


def execute(block: Block, namespace: dict[str, Any], source: str) -> None:
    """Statement by statement; top-level `async for` and `await` as in `python -m asyncio`."""
    tree = ast.parse("\n" * (block.line - 1) + block.code, source)
    lines = source_lines(block)
    for node in tree.body:
        expected = EXPECTED.search(lines[node.end_lineno or 0]) if isinstance(node, ast.Expr) else None
        if expected is None:
            run_statement(compile(ast.Module([node], []), source, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), namespace)
        else:
            value = eval(compile(ast.Expression(node.value), source, "eval"), namespace)  # noqa: S307 our own pages
            assert expected.group(1) in (str(value), repr(value)), f"{source}:{node.lineno}"


def source_lines(block: Block) -> dict[int, str]:
    return dict(enumerate(block.code.splitlines(), block.line))


def run_statement(code: types.CodeType, namespace: dict[str, Any]) -> None:
    if code.co_flags & inspect.CO_COROUTINE:
        # Through asgiref, so that the ORM works on this thread's connection, as it does under Django.
        async_to_sync(types.FunctionType(code, namespace))()
    else:
        exec(code, namespace)  # noqa: S102 our own pages


class Report(http.server.BaseHTTPRequestHandler):
    """Somebody else's service, which sends the lines of its answer as it goes along."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        for line in (b"10 % done\n", b"100 % done\n"):
            self.wfile.write(line)
            time.sleep(0.05)

    def log_message(self, *arguments: Any) -> None: ...


@contextmanager
def report_service() -> Iterator[None]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Report) as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("REPORT_URL", f"http://127.0.0.1:{server.server_port}/")
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        try:
            yield
        finally:
            server.shutdown()


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("no_new_tasks")
@pytest.mark.parametrize("path", [path for path in PAGES if examples(path)], ids=page_id)
def test_examples_of_a_page_run_in_order_and_give_what_they_say(path, monkeypatch, settings, request):
    # A real module: pydantic and dataclasses look up names where a class says that it is from.
    module = types.ModuleType(f"docs_{path.stem.replace('-', '_')}")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    text = path.read_text(encoding="utf-8")
    if WITH_SERVER in text:
        monkeypatch.setenv("RUNS_URL", request.getfixturevalue("asgi_server")("uvicorn").url)
        monkeypatch.setenv("RUNS_KEY", secret_keys()[0])
    has_worker = WITH_WORKER in text
    if has_worker:
        settings.REALTIME_RUNS = settings.REALTIME_RUNS | {"BACKEND": EMBEDDED}
    with (
        worker_in_thread() if has_worker else nullcontext(),
        report_service() if WITH_SERVICE in text else nullcontext(),
    ):
        for block in examples(path):
            execute(block, vars(module), page_id(path))
    with override_settings(REALTIME_RUNS=vars(module).get("REALTIME_RUNS", {})):
        assert our_checks.check_settings(None) == []
        assert our_checks.check_backend(None) == []


@pytest.mark.parametrize("path", PAGES, ids=page_id)
def test_a_block_that_is_not_executed_says_why(path):
    for block in blocks(path):
        if block.mark == "not executed":
            assert block.argument, f"{page_id(path)}:{block.line}"
        assert block.language, f"{page_id(path)}:{block.line} has no language"


def test_expected_values_are_compared(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("```python\none = 1\none + 1  # → 3\n```\n")
    with pytest.raises(AssertionError):
        execute(examples(page)[0], {}, "page")


# -- the projects that README and tutorial build ----------------------------------------------------------------------


class Project:
    """A fresh Django project with the files of a page."""

    def __init__(self, folder: Path, page: Path) -> None:
        self.folder = folder
        # As after `pip install`, and nothing of the settings that this test session runs with.
        self.env = {name: value for name, value in os.environ.items() if not name.startswith(("TEST", "REALTIME_RUNS"))}
        self.env |= {"PYTHONPATH": str(ROOT), "DJANGO_SETTINGS_MODULE": "mysite.settings", "PYTHONUNBUFFERED": "1"}
        call_command("startproject", "mysite", folder)
        for app in self.apps_of(page):
            (folder / app).mkdir()
            call_command("startapp", app, folder / app)
        for block in blocks(page):
            target = folder / block.argument
            target.parent.mkdir(parents=True, exist_ok=True)
            if block.mark == "file":
                target.write_text(block.code)
            elif block.mark == "append":
                target.write_text(target.read_text() + block.code)

    def apps_of(self, page: Path) -> set[str]:
        return set(re.findall(r"manage\.py startapp (\w+)", page.read_text(encoding="utf-8")))

    def python(self, *arguments: str, status: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, *arguments], cwd=self.folder, env=self.env, capture_output=True, text=True, timeout=50
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done

    def prepare(self) -> None:
        done = self.python("-Werror", "manage.py", "migrate", "--verbosity=0")
        assert done.stderr == ""  # where the warnings of Django's checks would be, those about the database too


@pytest.mark.sqlite
def test_a_fresh_project_with_what_the_readme_adds_has_nothing_to_complain_about(tmp_path):
    project = Project(tmp_path, README)
    project.prepare()
    project.python("-Werror", "-c", "import mysite.asgi; from realtime_runs import runs; assert runs.list().data == []")


@pytest.mark.sqlite
def test_tutorial_can_be_carried_out(tmp_path, start_process, eventually):
    project = Project(tmp_path, page := DOCS / "tutorial.md")
    project.prepare()
    port = free_port()
    start_process([str(tmp_path / "manage.py"), "runserver", "--noreload", str(port)], env=project.env, fresh=True)
    server = f"http://127.0.0.1:{port}"

    command = re.search(r"runs_trigger (yearly-report) '(.*)' --follow", page.read_text(encoding="utf-8"))
    done = project.python("manage.py", "runs_trigger", *command.groups(), "--follow")
    updates = [json.loads(line) for line in done.stdout.splitlines()]
    assert updates[-1]["output"] == {"pages": 9}
    assert len({json.dumps(update["metadata"].get("progress")) for update in updates}) > 2

    refused = project.python("manage.py", "runs_trigger", "yearly-report", '{"customers": "Ada"}', status=2)
    assert refused.stderr.strip() in page.read_text(encoding="utf-8")

    shell = "".join(block.code for block in blocks(page) if block.mark == "shell")
    printed = project.python("manage.py", "shell", "-c", shell).stdout.splitlines()
    assert [line for line in printed if line.startswith(("COMPLETED", "6"))] == [
        "COMPLETED {'current': 2, 'total': 2}",
        "6",
    ]

    browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
    form = eventually(lambda: get(browser, server))
    token = re.search(r'csrfmiddlewaretoken" value="(\w+)"', form).group(1)
    data = urllib.parse.urlencode({"customers": "Ada Grace", "csrfmiddlewaretoken": token}).encode()
    with browser.open(f"{server}/", data, timeout=20) as response:
        lines = response.read().decode().splitlines()
    assert lines[-1] == "COMPLETED 2 of 2"
    assert len(lines) > 2


def get(browser: urllib.request.OpenerDirector, url: str) -> str:
    try:
        with browser.open(url, timeout=5) as response:
            return response.read().decode()
    except OSError:
        return ""


# -- the reference ----------------------------------------------------------------------------------------------------


def test_each_setting_has_a_row_with_its_default():
    rows = re.findall(r"^\| `([A-Z_]+)` \| `(.+?)` \|", (REFERENCE / "settings.md").read_text(), re.MULTILINE)
    assert {name: ast.literal_eval(default) for name, default in rows} == dict(DEFAULTS)
    assert len(rows) == len(DEFAULTS)


def test_each_command_has_a_section_with_its_options():
    page = REFERENCE / "commands.md"
    commands = sorted(name for name, app in get_commands().items() if app == "realtime_runs")
    assert sorted(re.findall(r"^## (\w+)$", page.read_text(), re.MULTILINE)) == commands
    common = options_of(BaseCommand()) | {"--skip-checks"}
    for name in commands:
        own = options_of(load_command_class("realtime_runs", name)) - common
        described = {cell.split()[0] for cell in documented(page, name)}
        assert described == own, name


def options_of(command: BaseCommand) -> set[str]:
    parser = command.create_parser("manage.py", "x")
    return {option for action in parser._actions for option in action.option_strings if option.startswith("--")}


MODULES = ["tasks", "runs", "streams", "wait", "batch", "metadata", "tags", "auth", "client", "testing"]


@pytest.mark.parametrize("name", MODULES)
def test_each_public_name_of_a_module_is_in_the_api_reference(name):
    module = importlib.import_module(f"realtime_runs.{name}")
    assert sorted(documented(REFERENCE / "api.md", f"realtime_runs.{name}")) == sorted(module.__all__)


def test_each_exception_is_in_the_api_reference():
    ours = [
        name for name, value in vars(our_exceptions).items() if inspect.isclass(value) and issubclass(value, Exception)
    ]
    assert sorted(documented(REFERENCE / "api.md", "realtime_runs.exceptions")) == sorted(ours)


def public_members(cls: type) -> set[str]:
    shared = (Closable, Page)  # what readers are, and pages
    ours = [base for base in cls.__mro__ if base is cls or issubclass(base, shared)]
    inherited = {name for base in cls.__mro__ if base not in ours for name in vars(base)}
    own = {name for base in ours for name in vars(base)} | set(getattr(cls, "__dataclass_fields__", ()))
    return {name for name in own - inherited if not name.startswith("_")}


CLASSES = [
    tasks.Retry,
    tasks.RunContext,
    tasks.RunHandle,
    tasks.BatchHandle,
    tasks.RunResult,
    runs.RealtimeRun,
    runs.RunError,
    runs.RunPage,
    runs.Subscription,
    runs.StreamSubscription,
    runs.RunUpdate,
    runs.StreamChunk,
    streams.Stream,
    streams.StreamReader,
    streams.StreamRecord,
    streams.StreamRestarted,
    streams.StreamWriter,
    streams.InputStream,
    streams.InputHandling,
    wait.WaitToken,
    wait.WaitResult,
    wait.WaitTokenPage,
    batch.BatchState,
]


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_each_member_of_a_public_class_is_in_the_api_reference(cls):
    assert sorted(documented(REFERENCE / "api.md", cls.__name__)) == sorted(public_members(cls))


def test_each_method_of_a_task_is_in_the_api_reference():
    assert set(documented(REFERENCE / "api.md", "Task")) == public_members(tasks.Task) | {"id"}


def test_each_function_of_the_client_is_in_the_api_reference():
    client = Client("http://127.0.0.1", "key")
    found = set()
    for namespace in ("tasks", "runs", "batch", "streams", "wait"):
        names = {name for name in vars(type(getattr(client, namespace))) if not name.startswith("_")}
        found |= {f"{namespace}.{name}" for name in names if not (name[0] == "a" and name[1:] in names)}
    assert set(documented(REFERENCE / "api.md", "Client")) == found


def test_each_trigger_option_is_in_the_api_reference():
    options = list(tasks.TriggerOptions.__annotations__)
    assert documented(REFERENCE / "api.md", "TriggerOptions") == options


def test_each_part_of_the_api_reference_is_compared():
    headings = set(re.findall(r"^#{2,3} (.+)$", (REFERENCE / "api.md").read_text(), re.MULTILINE))
    modules = {f"realtime_runs.{name}" for name in MODULES}
    others = {"Client", "realtime_runs.exceptions", "realtime_runs.routing", "Task", "TriggerOptions"}
    assert headings == modules | others | {cls.__name__ for cls in CLASSES}


def test_each_check_is_in_its_reference():
    in_code = set(re.findall(r'id="(realtime_runs\.[EW]\d+)"', inspect.getsource(our_checks)))
    assert set(documented(REFERENCE / "checks.md", "System checks")) == in_code


# -- the rest ---------------------------------------------------------------------------------------------------------


def test_readme_is_short():
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 120


def anchors(path: Path) -> set[str]:
    """As GitHub makes them: lower case, without punctuation, spaces become hyphens."""
    text = FENCE.sub("", path.read_text(encoding="utf-8"))
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("path", PAGES, ids=page_id)
def test_links_lead_somewhere(path):
    text = FENCE.sub("", path.read_text(encoding="utf-8"))
    for link in re.findall(r"\]\(([^)]+)\)", text):
        if re.match(r"https?:", link):
            continue
        target, _, anchor = link.partition("#")
        file = (path.parent / target) if target else path
        assert file.is_file(), f"{page_id(path)}: {link}"
        assert not anchor or anchor in anchors(file), f"{page_id(path)}: {link}"


def test_each_page_is_on_the_map():
    linked = re.findall(r"\]\(([^)#]+)\)", (DOCS / "index.md").read_text(encoding="utf-8"))
    pages = {str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md")} - {"index.md"}
    assert sorted(linked) == sorted(pages)


def test_changelog_begins_with_this_version():
    versions = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert versions[0] == realtime_runs.__version__
