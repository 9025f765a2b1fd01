"""Writing streams over HTTP: wire-protocol 8.4 to 8.6."""

import asyncio
import http.client
import json
from datetime import timedelta

import pytest
from asgiref.sync import sync_to_async

from realtime_runs import runs, streams
from realtime_runs.access import tokens
from realtime_runs.models import Run, Stream, StreamChunk
from tests import tasks as t
from tests.conftest import eventually
from tests.stored_chunks import stored_chunks
from tests.wire.exchange import Exchange, ask, key_header
from tests.wire.stream_events import StreamSource

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _nobody_executes(settings):
    settings.REALTIME_RUNS = {**settings.REALTIME_RUNS, "BACKEND": "tests.in_process.IdleBackend"}


@pytest.fixture
def run_id():
    return t.echo.trigger(1).id


@pytest.fixture
def url(run_id):
    return f"/realtime/v1/streams/{run_id}/self/log"


@pytest.fixture
def final(run_id):
    runs.cancel(run_id)
    return run_id


stored = sync_to_async(stored_chunks)


def writer(client="2d0378a1", first=None):
    headers = {**key_header(), "x-client-id": client, "x-stream-version": "v1", "content-type": "application/json"}
    return headers if first is None else {**headers, "x-resume-from-chunk": str(first)}


async def post(url, body, headers=None):
    return await ask("POST", url, writer() if headers is None else headers, body)


async def last_index(url, client="2d0378a1"):
    answer = await ask("HEAD", url, {**key_header(), "x-client-id": client})
    assert (answer.status, answer.data) == (200, b"")
    return answer.headers["x-last-chunk-index"]


# -- PUT --------------------------------------------------------------------------------------------------------------


async def test_put_makes_the_stream_which_is_a_change_of_the_run(run_id, url):
    before = await runs.aretrieve(run_id)
    for _ in range(2):
        answer = await ask("PUT", url, key_header())
        assert (answer.status, answer.data) == (202, {"version": "v1"})
        assert not [name for name in answer.headers if name.startswith("x-s2")]
    after = await runs.aretrieve(run_id)
    assert after.realtime_streams == ("log",)
    assert after.version == before.version + 1
    assert await stored(run_id) == []


async def test_put_of_a_stream_that_takes_no_chunks_any_more_is_refused(run_id, url):
    await streams.aclose("log", target=run_id)
    assert (await ask("PUT", url, key_header())).status == 400
    await sync_to_async(runs.cancel)(run_id)
    answer = await ask("PUT", url.replace("log", "other"), key_header())
    assert answer.status == 400
    assert "closed" in answer.data["error"]
    assert await Stream.objects.filter(key="other").aexists() is False


async def test_parent_and_root_are_those_of_the_run(run_id):
    child = (await sync_to_async(t.echo.trigger)(1)).id
    await Run.objects.filter(pk=child).aupdate(parent=run_id, root=run_id)
    for target in ("parent", "root"):
        assert (await ask("PUT", f"/realtime/v1/streams/{child}/{target}/{target}", key_header())).status == 202
    assert sorted((await runs.aretrieve(run_id)).realtime_streams) == ["parent", "root"]
    assert (await ask("PUT", f"/realtime/v1/streams/{run_id}/parent/log", key_header())).status == 404
    assert (await ask("PUT", f"/realtime/v1/streams/{run_id}/root/log", key_header())).status == 202
    await Run.objects.filter(pk=child).aupdate(parent="run_pruned")
    assert (await ask("PUT", f"/realtime/v1/streams/{child}/parent/log", key_header())).status == 404


# -- POST and HEAD ----------------------------------------------------------------------------------------------------


async def test_lines_become_chunks_and_head_says_how_many(run_id, url):
    assert await last_index(url) == "-1"
    answer = await post(url, b'{"n":1}\n"two"\n')
    assert (answer.status, answer.data) == (200, b"")
    assert await stored(run_id) == [b'{"n":1}', b'"two"']
    assert await last_index(url) == "1"
    assert await last_index(url, "other") == await last_index(url, "") == "-1"


async def test_each_line_can_be_read_while_the_pipe_is_open(run_id, url):
    async with (
        StreamSource(f"/realtime/v1/streams/{run_id}/log") as source,
        Exchange("POST", url, writer(), None) as pipe,
    ):
        await source.open()
        for number in range(3):
            await pipe.send_body(b"%d\n" % number)
            assert await source.chunks(1) == [(number, number)]
        await pipe.send_body(b"", more=False)
        assert await pipe.start() == 200


async def test_lines_are_counted_wherever_the_network_cuts_them(run_id, url):
    body = '"é"\n{"a":"\\n"}\r\n\n  \n"🚲"\n1'.encode()  # blank lines are none; the last needs no end
    async with Exchange("POST", url, writer(), None) as pipe:
        for byte in body:
            await pipe.send_body(bytes([byte]))
        await pipe.send_body(b"", more=False)
        assert await pipe.start() == 200
    assert [json.loads(chunk) for chunk in await stored(run_id)] == ["é", {"a": "\n"}, "🚲", 1]
    assert await last_index(url) == "3"


