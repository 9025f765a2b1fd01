"""The run subscriptions of the official clients: wire-protocol 7."""

import json
import re

import pytest
from asgiref.sync import sync_to_async

from realtime_runs import auth, batch, runs
from realtime_runs.engine import lifecycle
from realtime_runs.engine.context import Lease
from realtime_runs.live import reading
from realtime_runs.live.hub import hub
from realtime_runs.live.snapshot import RunError
from realtime_runs.models import Run
from realtime_runs.packets import Packet
from realtime_runs.turns import atomic
from realtime_runs.wire.realtime import lookup
from tests import tasks as t
from tests.conftest import eventually
from tests.wire.exchange import Exchange, ask, key_header

pytestmark = pytest.mark.django_db(transaction=True)

HEADERS = {"x-trigger-electric-version": "1.0.0-beta.1", "trigger-version": "4.8.3"}


@pytest.fixture(autouse=True)
def _nobody_executes(settings):
    settings.REALTIME_RUNS = {
        **settings.REALTIME_RUNS,
        "BACKEND": "tests.in_process.IdleBackend",
        "LONG_POLL_SECONDS": 5,
    }


class Poller:
    """Does what the official client does: asks, and goes on with offset, handle and cursor of the last answer."""

    def __init__(self, path, headers=None):
        self.path = path if "?" in path else path + "?"
        self.headers = {**HEADERS, **(headers or key_header())}
        self.offset, self.handle, self.cursor = "-1", None, None

    def url(self, *, live):
        url = f"{self.path}&log=full&offset={self.offset}"
        if self.handle:
            url += f"&handle={self.handle}"
        if live:
            url += f"&live=true&cursor={self.cursor or ''}"
        return url

    async def answer(self, exchange):
        assert await exchange.start() == 200, await exchange.rest()
        assert exchange.headers["content-type"] == "application/json"
        assert exchange.headers["cache-control"] == "no-store"
        assert "electric-up-to-date" in exchange.headers
        self.offset, self.handle = exchange.headers["electric-offset"], exchange.headers["electric-handle"]
        assert re.fullmatch(r"\d+_\d+", self.offset)
        self.cursor = exchange.headers["electric-cursor"]
        messages = await exchange.json()
        assert messages.pop() == {"headers": {"control": "up-to-date"}}
        return messages

    async def ask(self, *, live=True):
        """The values of the changed rows."""
        live = live and self.handle is not None
        async with Exchange("GET", self.url(live=live), self.headers) as exchange:
            messages = await self.answer(exchange)
            assert live or "electric-schema" in exchange.headers
        operation = "update" if live or self.offset is None else None
        for message in messages:
            assert operation is None or message["headers"] == {"operation": operation}
        return [message["value"] for message in messages]


@sync_to_async
def new_run(*args, **options):
    return t.echo.trigger(*(args or ({"a": 1},)), **options).id


@sync_to_async
def begin(run_id):
    row = Run.objects.get(pk=run_id)
    (row,) = lifecycle.claim([row.task], 1, run_ids=[run_id])
    return Lease(row.id, row.attempt, row.lease_token)


async def test_the_first_answer_is_the_run_as_a_row_of_texts_with_its_schema():
    run_id = await new_run({"hello": "world"}, tags=["b", 'quote"and\\slash'], metadata={"step": 0})
    async with Exchange(
        "GET", f"/realtime/v1/runs/{run_id}?log=full&offset=-1", {**HEADERS, **key_header()}
    ) as exchange:
        assert await exchange.start() == 200
        change, control = await exchange.json()
        headers = exchange.headers
    assert control == {"headers": {"control": "up-to-date"}}
    assert change["headers"] == {"operation": "insert"}
    assert change["key"] == f'"public"."TaskRun"/"{run_id}"'
    value = change["value"]
    schema = json.loads(headers["electric-schema"])
    assert schema.keys() == value.keys()
    assert schema["runTags"] == {"type": "text", "dims": 1}
    assert schema["usageDurationMs"] == {"type": "int4"}
    assert all(text is None or isinstance(text, str) for text in value.values())
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}", value["createdAt"])
    expected = {
        "friendlyId": run_id,
        "taskIdentifier": t.echo.id,
        "status": "PENDING",
        "payload": '{"hello":"world"}',
        "payloadType": "application/json",
        "metadata": '{"step":0}',
        "runTags": '{"b","quote\\"and\\\\slash"}',
        "realtimeStreams": "{}",
        "isTest": "f",
        "completedAt": None,
        "startedAt": None,
        "error": None,
        "usageDurationMs": "0",
    }
    assert {name: value[name] for name in expected} == expected
    for header in ("electric-offset", "electric-handle", "electric-schema"):
        assert header in headers["access-control-expose-headers"]
    assert headers["access-control-allow-origin"] == "*"


