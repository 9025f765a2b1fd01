"""What the client makes of answers: refusals, tokens that expire, frames."""

import asyncio
import http.server
import subprocess
import sys
import threading
import time

import pytest

from realtime_runs import auth, runs, streams, wait
from realtime_runs.access.keys import secret_keys
from realtime_runs.client import Client
from realtime_runs.client.options import _NAMES
from realtime_runs.client.subscriptions import HeldRuns
from realtime_runs.engine.options import TriggerOptions
from realtime_runs.exceptions import (
    ConnectionFailed,
    Forbidden,
    InvalidInput,
    InvalidOption,
    InvalidToken,
    ServerError,
    StreamGap,
    TokenSpent,
    TooLarge,
)
from tests import tasks as t
from tests.client.reading import Reading
from tests.conftest import ROOT, eventually
from tests.services import free_port

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(90)]

NOON = "2026-01-01T12:00:00.000Z"


def test_a_token_that_expires_in_the_middle_is_replaced(server):
    run_id = t.echo.trigger(1, delay="1h").id
    given = []

    def refresh():
        given.append(auth.create_public_token([f"read:runs:{run_id}"], expires_in=2 if len(given) < 1 else "1h"))
        return given[-1]

    with Client(server.url, "no-token-at-all", refresh_access_token=refresh) as client:
        following = Reading(client.runs.subscribe_to_run(run_id))
        reading = Reading(client.streams.read(run_id, "log"))
        eventually(lambda: len(following.found) == 1)
        eventually(lambda: len(given) >= 2, timeout=20)
        runs.add_tags(run_id, "x")
        streams.append("log", 1, target=run_id)
        runs.cancel(run_id)
        assert [run.version for run in following.ended()][-1] >= 3
        assert reading.ended() == [1]
        with pytest.raises(Forbidden):
            client.runs.retrieve(t.echo.trigger(1).id)


def test_a_new_token_is_asked_for_once_for_all_who_were_refused(server):
    run_ids = [t.echo.trigger(1, delay="1h").id for _ in range(5)]
    asked = []

    def refresh():
        asked.append(1)
        time.sleep(0.2)  # as one who asks another server
        return secret_keys()[0]

    async def read():
        async with Client(server.url, "tr_dev_old", refresh_access_token=refresh) as client:
            return await asyncio.gather(*map(client.runs.aretrieve, run_ids))

    assert [run.id for run in asyncio.run(read())] == run_ids
    assert asked == [1]


def test_what_goes_wrong_while_a_new_token_is_got_is_raised(server):
    async def refresh():
        raise LookupError("the vault is shut")

    with Client(server.url, "tr_dev_old", refresh_access_token=refresh) as client:
        for call in (client.runs.retrieve, lambda run: list(client.runs.subscribe_to_run(run))):
            with pytest.raises(LookupError, match="vault"):
                call("run_x")


@pytest.mark.parametrize("token", ["", "tr_dev_secret\n", "tr_dev_sécret"])
def test_a_token_that_no_header_can_hold_is_refused_and_not_shown(token):
    with pytest.raises(InvalidToken) as caught:
        Client("http://127.0.0.1", token)
    assert "dev" not in str(caught.value)
    with pytest.raises(InvalidOption):
        Client("127.0.0.1", "key")


def test_a_token_that_may_only_do_it_does_it(server):
    with Client(server.url, auth.create_public_token(["batchTrigger:tasks:echo"])) as client:
        handle = client.tasks.batch_trigger("echo", [1, 2], delay="1h")
    assert {run.id for run in runs.list(batch=handle.id).data} == {*handle.run_ids}
    token = wait.create_token()
    refreshed = []
    with Client(
        server.url, auth.create_public_token([f"write:waitpoints:{token.id}"]), refresh_access_token=refreshed.append
    ) as client:
        assert client.wait.complete_token(token.id, {"ok": True}) is None
    assert wait.retrieve_token(token).output == {"ok": True}
    assert refreshed == []


