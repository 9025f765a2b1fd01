"""The admin in a browser, on a real server with a worker inside."""

import json
import re
from collections.abc import Callable
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.utils import timezone
from playwright.sync_api import Page, Route, expect

from realtime_runs import runs, tasks, wait
from realtime_runs.ids import earliest_run_id
from realtime_runs.live.snapshot import RunError
from realtime_runs.models import Run
from realtime_runs.statuses import RunStatus
from tests.browser.conftest import PHONE, Pages, log_in
from tests.conftest import WebServer
from tests.urls import STRICT

RUNS = "/admin/realtime_runs/run/"
HOSTILE = "</pre></textarea><script>alert(1)</script><img src=x onerror=alert(1)>"
SOON = 15_000

pytestmark = pytest.mark.usefixtures("nobody_executes")


@pytest.fixture
def pages(server: WebServer, pages: Pages) -> Pages:
    log_in(pages.context, server, User.objects.create_superuser("ann"))
    without_icon(pages)
    return pages


def without_icon(pages: Pages) -> None:
    """Django's admin has none, and a browser looks for one."""
    pages.context.route("**/favicon.ico", lambda route: route.fulfill(status=204))


@pytest.fixture
def address(server: WebServer) -> Callable[..., str]:
    """`address()` of the list, `address(run_id, "replay")` of a page of a run, `address("overview")`."""

    def build(run_id: str = "", page: str = "") -> str:
        return (
            f"{server.url}{RUNS}" + (f"{run_id.replace('_', '_5F')}/" if run_id else "") + (f"{page}/" if page else "")
        )

    return build


def mark(page: Page) -> None:
    """So that a test sees that the page was not loaded again."""
    page.evaluate("window.isTheSamePage = true")


def assert_same(page: Page) -> None:
    assert page.evaluate("window.isTheSamePage === true")


def store_an_hour() -> None:
    """Runs of the last hour, as a chart has them."""
    now, rows = timezone.now(), []
    for number in range(300):
        at = now - timedelta(seconds=12 * (300 - number) - 10)
        started = at + timedelta(seconds=0.2 + number * 7 % 11 / 10 + (number % 60 > 50) * 2)
        failed = number % 14 == 0 or 200 < number < 215
        error = (
            RunError("HTTPError" if number % 3 else "ValueError", "503 from the supplier").to_json() if failed else ""
        )
        times = dict.fromkeys(("created_at", "updated_at", "run_at", "rank", "queued_at"), at)
        rows.append(
            Run(
                **{"id": f"{earliest_run_id(at)}{number:019}", "task": "import-orders", "error": error, **times},
                **{"status": "FAILED" if failed else "COMPLETED", "started_at": started, "finished_at": started},
            )
        )
    Run.objects.bulk_create(rows)


def badge(page: Page) -> "object":
    return page.locator(".rr-head run-status [part=label]")


def test_list_and_overview_move_in_place(
    page: Page, address: Callable[..., str], accessible: Callable[..., None], picture: Callable[..., None]
) -> None:
    tasks.trigger("fail", {"message": HOSTILE}, tags=["import", "user:7"])
    first = tasks.trigger("progress-task", {"items": [f"row {n}" for n in range(40)], "delayMs": 100}, tags=["import"])
    page.goto(address())
    mark(page)
    row = page.locator("#result_list tr", has_text=first.id)
    expect(row.locator("run-status")).to_have_text("Executing", timeout=SOON)
    expect(row.locator("[part=amount]")).to_have_text(re.compile(r"\d+ of 40"))
    picture(page, "admin-runs")
    for width in (1280, 1241, 1100):  # nothing is cut off beside the columns of the admin
        page.set_viewport_size({"width": width, "height": 720})
        fits = "document.querySelector('.results').scrollWidth <= document.querySelector('.results').clientWidth"
        assert page.evaluate(fits), width
    expect(page.locator("[data-count=failed]")).to_have_text("1", timeout=SOON)
    second = tasks.trigger("echo", 1)
    expect(page.locator("#rr-new")).to_have_text("1 new run: show", timeout=SOON)
    expect(page.locator("#result_list")).not_to_contain_text(second.id)  # rows do not jump
    expect(row.locator("run-status")).to_have_text("Completed", timeout=SOON)
    expect(row.locator("[part=percentage]")).to_have_text("100%")
    expect(row.locator(".rr-duration")).to_have_text(re.compile(r"^\d+\.\d+ s$"))
    assert_same(page)
    accessible(page)
    page.locator("#rr-new").click()
    expect(page.locator("#result_list")).to_contain_text(second.id)
    page.get_by_label("Tag", exact=True).fill("user:7")
    page.get_by_label("Tag", exact=True).press("Enter")
    expect(page.locator("#result_list tbody tr")).to_have_count(1)
    page.locator("#searchbar").fill(first.id)
    page.locator("#searchbar").press("Enter")
    expect(page.locator("#result_list tbody tr")).to_have_count(1)
    expect(page.locator("#result_list")).to_contain_text(first.id)

    store_an_hour()
    page.get_by_role("link", name="Overview").click()
    page.get_by_role("heading", name="Overview").wait_for()
    mark(page)
    expect(page.locator("section", has_text="Runs by minute").locator("rect")).not_to_have_count(0, timeout=SOON)
    page.locator("#rr-volume summary").click()
    expect(page.locator("section", has_text="Why runs fail")).to_contain_text("HTTPError", timeout=SOON)
    expect(page.locator("section", has_text="Queue delay").locator("circle")).not_to_have_count(0, timeout=SOON)
    run = tasks.trigger("slow", {"seconds": 60})
    expect(page.locator("section", has_text="Executing longest")).to_contain_text(run.id, timeout=SOON)
    assert page.locator("#rr-volume").evaluate("details => details.open")
    assert_same(page)
    accessible(page)
    page.locator("#rr-volume summary").click()
    picture(page, "admin-overview")
    runs.cancel(run)


