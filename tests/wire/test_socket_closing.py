"""How the WebSocket opens and with which codes it closes, its limits and tokens: live-protocol 1."""

import asyncio
import json
import threading
from datetime import timedelta

import pytest
from asgiref.sync import sync_to_async

from realtime_runs import batch, routing, runs, streams
from realtime_runs.access.keys import secret_keys
from realtime_runs.database import readers
from realtime_runs.wire.realtime.socket_outlet import Outlet
from tests import tasks as t
from tests.access.claims import a_token
from tests.wire.api import token
from tests.wire.socket_client import SECONDS, SUBPROTOCOL, Socket, offers

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _nobody_executes(settings):
    settings.REALTIME_RUNS = {**settings.REALTIME_RUNS, "BACKEND": "tests.in_process.IdleBackend"}


@pytest.fixture
def often(settings):
    """Rights are asked again, and pings sent, much more often."""
    settings.REALTIME_RUNS = {**settings.REALTIME_RUNS, "PING_SECONDS": 0.1, "SOCKET_PING_SECONDS": 0.1}


@sync_to_async
def new_run(payload=None, **options):
    return t.echo.trigger(payload, **options).id


# -- opening


@pytest.mark.parametrize("subprotocols", [[], ["other"], ["realtime-runs.v2"], [offers()[1]]], ids=str)
async def test_without_the_common_subprotocol_it_closes_and_selects_none(subprotocols):
    socket = Socket(subprotocols=subprotocols)
    assert await socket.refused() == 4406
    assert socket.subprotocol is None


def refused_offers():
    return {
        "nothing": [SUBPROTOCOL],
        "empty": [SUBPROTOCOL, "bearer."],
        "no key": [SUBPROTOCOL, "bearer.tr_dev_nothing"],
        "bare": [SUBPROTOCOL, secret_keys()[0]],
        "expired": offers(a_token(exp=1)),
        "foreign key": offers(a_token(key="f" * 40)),
        "no expiry": offers(a_token(exp=...)),
        "two": [*offers(), "bearer.another"],
        "not one": offers("a.b.c"),
        "long": offers("a." + "b" * 9000 + ".c"),
    }


@pytest.mark.parametrize("what", refused_offers())
async def test_who_is_nobody_is_accepted_and_then_closed(what):
    socket = Socket(subprotocols=refused_offers()[what])
    assert await socket.refused() == 4401
    assert socket.subprotocol == SUBPROTOCOL


async def test_only_our_subprotocol_is_selected_wherever_it_stands():
    async with Socket(subprotocols=[offers()[1], "other", SUBPROTOCOL]) as socket:
        assert socket.subprotocol == SUBPROTOCOL


async def test_a_program_may_send_the_header_of_every_other_route():
    async with Socket(subprotocols=[SUBPROTOCOL], headers={"authorization": f"Bearer {secret_keys()[0]}"}) as socket:
        await socket.subscribe({"tag": "a"})
        assert (await socket.frame())["type"] == "runs"


async def test_a_token_in_the_url_opens_nothing():
    socket = Socket(subprotocols=[SUBPROTOCOL])
    socket._communicator.scope["query_string"] = f"token={token('read:runs')}".encode()
    assert await socket.refused() == 4401


@pytest.mark.parametrize(
    "path", ["/realtime/v1/socket/", "/realtime/v1/sockets", "/realtime/v1/runs/run_1", "/", "/other"]
)
async def test_another_path_is_refused_cleanly(path):
    socket = Socket(path=path)
    await socket._communicator.send_input({"type": "websocket.connect"})
    assert await socket._communicator.receive_output(5) == {"type": "websocket.close"}
    await socket._communicator.wait()


