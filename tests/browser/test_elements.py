"""The elements in a browser, under a strict Content-Security-Policy; this process writes what a worker would."""

import json
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.utils import timezone
from playwright.sync_api import Page, Route, WebSocketRoute, expect

from realtime_runs import auth, batch, runs
from realtime_runs.display import elements
from realtime_runs.display.progress import read_note, read_progress
from realtime_runs.engine.appending import Append, append_all
from realtime_runs.models import Run, StreamName
from realtime_runs.statuses import FINAL, RunStatus
from tests import tasks as t
from tests.browser.conftest import Pages, log_in
from tests.conftest import WebServer

HOSTILE = "</pre><img src=x onerror=alert(1)><script>alert(1)</script>&lt;"


@pytest.fixture
def server(serving: WebServer) -> WebServer:
    return serving


@pytest.fixture
def staff(server: WebServer) -> User:
    return User.objects.create_user("ann", is_staff=True)


@pytest.fixture
def pages(pages: Pages, server: WebServer, staff: User) -> Pages:
    log_in(pages.context, server, staff)
    return pages


def show(page: Page, server: WebServer, *run_ids: str, batch_id: str = "") -> None:
    query = "&".join(
        ["key=out", *(f"run={run_id}" for run_id in run_ids), *([f"batch={batch_id}"] if batch_id else [])]
    )
    page.goto(f"{server.url}/tests/elements?{query}")


def write(run_id: str, *chunks: Any) -> None:
    append_all([Append(StreamName(run_id, "output", "out"), [json.dumps(one).encode() for one in chunks])])


def enter(run_id: str, status: RunStatus, **values: Any) -> None:
    """What the moves of a worker leave in the row."""
    now = timezone.now()
    if "metadata" in values:
        values["metadata"] = json.dumps(values["metadata"])
    is_leased = status in (RunStatus.EXECUTING, RunStatus.WAITING)
    lease = {"lease_token": "x" * 32, "lease_until": now + timedelta(hours=1)} if is_leased else {}
    Run.objects.filter(pk=run_id).touch(
        status=status,
        started_at=now,
        finished_at=now if status in FINAL else None,
        **({"lease_token": "", "lease_until": None} | lease | values),
    )


def events(page: Page) -> list[Any]:
    found: list[Any] = page.evaluate("seen")
    return found


def test_what_the_server_has_rendered_goes_on_in_place(server: WebServer, page: Page) -> None:
    run_id, other = t.echo.trigger(1).id, t.echo.trigger(1).id
    page.add_init_script(
        """seen = []; for (const name of ['run-change', 'run-end']) addEventListener(name, (event) =>
        event.target.localName == 'run-status' && seen.push([name, event.detail.id, event.detail.status]))"""
    )
    show(page, server, run_id, other)
    status, progress = page.locator(f"run-status[run={run_id}]"), page.locator(f"run-progress[run={run_id}]")
    badge = page.evaluate_handle("document.querySelector('run-status [part=label]')")
    expect(status).to_have_attribute("data-state", "live")
    top = progress.bounding_box()
    enter(run_id, RunStatus.EXECUTING, metadata={"progress": {"current": 1200, "total": 3376, "currentItem": HOSTILE}})
    expect(status).to_have_text("Executing")
    expect(progress).to_contain_text("35% 1,200 of 3,376 " + HOSTILE)
    bar = progress.get_by_role("progressbar", name="Progress of t-echo")
    expect(bar).to_have_attribute("aria-valuetext", f"35%, 1,200 of 3,376, {HOSTILE}")
    assert badge.evaluate("(label) => label.isConnected && label.textContent") == "Executing"  # the same node
    assert progress.bounding_box() == top  # nothing has moved
    expect(page.get_by_role("status")).to_have_text("t-echo: Executing")
    enter(run_id, RunStatus.COMPLETED, metadata={"progress": 1})
    expect(status).to_have_text("Completed")
    expect(status).to_have_attribute("data-state", "over")
    expect(progress).to_contain_text("100%")
    expect(page.locator(f"run-cancel[run={run_id}]")).to_be_hidden()
    expect(page.get_by_role("status")).to_have_text("t-echo: Completed")
    assert events(page)[-2:] == [["run-change", run_id, "COMPLETED"], ["run-end", run_id, "COMPLETED"]]
    expect(page.locator(f"run-status[run={other}]")).to_have_text("Queued")


