"""client.js at the other end of a scripted socket: what a real server cannot be made to say on demand."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, Route, WebSocketRoute

from tests.browser.conftest import Pages, until
from tests.browser.loops import MODULE, Loop
from tests.conftest import ROOT, eventually

RUN = {"id": "run_1", "status": "QUEUED", "v": 1, "payload": 1}


class Script:
    """The server of a page's sockets, as the test plays it."""

    def __init__(self) -> None:
        self.sockets: list[WebSocketRoute] = []
        self.heard: list[dict[str, Any]] = []  # on the newest
        self.ping: float = 25
        self.is_ready = True

    def __call__(self, route: WebSocketRoute) -> None:
        self.sockets.append(route)
        self.heard = []
        heard = self.heard
        route.on_message(lambda message: heard.append(json.loads(message)))
        if self.is_ready:
            self.say(type="ready", ping=self.ping, limits={})

    def say(self, **frame: Any) -> None:
        self.sockets[-1].send(json.dumps(frame))

    def cut(self, code: int = 1012) -> None:
        self.sockets[-1].close(code=code)

    def runs(self, id: int, at: int | str, *runs: dict[str, Any], **more: Any) -> None:
        self.say(type="runs", id=id, at=at, runs=runs, live=True, **more)


def part(v: int, since: int = 0, run: str = "run_1", **fields: Any) -> dict[str, Any]:
    return {"run": run, "from": since, "v": v, "set": fields if since else {**RUN, "id": run, **fields}}


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def page(pages: Pages, script: Script) -> Page:
    """A page without any server: what it asks for is a file of ours, or comes from the script."""
    return visit(pages, script)


def visit(pages: Pages, through: Callable[[WebSocketRoute], None]) -> Page:
    page = pages.context.new_page()
    page.route("**/*", serve)
    page.route_web_socket("**/*", through)
    page.goto("http://page.test/")
    page.evaluate("Math.random = () => 0.01")  # comes back soon
    return page


def serve(route: Route) -> None:
    if route.request.url.endswith(MODULE):
        route.fulfill(path=ROOT / "realtime_runs" / MODULE.lstrip("/"), content_type="text/javascript")
    else:
        route.fulfill(body="<!doctype html><html lang=en><title>Page</title>", content_type="text/html")


@pytest.fixture
def wait(page: Page) -> Any:
    """Lets the page and the script go on until this is so."""

    def wait(condition: Any) -> None:
        eventually(lambda: page.evaluate("1") and condition(), interval=0.02)

    return wait


def test_what_came_of_a_stream_is_read_to_its_end_though_the_connection_breaks(
    page: Page, script: Script, wait: Any
) -> None:
    loop = Loop(page, "(loop.pause = 60_000, client.readStream('run_1'))", name="slow")
    wait(lambda: script.heard)
    script.say(type="chunks", id=1, at=300, chunks=[*range(300)], live=True)
    script.say(type="end", id=1, at=300, reason="closed")
    loop.until("source.isOver")
    script.cut()
    Loop(page, "client.subscribeToRun('run_2')", name="other")  # takes the same id on the next socket
    wait(lambda: len(script.sockets) == 2 and script.heard)
    page.evaluate("() => { loops.slow.pause = 0; loops.slow.go() }")
    assert loop.end() == [*range(300)]
    assert loop.get("source.endReason") == "closed"
    assert [frame["to"] for frame in script.heard] == [{"run": "run_2"}]


def test_frames_make_the_run_as_it_is_and_a_reset_drops_what_was_held(page: Page, script: Script, wait: Any) -> None:
    loop = Loop(page, "client.subscribeToRunsWithTag('a')")
    wait(lambda: script.heard)
    script.runs(1, "p1", part(3, error={"name": "E"}), part(1, run="run_2"))
    script.runs(1, "p2", part(3, since=1, status="OLD"), part(4, since=3, status="EXECUTING", error=None))
    loop.until("seen.length == 3")
    assert loop.seen()[0] == {**RUN, "v": 3, "error": {"name": "E"}}
    assert loop.seen()[2] == {**RUN, "v": 4, "status": "EXECUTING"}  # what it has no more is not there
    script.cut()
    wait(lambda: len(script.sockets) == 2 and script.heard)
    assert script.heard[0]["since"] == "p2"
    script.runs(1, "p1", part(2), reset=True)
    loop.until("seen.length == 4")
    assert loop.seen()[3]["v"] == 2


def test_pings_are_answered_and_a_connection_that_says_nothing_is_left(page: Page, script: Script, wait: Any) -> None:
    script.ping = 0.3
    Loop(page, "client.subscribeToRun('run_1')")
    wait(lambda: script.heard)
    script.say(type="ping")
    wait(lambda: {"type": "pong"} in script.heard)
    script.ping = 25
    wait(lambda: len(script.sockets) == 2 and script.heard)
    page.evaluate("() => { Date.now = ((now) => () => now() + 3_600_000)(Date.now) }")  # the machine slept
    page.evaluate("() => { document.dispatchEvent(new Event('visibilitychange')) }")
    wait(lambda: len(script.sockets) == 3 and script.heard)


