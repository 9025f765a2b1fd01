"""Somebody clicks through the demo: what they see on each page, on a real server with a worker inside."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from project.tasks import STORY
from realtime_runs import tasks
from tests.browser.conftest import PHONE, Pages
from tests.conftest import Process, WebServer

Check = Callable[..., None]
Picture = Callable[..., None]


@pytest.fixture
def demo(server: WebServer, nobody_executes: None) -> WebServer:
    return server


def start(page: Page, demo: WebServer, task: str, payload: str = "") -> None:
    """Press the button of a task, with another payload if one is given."""
    page.goto(demo.url)
    card = page.locator(".sample").filter(has=page.get_by_role("heading", name=task, exact=True))
    if payload:
        card.get_by_text("Payload", exact=True).click()
        card.get_by_role("textbox").fill(payload)
    card.get_by_role("button").click()
    page.wait_for_url("**/runs/run_*")


def percentages(page: Page) -> None:
    """Collect each value that the bar ever has."""
    page.evaluate(
        """() => {
          globalThis.values = [];
          const bar = document.querySelector("progress");
          new MutationObserver(() => values.push(bar.value)).observe(bar, { attributes: true });
        }"""
    )


def test_an_import_shows_rising_progress_and_what_is_accepted_and_rejected_so_far(
    demo: WebServer, page: Page, accessible: Check, picture: Picture
) -> None:
    start(page, demo, "import-airports", '{"delayMs": 80}')
    percentages(page)
    expect(page.locator("run-status")).to_have_text("Executing")
    expect(page.get_by_role("heading", name="airports accepted so far")).to_be_visible()
    expect(page.get_by_role("cell", name="no city; no state", exact=True).first).to_be_visible()
    accessible(page)
    expect(page.locator("run-status")).to_have_text("Completed", timeout=15_000)
    values = page.evaluate("values")
    assert values == sorted(values)
    assert len(set(values)) > 3
    expect(page.get_by_text("3,356 of 3,376 airports accepted")).to_be_visible()
    expect(page.get_by_role("row")).to_have_count(21)
    expect(page.get_by_role("button", name="Cancel")).to_have_count(0)
    accessible(page)
    picture(page, "demo-import")


def test_text_appears_word_by_word_and_is_whole_though_the_page_is_loaded_again_and_in_two_tabs(
    demo: WebServer, pages: Pages, accessible: Check, picture: Picture
) -> None:
    page = pages.context.new_page()
    start(page, demo, "tell-story", '{"delayMs": 60}')
    text = page.get_by_role("log")
    expect(text).to_contain_text("execution of a task")
    assert text.inner_text() != STORY
    page.reload()
    expect(text).to_contain_text("execution of a task")
    other = pages.context.new_page()
    other.goto(page.url)
    expect(text).to_contain_text("its progress,")
    picture(page, "demo-stream")
    for tab in (page, other):
        expect(tab.get_by_role("log")).to_have_text(STORY, timeout=15_000)
        expect(tab.locator("run-status")).to_have_text("Completed")
    accessible(page)


def test_who_waits_goes_on_when_somebody_approves_in_a_second_tab(
    demo: WebServer, pages: Pages, accessible: Check, picture: Picture
) -> None:
    page = pages.context.new_page()
    start(page, demo, "wait-approval")
    expect(page.locator("run-status")).to_have_text("Waiting")
    with pages.context.expect_page() as opened:
        page.get_by_role("link", name="Decide in a new tab").click()
    other = opened.value
    accessible(other)
    picture(other, "demo-approval", clip={"x": 0, "y": 0, "width": 1100, "height": 340})
    other.get_by_role("button", name="Approve").click()
    expect(other.get_by_text("You have approved it.")).to_be_visible()
    expect(page.locator("run-status")).to_have_text("Completed")
    expect(page.get_by_label("Output", exact=True)).to_contain_text('"approved": true')
    expect(page.get_by_role("link", name="Decide in a new tab")).to_have_count(0)


def test_a_run_appears_on_the_open_list_and_stops_there_and_on_its_page_when_it_is_canceled(
    demo: WebServer, pages: Pages, accessible: Check, picture: Picture
) -> None:
    for task in ("fail", "import-airports"):
        tasks.trigger(task, {}, tags=["demo"])
    listed = pages.context.new_page()
    listed.set_viewport_size({"width": 1100, "height": 1100})
    listed.goto(demo.url)
    expect(listed.locator(".run")).to_have_count(2)
    page = pages.context.new_page()
    start(page, demo, "slow", '{"seconds": 600}')
    expect(page.locator("run-status")).to_have_text("Executing")
    expect(listed.locator(".run")).to_have_count(3)
    row = listed.locator(".run").first
    expect(row.locator("run-status")).to_have_text("Executing")
    picture(listed, "demo-home")
    row.get_by_role("button", name="Cancel slow").click()
    expect(row.locator("run-status")).to_have_text("Canceled")
    expect(page.locator("run-status")).to_have_text("Canceled")
    accessible(listed)


def test_cards_move_over_the_board_as_runs_change_and_new_ones_appear(
    demo: WebServer, page: Page, accessible: Check, picture: Picture
) -> None:
    tasks.trigger("echo", 1, tags=["demo"], delay="1h")
    tasks.trigger("fail", {}, tags=["demo"])
    page.goto(f"{demo.url}/tags/demo")
    columns = {
        name: page.locator(".column").filter(has_text=name) for name in ("Waiting", "Running", "Finished", "Stopped")
    }
    expect(columns["Waiting"].get_by_role("listitem")).to_have_count(1)
    handle = tasks.trigger("progress-task", {"items": ["a", "b", "c"], "delayMs": 500}, tags=["demo"])
    expect(columns["Running"].get_by_role("link", name="progress-task")).to_be_visible()
    expect(columns["Stopped"].get_by_role("link", name="fail")).to_be_visible()
    accessible(page)
    picture(page, "demo-board", clip={"x": 0, "y": 0, "width": 1100, "height": 400})
    expect(columns["Finished"].get_by_role("link", name="progress-task")).to_be_visible()
    expect(columns["Finished"].locator("[data-count]")).to_have_text("1")
    page.get_by_role("link", name="progress-task").click()
    expect(page).to_have_url(f"{demo.url}/runs/{handle.id}")


def test_a_server_that_restarts_in_the_middle_is_found_again_and_the_text_is_whole(
    asgi_server: Callable[..., WebServer], worker: Callable[..., Process], nobody_executes: None, pages: Pages
) -> None:
    elsewhere = "tests.tasks_live.WorkElsewhere"
    server = asgi_server("daphne", BACKEND=elsewhere)
    worker()
    pages.expected = ["ERR_", "WebSocket connection to"]
    page = pages.context.new_page()
    start(page, server, "tell-story", '{"delayMs": 100}')
    expect(page.get_by_role("log")).to_contain_text("execution of a task")
    server.process.kill9()
    asgi_server("daphne", port=server.port, BACKEND=elsewhere)
    expect(page.get_by_role("log")).to_have_text(STORY, timeout=20_000)
    expect(page.locator("run-status")).to_have_text("Completed")
    expect(page.get_by_label("Output", exact=True)).to_contain_text("pieces")


def test_without_javascript_a_button_starts_its_task_and_cancel_works(
    demo: WebServer, visitor: Callable[..., Pages]
) -> None:
    page = visitor(java_script_enabled=False).context.new_page()
    start(page, demo, "tell-story")
    expect(page.get_by_role("heading", level=1)).to_contain_text("tell-story")
    start(page, demo, "slow", '{"seconds": 600}')
    page.reload()
    page.get_by_role("button", name="Cancel slow").click()
    expect(page.locator("run-status")).to_have_text("Canceled")


def test_pages_are_accessible_in_both_colours_and_fit_on_a_phone(
    demo: WebServer, visitor: Callable[..., Pages], accessible: Check
) -> None:
    failed = tasks.trigger("fail", {"message": "a long message " * 20}, tags=["demo", "x" * 128])
    waiting = tasks.trigger("wait-approval", {}, tags=["demo"])
    tasks.trigger("progress-task", {"items": ["a", "b"], "delayMs": 60_000}, tags=["demo"])
    pages = visitor(viewport=PHONE)
    pages.expected = ["404 (Not Found)"]  # of the page that says so
    page = pages.context.new_page()
    for path, status in {
        "/": "",
        f"/runs/{failed.id}": "Failed",
        f"/runs/{waiting.id}/decision": "Waiting",
        "/tags/demo": "",
        "/runs/run_none": "",
    }.items():
        page.goto(f"{demo.url}{path}")
        if status:
            expect(page.locator("run-status")).to_have_text(status)
        accessible(page, in_dark_too=True)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path


def test_the_home_page_is_there_and_accessible(demo: WebServer, page: Page, accessible: Check) -> None:
    page.goto(demo.url)
    page.get_by_role("heading", name="Start a run").wait_for()
    accessible(page)


# -- what the tests of this folder rest on: a page that does something wrong fails its test ----------------------------


def test_errors_on_the_console_are_found(pages: Pages) -> None:
    page = pages.context.new_page()
    page.set_content("<p>page</p><script>console.error('broken'); throw new Error('thrown')</script>")
    page.wait_for_function("document.readyState == 'complete'")
    page.evaluate("0")
    assert len(pages.problems) == 2
    with pytest.raises(AssertionError):
        pages.check()
    pages.expected = ["broken", "thrown"]


def test_faults_of_accessibility_are_found(page: Page, accessible: Check) -> None:
    page.set_content("<html lang=en><title>t</title><img src='data:image/gif;base64,R0lGODlhAQABAAAAACw='>")
    with pytest.raises(AssertionError, match="image-alt"):
        accessible(page)