@pytest.mark.parametrize("prefix", ["", "live/"])
async def test_a_project_may_have_websockets_of_its_own(prefix):
    seen = []

    async def own(scope, receive, send):
        seen.append(scope["path"])
        await receive()
        await send({"type": "websocket.close"})

    async def django(scope, receive, send):
        raise AssertionError

    application = routing.application(django, prefix=prefix, websockets=own)
    for path in ("/chat/1", f"/{prefix}realtime/v1/else"):
        socket = Socket(path=path, application=application)
        await socket._communicator.send_input({"type": "websocket.connect"})
        assert (await socket._communicator.receive_output(5))["type"] == "websocket.close"
    assert seen == ["/chat/1", f"/{prefix}realtime/v1/else"]
    async with Socket(path=f"/{prefix}realtime/v1/socket", application=application):
        pass


# -- frames up

SUBSCRIBE = {"type": "subscribe", "id": 1, "to": {"tag": "a"}}
HOSTILE = [
    "",
    "x",
    "[]",
    "null",
    '"text"',
    "{}",
    '{"type":1}',
    '{"type":"nothing"}',
    '{"type":"subscribe"}',
    *(json.dumps(SUBSCRIBE | {"id": id}) for id in (0, -1, 1.0, "1", None, True, 2**53, 10**400)),
    *(
        json.dumps(SUBSCRIBE | {"to": to})
        for to in (None, "run", {}, {"run": 1}, {"run": None}, {"tag": 1}, {"tag": []}, {"tag": [1]}, {"tag": {}})
    ),
    *(
        json.dumps(SUBSCRIBE | {"to": to})
        for to in ({"other": "x"}, {"run": "r", "tag": "a"}, {"stream": "r"}, {"stream": {"key": "k"}}, {"batch": []})
    ),
    *(json.dumps(SUBSCRIBE | {"since": since}) for since in (True, 1.5, [], {})),
    *(json.dumps(SUBSCRIBE | {"to": {"stream": {"run": "r"}}, "since": since}) for since in (-1, "1", 2**63)),
    *(json.dumps(SUBSCRIBE | {"window": window}) for window in (0, -1, "1", 1.5, True)),
    '{"type":"unsubscribe","id":1}',
    '{"type":"ack","id":1,"at":1}',
    '{"type":"ack","id":1}',
    '{"type":"refresh"}',
    '{"type":"refresh","token":1}',
    '{"type":"send","id":1,"run":"r","input":"i"}',
    '{"type":"send","id":1,"run":1,"input":"i","data":1}',
    '{"type":"pong","type":"ping"}',
    '{"type":"pong","a":NaN}',
    '{"type":"pong","a":-Infinity}',
    '{"type":"pong","a":1e999}',
    '{"type":"pong","a":"\\u0000"}',
    '{"type":"pong","a":"\\ud800"}',
    '{"type":"pong","a":{"b":1,"b":2}}',
    '{"type":"pong","a":' + "1" * 5000 + "}",
    '{"type":"pong","a":' + "[" * 101 + "]" * 101 + "}",
    "[" * 60_000,
    '{"a":' * 10_000,
]


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: text[:40])
async def test_a_bad_frame_closes_the_socket(text):
    async with Socket() as socket:
        await socket.send_text(text)
        assert await socket.closed() == 4400


async def test_a_binary_frame_closes_the_socket():
    async with Socket() as socket:
        await socket.send_bytes(json.dumps(SUBSCRIBE).encode())
        assert await socket.closed() == 4400


@pytest.mark.parametrize("again", ["subscribe", "send"])
async def test_an_id_is_good_once_also_when_it_has_ended(again):
    async with Socket() as socket:
        await socket.subscribe({"tag": "a"})
        await socket.frame()
        await socket.send(type="unsubscribe", id=1)
        await socket.frame()
        await socket.send(**{"type": again, "id": 1, "to": {"tag": "a"}, "run": "r", "input": "i", "data": 1})
        assert await socket.closed() == 4400


