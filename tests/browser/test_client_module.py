"""client.js in a real browser before real servers: what its loops get, whatever happens to the connection."""

import gzip
import json
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import User
from playwright.sync_api import Page, WebSocketRoute

from realtime_runs import auth, runs, tasks
from tests import tasks as t
from tests.browser.conftest import ELSEWHERE, Pages, log_in
from tests.browser.loops import MODULE, Loop, reading, report, write
from tests.conftest import ROOT, WebServer, eventually
from tests.stored_chunks import stored_chunks

CLIENT = ROOT / "realtime_runs/static/realtime_runs/client.js"
WORDS = [f"w{number}" for number in range(40)]
LISTENERS = "fetch('/tests/listeners').then((answer) => answer.json()).then((found) => found.count)"
SEND = """async ([name, data]) => {
  try { await client.sendInput(...name.split(" "), data); return "sent"; } catch (error) { return error.code; }
}"""


@pytest.fixture
def server(serving: WebServer) -> WebServer:
    return serving


Open = Callable[..., Page]


@pytest.fixture
def open_page(server: WebServer, pages: Pages) -> Open:
    """`open_page(through)`: an empty page, whose sockets may go through something that cuts, delays or refuses."""

    def visit(through: Callable[[WebSocketRoute], None] | None = None) -> Page:
        return visit_page(pages, server, through)

    return visit


def visit_page(pages: Pages, server: WebServer, through: Callable[[WebSocketRoute], None] | None = None) -> Page:
    page = pages.context.new_page()
    if through:
        page.route_web_socket("**/realtime/v1/socket", through)
    page.goto(f"{server.url}/tests/empty")
    page.evaluate("Math.random = () => 0.1")  # comes back soon
    return page


def refused(route: WebSocketRoute) -> None:
    """As by a proxy that knows no WebSocket."""
    route.close(code=1011)


def sockets_of(page: Page) -> list[Any]:
    found: list[Any] = []
    page.on("websocket", lambda socket: found.append(socket))
    return found


def test_the_module_is_small() -> None:
    assert len(gzip.compress(CLIENT.read_bytes(), 9)) < 12 * 1024


@pytest.mark.parametrize("kind", ["daphne", "uvicorn"])
def test_all_loops_and_what_is_sent_share_one_socket_also_of_two_copies(
    asgi_server: Callable[..., WebServer], nobody_executes: None, pages: Pages, kind: str
) -> None:
    server = asgi_server(kind, BACKSTOP_SECONDS=0.1)
    told = tasks.trigger("stream-text", {"text": " ".join(WORDS), "delayMs": 5}, tags=["a", "b"])
    asking = tasks.trigger("wait-approval", {})
    many = t.echo.batch_trigger([1, 2])
    scopes = {
        "read": {"runs": [told.id, asking.id], "tags": ["a"], "batch": many.id},
        "write": {"inputStreams": asking.id},
    }
    page = pages.context.new_page()
    sockets = sockets_of(page)
    page.goto(f"{server.url}/tests/empty")
    options = {"accessToken": auth.create_public_token(scopes)}
    run = Loop(page, f"client.subscribeToRun('{told.id}')", options, name="run")
    chunks = Loop(page, f"client.readStream('{told.id}', 'ai-output')", name="chunks", module=f"{MODULE}?another")
    rest = Loop(page, f"client.readStream('{told.id}', 'ai-output', {{ startIndex: 38 }})", name="rest")
    tagged = Loop(page, "client.subscribeToRunsWithTag(['a', 'b'], { signal })", name="tagged")
    batched = Loop(page, f"client.subscribeToBatch('{many.id}', {{ signal }})", name="batched")
    answer = Loop(page, f"client.subscribeToRun('{asking.id}')", name="answer")
    answer.until("seen.at(-1)?.isWaiting")
    assert page.evaluate(SEND, [f"{asking.id} approval", "yes"]) == "sent"
    assert answer.end()[-1]["output"]["approval"] == "yes"
    states = run.end()
    assert chunks.end() == WORDS
    assert rest.end() == WORDS[38:]
    tagged.until("seen.at(-1)?.isCompleted")
    batched.until("seen.filter((run) => run.isCompleted).length == 2")
    assert tagged.seen()[-1]["output"] == states[-1]["output"] == {"chunks": len(WORDS)}
    assert states[-1]["payload"]["text"] == " ".join(WORDS)
    versions = [state["v"] for state in states]
    assert versions == sorted(set(versions))
    assert chunks.get("source.endReason") == "completed"
    assert len(sockets) == 1