def test_a_token_that_hides_fields_follows_the_others(server):
    run_id = t.echo.trigger({"a": 1}, delay="1h", tags=["x"], metadata={"m": 1}).id
    hidden = ("payload", "tags", "metadata", "isTest", "depth", "v")
    with Client(server.url, auth.create_public_token([f"read:runs:{run_id}"], skip_columns=hidden)) as client:
        run = next(iter(client.runs.subscribe_to_run(run_id)))
    assert (run.id, run.status, run.version, run.payload, run.tags, run.metadata) == (
        run_id,
        "DELAYED",
        1,
        None,
        (),
        {},
    )


def test_without_a_new_token_the_refusal_is_an_error(server):
    run_id = t.echo.trigger(1).id
    with Client(server.url, "tr_dev_wrong_key") as client:
        for call in (
            client.runs.retrieve,
            lambda run: list(client.runs.subscribe_to_run(run)),
            lambda run: list(client.streams.read(run)),
        ):
            with pytest.raises(InvalidToken):
                call(run_id)
    with Client(server.url, "wrong", refresh_access_token=lambda: "wrong again") as client, pytest.raises(InvalidToken):
        client.runs.retrieve(run_id)


class Scripted(http.server.BaseHTTPRequestHandler):
    """Answers everything with what its server says."""

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.asked.append(self.headers)
        status, headers, body = self.server.answer
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, *arguments) -> None: ...


