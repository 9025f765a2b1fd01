"""A real browser (Chromium of the machine, driven by Playwright) before real servers.

A test fails when its pages wrote an error to the console, or asked for anything but our own server.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import axe_playwright_python
import pytest
from django.contrib.auth.models import User
from django.db import connections
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Error, Page, sync_playwright

from realtime_runs import runs
from realtime_runs.models import Run
from tests.conftest import PROCESSES, ROOT, Process, WebServer, environment_of_servers, eventually, freeze, serve
from tests.services import skip_or_fail

AXE = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text(encoding="utf-8")
WCAG = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]
# Links of the admin change their colour in steps.
SETTLED = """Promise.allSettled(
  document.getAnimations().filter((one) => one instanceof CSSTransition).map((one) => one.finished)
)"""
IMAGES = ROOT / "docs" / "images"
DESKTOP = {"width": 1100, "height": 720}
PHONE = {"width": 390, "height": 780}
ELSEWHERE = {"BACKEND": "tests.tasks_live.WorkElsewhere", "BACKSTOP_SECONDS": 0.1}  # settings of who only serves
# The first is the same engine without windows and what a person needs around a page, so it takes less CPU.
CHROMIUM = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
# Each window has two more pages for its address bar, which nobody sees here: half of what a test's page costs.
ADDRESS_BAR = ["WebUIOmniboxPopup", "WebUIOmniboxAimPopup"]
# Of Playwright's own list, which ours replaces: what has to do with pages, and with looking for its maker's hosts.
BY_PLAYWRIGHT = [
    "AimEnabled",
    "AvoidUnnecessaryBeforeUnloadCheckSync",
    "DestroyProfileOnBrowserClose",
    "HttpsFirstBalancedModeAutoEnable",
    "HttpsUpgrades",
    "NetworkTimeServiceQuerying",
    "OptimizationHints",
    "PaintHolding",
    "PreconnectToSearch",
    "ThirdPartyStoragePartitioning",
]
# Without the switches against background work, Chromium looks for its maker's hosts at every start.
ARGUMENTS = [
    f"--disable-features={','.join(ADDRESS_BAR + BY_PLAYWRIGHT)}",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(autouse=True)
def _queries_beside_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """Playwright runs an event loop in the thread of the tests, in which Django would refuse queries."""
    monkeypatch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "1")


@pytest.fixture(scope="module")
def browser(request: pytest.FixtureRequest) -> Iterator[Browser]:
    """One for the tests of a module. (Not for the session: tests with loops of their own may follow in this process.)"""
    chromium = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if chromium is None:
        skip_or_fail(request.config, "There is no Chromium on PATH. On Debian: apt-get install chromium-headless-shell")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        yield browser
        browser.close()


class Pages:
    """Pages of one visitor, who has a cookie jar of its own. `problems`: what went wrong on them."""

    def __init__(self, context: BrowserContext) -> None:
        self.context = context
        self.problems: list[str] = []
        # Texts of problems that a test brings about itself: a server that is stopped cannot be reached.
        self.expected: list[str] = []
        context.on("page", self._watch)

    def _watch(self, page: Page) -> None:
        page.on("pageerror", self._on_error)
        page.on("console", self._on_console)

    def _on_error(self, error: Error) -> None:
        self.problems.append(f"uncaught: {error}")

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.problems.append(f"{message.type}: {message.text} ({message.location})")

    def check(self) -> None:
        unexpected = [found for found in self.problems if not any(text in found for text in self.expected)]
        assert unexpected == []


@pytest.fixture
def visitor(browser: Browser) -> Iterator[Callable[..., Pages]]:
    """`visitor(**options)`: somebody with a browser of its own; options of Playwright's `new_context`."""
    visitors: list[Pages] = []

    def come(**options: Any) -> Pages:
        context = browser.new_context(**{"viewport": DESKTOP, "reduced_motion": "reduce", **options})
        context.set_default_timeout(10_000)
        visitors.append(Pages(context))
        return visitors[-1]

    yield come
    for one in visitors:
        one.context.close()
    for one in visitors:
        one.check()


