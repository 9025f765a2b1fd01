"""client.js in a real browser: what its loops get, whatever happens to the connection."""

import gzip
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, WebSocketRoute

from realtime_runs import auth, streams, tasks
from tests.browser.conftest import Pages, aside, until
from tests.conftest import ROOT, Process, WebServer, eventually

CLIENT = ROOT / "realtime_runs/static/realtime_runs/client.js"
MODULE = "/static/realtime_runs/client.js"
WORDS = [f"w{number}" for number in range(40)]
# What a page collects: globalThis.seen grows as the loop goes on, and `outcome` says how it ended.
LOOP = """async ([options, module]) => {
  globalThis.client = await import(module);
  if (options) client.configure(options);
  globalThis.seen = [];
  globalThis.outcome = null;
  globalThis.stop = new AbortController();
  const signal = stop.signal;
  globalThis.reader = SOURCE;
  (async () => {
    try {
      for await (const item of reader) {
        seen.push(item);
        if (globalThis.pause) await new Promise((go) => setTimeout(go, globalThis.pause));
      }
      outcome = "end";
    } catch (error) {
      outcome = `${error.name} ${error.code}: ${error.message}`;
    }
  })();
}"""


class Reader:
    """A loop in a page."""

    def __init__(self, page: Page, source: str, options: dict[str, Any] | None = None, module: str = MODULE) -> None:
        self.page = page
        page.evaluate(LOOP.replace("SOURCE", source), [options, module])

    def seen(self) -> Any:
        return self.page.evaluate("seen")

    def end(self) -> Any:
        """What it has seen, once it ended."""
        until(self.page, "outcome !== null")
        assert self.page.evaluate("outcome") == "end"
        return self.seen()

    def error(self) -> str:
        until(self.page, "outcome !== null")
        return str(self.page.evaluate("outcome"))

    def has_seen(self, count: int) -> None:
        until(self.page, f"seen.length >= {count}")


@pytest.fixture
def server(asgi_server: Callable[..., WebServer]) -> WebServer:
    return asgi_server("daphne", BACKSTOP_SECONDS=0.1)


@pytest.fixture
def open_page(server: WebServer, pages: Pages) -> Callable[..., Page]:
    def visit(through: Callable[[WebSocketRoute], None] | None = None) -> Page:
        page = pages.context.new_page()
        if through:
            page.route_web_socket("**/realtime/v1/socket", through)
        page.goto(f"{server.url}/tests/empty")
        return page

    return visit


def token_for(**scopes: Any) -> str:
    return auth.create_public_token({"read": scopes})


def test_the_module_is_small() -> None:
    assert len(gzip.compress(CLIENT.read_bytes(), 9)) < 12 * 1024


def test_a_run_is_followed_to_its_end_and_its_stream_read_once_over_one_socket(
    server: WebServer, nobody_executes: None, open_page: Callable[..., Page]
) -> None:
    run = tasks.trigger("stream-text", {"text": " ".join(WORDS), "delayMs": 5}, tags=["a", "b"])
    page = open_page()
    sockets: list[Any] = []
    page.on("websocket", lambda socket: sockets.append(socket))
    page.evaluate(
        """async ([module, token, id]) => {
          const client = await import(module);
          client.configure({ accessToken: token });
          const all = async (loop) => { const found = []; for await (const one of loop) found.push(one); return found; };
          const first = async (loop, wanted) => { for await (const one of loop) if (wanted(one)) return one; };
          globalThis.results = await Promise.all([
            all(client.subscribeToRun(id)),
            all(client.readStream(id, "ai-output")),
            first(client.subscribeToRunsWithTag(["a", "b"]), (run) => run.isCompleted),
            all(client.readStream(id, "ai-output", { startIndex: 38 })),
          ]);
        }""",
        [MODULE, token_for(runs=run.id, tags=["a"]), run.id],
    )
    states, words, tagged, rest = page.evaluate("results")
    assert words == WORDS
    assert rest == WORDS[38:]
    assert states[-1]["status"] == tagged["status"] == "COMPLETED"
    assert states[-1]["output"] == tagged["output"] == {"chunks": len(WORDS)}
    assert states[-1]["payload"]["text"] == " ".join(WORDS)
    versions = [state["v"] for state in states]
    assert versions == sorted(set(versions))
    assert len(sockets) == 1