async def test_a_live_request_waits_for_a_change_and_brings_the_newest_row():
    run_id = await new_run()
    poller = Poller(f"/realtime/v1/runs/{run_id}")
    await poller.ask()
    async with Exchange("GET", poller.url(live=True), poller.headers) as exchange:
        assert await exchange.is_quiet()
        await sync_to_async(runs.add_tags)(run_id, "x")
        (message,) = await poller.answer(exchange)
    assert message["headers"] == {"operation": "update"}
    assert message["value"]["runTags"] == '{"x"}'


async def test_a_live_request_without_a_change_ends_with_the_same_offset(settings):
    settings.REALTIME_RUNS = {**settings.REALTIME_RUNS, "LONG_POLL_SECONDS": 0.2}
    poller = Poller(f"/realtime/v1/runs/{await new_run()}")
    await poller.ask()
    offset, cursor = poller.offset, poller.cursor
    assert await poller.ask() == []
    assert poller.offset == offset
    assert poller.cursor != cursor


async def test_a_catch_up_request_brings_only_what_is_newer():
    run_id = await new_run()
    poller = Poller(f"/realtime/v1/runs/{run_id}")
    await poller.ask()
    assert await poller.ask(live=False) == []
    await begin(run_id)
    (row,) = await poller.ask(live=False)
    assert row["status"] == "EXECUTING"


async def test_a_failed_run_has_a_typed_error_and_its_completion():
    run_id = await new_run()
    lease = await begin(run_id)
    await sync_to_async(atomic()(lifecycle.fail))(lease, RunError("ValueError", "boom", "Traceback…\ud800"))
    (row,) = await Poller(f"/realtime/v1/runs/{run_id}").ask()
    assert row["status"] == "COMPLETED_WITH_ERRORS"
    assert row["completedAt"] is not None
    error = json.loads(row["error"])
    assert (error["type"], error["name"], error["message"]) == ("BUILT_IN_ERROR", "ValueError", "boom")


@pytest.mark.parametrize("skip", ["payload,output,metadata,error,updatedAt,status,id", "nothing,of,ours"])
async def test_columns_are_left_out_but_never_those_that_the_client_needs(skip):
    run_id = await new_run()
    (row,) = await Poller(f"/realtime/v1/runs/{run_id}?skipColumns={skip}").ask()
    assert {"id", "friendlyId", "status", "createdAt", "updatedAt", "taskIdentifier"} <= row.keys()
    assert ("payload" in row) == ("payload" not in skip)


async def test_the_columns_that_a_token_skips_stay_skipped():
    run_id = await new_run()
    token = auth.create_public_token([f"read:runs:{run_id}"], skip_columns=["payload"])
    (row,) = await Poller(f"/realtime/v1/runs/{run_id}?skipColumns=output", key_header(token)).ask()
    assert not {"payload", "output"} & row.keys()


async def test_a_packet_travels_verbatim():
    text = '{"json":{"when":"1970-01-01T00:00:00.000Z"},"meta":{"values":{"when":["Date"]}}}'
    run_id = await new_run(Packet(text, "application/super+json"))
    (row,) = await Poller(f"/realtime/v1/runs/{run_id}").ask()
    assert (row["payload"], row["payloadType"]) == (text, "application/super+json")


async def test_polls_of_a_run_that_is_followed_do_not_read_its_row(monkeypatch):
    run_id = await new_run()
    token = key_header(auth.create_public_token([f"read:runs:{run_id}"]))
    pollers = [Poller(f"/realtime/v1/runs/{run_id}", token) for _ in range(5)]
    for poller in pollers:
        await poller.ask()
    await poll_once(pollers, run_id, "a")  # now the hub has what it has read for all
    asked = []
    for module, name in ((reading, "read_runs"), (lookup, "_find")):
        original = getattr(module, name)
        monkeypatch.setattr(module, name, lambda ids, original=original: asked.append(ids) or original(ids))
    for tag in ("b", "c", "d"):
        await poll_once(pollers, run_id, tag)
    assert len(asked) <= 2 * 3  # for fifteen answers; a change may be heard while the one before is read