def test_the_page_of_a_run_goes_live_to_its_end_and_shows_as_text_what_tasks_wrote(
    page: Page,
    address: Callable[..., str],
    accessible: Callable[..., None],
    picture: Callable[..., None],
    eventually: Callable[..., object],
) -> None:
    run = tasks.trigger("multi-stream", {"count": 30, "delayMs": 100}, tags=["import"])
    page.goto(address(run.id, "change"))
    mark(page)
    events = page.locator("#rr-events")
    events.locator("summary").click()
    events.locator("summary").focus()
    page.evaluate("window.parts = ['rr-events', 'rr-timeline', 'rr-metadata'].map((id) => document.getElementById(id))")
    expect(badge(page)).to_have_text("Executing", timeout=SOON)
    stream = page.locator('run-stream[key="ai-output"]')
    text = stream.locator("[part=text]")
    expect(text).to_contain_text("token-3", timeout=SOON)
    page.evaluate("window.parts.push(document.querySelector('run-stream'))")
    picture(page, "admin-run")
    expect(text).to_contain_text("token-29", timeout=SOON)
    expect(badge(page)).to_have_text("Completed", timeout=SOON)
    expect(page.locator("#rr-output")).to_contain_text('"count": 30', timeout=SOON)
    expect(events.locator("tbody tr")).to_have_count(3)
    expect(page.locator("#rr-timeline rect.rr-executing")).to_have_count(1)
    assert events.evaluate("details => details.open && details.contains(document.activeElement)")
    assert text.inner_text().count("token-7") == 1
    assert page.evaluate("window.parts.every((part) => part.isConnected)")
    assert_same(page)
    accessible(page)

    run = tasks.trigger("fail", {"message": HOSTILE}, metadata={HOSTILE: {"progress": [HOSTILE]}}, tags=["<b>x</b>"])
    eventually(lambda: runs.retrieve(run).is_completed)
    page.goto(address(run.id, "change"))
    expect(page.locator(".rr-message")).to_have_text(HOSTILE)
    expect(page.locator("#rr-payload")).to_contain_text(HOSTILE)
    expect(page.locator("#rr-metadata")).to_contain_text(HOSTILE)
    expect(page.locator(".rr-tag")).to_have_text("<b>x</b>")
    accessible(page)