@pytest.mark.parametrize("cut_after", [0, 1, 2, 3, 5])
def test_a_cut_at_any_frame_loses_and_doubles_nothing(
    server: WebServer, nobody_executes: None, open_page: Callable[..., Page], pages: Pages, cut_after: int
) -> None:
    """Each connection is cut behind so many frames; the next one lives for one more."""
    run = tasks.trigger("stream-text", {"text": " ".join(WORDS), "delayMs": 10})
    lives = iter(range(cut_after, 1000))

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

    page = open_page(through)
    options = {"accessToken": token_for(runs=run.id)}
    page.evaluate("Math.random = () => 0.1")  # back at once
    reader = Reader(page, f"client.readStream('{run.id}', 'ai-output')", options)
    assert reader.end() == WORDS
    assert page.evaluate("[reader.endReason, reader.nextIndex]") == ["completed", len(WORDS)]


def test_where_no_socket_comes_through_events_are_read_instead(
    server: WebServer, nobody_executes: None, open_page: Callable[..., Page]
) -> None:
    run = tasks.trigger("stream-text", {"text": " ".join(WORDS), "delayMs": 5})
    page = open_page(lambda route: route.close(code=1011))
    page.evaluate("Math.random = () => 0.1")
    options = {"accessToken": token_for(runs=run.id)}
    assert Reader(page, f"client.readStream('{run.id}', 'ai-output')", options).end() == WORDS
    assert Reader(page, f"client.subscribeToRun('{run.id}')").end()[-1]["output"] == {"chunks": len(WORDS)}


def test_a_server_that_is_killed_and_comes_back_is_found_again(
    asgi_server: Callable[..., WebServer], worker: Callable[..., Process], nobody_executes: None, pages: Pages
) -> None:
    elsewhere = {"BACKEND": "tests.tasks_live.WorkElsewhere", "BACKSTOP_SECONDS": 0.1}
    server = asgi_server("daphne", **elsewhere)
    worker()
    run = tasks.trigger("wait-approval", {})
    page = pages.context.new_page()
    page.goto(f"{server.url}/tests/empty")
    options = {"accessToken": auth.create_public_token({"read": {"runs": run.id}})}
    reader = Reader(page, f"client.subscribeToRun('{run.id}')", options)
    until(page, "seen.at(-1)?.status === 'WAITING'")
    pages.expected = ["ERR_CONNECTION_REFUSED", "WebSocket connection to", "ERR_"]
    server.process.kill9()
    asgi_server("daphne", port=server.port, **elsewhere)
    aside(streams.input("approval").send, run.id, "yes")
    assert reader.end()[-1]["output"]["approval"] == "yes"


def test_a_token_is_renewed_before_it_expires_on_the_same_socket(
    server: WebServer, nobody_executes: None, open_page: Callable[..., Page]
) -> None:
    run = tasks.trigger("wait-approval", {})
    page = open_page()
    sockets: list[Any] = []
    page.on("websocket", lambda socket: sockets.append(socket))
    page.expose_function("newToken", lambda: auth.create_public_token({"read": {"runs": run.id}}))
    short = auth.create_public_token({"read": {"runs": run.id}}, expires_in=4)
    source = f"client.configure({{accessToken: '{short}', refreshAccessToken: () => newToken()}}), client.subscribeToRun('{run.id}')"
    reader = Reader(page, f"({source})")
    until(page, "seen.at(-1)?.status === 'WAITING'")
    page.wait_for_timeout(4500)  # past the first one's end
    aside(streams.input("approval").send, run.id, "yes")
    assert reader.end()[-1]["status"] == "COMPLETED"
    assert len(sockets) == 1