async def test_many_lines_at_once_are_stored_in_their_order(run_id, url):
    assert (await post(url, b"".join(b"%d\n" % number for number in range(1234)))).status == 200
    assert await stored(run_id) == [b"%d" % number for number in range(1234)]


async def test_a_writer_that_resumes_too_early_stores_nothing_twice(run_id, url):
    await post(url, b"0\n1\n2\n")
    assert (await post(url, b"1\n2\n3\n4\n", writer(first=1))).status == 200
    assert (await post(url, b"0\n", writer("another"))).status == 200
    assert await stored(run_id) == [b"0", b"1", b"2", b"3", b"4", b"0"]
    assert await last_index(url) == "4"


async def test_the_same_lines_sent_twice_at_the_same_time_are_stored_once(run_id, url):
    body = b"".join(b"%d\n" % number for number in range(700))
    answers = await asyncio.gather(*(post(url, body) for _ in range(3)))
    assert [answer.status for answer in answers] == [200] * 3
    assert await stored(run_id) == [b"%d" % number for number in range(700)]


async def test_who_does_not_say_its_name_is_stored_each_time(run_id, url):
    for _ in range(2):
        assert (await post(url, b"1\n", key_header())).status == 200
    assert await stored(run_id) == [b"1", b"1"]


@pytest.mark.parametrize("first", ["x", "-1", "1.5", "9" * 30, "²", "nan", "0x1"])
async def test_a_resume_position_that_is_none_is_refused(run_id, url, first):
    answer = await post(url, b"1\n", writer(first=first))
    assert (answer.status, answer.data["details"][0]["path"]) == (400, ["X-Resume-From-Chunk"])
    assert await stored(run_id) == []


async def test_a_client_id_that_no_row_can_have_is_refused(run_id, url):
    for client in ("c" * 65, "a\0b"):
        assert (await post(url, b"1\n", writer(client))).status == 400
        assert (await ask("HEAD", url, {**key_header(), "x-client-id": client})).status == 400
    assert await stored(run_id) == []


DEEP = b"[" * 100_000 + b"]" * 100_000
BAD_LINES = [
    b"undefined",
    b"NaN",
    b"-Infinity",
    b"1e999",
    b"{",
    b"'a'",
    b"\xff",
    b'\xef\xbb\xbf"bom"',
    b"9" * 5000,
    DEEP,
    b"1 2",
]


@pytest.mark.parametrize("line", BAD_LINES, ids=lambda line: ascii(line[:9]))
async def test_a_line_that_is_no_json_is_refused_and_those_before_it_are_kept(run_id, url, line):
    answer = await post(url, b'"good"\n' + line + b'\n"late"\n')
    assert answer.status == 400
    assert answer.data["error"]
    assert await stored(run_id) == [b'"good"']


async def test_half_a_character_that_a_tokeniser_has_cut_is_kept(run_id, url):
    assert (await post(url, b'"\\ud83d"\n"\\u0000"\n')).status == 200
    assert [json.loads(chunk) for chunk in await stored(run_id)] == ["\ud83d", "\0"]


async def test_a_chunk_may_have_so_many_bytes_and_not_one_more(settings, run_id, url):
    settings.REALTIME_RUNS = {**settings.REALTIME_RUNS, "MAX_CHUNK_BYTES": 100}
    fits, larger = (b'"%s"\n' % (b"x" * size) for size in (98, 99))
    assert (await post(url, fits)).status == 200
    answer = await post(url, larger, writer(first=1))
    assert answer.status == 413
    assert "at most 100" in answer.data["error"]
    assert len(await stored(run_id)) == 1


async def test_a_line_without_an_end_is_refused_before_more_of_it_is_held(settings, run_id, url):
    settings.REALTIME_RUNS = {**settings.REALTIME_RUNS, "MAX_CHUNK_BYTES": 100}
    async with Exchange("POST", url, writer(), None) as pipe:
        await pipe.send_body(b"1\n" + b"x" * 101)
        assert await pipe.start() == 413
    assert await stored(run_id) == [b"1"]


async def test_of_a_body_that_breaks_off_whole_lines_are_stored(run_id, url):
    async with Exchange("POST", url, writer(), None) as pipe:
        await pipe.send_body(b"1\n2")
    assert await stored(run_id) == [b"1"]
    assert await last_index(url) == "0"


async def test_a_run_that_ends_takes_no_more_lines_and_what_it_has_may_be_repeated(run_id, url):
    async with Exchange("POST", url, writer(), None) as pipe:
        await pipe.send_body(b"1\n")
        await sync_to_async(eventually)(lambda: stored_chunks(run_id))
        await sync_to_async(runs.cancel)(run_id)
        await pipe.send_body(b"2\n")
        assert await pipe.start() == 400
        assert "closed" in (await pipe.json())["error"]
    assert (await post(url, b"1\n")).status == 200
    assert await stored(run_id) == [b"1"]