@pytest.mark.parametrize("event", ["online", "pageshow", "visibilitychange"])
def test_it_comes_back_at_once_when_the_network_does_or_the_page_is_seen_again(
    page: Page, script: Script, wait: Any, event: str
) -> None:
    page.evaluate("Math.random = () => 1000")  # by itself only after minutes
    loop = Loop(page, "client.subscribeToRun('run_1')")
    wait(lambda: script.heard)
    script.runs(1, 1, part(1))
    loop.until("seen.length == 1")
    script.cut()
    until(page, "globalThis[Symbol.for('realtime_runs')].connection.socket === null")
    page.evaluate(
        f"() => {{ (globalThis.on{event} === null ? globalThis : document).dispatchEvent(new Event('{event}')) }}"
    )
    wait(lambda: len(script.sockets) == 2 and script.heard)
    assert script.heard[0] == {"type": "subscribe", "id": 1, "to": {"run": "run_1"}, "since": 1}
    if event == "online":  # also where the browser has not yet noticed that the connection is dead
        page.evaluate("() => { dispatchEvent(new Event('online')) }")
        wait(lambda: len(script.sockets) == 3 and script.heard)


def test_close_codes_say_whether_to_stop_or_to_come_back(page: Page, script: Script, wait: Any) -> None:
    stops = {4400: "protocol", 4401: "unauthorized", 4403: "forbidden", 4406: "protocol", 4413: "too_large"}
    for code, name in stops.items():
        loop = Loop(page, "client.subscribeToRun('run_1')")
        wait(lambda: script.heard)
        script.cut(code)
        assert f"RealtimeError {name}" in loop.error()
        script.heard.clear()
    Loop(page, "client.subscribeToRun('run_1')")
    for code in (1000, 1001, 1012, 1013, 3000, 4429, 4500, 4508):
        wait(lambda: script.heard)
        count = len(script.sockets)
        script.cut(code)
        wait(lambda count=count: len(script.sockets) > count)


def test_an_error_ends_one_loop_or_asks_it_to_come_back(page: Page, script: Script, wait: Any) -> None:
    loop = Loop(page, "client.subscribeToRun('run_1')", name="one")
    other = Loop(page, "client.readStream('run_1', 'out')", name="other")
    wait(lambda: len(script.heard) == 2)
    script.say(type="error", id=1, code="too_many", message="Too many", retry=True)
    wait(lambda: len(script.heard) == 3)
    assert script.heard[2]["id"] == 3
    script.runs(3, 1, part(1))
    loop.until("seen.length == 1")
    script.say(type="error", id=3, code="forbidden", message="Unauthorized", retry=False)
    assert loop.error() == "RealtimeError forbidden: Unauthorized"
    assert other.get("outcome") is None
    script.say(type="end", id=2, at=7, reason="gone")
    assert "RealtimeError gone" in other.error()


def test_what_was_sent_before_a_cut_is_not_sent_twice(page: Page, script: Script, wait: Any) -> None:
    Loop(page, "client.subscribeToRun('run_1')")
    wait(lambda: script.heard)
    page.evaluate(
        "() => { client.sendInput('run_1', 'in', 1).catch((error) => { globalThis.failed = [error.code, error.retry] }) }"
    )
    wait(lambda: len(script.heard) == 2)
    script.cut()
    until(page, "globalThis.failed")
    assert page.evaluate("failed") == ["disconnected", True]
    wait(lambda: len(script.sockets) == 2 and script.heard)
    assert [frame["type"] for frame in script.heard] == ["subscribe"]


def test_events_that_say_nothing_any_more_are_asked_for_again(pages: Pages) -> None:
    page = visit(pages, lambda route: route.close(code=1011))
    page.evaluate(
        """() => {
          globalThis.asked = [];
          globalThis.fetch = async (url, { headers, signal }) => {
            asked.push(headers["Last-Event-ID"]);
            const body = new ReadableStream({
              start(events) {
                const data = JSON.stringify({ records: [{ seq_num: asked.length - 1, body: '{"data":"x"}' }] });
                events.enqueue(new TextEncoder().encode(`: ok\\n\\nevent: batch\\ndata: ${data}\\n\\nevent: ba`));
                signal.addEventListener("abort", () => events.error(signal.reason));
              },
            });
            return new Response(body);
          };
        }"""
    )
    loop = Loop(page, "client.readStream('run_1')")
    page.evaluate("() => { globalThis[Symbol.for('realtime_runs')].connection.ping = 150 }")
    loop.until("seen.length >= 3")
    assert page.evaluate("asked.slice(0, 3)") == [None, "0", "1"]


def test_a_page_hears_of_each_loss_and_return_once(page: Page, script: Script, wait: Any) -> None:
    page.evaluate(
        "async () => { globalThis.client = await import('/static/realtime_runs/client.js'); globalThis.told = []; }"
    )
    page.evaluate("() => { globalThis.deaf = client.onConnectionChange((isConnected) => told.push(isConnected)) }")
    loop = Loop(page, "client.subscribeToRun('run_1')", {"base": "/"})
    for count in (1, 2):
        wait(lambda count=count: len(script.sockets) == count and script.heard)
        script.cut()
    wait(lambda: len(script.sockets) == 3 and script.heard)
    page.evaluate("deaf()")
    Loop(page, "client.subscribeToRun('run_1')", {"base": "/elsewhere/"}, name="other")
    assert "RealtimeError closed" in loop.error()
    assert page.evaluate("told") == [True, False, True, False, True]
