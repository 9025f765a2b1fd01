"""The page of docs/how-to/streams-over-http.md: its JavaScript, in a real EventSource, on its view under a real server.

Node.js has an EventSource since 20.18 and 22.3. It knows no cookies and no page, so both are added here.
"""

import json
import shutil
import subprocess
import sys
import threading
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from django.contrib.auth import get_user_model
from django.core.asgi import get_asgi_application
from django.test import Client

from realtime_runs import streams
from realtime_runs.engine import registry
from realtime_runs.tasks import Retry, RunContext, task
from tests.conftest import close_connection_of_event_loops, eventually
from tests.in_process import worker_in_thread
from tests.services import free_port, skip_or_fail
from tests.test_docs import DOCS, blocks, examples, execute, page_id

pytestmark = pytest.mark.django_db(transaction=True)

PAGE = DOCS / "how-to" / "streams-over-http.md"
FLAG = "--experimental-eventsource"

BROWSER = """
const [base, runId] = process.argv.slice(1);
const NodeEventSource = EventSource;
globalThis.EventSource = class extends NodeEventSource {
  constructor(path) { super(new URL(path, base)); }
};
const show = (text) => { output.text = text; console.log(JSON.stringify(text)); };
const output = {
  text: "",
  append: (text) => show(output.text + text),
  replaceChildren: () => show(""),
};
setInterval(() => source.readyState === EventSource.CLOSED && process.exit(), 10);
"""


@pytest.fixture(scope="module")
def node(request: pytest.FixtureRequest) -> str:
    """Path of a Node.js that has an EventSource; skips the test (or fails it where services are required) without."""
    program = shutil.which("node")
    if not program:
        skip_or_fail(request.config, "No node on PATH.")
    asked = subprocess.run([program, FLAG, "-e", "new EventSource('data:,').close()"], capture_output=True)
    if asked.returncode:
        skip_or_fail(request.config, f"{program} has no EventSource; it came with Node.js 20.18 and 22.3.")
    return program


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch, settings: Any) -> Iterator[types.ModuleType]:
    """What the first block of the page defines, with its URLs in force."""
    module = types.ModuleType("docs_event_source")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    before = dict(registry._tasks)
    execute(examples(PAGE)[0], vars(module), page_id(PAGE))
    settings.ROOT_URLCONF = module.__name__
    settings.REALTIME_RUNS = {**settings.REALTIME_RUNS, "BACKEND": "tests.tasks_live.WorkElsewhere"}
    yield module
    registry._tasks.clear()
    registry._tasks.update(before)


class Browser:
    """Ada, who has logged in, and looks at the page of a run."""

    def __init__(self, node: str, folder: Path) -> None:
        self.user = get_user_model().objects.create_user("ada")
        self.asked: list[bytes] = []  # the Last-Event-ID of each request
        self.statuses: list[int] = []
        client = Client()
        client.force_login(self.user)
        self._cookie = client.cookies.output(attrs=[], header="").strip()
        self._page: subprocess.Popen[bytes] | None = None
        self._node = node
        self._shown = folder / "shown"
        self._application = get_asgi_application()
        self._port = free_port()
        options = {"interface": "asgi3", "lifespan": "off", "ws": "none", "log_level": "warning"}
        config = uvicorn.Config(self._serve, port=self._port, **options)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        eventually(lambda: self._server.started)

    async def _serve(self, scope: Any, receive: Any, send: Any) -> None:
        self.asked.append(dict(scope["headers"]).get(b"last-event-id", b""))
        scope = {**scope, "headers": [*scope["headers"], (b"cookie", self._cookie.encode())]}

        async def answer(message: Any) -> None:
            if message["type"] == "http.response.start":
                self.statuses.append(message["status"])
            await send(message)

        await self._application(scope, receive, answer)

    def open(self, run_id: str) -> None:
        (script,) = [block.code for block in blocks(PAGE) if block.language == "javascript"]
        with self._shown.open("wb") as shown:
            self._page = subprocess.Popen(
                [self._node, FLAG, "-e", BROWSER + script, f"http://127.0.0.1:{self._port}", run_id],
                stdin=subprocess.DEVNULL,
                stdout=shown,
            )

    @property
    def shown(self) -> list[str]:
        """What was to be read in the page, after each change."""
        return [json.loads(line) for line in self._shown.read_text().splitlines(keepends=True) if line.endswith("\n")]

    def shows(self, text: str) -> bool:
        return self.shown[-1:] == [text]

    def is_done(self) -> bool:
        """Whether the EventSource is closed, so that it does not come back."""
        return self._page is not None and self._page.poll() == 0

    def quit(self) -> None:
        if self._page is not None:
            self._page.kill()
            self._page.wait()
        self._server.should_exit = True
        self._thread.join(20)
        close_connection_of_event_loops()


@pytest.fixture
def browser(node: str, tmp_path: Path, page: types.ModuleType) -> Iterator[Browser]:
    browser = Browser(node, tmp_path)
    yield browser
    browser.quit()


def test_a_page_that_was_cut_off_goes_on_behind_what_it_had_and_closes_at_the_end(
    page: types.ModuleType, browser: Browser, settings: Any
) -> None:
    settings.REALTIME_RUNS = {**settings.REALTIME_RUNS, "STREAM_TIMEOUT_SECONDS": 1}  # then the server hangs up
    run_id = page.answer_question.trigger("", delay="1h", tags=[f"user:{browser.user.pk}"]).id
    browser.open(run_id)
    for word in ("tea", "please"):
        page.answer.append(word, target=run_id)
    eventually(lambda: browser.shows("tea please "))
    eventually(lambda: browser.asked[1:], timeout=20, message="The EventSource did not come back")
    page.answer.append("now", target=run_id)
    page.answer.close(target=run_id)
    eventually(browser.is_done, timeout=20)
    assert browser.shown == ["tea ", "tea please ", "tea please now "]
    assert browser.asked[:2] == [b"", b"1"]


def test_a_page_shows_only_what_the_new_attempt_writes(page: types.ModuleType, browser: Browser) -> None:
    page.answer = answer = streams.define("answer", str, on_retry="restart")
    was_read = threading.Event()

    @task(id="answer-again", retry=Retry(max_attempts=2, min_seconds=0.01))
    def answer_again(payload: None, ctx: RunContext) -> None:
        answer.append(f"attempt {ctx.attempt}")
        if ctx.attempt == 1:
            assert was_read.wait(20)
            raise ConnectionError("the model went away")

    with worker_in_thread():
        browser.open(answer_again.trigger(None, tags=[f"user:{browser.user.pk}"]).id)
        eventually(lambda: browser.shows("attempt 1 "), timeout=20)
        was_read.set()
        eventually(browser.is_done, timeout=20)
    assert browser.shown == ["attempt 1 ", "", "attempt 2 "]


def test_a_page_of_somebody_else_shows_nothing(page: types.ModuleType, browser: Browser) -> None:
    run_id = page.answer_question.trigger("", delay="1h", tags=["user:0"]).id
    page.answer.append("secret", target=run_id)
    browser.open(run_id)
    eventually(browser.is_done, timeout=20)  # refused, an EventSource does not come back
    assert (browser.shown, browser.statuses) == ([], [403])