def test_a_script_of_the_page_that_is_late_hears_of_a_run_that_was_over_before_it(
    server: WebServer, page: Page
) -> None:
    run_id = t.echo.trigger(1).id

    def load_late(route: Route) -> None:
        enter(run_id, RunStatus.COMPLETED)
        connection.close()  # a callback of the driver has one of its own
        time.sleep(1)  # an element that does not wait knows it by now
        script = "window.seen = []; addEventListener('run-end', (event) => seen.push(event.target.localName))"
        route.fulfill(content_type="text/javascript", body=script)

    page.route(f"{server.url}/late.js", load_late)
    page.goto(f"{server.url}/tests/elements?run={run_id}&script=/late.js")
    expect(page.locator("run-status")).to_have_attribute("data-state", "over")
    assert events(page).count("run-status") == 1


def test_elements_of_a_run_share_one_subscription(server: WebServer, page: Page) -> None:
    run_id = t.echo.trigger(1).id
    show(page, server, run_id, run_id, run_id)
    expect(page.locator("run-status").last).to_have_attribute("data-state", "live")

    def listeners() -> int:
        return int(page.request.get(f"{server.url}/tests/listeners").json()["count"])

    assert listeners() <= 1 + 3  # the run, and a stream in each section
    page.evaluate("document.querySelector('main').replaceChildren()")
    page.wait_for_function(
        "() => fetch('/tests/listeners').then((answer) => answer.json()).then(({count}) => count == 0)"
    )


def test_text_streams_in_and_a_reload_in_the_middle_loses_and_doubles_nothing(server: WebServer, page: Page) -> None:
    run_id = t.echo.trigger(1).id
    write(run_id, "\nOnce ", "upon ")
    show(page, server, run_id)
    log = page.get_by_role("log", name="out of t-echo")
    assert log.text_content() == "\nOnce upon "
    write(run_id, "a time ")
    expect(log).to_contain_text("a time")
    page.reload()
    write(run_id, HOSTILE, {"a": [1, "é"]}, "\r\n", 5)
    # Replaced in the page, as a fragment that comes again: it goes on where it was.
    expect(log).to_contain_text("é")
    page.evaluate("document.querySelector('main').append(document.querySelector('run-stream'))")
    write(run_id, "end")
    expect(log).to_contain_text("end")
    assert log.text_content() == f'\nOnce upon a time {HOSTILE}\n{{"a":[1,"é"]}}\n\n5\nend'
    runs.cancel(run_id)
    expect(page.locator("run-stream")).to_have_attribute("data-state", "over")
    page.reload()
    assert log.text_content() == f'\nOnce upon a time {HOSTILE}\n{{"a":[1,"é"]}}\n\n5\nend'


SHOWS_END = "() => [...document.querySelectorAll('pre')].every((log) => log.scrollHeight - log.clientHeight - log.scrollTop < 2)"


def test_a_long_stream_follows_its_end_unless_the_reader_scrolls_up(server: WebServer, page: Page) -> None:
    run_id = t.echo.trigger(1).id
    write(run_id, *(f"line {number}\n" for number in range(100)))
    show(page, server, run_id)
    log = page.get_by_role("log")
    page.wait_for_function(SHOWS_END)
    log.focus()
    page.keyboard.press("Home")
    page.wait_for_function("() => document.querySelector('pre').scrollTop == 0")
    write(run_id, "one more\n")
    expect(log).to_contain_text("one more")
    assert log.evaluate("(log) => log.scrollTop") == 0
    page.keyboard.press("End")
    page.wait_for_function(SHOWS_END)
    write(run_id, *("x" * 100_000 for _ in range(3)), "\nthe end\n")
    expect(log).to_contain_text("the end")
    page.wait_for_function(SHOWS_END)
    assert log.evaluate("(log) => log.textContent.length") <= 256 * 1024
    expect(page.get_by_text("What came earlier is left out.")).to_be_visible()


def test_a_batch_counts_its_runs(server: WebServer, page: Page) -> None:
    handle = batch.trigger([{"task": "t-echo", "payload": n} for n in range(4)])
    enter(handle.run_ids[0], RunStatus.COMPLETED)
    show(page, server, batch_id=handle.id)
    progress = page.locator("batch-progress")
    expect(progress).to_contain_text("1 of 4 finished")
    expect(progress).to_have_attribute("data-state", "live")
    enter(handle.run_ids[1], RunStatus.CRASHED)
    runs.cancel(handle.run_ids[2])
    expect(progress).to_contain_text("3 of 4 finished 1 failed 1 canceled")
    enter(handle.run_ids[3], RunStatus.COMPLETED)
    expect(progress).to_contain_text("4 of 4 finished")
    expect(progress).to_have_attribute("data-state", "over")
    live = progress.inner_text()
    page.reload()
    assert progress.inner_text() == live