def test_a_token_that_expired_is_replaced_once_and_without_another_the_loop_fails(
    server: WebServer, nobody_executes: None, open_page: Callable[..., Page]
) -> None:
    run = tasks.trigger("echo", 1)
    page = open_page()
    good = token_for(runs=run.id)
    source = f"client.configure({{accessToken: 'not.a.token', refreshAccessToken: async () => '{good}'}}), client.subscribeToRun('{run.id}')"
    assert Reader(page, f"({source})").end()[-1]["status"] == "COMPLETED"
    assert "unauthorized" in Reader(page, f"client.subscribeToRun('{run.id}')", {"accessToken": "not.a.token"}).error()


def test_who_may_not_or_asks_for_nothing_gets_an_error_that_says_so(
    server: WebServer, nobody_executes: None, open_page: Callable[..., Page]
) -> None:
    run, page = tasks.trigger("echo", 1), open_page()
    options = {"accessToken": token_for(runs="run_of_somebody_else")}
    assert "RealtimeError forbidden" in Reader(page, f"client.subscribeToRun('{run.id}')", options).error()
    assert "RealtimeError forbidden" in Reader(page, f"client.readStream('{run.id}')").error()
    options = {"accessToken": auth.create_public_token(["read:runs"])}
    assert "RealtimeError not_found" in Reader(page, "client.subscribeToRun('run_none')", options).error()


def test_an_abort_ends_the_loop_and_releases_what_the_server_held(
    server: WebServer, nobody_executes: None, open_page: Callable[..., Page]
) -> None:
    run = tasks.trigger("echo", 1, delay="1h")
    page = open_page()
    listeners = "fetch('/tests/listeners').then((answer) => answer.json()).then((found) => found.count)"
    before = page.evaluate(listeners)
    source = f"client.subscribeToRun('{run.id}', {{ signal }})"
    reader = Reader(page, source, {"accessToken": token_for(runs=run.id)})
    reader.has_seen(1)
    assert page.evaluate(listeners) > before
    page.evaluate("stop.abort()")
    assert reader.end()
    eventually(lambda: page.evaluate(listeners) == before)


def test_two_copies_of_the_module_share_one_socket(
    server: WebServer, nobody_executes: None, open_page: Callable[..., Page]
) -> None:
    run = tasks.trigger("echo", 1)
    page = open_page()
    sockets: list[Any] = []
    page.on("websocket", lambda socket: sockets.append(socket))
    Reader(page, f"client.subscribeToRun('{run.id}')", {"accessToken": token_for(runs=run.id)}).end()
    Reader(page, f"client.subscribeToRun('{run.id}')", module=f"{MODULE}?another").end()
    assert len(sockets) == 1


def test_a_slow_loop_holds_no_more_than_a_window_and_gets_everything(
    server: WebServer, nobody_executes: None, open_page: Callable[..., Page]
) -> None:
    run = tasks.trigger("wait-approval", {})
    page = open_page()
    aside(lambda: streams.define("numbers", int).pipe(range(2000), target=run.id).wait_until_complete())
    page.evaluate("globalThis.pause = 2000")
    reader = Reader(
        page, f"client.readStream('{run.id}', 'numbers', {{signal}})", {"accessToken": token_for(runs=run.id)}
    )
    reader.has_seen(1)
    until(page, "reader.waiting.length > 400")
    page.wait_for_timeout(500)
    assert page.evaluate("reader.waiting.length") <= 512
    page.evaluate("globalThis.pause = 0")
    until(page, "seen.length === 2000")
    assert reader.seen() == list(range(2000))


def test_what_is_sent_arrives_over_the_socket_or_over_http(
    server: WebServer, nobody_executes: None, open_page: Callable[..., Page]
) -> None:
    ids = [tasks.trigger("wait-approval", {}).id for _ in range(2)]
    token = auth.create_public_token({"read": {"runs": ids}, "write": {"inputStreams": ids}})
    page = open_page()
    send = "async ([module, id, options]) => { const client = await import(module); if (options) client.configure(options); await client.sendInput(id, 'approval', 'yes'); }"
    page.evaluate(send, [MODULE, ids[0], {"accessToken": token}])
    assert Reader(page, f"client.subscribeToRun('{ids[0]}')").end()[-1]["output"]["approval"] == "yes"
    page.evaluate(send, [MODULE, ids[1], None])
    assert Reader(page, f"client.subscribeToRun('{ids[1]}')").end()[-1]["output"]["approval"] == "yes"