# -- append -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["three", '{"a": 1}', "", "a\nb\r\n", "nul\0", "é🚲", " "])
async def test_the_body_of_append_is_a_text_whatever_it_looks_like(run_id, url, text):
    answer = await ask("POST", f"{url}/append", {**key_header(), "content-type": "application/json"}, text.encode())
    assert (answer.status, answer.data) == (200, {"ok": True})
    assert [json.loads(chunk) for chunk in await stored(run_id)] == [text]
    assert (await runs.aretrieve(run_id)).realtime_streams == ("log",)


async def test_a_part_with_an_id_is_stored_once_and_its_reader_sees_the_id(run_id, url):
    for _ in range(2):
        assert (await ask("POST", f"{url}/append", {**key_header(), "x-part-id": "part-1"}, b"a")).status == 200
    async with StreamSource(f"/realtime/v1/streams/{run_id}/log") as source:
        await source.open()
        assert b'\\"id\\":\\"part-1\\"' in await source.piece()
    assert await stored(run_id) == [b'"a"']


async def test_append_refuses_what_it_cannot_store(settings, run_id, url):
    settings.REALTIME_RUNS = {**settings.REALTIME_RUNS, "MAX_CHUNK_BYTES": 100}

    async def append(body, **headers):
        return (await ask("POST", f"{url}/append", {**key_header(), **headers}, body)).status

    assert await append(b"\xff") == 400
    assert await append(b"a", **{"x-part-id": "p" * 256}) == 400
    assert await append(b"x" * 98) == 200
    assert await append(b"x" * 99) == 413  # measured as JSON, with its quotes
    assert await append(b"x" * 101) == 413
    assert await append(b"x", **{"content-length": "101"}) == 413
    assert len(await stored(run_id)) == 1


# -- all of them ------------------------------------------------------------------------------------------------------

ROUTES = [("PUT", ""), ("POST", ""), ("HEAD", ""), ("POST", "/append")]


@pytest.mark.parametrize(("method", "tail"), ROUTES)
async def test_no_public_token_may_write(run_id, url, method, tail):
    for scope in ("admin", f"write:runs:{run_id}", "write:all"):
        headers = {"authorization": f"Bearer {tokens.sign([scope], life=timedelta(minutes=1))}"}
        for path in (url, url.replace(run_id, "run_missing")):
            assert (await ask(method, path + tail, headers, b"1\n")).status == 401
    assert (await ask(method, url + tail, {}, b"1\n")).status == 401
    assert await StreamChunk.objects.acount() == 0


@pytest.mark.parametrize(("method", "tail"), ROUTES)
async def test_an_unknown_run_is_not_found(method, tail):
    answer = await ask(method, f"/realtime/v1/streams/run_missing/self/log{tail}", key_header(), b"1\n")
    assert answer.status == 404


@pytest.mark.parametrize(("method", "tail"), [route for route in ROUTES if route[0] != "HEAD"])
async def test_a_final_run_takes_nothing(final, url, method, tail):
    answer = await ask(method, url + tail, key_header(), b"1\n")
    assert answer.status == 400
    assert answer.data["error"]
    assert await Stream.objects.acount() == 0


@pytest.mark.parametrize(("method", "tail"), ROUTES)
async def test_a_key_that_no_stream_can_have_is_refused(url, method, tail):
    for key in ("k" * 256, "a\0b"):
        assert (await ask(method, url.replace("log", key) + tail, key_header(), b"1\n")).status == 400


async def test_writing_is_not_for_pages_of_other_origins(url):
    for tail in ("", "/append"):
        answer = await ask("OPTIONS", url + tail, {"origin": "https://a.example"})
        assert answer.status == 405
        assert "access-control-allow-origin" not in answer.headers


# -- real servers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "is_live"), [("uvicorn", True), ("daphne", False)])
def test_a_pipe_is_live_where_the_server_hands_bodies_over_as_they_come(asgi_server, run_id, url, kind, is_live):
    server = asgi_server(kind, BACKEND="tests.in_process.IdleBackend")
    pipe = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    pipe.putrequest("POST", url)
    for name, value in {**writer(), "transfer-encoding": "chunked"}.items():
        pipe.putheader(name, value)
    pipe.endheaders()
    pipe.send(b"8\r\n" + b'{"n":1}\n' + b"\r\n")
    if is_live:
        eventually(lambda: stored_chunks(run_id) == [b'{"n":1}'])
    pipe.send(b"6\r\n" + b'"two"\n' + b"\r\n" + b"0\r\n\r\n")
    response = pipe.getresponse()
    assert (response.status, response.read()) == (200, b"")
    assert stored_chunks(run_id) == [b'{"n":1}', b'"two"']
    pipe.request("HEAD", url, headers=writer())
    assert pipe.getresponse().headers["x-last-chunk-index"] == "1"
    pipe.close()