def test_the_button_cancels_with_the_keyboard_and_says_what_became_of_it(server: WebServer, page: Page) -> None:
    run_id = t.echo.trigger(1).id
    show(page, server, run_id)
    expect(page.locator("run-cancel")).to_have_attribute("data-state", "live")
    page.get_by_role("button", name="Cancel t-echo").focus()
    page.keyboard.press("Enter")
    done = page.locator("run-cancel [part=done]")
    expect(done).to_have_text("Canceled")
    expect(done).to_be_focused()
    assert runs.retrieve(run_id).is_cancelled


def test_the_button_cancels_without_javascript(server: WebServer, staff: User, visitor: Callable[..., Pages]) -> None:
    somebody = visitor(java_script_enabled=False)
    log_in(somebody.context, server, staff)
    page = somebody.context.new_page()
    run_id = t.echo.trigger(1).id
    write(run_id, "as far as it came")
    show(page, server, run_id)
    expect(page.get_by_role("log")).to_have_text("as far as it came")
    page.get_by_role("button", name="Cancel t-echo").click()
    expect(page.locator("run-status")).to_have_text("Canceled")
    assert page.url.endswith(f"/tests/elements?key=out&run={run_id}")  # where the visitor was


def test_a_refused_cancel_is_said_and_can_be_tried_again(
    server: WebServer, staff: User, pages: Pages, page: Page
) -> None:
    run_id = t.echo.trigger(1).id
    show(page, server, run_id)
    expect(page.locator("run-cancel")).to_have_attribute("data-state", "live")
    pages.expected = ["403 (Forbidden)"]
    User.objects.filter(pk=staff.pk).update(is_staff=False)
    button = page.get_by_role("button", name="Cancel t-echo")
    button.click()
    expect(page.get_by_role("alert")).to_have_text("The run was not canceled (403).")
    User.objects.filter(pk=staff.pk).update(is_staff=True)
    button.click()
    expect(page.locator("run-status")).to_have_text("Canceled")
    expect(page.get_by_role("alert")).to_have_count(0)


def test_who_may_not_follow_keeps_what_the_server_has_rendered(
    server: WebServer, visitor: Callable[..., Pages]
) -> None:
    nobody = visitor()
    nobody.expected = ["401", "403", "WebSocket"]
    page = nobody.context.new_page()
    run_id = t.echo.trigger(1, metadata={"progress": 40}).id
    write(run_id, "words")
    show(page, server, run_id)
    for name in ("run-status", "run-progress", "run-stream"):
        expect(page.locator(name)).to_have_attribute("data-state", "refused")
    expect(page.locator("run-status")).to_have_text("Queued")
    expect(page.locator("run-progress")).to_contain_text("40%")
    expect(page.get_by_role("log")).to_have_text("words")
    token = auth.create_public_token({"read": {"runs": run_id}})
    page.goto(f"{server.url}/tests/elements?run={run_id}&key=out&token={token}")
    expect(page.locator("run-status")).to_have_attribute("data-state", "live")
    write(run_id, " and more")
    expect(page.get_by_role("log")).to_have_text("words and more")


def test_a_lost_connection_is_shown_after_a_while_and_made_up_for(server: WebServer, page: Page) -> None:
    sockets: list[WebSocketRoute] = []
    is_cut = False

    def connect(socket: WebSocketRoute) -> None:
        if is_cut:
            socket.close(code=1012)
        else:
            socket.connect_to_server()
            sockets.append(socket)

    page.route_web_socket("**/realtime/v1/socket", connect)
    page.clock.install()
    run_id = t.echo.trigger(1).id
    show(page, server, run_id)
    status = page.locator("run-status")
    expect(status).to_have_attribute("data-state", "live")
    is_cut = True
    sockets[0].close(code=1012)
    expect(status).to_have_attribute("data-state", "live")  # most come back before anybody notices
    page.clock.fast_forward(6_000)
    expect(status).to_have_attribute("data-state", "disconnected")
    expect(status).to_have_text("Queued")
    enter(run_id, RunStatus.EXECUTING)
    is_cut = False
    page.clock.fast_forward(60_000)
    expect(status).to_have_text("Executing")
    expect(status).to_have_attribute("data-state", "live")


