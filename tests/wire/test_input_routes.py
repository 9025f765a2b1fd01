"""Input streams over HTTP: wire-protocol 9."""

import json
from datetime import timedelta

import pytest
from asgiref.sync import sync_to_async

from realtime_runs import runs, streams
from realtime_runs.access import tokens
from realtime_runs.models import Stream, StreamChunk
from tests import tasks as t
from tests.wire.exchange import ask, key_header
from tests.wire.stream_events import StreamSource, read, records

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _nobody_executes(settings):
    settings.REALTIME_RUNS = {**settings.REALTIME_RUNS, "BACKEND": "tests.in_process.IdleBackend"}


@pytest.fixture
def run_id():
    return t.echo.trigger(1).id


@pytest.fixture
def url(run_id):
    return f"/realtime/v1/streams/{run_id}/input/approval"


def bearer(*scopes):
    return {"authorization": f"Bearer {tokens.sign(scopes, life=timedelta(minutes=1))}"}


async def send(url, body, headers=None):
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    return await ask("POST", url, key_header() if headers is None else headers, body)


VALUES = [{"approved": True}, None, "text", "1", "", 0, [1, [2]], "🚲", 2**70]


async def test_what_is_sent_is_kept_and_read_as_json_text_inside_of_a_text(run_id, url):
    for value in VALUES:
        answer = await send(url, {"data": value, "other": 1})
        assert (answer.status, answer.data) == (200, {"ok": True})
    await sync_to_async(runs.cancel)(run_id)
    found = await read(url)
    assert all(isinstance(text, str) for _, text in found)
    assert [(index, json.loads(text)) for index, text in found] == list(enumerate(VALUES))


async def test_the_record_has_the_form_that_the_contract_shows(url):
    await send(url, {"data": {"approved": True}})
    async with StreamSource(url, timeout_seconds="1") as source:
        await source.open()
        (record,) = records(await source.piece())
        assert await source.rest() == b""
    assert record["seq_num"] == 0
    assert record["body"].startswith('{"data":"{\\"approved\\":true}","id":"')


async def test_a_reader_gets_what_comes_later_and_goes_on_behind_the_last_index(url):
    async with StreamSource(url, timeout_seconds="600") as source:
        await source.open()
        for number in range(2):
            await send(url, {"data": number})
            assert await source.chunks(1) == [(number, str(number))]
    assert await read(url, last_event_id="0", timeout_seconds="1") == [(1, "1")]


async def test_inputs_are_no_streams_of_the_run(run_id, url):
    await send(url, {"data": 1})
    assert (await runs.aretrieve(run_id)).realtime_streams == ()
    await streams.aappend("approval", "output", target=run_id)
    await sync_to_async(runs.cancel)(run_id)
    assert await read(url) == [(0, "1")]
    assert await read(url.replace("/input", "")) == [(0, "output")]


async def test_a_final_run_takes_no_input(run_id, url):
    await sync_to_async(runs.cancel)(run_id)
    answer = await send(url, {"data": 1})
    assert answer.status == 400
    assert answer.data["ok"] is False
    assert "closed" in answer.data["error"]
    assert await Stream.objects.acount() == 0


DEEP = b'{"data":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
BAD = [b"", b" ", b"{}", b"[]", b"1", b"null", b"{", b'{"data":NaN}', b'{"data":"\\u0000"}', DEEP]
BAD += [b'{"data":"\\ud800"}', b"data=1", b'{"data":1e999}']
BAD += [b'{"data":' + b"9" * 5000 + b"}", b'\xef\xbb\xbf{"data":1}', b'{"data":"\xff"}']


@pytest.mark.parametrize("body", BAD, ids=lambda body: ascii(body[:20]))
async def test_a_body_that_is_no_record_is_refused(url, body):
    answer = await send(url, body)
    assert answer.status == 400
    assert answer.data["ok"] is False
    assert isinstance(answer.data["error"], str)
    assert await StreamChunk.objects.acount() == 0


async def test_a_body_may_have_so_many_bytes_and_not_one_more(settings, url):
    settings.REALTIME_RUNS = {**settings.REALTIME_RUNS, "MAX_INPUT_BYTES": 100}
    assert (await send(url, {"data": "x" * 88})).status == 200
    answer = await send(url, {"data": "x" * 89})
    assert answer.status == 413
    assert answer.data["ok"] is False
    assert await StreamChunk.objects.acount() == 1


async def test_a_token_for_inputs_of_the_run_may_send_and_not_read(run_id, url):
    token = bearer(f"write:inputStreams:{run_id}")
    assert (await send(url, {"data": 1}, token)).status == 200
    assert (await ask("GET", url, token)).status == 403


@pytest.mark.parametrize(
    "scope", ["read:runs:{}", "write:inputStreams:run_other", "write:runs:{}", "write:inputStreams:"]
)
async def test_another_token_may_not_send_and_does_not_learn_whether_the_run_is_there(run_id, url, scope):
    token = bearer(scope.format(run_id))
    for path in (url, url.replace(run_id, "run_missing")):
        answer = await send(path, {"data": 1}, token)
        assert answer.status == 403
        assert (answer.data["ok"], answer.data["error"]) == (False, "Unauthorized")
    assert await StreamChunk.objects.acount() == 0


async def test_who_reads_the_run_may_read_its_inputs(run_id, url):
    await sync_to_async(runs.cancel)(run_id)
    assert await read(url, bearer(f"read:runs:{run_id}")) == []


@pytest.mark.parametrize("key", ["k" * 256, "a\0b"])
async def test_a_key_that_no_input_can_have_is_refused(run_id, key):
    answer = await send(f"/realtime/v1/streams/{run_id}/input/{key}", {"data": 1})
    assert (answer.status, answer.data["ok"]) == (400, False)


async def test_an_unknown_run_is_not_found(url, run_id):
    for headers in (key_header(), bearer("write:inputStreams")):
        answer = await send(url.replace(run_id, "run_missing"), {"data": 1}, headers)
        assert (answer.status, answer.data) == (404, {"ok": False, "error": "Not found"})


async def test_pages_of_any_origin_may_send_and_read(url):
    answer = await ask("OPTIONS", url, {"access-control-request-headers": "authorization,content-type"})
    assert answer.status == 204
    assert answer.headers["access-control-allow-headers"] == "authorization,content-type"
    assert (await send(url, {"data": 1})).headers["access-control-allow-origin"] == "*"
    assert (await ask("PUT", url, key_header())).headers["allow"] == "GET, POST"