async def test_an_ack_of_what_was_not_sent_closes_the_socket():
    run_id = await new_run()
    async with Socket() as socket:
        id = await socket.subscribe({"stream": {"run": run_id}}, window=1)
        await socket.frame()
        await socket.send(type="ack", id=id, at=1)
        assert await socket.closed() == 4400


@pytest.mark.parametrize("filler", ["x", "ß"])
async def test_a_frame_of_64_kib_is_taken_and_one_byte_more_is_not(filler):
    for more, code in ((0, None), (1, 4413)):
        text = json.dumps(SUBSCRIBE | {"more": ""})
        room = 64 * 1024 - len(text)
        filling = filler * (room // len(filler.encode()))
        filling += "y" * (room - len(filling.encode()) + more)
        text = json.dumps(SUBSCRIBE | {"more": filling}, ensure_ascii=False)
        assert len(text.encode()) == 64 * 1024 + more
        async with Socket() as socket:
            await socket.send_text(text)
            if code is None:
                assert (await socket.frame())["type"] == "runs"
            else:
                assert await socket.closed() == code


async def test_what_nobody_knows_in_a_frame_is_ignored():
    async with Socket() as socket:
        await socket.send(**SUBSCRIBE, another={"x": [1]}, window=None, since=None)
        assert (await socket.frame())["type"] == "runs"


async def test_a_flood_is_ended_and_what_a_page_may_need_is_none():
    async with Socket() as socket:
        for _ in range(100):
            await socket.subscribe({"tag": "a"})
        assert {(await socket.frame())["type"] for _ in range(100)} == {"runs"}
        for id in range(1, 100):
            await socket.send(type="unsubscribe", id=id)
        assert {(await socket.frame())["type"] for _ in range(99)} == {"end"}
        for _ in range(500):
            await socket.send(type="pong")
        assert await socket.closed() == 4429


async def test_answers_to_the_server_are_no_flood():
    run_id = await new_run()
    for number in range(10):
        await streams.aappend("default", number, target=run_id)
    async with Socket() as socket:
        for _ in range(30):
            await socket.subscribe({"stream": {"run": run_id}}, window=1)
        done = 0
        while done < 30:
            frame = await socket.frame()
            done += frame["at"] == 10
            await socket.send(type="ack", id=frame["id"], at=frame["at"])  # 300 of them


# -- time


async def test_a_client_that_answers_pings_stays(often):
    async with Socket() as socket:
        assert socket.ready["ping"] == 0.1
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(socket.frame(), 0.8)
        assert socket.pings >= 3


async def test_a_client_that_answers_no_ping_is_closed(often):
    async with Socket(answers_pings=False) as socket:
        assert await socket.closed() == 4508
        assert socket.pings == 1


async def test_a_ping_comes_only_where_nothing_else_does(settings):
    sent = []

    async def send(message):
        sent.append(message["text"])

    outlet = Outlet(send)
    settings.REALTIME_RUNS = {**settings.REALTIME_RUNS, "SOCKET_PING_SECONDS": 3600}
    for _ in range(3):
        await outlet.say(b"{}")
        assert 3500 < await outlet.keep_alive() <= 3600
        assert sent.pop() == "{}"
        assert sent == []
    settings.REALTIME_RUNS = {**settings.REALTIME_RUNS, "SOCKET_PING_SECONDS": 0.01}
    await asyncio.sleep(0.02)
    await outlet.keep_alive()
    assert sent == ['{"type":"ping"}']


async def test_a_token_that_expires_amid_closes_the_socket():
    run_id = await new_run()
    async with Socket(token("read:runs", life=timedelta(seconds=2))) as socket:
        await socket.subscribe({"run": run_id})
        await socket.frame()
        assert await asyncio.wait_for(socket.closed(), 5) == 4401


async def test_with_a_new_token_it_goes_on():
    run_id = await new_run()
    async with Socket(token("read:runs", life=timedelta(seconds=2))) as socket:
        await socket.subscribe({"run": run_id})
        await socket.frame()
        await socket.send(type="refresh", token=token(f"read:tasks:{t.echo.id}"))
        await asyncio.sleep(2.1)
        await sync_to_async(runs.add_tags)(run_id, "b")
        assert (await socket.frame())["at"] == 2


async def test_a_new_token_that_lives_shorter_counts():
    async with Socket(token("read:runs")) as socket:
        await socket.send(type="refresh", token=token("read:runs", life=timedelta(seconds=2)))
        assert await asyncio.wait_for(socket.closed(), 5) == 4401


async def test_what_a_new_token_does_not_allow_any_more_ends():
    mine, other = await new_run(tags=["a"]), await new_run(tags=["b"])
    async with Socket(token("read:runs")) as socket:
        ids = {}
        for to in ({"run": mine}, {"run": other}, {"stream": {"run": other}}, {"tag": "a"}, {"tag": "b"}):
            ids[await socket.subscribe(to)] = to
            await socket.frame()
        await socket.send(type="refresh", token=token(f"read:runs:{mine}", "read:tags:a"))
        ended = [await socket.frame() for _ in range(3)]
        assert {(frame["type"], frame["code"], frame["retry"]) for frame in ended} == {("error", "forbidden", False)}
        assert [ids[frame["id"]] for frame in ended] == [{"run": other}, {"stream": {"run": other}}, {"tag": "b"}]
        await sync_to_async(runs.add_tags)(mine, "c")
        assert {(await socket.frame())["id"] for _ in range(2)} == {1, 4}


async def test_a_subscription_that_opens_while_the_token_is_refreshed_asks_the_new_one():
    handle = await sync_to_async(batch.trigger)([{"task": t.echo, "payload": 1}])
    is_over = threading.Event()
    async with Socket(token(f"read:batch:{handle.id}")) as socket:
        busy = [readers.submit(is_over.wait, SECONDS) for _ in range(4)]  # all threads, so that it opens slowly
        id = await socket.subscribe({"batch": handle.id})
        assert await socket.is_quiet()
        await socket.send(type="refresh", token=token("read:runs:run_other"))
        assert await socket.is_quiet()
        is_over.set()
        assert all(job.result() for job in busy)
        frame = await socket.frame()
        assert (frame["type"], frame["id"], frame["code"]) == ("error", id, "forbidden")


REFRESHED = [
    (lambda: token("read:runs"), lambda: "nonsense", 4401),
    (lambda: token("read:runs"), lambda: a_token(exp=1), 4401),
    (lambda: token("read:runs"), lambda: a_token(sub="env_of_another"), 4401),
    (lambda: token("read:runs"), lambda: secret_keys()[0], 4403),
    (lambda: secret_keys()[0], lambda: token("read:runs"), 4403),
    (lambda: token("read:runs", skip_columns=["output"]), lambda: token("read:runs"), 4403),
    (lambda: secret_keys()[0], lambda: secret_keys()[0], None),
]


@pytest.mark.parametrize(("first", "second", "code"), REFRESHED, ids=range(len(REFRESHED)))
async def test_a_token_is_refreshed_by_one_of_the_same_subject_alone(first, second, code):
    async with Socket(first()) as socket:
        await socket.send(type="refresh", token=second())
        if code:
            assert await socket.closed() == code
        else:
            await socket.subscribe({"tag": "a"})
            assert (await socket.frame())["type"] == "runs"


async def test_a_key_that_is_removed_closes_the_socket(often, settings):
    settings.REALTIME_RUNS = {**settings.REALTIME_RUNS, "SECRET_KEYS": ["a" * 40, "b" * 40]}
    async with Socket("b" * 40) as one, Socket(a_token(key="b" * 40)) as other:
        settings.REALTIME_RUNS = {**settings.REALTIME_RUNS, "SECRET_KEYS": ["a" * 40]}
        assert await one.closed() == 4401
        assert await other.closed() == 4401