def test_cuts_at_any_frame_lose_and_double_nothing(server: WebServer, open_page: Open) -> None:
    run = t.echo.trigger(1, tags=["cut"])
    options = reading(runs=run.id, tags="cut")

    def cut(first: int) -> Callable[[WebSocketRoute], None]:
        """Each connection breaks after so many frames, each one more than the one before."""
        lives = iter(range(first, 1000))

        def through(route: WebSocketRoute) -> None:
            upstream, left = route.connect_to_server(), next(lives)
            count = 0

            def down(message: str | bytes) -> None:
                nonlocal count
                count += 1
                if count > left:
                    route.close(code=1012)
                    upstream.close(code=1000)
                else:
                    route.send(message)

            upstream.on_message(down)

        return through

    found = []
    for first in range(6):
        page = open_page(cut(first))
        found.append(
            (
                Loop(page, f"client.readStream('{run.id}', 'out')", options, name="chunks"),
                Loop(page, f"client.subscribeToRun('{run.id}')", name="run"),
                Loop(page, "client.subscribeToRunsWithTag('cut', { signal })", name="tagged"),
            )
        )
    for number, word in enumerate(WORDS):
        write(run.id, word)
        report(run.id, number)
        page.wait_for_timeout(20)
    runs.cancel(run.id)
    for chunks, state, tagged in found:
        assert chunks.end() == WORDS
        assert chunks.get("source.nextIndex") == len(WORDS)
        for loop in (state, tagged):
            loop.until("seen.at(-1)?.status === 'CANCELED'")
            versions = [one["v"] for one in loop.seen()]
            assert versions == sorted(set(versions))
            assert loop.seen()[-1]["metadata"] == {"step": len(WORDS) - 1}
            assert loop.seen()[-1]["payload"] == 1
        state.end()


def test_a_server_that_is_killed_and_comes_back_is_found_again_by_socket_and_events(
    asgi_server: Callable[..., WebServer], nobody_executes: None, pages: Pages
) -> None:
    server = asgi_server("daphne", **ELSEWHERE)
    run = t.echo.trigger(1)
    found = []
    for through in (None, refused):
        page = visit_page(pages, server, through)
        found.append(Loop(page, f"client.readStream('{run.id}', 'out')", reading(runs=run.id), name="chunks"))
        found.append(Loop(page, f"client.subscribeToRun('{run.id}')", name="run"))
    write(run.id, *range(5))
    for loop in found:
        loop.until("seen.length > 0")
    pages.expected = ["ERR_", "WebSocket connection to"]
    server.process.kill9()
    write(run.id, *range(5, 10))
    runs.cancel(run.id)
    asgi_server("daphne", port=server.port, **ELSEWHERE)
    for loop in found[0::2]:
        assert loop.end() == [*range(10)]
    for loop in found[1::2]:
        assert loop.end()[-1]["status"] == "CANCELED"