async def poll_once(pollers, run_id, tag):
    exchanges = [Exchange("GET", poller.url(live=True), poller.headers) for poller in pollers]
    for exchange in exchanges:
        await exchange.__aenter__()
    await sync_to_async(eventually)(lambda: hub.listener_count == len(exchanges))
    await sync_to_async(runs.add_tags)(run_id, tag)
    for poller, exchange in zip(pollers, exchanges, strict=True):
        (message,) = await poller.answer(exchange)
        assert f'"{tag}"' in message["value"]["runTags"]
        await exchange.leave()


# -- tags and batches -------------------------------------------------------------------------------------------------


async def test_a_tag_feed_has_the_runs_with_all_tags_and_those_that_get_them_later():
    both = await new_run(tags=["a", "b"])
    one = await new_run(tags=["a"])
    poller = Poller("/realtime/v1/runs?tags=a,b&createdAt=1h")
    assert [row["friendlyId"] for row in await poller.ask()] == [both]
    async with Exchange("GET", poller.url(live=True), poller.headers) as exchange:
        assert await exchange.is_quiet()
        await sync_to_async(runs.add_tags)(one, "b")
        (message,) = await poller.answer(exchange)
    assert message["value"]["friendlyId"] == one


async def test_each_version_is_given_once_and_none_is_missed_however_the_polls_fall():
    ids = [await new_run(tags=["a"]) for _ in range(3)]
    poller = Poller("/realtime/v1/runs?tags=a")
    got = [(row["friendlyId"], row["runTags"]) for row in await poller.ask()]
    for number in range(6):
        await sync_to_async(runs.add_tags)(ids[number % 3], f"x{number}")
        if number % 2:
            got += [(row["friendlyId"], row["runTags"]) for row in await poller.ask()]
    assert len(got) == len(set(got)) == 9
    newest = dict(got)
    assert newest == {run_id: await tags_of(run_id) for run_id in ids}


@sync_to_async
def tags_of(run_id):
    return "{" + ",".join(f'"{name}"' for name in Run.objects.get(pk=run_id).tag_names) + "}"


async def test_a_feed_with_more_recent_runs_than_a_handle_can_name_repeats_none(settings):
    settings.REALTIME_RUNS = {**settings.REALTIME_RUNS, "LONG_POLL_SECONDS": 0.3}
    handle = await sync_to_async(t.echo.batch_trigger)([1] * 450)
    poller = Poller(f"/realtime/v1/batches/{handle.id}")
    assert len(await poller.ask()) == 450
    assert len(poller.handle) < 300
    assert await poller.ask() == []


async def test_a_batch_feed_has_all_its_runs_in_item_order():
    handle = await sync_to_async(batch.trigger)([{"task": t.echo, "payload": n} for n in range(3)])
    poller = Poller(f"/realtime/v1/batches/{handle.id}")
    assert [row["friendlyId"] for row in await poller.ask()] == list(handle.run_ids)
    await sync_to_async(runs.cancel)(handle.run_ids[1])
    (row,) = await poller.ask()
    assert (row["friendlyId"], row["status"]) == (handle.run_ids[1], "CANCELED")


# -- what is refused --------------------------------------------------------------------------------------------------


async def test_a_handle_of_another_subscription_starts_anew():
    run_id = await new_run()
    poller = Poller(f"/realtime/v1/runs/{run_id}")
    await poller.ask()
    for handle in ("runs-1-2", poller.handle + "x", "%00", "", poller.handle.upper()):
        answer = await ask("GET", f"{poller.path}&offset={poller.offset}&handle={handle}&live=true", poller.headers)
        assert answer.status == 409
        assert answer.data == [{"headers": {"control": "must-refetch"}}]
        assert answer.headers["electric-handle"] == poller.handle
        assert "electric-handle" in answer.headers["access-control-expose-headers"]