@pytest.fixture
def scripted(monkeypatch):
    monkeypatch.setattr("realtime_runs.client.transport._FIRST_PAUSE", 0.01)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Scripted) as answering:
        answering.asked = []
        threading.Thread(target=answering.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield answering
        answering.shutdown()


@pytest.mark.parametrize(
    ("answer", "error", "count"),
    [
        ((503, {}, b"<h1>no</h1>"), ServerError, 5),
        ((429, {"Retry-After": "0"}, b""), ServerError, 5),
        ((500, {"x-should-retry": "false"}, b'{"error": {"message": "no"}}'), ServerError, 1),
        ((418, {}, b"[]"), ServerError, 1),
        ((302, {"Location": "/"}, b""), ServerError, 1),
        ((400, {}, b'{"error": "no", "code": 5}'), InvalidInput, 1),
        ((422, {}, b'{"error": "This single-use token has already been spent."}'), TokenSpent, 1),
        ((413, {}, b'{"error": "Request body too large"}'), TooLarge, 1),
        ((410, {}, b'{"error": "gone", "code": "StreamGap", "index": 0, "firstIndex": 3}'), StreamGap, 1),
    ],
)
def test_each_answer_is_tried_again_or_an_error(scripted, answer, error, count):
    scripted.answer = answer
    with Client(f"http://127.0.0.1:{scripted.server_port}", "key") as client:
        for call in (client.runs.retrieve, lambda run: list(client.runs.subscribe_to_run(run))):
            scripted.asked.clear()
            with pytest.raises(error) as caught:
                call("run_x")
            assert type(caught.value) is error
            assert len(scripted.asked) == count


def test_an_input_is_sent_again_only_where_it_cannot_have_arrived(scripted):
    with Client(f"http://127.0.0.1:{scripted.server_port}", "key") as client:
        for status, count in ((500, 1), (503, 5)):
            scripted.answer = (status, {}, b"")
            scripted.asked.clear()
            with pytest.raises(ServerError):
                client.streams.input("approval").send("run_x", 1)
            assert len(scripted.asked) == count


@pytest.mark.parametrize(
    ("follow", "event"),
    [
        (lambda client: client.runs.subscribe_to_run("run_x"), 'id: 7\nevent: runs\ndata: {"runs": []}\n\n'),
        (lambda client: client.streams.read("run_x", start_index=8), "event: end\ndata: {}\n\n"),
    ],
)
def test_who_comes_back_says_what_it_has(scripted, follow, event):
    scripted.answer = (200, {"Content-Type": "text/event-stream"}, event.replace("end", "other").encode())
    with Client(f"http://127.0.0.1:{scripted.server_port}", "key") as client:
        following = follow(client)
        reading = Reading(following)
        eventually(lambda: len(scripted.asked) > 1)
        assert scripted.asked[1]["Last-Event-ID"] == "7"
        following.close()
        assert reading.ended() == []


def test_an_answer_that_is_no_event_stream_is_an_error(scripted):
    scripted.answer = (200, {"Content-Type": "text/html"}, b"<h1>Log in</h1>")
    with Client(f"http://127.0.0.1:{scripted.server_port}", "key") as client, pytest.raises(ServerError):
        list(client.streams.read("run_x"))


def test_a_server_that_is_not_there_is_an_error_after_some_attempts(monkeypatch):
    monkeypatch.setattr("realtime_runs.client.transport._FIRST_PAUSE", 0.01)
    client = Client(f"http://127.0.0.1:{free_port()}", "key")
    for call in (client.runs.retrieve, lambda run: list(client.runs.subscribe_to_run(run))):
        with pytest.raises(ConnectionFailed, match="cannot be reached"):
            call("run_x")


def test_frames_are_applied_once_and_a_reset_forgets():
    def frame(v, from_version, **fields):
        return {"runs": [{"run": "run_1", "from": from_version, "v": v, "set": fields}], "live": True}

    whole = {
        "id": "run_1", "taskIdentifier": "t", "status": "QUEUED", "createdAt": NOON,
        "updatedAt": NOON, "tags": [], "isTest": False, "payload": None, "metadata": {"a": 1},
        "delayedUntil": NOON,
    }  # fmt: skip
    held = HeldRuns()
    (first,) = held.take(frame(1, 0, **whole))
    (second,) = held.take(frame(3, 1, status="EXECUTING", delayedUntil=None))
    assert (second.status, second.version, second.metadata, second.delayed_until) == ("EXECUTING", 3, {"a": 1}, None)
    assert held.take(frame(2, 1, status="QUEUED")) == held.take(frame(3, 1, status="QUEUED")) == []
    assert [run.version for run in held.take({**frame(2, 0, **whole), "reset": True})] == [2]
    assert first.payload is None


def test_what_is_held_of_runs_is_bounded(monkeypatch):
    monkeypatch.setattr("realtime_runs.client.subscriptions._MOST_HELD", 3)
    held = HeldRuns()
    fields = {"taskIdentifier": "t", "status": "QUEUED", "createdAt": NOON, "updatedAt": NOON}
    for number in range(10):
        part = {"run": f"run_{number}", "from": 0, "v": 1, "set": {"id": f"run_{number}", **fields}}
        assert len(held.take({"runs": [part], "live": True})) == 1
    assert list(held._fields) == ["run_7", "run_8", "run_9"]


def test_each_trigger_option_has_its_name_on_the_wire():
    assert {*_NAMES} == {*TriggerOptions.__annotations__}


def test_the_client_can_be_imported_without_a_django_project():
    code = "from realtime_runs.client import Client; Client('http://127.0.0.1:1', 'key'); print('imported')"
    env = {"PATH": "", "PYTHONPATH": str(ROOT)}
    found = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], env=env, capture_output=True, text=True, check=False
    )
    assert (found.stdout, found.stderr) == ("imported\n", "")


def test_a_status_that_nobody_foresaw_is_an_error_that_says_it(monkeypatch, server):
    monkeypatch.setattr("realtime_runs.client.transport._FIRST_PAUSE", 0.01)
    with Client(f"{server.url}/nowhere", secret_keys()[0]) as client, pytest.raises(ServerError) as caught:
        client.runs.list()
    assert caught.value.status == 404