def test_where_no_socket_comes_through_events_are_read_with_the_same_promises(
    server: WebServer, open_page: Open, pages: Pages
) -> None:
    run = t.echo.trigger(1, tags=["events"])
    page = open_page(refused)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    pages.expected = ["401"]
    page.expose_function(
        "newToken", lambda: (asked.append("token"), reading(runs=run.id, tags="events"))[1]["accessToken"]
    )
    configure = "client.configure({ accessToken: 'not.a.token', refreshAccessToken: () => newToken() })"
    chunks = Loop(page, f"({configure}, client.readStream('{run.id}', 'out'))", name="chunks")
    states = Loop(page, f"client.subscribeToRun('{run.id}')", name="run")
    tagged = Loop(page, "client.subscribeToRunsWithTag('events', { signal })", name="tagged")
    slow = Loop(page, f"(loop.pause = 60_000, client.readStream('{run.id}', 'many'))", name="slow")
    for loop in (states, tagged):
        loop.until("seen.length == 1")
    assert asked.count("token") == 1  # though each of them was refused
    many = [f"{number:04} {'x' * 500}" for number in range(4000)]  # 2 MB: more than any buffer on the way
    for start in range(0, 4000, 100):
        write(run.id, *many[start : start + 100], key="many")
    write(run.id, *WORDS)
    report(run.id, 1)
    chunks.until("seen.length == 40")
    slow.until("source.waiting.length > 500")
    page.wait_for_timeout(300)
    assert slow.get("source.waiting.length") < 2500  # what one read brought, not what there is
    slow.set("pause = 0; loops.slow.go()")
    slow.until("seen.length == 4000")
    assert slow.seen() == many
    runs.cancel(run.id)
    assert chunks.end() == WORDS
    assert states.end()[-1]["status"] == "CANCELED"
    tagged.until("seen.at(-1).status === 'CANCELED'")
    tagged.set("stop.abort()")
    assert [one["v"] for one in tagged.end()] == sorted({one["v"] for one in tagged.seen()})
    eventually(lambda: page.evaluate(LISTENERS) == 0)
    assert not any("token=" in url or "eyJ" in url for url in asked)


def test_a_token_is_renewed_on_the_same_socket_or_when_it_was_refused_and_without_another_the_loop_fails(
    server: WebServer, open_page: Open
) -> None:
    run = t.echo.trigger(1)
    page = open_page()
    sockets = sockets_of(page)
    good = reading(runs=run.id)["accessToken"]
    asked: list[int] = []
    page.expose_function("newToken", lambda: (asked.append(1), good)[1])
    short = auth.create_public_token({"read": {"runs": run.id}}, expires_in=3)

    def configure(token: str, refresh: str) -> str:
        return f"(client.configure({{ accessToken: '{token}', refreshAccessToken: {refresh} }}), client.subscribeToRun('{run.id}'))"

    renewed = Loop(page, configure(short, "newToken"))
    renewed.until("seen.length == 1")
    page.wait_for_timeout(3200)  # the first one is no good any more
    report(run.id, 1)
    renewed.until("seen.at(-1).metadata.step == 1")
    assert len(sockets) == len(asked) == 1

    replaced = Loop(page, configure("no.token.1", "newToken"))
    replaced.until("seen.length == 1")
    assert len(asked) == 2

    away = "(() => { let calls = 0; return async () => { if (++calls < 3) throw new TypeError('away'); return newToken(); } })()"
    Loop(page, configure("no.token.2", away)).until("seen.length == 1")
    assert "RealtimeError unauthorized" in Loop(page, configure("no.token.3", "async () => 'nor.is.this'")).error()
    assert "RealtimeError unauthorized" in Loop(page, configure("no.token.4", "undefined")).error()
    logged_out = "async () => { throw new client.RealtimeError('unauthorized', 'Log in again') }"
    assert Loop(page, configure("no.token.5", logged_out)).error() == "RealtimeError unauthorized: Log in again"


def test_what_cannot_be_followed_fails_and_leaves_the_other_loops_alone(server: WebServer, open_page: Open) -> None:
    run, page = t.echo.trigger(1), open_page()
    sockets = sockets_of(page)
    token = auth.create_public_token({"read": {"runs": run.id}, "write": {"inputStreams": run.id}})
    kept = Loop(page, f"client.subscribeToRun('{run.id}')", {"accessToken": token}, name="kept")
    kept.until("seen.length == 1")
    assert "RealtimeError forbidden" in Loop(page, "client.subscribeToRun('run_of_others')").error()
    assert "RealtimeError forbidden" in Loop(page, "client.readStream('run_of_others')").error()
    assert "RealtimeError forbidden" in Loop(page, "client.subscribeToRunsWithTag('others')").error()
    for source in (
        "subscribeToRun(undefined)",
        "subscribeToRun('\\0')",
        "subscribeToRun('run', { since: 1.5 })",
        "subscribeToRunsWithTag(['a', '\\ud800'])",
        "subscribeToBatch('')",
        f"readStream('{run.id}', 'out', {{ startIndex: -1 }})",
    ):
        code = page.evaluate(f"() => {{ try {{ client.{source} }} catch (error) {{ return error.code }} }}")
        assert code == "invalid", source
    assert page.evaluate(SEND, ["run_of_others approval", 1]) == "forbidden"
    assert len(sockets) == 1
    assert page.evaluate(SEND, [f"{run.id} approval", "\0"]) == "invalid"  # for which the server closes the socket
    report(run.id, 1)
    kept.until("seen.at(-1).metadata.step == 1")
    options = {"accessToken": auth.create_public_token(["read:runs"])}
    assert "RealtimeError not_found" in Loop(page, "client.subscribeToRun('run_none')", options).error()