def test_a_page_may_configure_the_client_when_elements_follow_already(server: WebServer, page: Page) -> None:
    run_id = t.echo.trigger(1).id
    batch_id = batch.trigger([{"task": "t-echo"}]).id
    show(page, server, run_id, batch_id=batch_id)
    expect(page.locator("run-status")).to_have_attribute("data-state", "live")
    page.evaluate("import('/static/realtime_runs/client.js').then((client) => client.configure({ base: '/' }))")
    enter(run_id, RunStatus.EXECUTING)
    write(run_id, "words")
    expect(page.locator("run-status")).to_have_text("Executing")
    expect(page.get_by_role("log")).to_have_text("words")
    expect(page.locator("[data-state=refused]")).to_have_count(0)


def test_elements_that_a_script_makes_are_filled(server: WebServer, page: Page) -> None:
    run_id = t.echo.trigger(1, metadata={"progress": {"current": 1, "total": 2}}).id
    write(run_id, "words")
    show(page, server)
    page.evaluate(
        """(id) => { for (const name of ['run-status', 'run-progress', 'run-stream']) {
            const element = document.createElement(name);
            element.setAttribute('run', id);
            element.setAttribute('key', 'out');
            document.querySelector('main').append(element);
        } }""",
        run_id,
    )
    expect(page.locator("run-status")).to_have_text("Queued")
    expect(page.get_by_role("progressbar", name="Progress of t-echo")).to_have_attribute("value", "50")
    expect(page.locator("run-progress")).to_contain_text("50% 1 of 2")
    expect(page.get_by_role("log", name="out")).to_have_text("words")


METADATA: list[Any] = [
    {},
    {"progress": 0.25},
    {"progress": 40, "status": "half\nway"},
    {"progress": True, "status": None},
    {"progress": None},
    {"progress": "40"},
    {"progress": [1, 2]},
    {"progress": 1e300},
    {"progress": {"current": 1200, "total": 3376}},
    {"progress": {"current": 1234567.5, "total": 9999999}},
    {"progress": {"current": 1, "total": 0, "percentage": -5}},
    {"progress": {"current": 1, "total": 3, "percentage": 99.9, "currentItem": "x" * 500}},
    {"progress": {"percentage": 1e9, "currentItem": ["no text"]}},
    {"status": 5, "progress": {"currentItem": "not said"}},
]


def test_words_are_those_of_the_server(server: WebServer, page: Page) -> None:
    show(page, server)
    module = "import('/static/realtime_runs/words.js')"
    labels = page.evaluate(f"(all) => {module}.then((its) => all.map(its.label))", RunStatus.values)
    assert labels == [str(status.label) for status in RunStatus]
    found = page.evaluate(
        f"(all) => {module}.then((its) => all.map((one) => [its.readProgress(one), its.readNote(one)]))", METADATA
    )
    for metadata, (progress, note) in zip(METADATA, found, strict=True):
        expected = read_progress(metadata)
        assert (progress is None) == (expected is None), metadata
        if expected:
            assert progress["text"] == expected.text
            assert progress["percentage"] == pytest.approx(expected.percentage)
        assert note == elements.showable(read_note(metadata), 200)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_elements_are_accessible(
    server: WebServer,
    staff: User,
    visitor: Callable[..., Pages],
    scheme: str,
    accessible: Callable[..., None],
) -> None:
    somebody = visitor(color_scheme=scheme, viewport={"width": 640, "height": 720})
    log_in(somebody.context, server, staff)
    page = somebody.context.new_page()
    run_ids = [t.echo.trigger(1).id for _ in RunStatus]
    for number, (run_id, status) in enumerate(zip(run_ids, RunStatus, strict=True)):
        metadata = {"progress": {"current": 300 * number, "total": 3376, "currentItem": "LHR"}} if number % 2 else {}
        delayed_until = timezone.now() + timedelta(hours=1)
        enter(run_id, status, metadata=metadata, delayed_until=delayed_until)
        write(run_id, "Words as they came.\n", *range(40))
    handle = batch.trigger([{"task": "t-echo"} for _ in range(3)])
    enter(handle.run_ids[0], RunStatus.FAILED)
    show(page, server, *run_ids, "run_gone", batch_id=handle.id)
    expect(page.locator("run-status[data-state=live]")).to_have_count(4)
    page.evaluate("document.documentElement.style.background = 'Canvas'")  # axe does not know what is behind a page
    accessible(page)