@pytest.fixture
def pages(visitor: Callable[..., Pages]) -> Pages:
    return visitor()


@pytest.fixture
def page(pages: Pages) -> Page:
    """One tab. Whatever its page writes to the console as an error fails the test."""
    return pages.context.new_page()


@pytest.fixture(scope="module")
def module_server(
    django_db_setup: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., WebServer]]:
    """`module_server(**overrides)`: the project under Daphne for all tests of a module; another one if it has ended."""
    logs = tmp_path_factory.mktemp("servers")
    servers: list[WebServer] = []

    def start(arguments: list[str], env: dict[str, str]) -> Process:
        return Process(arguments, env, logs / f"{len(servers)}.log")

    def get(**overrides: Any) -> WebServer:
        if not servers or servers[-1].process.has_ended:
            servers.append(serve(start, environment_of_servers(), "daphne", **overrides))
        servers[-1].process.cont()
        return servers[-1]

    yield get
    for server in servers:
        server.process.kill9()


@pytest.fixture
def server(
    request: pytest.FixtureRequest, module_server: Callable[..., WebServer], transactional_db: None
) -> Iterator[WebServer]:
    """A server with a worker inside, which a busy machine may stop for some seconds."""
    server = module_server(LEASE_SECONDS=15)
    request.node.stash[PROCESSES] = [server.process]  # whose output is shown when the test fails
    yield server
    for run in Run.objects.unfinished():
        runs.cancel(run.pk)
    freeze(server.process)  # the database is emptied now: nobody shall write to it meanwhile


@pytest.fixture
def serving(
    request: pytest.FixtureRequest,
    module_server: Callable[..., WebServer],
    transactional_db: None,
    nobody_executes: None,
) -> WebServer:
    """A server that only serves, so its tests write what a worker would."""
    server = module_server(**ELSEWHERE)
    request.node.stash[PROCESSES] = [server.process]
    return server


def log_in(context: BrowserContext, server: WebServer, user: User) -> None:
    """Give the visitor a session of this user, as a login would."""
    from django.test import Client

    client = Client()
    client.force_login(user)
    context.add_cookies([{"name": "sessionid", "value": client.cookies["sessionid"].value, "url": server.url}])


def until(page: Page, condition: str) -> Any:
    """Wait for a JavaScript expression to be true. Playwright's own `wait_for_function` evaluates a text inside of the
    page, which a strict policy forbids.
    """
    return eventually(lambda: page.evaluate(condition), interval=0.05, message=condition)


def aside(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call what refuses to block a thread with an event loop, as streams do, in a thread without one."""

    def run() -> Any:
        try:
            return call(*args, **kwargs)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(run).result()


@pytest.fixture
def accessible() -> Callable[..., None]:
    """`accessible(page)`: fails when axe finds a serious or critical fault (WCAG 2.1 A and AA) in the page as it is;
    `in_dark_too=True`: and as it is for who prefers dark colours.
    """

    def check(page: Page, in_dark_too: bool = False) -> None:
        if not page.evaluate("'axe' in window"):
            page.evaluate(AXE)
        assert faults(page) == []
        if in_dark_too:
            page.emulate_media(color_scheme="dark")
            assert faults(page) == []
            page.emulate_media(color_scheme="light")

    def faults(page: Page) -> list[str]:
        page.evaluate(SETTLED)
        found = page.evaluate("(rules) => axe.run(document, {runOnly: rules, resultTypes: ['violations']})", WCAG)
        return [
            f"{fault['id']}: {fault['help']}: {[node['html'][:160] for node in fault['nodes'][:3]]}"
            for fault in found["violations"]
            if fault["impact"] in ("serious", "critical")
        ]

    return check


@pytest.fixture
def picture() -> Callable[..., None]:
    """`picture(page, "admin-run")`: the screenshot docs/images/admin-run.png, made anew when SCREENSHOTS is set."""

    def take(page: Page, name: str, **options: Any) -> None:
        if os.environ.get("SCREENSHOTS"):
            IMAGES.mkdir(exist_ok=True)
            page.screenshot(path=IMAGES / f"{name}.png", **options)

    return take