def test_who_leaves_a_loop_releases_what_the_server_held_and_at_last_the_socket(
    server: WebServer, open_page: Open
) -> None:
    run, page = t.echo.trigger(1), open_page()
    sockets = sockets_of(page)
    signalled = Loop(page, f"client.subscribeToRun('{run.id}', {{ signal }})", reading(runs=run.id), name="signalled")
    returned = Loop(page, f"client.readStream('{run.id}', 'out')[Symbol.asyncIterator]()", name="returned")
    signalled.until("seen.length == 1")
    eventually(lambda: page.evaluate(LISTENERS) == 2)
    signalled.set("stop.abort()")
    signalled.end()
    eventually(lambda: page.evaluate(LISTENERS) == 1)
    page.evaluate("loops.returned.source.return()")  # while it waits for its first chunk
    assert returned.end() == []
    eventually(lambda: page.evaluate(LISTENERS) == 0)
    assert not sockets[0].is_closed()
    eventually(lambda: page.evaluate("1") and sockets[0].is_closed())


def test_a_slow_loop_holds_one_window_of_chunks_and_one_version_of_a_run(server: WebServer, open_page: Open) -> None:
    run, page = t.echo.trigger(1), open_page()
    write(run.id, *range(2000))
    slow = "(loop.pause = 60_000, client.{})"
    chunks = Loop(page, slow.format(f"readStream('{run.id}', 'out')"), reading(runs=run.id), name="chunks")
    states = Loop(page, slow.format(f"subscribeToRun('{run.id}')"), name="run")
    chunks.until("source.waiting.length > 400")
    states.until("seen.length == 1")
    for step in range(10):
        report(run.id, step)
        page.wait_for_timeout(50)
    states.until("source.held.values().next().value.metadata.step == 9")
    assert states.get("source.changed.size") == 1
    assert chunks.get("source.waiting.length") <= 512
    for name in ("chunks", "run"):
        page.evaluate(f"() => {{ loops.{name}.pause = 0; loops.{name}.go() }}")
    chunks.until("seen.length == 2000")
    assert chunks.seen() == [*range(2000)]
    states.until("seen.at(-1).metadata.step == 9")
    assert states.get("seen.length") <= 3


def test_a_user_of_the_site_needs_no_token_and_sends_with_csrf_protection(
    server: WebServer, open_page: Open, pages: Pages
) -> None:
    run = t.echo.trigger(1)
    page = open_page()
    pages.expected = ["403"]
    assert "RealtimeError" in Loop(page, f"client.subscribeToRun('{run.id}')").error()  # a stranger
    log_in(pages.context, server, User.objects.create_user("ann", is_staff=True))
    page.reload()
    large = "x" * 60_000  # does not fit into a frame
    page.evaluate(f"async () => {{ globalThis.client = await import('{MODULE}') }}")
    assert page.evaluate(SEND, [f"{run.id} approval", large]) == "forbidden"
    pages.context.add_cookies([{"name": "csrftoken", "value": "a" * 32, "url": server.url}])
    states = Loop(page, f"client.subscribeToRun('{run.id}')")
    states.until("seen.length == 1")
    assert page.evaluate(SEND, [f"{run.id} approval", large]) == "sent"
    assert page.evaluate(SEND, [f"{run.id} approval", "ok"]) == "sent"
    assert [json.loads(data) for data in stored_chunks(run.id, "approval")] == [large, "ok"]
