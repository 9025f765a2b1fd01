"""The page of the how-to, with htmx and its SSE extension as they are published, and no JavaScript of ours."""

import json
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.template import Context, Template
from playwright.sync_api import Page, Route, expect

from realtime_runs import runs
from realtime_runs.engine.appending import Append, append_all
from realtime_runs.models import Run, StreamName
from tests import tasks as t
from tests.browser.conftest import Pages, log_in
from tests.conftest import ROOT
from tests.interop.conftest import MODULES, Uninstallable, install_packages
from tests.services import skip_or_fail
from tests.test_docs import blocks
from tests.urls import STRICT

PAGE = ROOT / "docs/how-to/htmx.md"
SCRIPTS = {"htmx.js": MODULES / "htmx.org/dist/htmx.js", "sse.js": MODULES / "htmx-ext-sse/sse.js"}


@pytest.fixture
def packages(request: pytest.FixtureRequest) -> None:
    try:
        install_packages()
    except Uninstallable as reason:
        skip_or_fail(request.config, f"htmx cannot be installed: {reason}")


def show(page: Page, url: str, run_id: str) -> None:
    """Both examples, as a view of the site would show them under a strict policy, and the report."""
    source = "".join(block.code for block in blocks(PAGE) if block.language == "html")
    html = Template(source).render(Context({"run": runs.retrieve(run_id)}))

    def answer(route: Route) -> None:
        name = Path(route.request.url).name
        if name in SCRIPTS:
            route.fulfill(content_type="text/javascript", body=SCRIPTS[name].read_text(encoding="utf-8"))
        else:
            route.fulfill(content_type="text/html", body="<b>The report</b>")

    page.route("**/static/*.js", answer)
    page.route("**/reports/*", answer)
    page.route(
        "**/htmx-page",
        lambda route: route.fulfill(
            content_type="text/html", body=f"<!doctype html>{html}", headers={"Content-Security-Policy": STRICT}
        ),
    )
    page.add_init_script("ended = []; addEventListener('htmx:sseClose', (event) => ended.push(event.detail.type))")
    page.goto(f"{url}/htmx-page")


def append(run_id: str, *chunks: Any) -> None:
    append_all([Append(StreamName(run_id, "output", "ai-output"), [json.dumps(one).encode() for one in chunks])])


@pytest.mark.timeout(300)  # the first of the suite may have to install the packages
def test_htmx_shows_a_run_and_its_stream_until_the_end(
    asgi_server: Any, nobody_executes: None, packages: None, pages: Pages, page: Page
) -> None:
    server = asgi_server("daphne", BACKEND="tests.tasks_live.WorkElsewhere")
    run_id = t.echo.trigger(1).id
    log_in(pages.context, server, User.objects.create_user("ann", is_staff=True))
    append(run_id, "Words ", "<b>as text</b> ")
    show(page, server.url, run_id)
    expect(page.locator("pre")).to_have_text("Words <b>as text</b> ")
    Run.objects.filter(pk=run_id).touch(metadata=json.dumps({"progress": {"current": 1, "total": 4}, "status": "<i>"}))
    expect(page.locator("run-progress")).to_contain_text("25% 1 of 4 <i>")
    expect(page.locator("run-progress progress")).to_have_attribute("value", "25")
    append(run_id, "and\nlines", {"n": 1})
    runs.cancel(run_id)
    expect(page.locator("run-status")).to_have_text("Canceled")
    expect(page.get_by_text("The report", exact=True)).to_be_visible()
    assert page.locator("pre").text_content() == 'Words <b>as text</b> and\nlines\n{"n":1}\n'
    # Neither EventSource comes back.
    page.wait_for_function("() => ended.join() == 'message,message'")