@pytest.mark.parametrize("offset", ["", "5", "x_y", "-2", "1_2_3", "9" * 30 + "_0", "1_-1", "%00", "٣_٣"])
async def test_an_offset_that_is_none_is_refused(offset):
    answer = await ask("GET", f"/realtime/v1/runs/{await new_run()}?offset={offset}", key_header())
    assert answer.status == 400
    assert "offset" in answer.data["error"]


@pytest.mark.parametrize("known", ["~", "~nothing", "!", "a", "AAAA", "." * 50])
async def test_a_position_that_cannot_be_ours_never_fails(known):
    await new_run(tags=["a"])
    poller = Poller("/realtime/v1/runs?tags=a")
    await poller.ask()
    handle = poller.handle.partition(".")[0] + "." + known
    answer = await ask("GET", f"{poller.path}&offset={poller.offset}&handle={handle}", poller.headers)
    assert answer.status in (200, 409)


@pytest.mark.parametrize(
    "tags", ["", "a,,b", "a%00", "a%22b", "a%5Cb", "a%0Ab", "x" * 200, ",".join("abcdefghijkl"), "%20"]
)
async def test_tags_that_no_run_can_have_are_refused(tags):
    answer = await ask("GET", f"/realtime/v1/runs?tags={tags}", key_header())
    assert answer.status == 400
    assert answer.data["error"].startswith("Query Error")


@pytest.mark.parametrize(
    "path",
    [
        "/realtime/v1/runs/run_nothing",
        "/realtime/v1/batches/batch_x",
        "/realtime/v1/runs/%00",
        "/realtime/v2/x",
        "/realtime/v1/runs/\x00",
    ],
)
async def test_what_does_not_exist_is_not_found(path):
    answer = await ask("GET", path, key_header())
    assert (answer.status, answer.data) == (404, {"error": "Not found"})
    assert answer.headers["access-control-allow-origin"] == "*"


async def test_who_has_no_scope_is_refused():
    run_id = await new_run(tags=["a"])
    token = auth.create_public_token(["read:runs:run_other", "read:tags:b"])
    answer = await ask("GET", f"/realtime/v1/runs/{run_id}", key_header(token))
    assert answer.status == 403
    assert answer.data == {
        "error": "Unauthorized",
        "code": "unauthorized",
        "param": "access_token",
        "type": "authorization",
    }
    assert (await ask("GET", "/realtime/v1/runs?tags=a", key_header(token))).status == 403
    assert (await ask("GET", "/realtime/v1/runs?tags=a,b", key_header(token))).status == 200
    assert (await ask("GET", f"/realtime/v1/runs/{run_id}")).status == 401


async def test_a_method_that_is_not_for_this_route_is_refused():
    answer = await ask("POST", f"/realtime/v1/runs/{await new_run()}", key_header(), b"{}")
    assert (answer.status, answer.headers["allow"]) == (405, "GET")


async def test_a_page_may_ask_before_it_asks():
    headers = {
        "origin": "https://app.example.com",
        "access-control-request-method": "GET",
        "access-control-request-headers": "authorization,x-trigger-electric-version",
    }
    answer = await ask("OPTIONS", f"/realtime/v1/runs/{await new_run()}", headers)
    assert answer.status == 204
    assert answer.headers["access-control-allow-headers"] == "authorization,x-trigger-electric-version"
    assert answer.headers["access-control-allow-methods"] == "GET,HEAD,PUT,PATCH,POST,DELETE"
    assert answer.headers["access-control-max-age"] == "300"


async def test_a_client_that_leaves_is_forgotten_at_once(eventually):
    poller = Poller(f"/realtime/v1/runs/{await new_run()}")
    await poller.ask()
    async with Exchange("GET", poller.url(live=True), poller.headers) as exchange:
        assert await exchange.is_quiet()
        assert hub.listener_count == 1
    await sync_to_async(eventually)(lambda: hub.listener_count == 0)


async def test_a_token_that_expires_while_it_waits_gets_its_answer_in_time():
    run_id = await new_run()
    poller = Poller(
        f"/realtime/v1/runs/{run_id}", key_header(auth.create_public_token([f"read:runs:{run_id}"], expires_in=2))
    )
    await poller.ask()
    assert await poller.ask() == []
    answer = await ask("GET", poller.url(live=True), poller.headers)
    assert (answer.status, answer.data) == (401, {"error": "The token has expired."})