def test_runs_are_cancelled_replayed_sent_to_and_completed_by_keyboard(
    page: Page, address: Callable[..., str], accessible: Callable[..., None]
) -> None:
    run = tasks.trigger("slow", {"seconds": 60})
    page.goto(address(run.id, "change"))
    expect(badge(page)).to_have_text("Executing", timeout=SOON)
    page.get_by_role("link", name="Cancel").focus()
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Cancel this run?").wait_for()
    accessible(page)
    page.get_by_role("button", name="Yes, cancel the run").focus()
    page.keyboard.press("Enter")
    page.get_by_text("The run is canceled.").wait_for()
    expect(badge(page)).to_have_text("Canceled", timeout=SOON)
    expect(page.get_by_role("link", name="Cancel")).to_have_count(0)
    page.get_by_role("link", name="Replay").click()
    payload = page.get_by_label("Payload")
    payload.fill('{"seconds": "long"}')
    page.get_by_role("button", name="Start the new run").click()
    expect(page.get_by_role("alert")).to_contain_text("seconds: Input should be a valid number")
    expect(payload).to_have_value('{"seconds": "long"}')
    accessible(page)
    payload.fill('{"seconds": 0}')
    page.get_by_role("button", name="Start the new run").click()
    page.get_by_text("This is the new run").wait_for()
    expect(badge(page)).to_have_text("Completed", timeout=SOON)
    assert run.id not in page.locator(".rr-head").inner_text()

    run = tasks.trigger("wait-approval", {"mode": "input"})
    page.goto(address(run.id, "change"))
    expect(badge(page)).to_have_text("Waiting", timeout=SOON)
    page.get_by_role("link", name="Send input").click()
    page.get_by_label("Input stream").fill("approval")
    page.get_by_label("Data, as JSON").fill('{"approved": true}')
    accessible(page)
    page.get_by_role("button", name="Send").click()
    expect(badge(page)).to_have_text("Completed", timeout=SOON)
    expect(page.locator("#rr-output")).to_contain_text('"approved": true', timeout=SOON)

    token = wait.create_token()
    run = tasks.trigger("wait-approval", {"mode": "token", "tokenId": token.id})
    page.goto(address(run.id, "change"))
    expect(badge(page)).to_have_text("Waiting", timeout=SOON)
    page.get_by_role("link", name="Complete a wait token").click()
    expect(page.get_by_label("Wait token")).to_have_value(token.id)
    page.get_by_label("Output, as JSON").fill('"yes"')
    page.get_by_role("button", name="Complete").click()
    expect(badge(page)).to_have_text("Completed", timeout=SOON)
    assert runs.retrieve(run).output == {"approval": "yes"}


def strict(route: Route) -> None:
    if route.request.resource_type != "document":
        route.continue_()
        return
    response = route.fetch(max_redirects=0)
    route.fulfill(response=response, headers={**response.headers, "content-security-policy": STRICT})


def test_the_pages_fit_a_phone_and_obey_a_strict_content_security_policy(
    server: WebServer,
    visitor: Callable[..., Pages],
    address: Callable[..., str],
    accessible: Callable[..., None],
) -> None:
    run = tasks.trigger("fail", {"message": "x" * 300}, tags=["t" * 100], metadata={"k" * 60: "v" * 200})
    phone = visitor(viewport=PHONE)
    # The browser does not know where a page came from whose headers were changed on the way.
    phone.expected = ["ERR_BLOCKED_BY_LOCAL_NETWORK_ACCESS_CHECKS"]
    without_icon(phone)
    phone.context.route("**/admin/**", strict)
    log_in(phone.context, server, User.objects.create_superuser("ben"))
    page = phone.context.new_page()
    for path in (address(), address("", "overview"), address(run.id, "change"), address(run.id, "replay")):
        page.goto(path)
        expect(page.locator("#content")).to_be_visible()
        too_wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert too_wide <= 0, (path, too_wide)
        accessible(page, in_dark_too=True)


def test_a_page_that_could_not_be_renewed_at_the_end_says_so_and_tries_again(
    page: Page, pages: Pages, address: Callable[..., str]
) -> None:
    pages.expected = ["ERR_FAILED"]
    run = tasks.trigger("slow", {"seconds": 60})
    page.goto(address(run.id, "change"))
    expect(badge(page)).to_have_text("Executing", timeout=SOON)
    page.route("**/change/?part=*", lambda route: route.abort())
    runs.cancel(run)
    expect(badge(page)).to_have_text("Canceled", timeout=SOON)
    expect(page.locator("#rr-problem")).to_contain_text("does not answer", timeout=SOON)
    page.unroute("**/change/?part=*")
    expect(page.get_by_role("link", name="Cancel")).to_have_count(0, timeout=SOON)
    expect(page.locator("#rr-problem")).to_be_hidden()


def test_without_a_socket_the_page_of_a_run_still_goes_on(
    page: Page, pages: Pages, address: Callable[..., str], eventually: Callable[..., object]
) -> None:
    page.route_web_socket("**/socket", lambda socket: socket.close(code=4403))
    pages.context.route("**/realtime/v1/**", lambda route: route.abort())
    pages.expected = ["WebSocket", "ERR_FAILED", "realtime"]
    run = tasks.trigger("progress-task", {"items": ["a", "b"], "delayMs": 500})
    page.goto(address(run.id, "change"))
    eventually(lambda: runs.retrieve(run).status == RunStatus.COMPLETED)
    expect(badge(page)).to_have_text("Completed", timeout=SOON)
    expect(page.locator("#rr-output")).to_contain_text(json.dumps("processed"), timeout=SOON)
