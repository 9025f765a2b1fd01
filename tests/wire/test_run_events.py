"""Run state over Server-Sent Events: live-protocol 2."""

import json

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from realtime_runs import auth, runs
from realtime_runs.access.policy import Policy
from realtime_runs.live.hub import hub
from realtime_runs.models import Run
from tests import tasks as t
from tests.wire.exchange import Exchange, ask, key_header

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _nobody_executes(settings):
    settings.REALTIME_RUNS = {**settings.REALTIME_RUNS, "BACKEND": "tests.in_process.IdleBackend"}


@sync_to_async
def new_run(payload=None, **options):
    return t.echo.trigger(payload, **options).id


class EventSource(Exchange):
    """Reads one event after the other."""

    def __init__(self, path, headers=None, last_id=None):
        headers = {**(key_header() if headers is None else headers), "accept": "text/event-stream"}
        if last_id is not None:
            headers["last-event-id"] = last_id
        super().__init__("GET", path, headers)
        self._text = ""

    async def open(self):
        assert await self.start() == 200
        assert self.headers["content-type"] == "text/event-stream"
        assert self.headers["cache-control"] == "no-cache, no-transform"
        assert self.headers["x-accel-buffering"] == "no"
        assert await self.piece() == b"retry: 1000\n: ok\n\n"

    async def event(self):
        """Name, id and data of the next event, comments left out."""
        while True:
            while "\n\n" not in self._text:
                assert not self.is_over, "the stream is over"
                self._text += (await self.piece()).decode()
            text, _, self._text = self._text.partition("\n\n")
            fields = dict(line.split(": ", 1) for line in text.splitlines() if not line.startswith(":"))
            if fields:
                return fields["event"], fields.get("id"), json.loads(fields["data"])


async def test_the_run_comes_whole_and_then_what_has_changed():
    run_id = await new_run({"n": 1}, metadata={"step": 0}, tags=["a"])
    async with EventSource(f"/realtime/v1/runs/{run_id}") as source:
        await source.open()
        name, at, data = await source.event()
        assert (name, at) == ("runs", "1")
        assert data["live"] is True
        (first,) = data["runs"]
        assert (first["run"], first["from"], first["v"]) == (run_id, 0, 1)
        assert first["set"]["payload"] == {"n": 1}
        assert first["set"]["status"] == "QUEUED"
        assert None not in first["set"].values()
        await sync_to_async(runs.add_tags)(run_id, "b")
        _, at, data = await source.event()
        (second,) = data["runs"]
        assert at == "2"
        assert (second["from"], second["v"]) == (1, 2)
        assert second["set"].keys() == {"tags", "updatedAt", "v"}
        assert second["set"]["tags"] == ["a", "b"]


async def test_it_ends_with_the_run_and_who_comes_back_is_told_to_stay_away():
    run_id = await new_run()
    async with EventSource(f"/realtime/v1/runs/{run_id}") as source:
        await source.open()
        await source.event()
        await sync_to_async(runs.cancel)(run_id)
        _, _, data = await source.event()
        assert data["runs"][0]["set"]["status"] == "CANCELED"
        assert await source.event() == ("end", "2", {"reason": "completed"})
        assert await source.rest() == b""
    again = await ask(
        "GET", f"/realtime/v1/runs/{run_id}", {**key_header(), "accept": "text/event-stream", "last-event-id": "2"}
    )
    assert (again.status, again.data) == (204, b"")


async def test_who_comes_back_gets_only_what_is_newer_and_no_payload_again():
    run_id = await new_run({"n": 1})
    await sync_to_async(runs.add_tags)(run_id, "b")
    async with EventSource(f"/realtime/v1/runs/{run_id}", last_id="1") as source:
        await source.open()
        _, at, data = await source.event()
        (part,) = data["runs"]
        assert (at, part["from"], part["v"]) == ("2", 1, 2)
        assert "payload" not in part["set"]
        assert "reset" not in data
    async with EventSource(f"/realtime/v1/runs/{run_id}", last_id="2") as source:
        await source.open()
        assert (await source.event())[2] == {"runs": [], "live": True}


@pytest.mark.parametrize("last_id", ["x", "-1", "1.5", "9" * 40, "1_0", "٣"])
async def test_a_position_that_is_none_resets_the_reader(last_id):
    run_id = await new_run()
    async with EventSource(f"/realtime/v1/runs/{run_id}", last_id=last_id) as source:
        await source.open()
        _, _, data = await source.event()
    assert data["reset"] is True
    assert data["runs"][0]["from"] == 0


async def test_a_tag_feed_goes_on_without_loss_or_double_where_it_was_cut():
    ids = [await new_run(n, tags=["a"]) for n in range(5)]
    seen, last = [], None
    for number in range(6):
        async with EventSource("/realtime/v1/runs?tags=a", last_id=last) as source:
            await source.open()
            await sync_to_async(runs.add_tags)(ids[number % 5], f"x{number}")
            wanted = {run_id: (await versions())[run_id] for run_id in ids}
            while {run_id: max(v for i, v in seen if i == run_id) for run_id, _ in seen} != wanted:
                _, last, data = await source.event()
                assert "reset" not in data
                seen += [(part["run"], part["v"]) for part in data["runs"]]
        await sync_to_async(runs.add_tags)(ids[4], f"y{number}")
    assert len(seen) == len(set(seen))


@sync_to_async
def versions():
    return dict(Run.objects.values_list("pk", "version"))


async def test_a_token_that_expires_ends_the_stream(eventually):
    run_id = await new_run()
    token = auth.create_public_token([f"read:runs:{run_id}"], expires_in=2)
    async with EventSource(f"/realtime/v1/runs/{run_id}", key_header(token)) as source:
        await source.open()
        await source.event()
        assert await source.event() == ("end", None, {"reason": "auth"})
        assert await source.rest() == b""
    await sync_to_async(eventually)(lambda: hub.listener_count == 0)


async def test_a_key_that_is_removed_ends_the_stream(settings):
    settings.REALTIME_RUNS = {
        **settings.REALTIME_RUNS,
        "SECRET_KEYS": ["a-secret-key-of-this-server-only"],
        "PING_SECONDS": 0.2,
    }
    async with EventSource(f"/realtime/v1/runs/{await new_run()}", key_header()) as source:
        await source.open()
        await source.event()
        settings.REALTIME_RUNS = {**settings.REALTIME_RUNS, "SECRET_KEYS": ["another-secret-key-of-this-server"]}
        assert (await source.event())[2] == {"reason": "auth"}


async def test_silence_is_filled_with_comments(settings):
    settings.REALTIME_RUNS = {**settings.REALTIME_RUNS, "PING_SECONDS": 0.1}
    async with EventSource(f"/realtime/v1/runs/{await new_run()}") as source:
        await source.open()
        await source.event()
        assert await source.piece() == b": ping\n\n"


# -- users of the site, and tickets -----------------------------------------------------------------------------------


@sync_to_async
def cookie_of(**values):
    user = User.objects.create_user("somebody", **values)
    client = Client()
    client.force_login(user)
    return {"cookie": f"sessionid={client.cookies['sessionid'].value}"}


class OnlyOwn(Policy):
    def can(self, user, action, run):
        return run is None or f"user:{user.username}" in run.tag_names

    def visible(self, user, found):
        return found.tagged([f"user:{user.username}"])


async def test_a_session_of_the_staff_may_watch_and_others_may_not():
    run_id = await new_run()
    async with EventSource(f"/realtime/v1/runs/{run_id}", await cookie_of(is_staff=True)) as source:
        await source.open()
        await source.event()
    await User.objects.all().aupdate(is_staff=False)
    cookie = await sync_to_async(lambda: _login_again())()
    assert (await ask("GET", f"/realtime/v1/runs/{run_id}", cookie)).status == 403
    assert (await ask("GET", f"/realtime/v1/runs/{run_id}", {"cookie": "sessionid=nothing"})).status == 401


def _login_again():
    client = Client()
    client.force_login(User.objects.get())
    return {"cookie": f"sessionid={client.cookies['sessionid'].value}"}


async def test_the_policy_decides_which_runs_of_a_feed_a_user_sees(settings):
    settings.REALTIME_RUNS = {**settings.REALTIME_RUNS, "POLICY": f"{__name__}.OnlyOwn"}
    own = await new_run(tags=["a", "user:somebody"])
    other = await new_run(tags=["a"])
    cookie = await cookie_of()
    async with EventSource("/realtime/v1/runs?tags=a", cookie) as source:
        await source.open()
        _, _, data = await source.event()
        assert [part["run"] for part in data["runs"]] == [own]
        await sync_to_async(runs.add_tags)(other, "x")
        await sync_to_async(runs.add_tags)(own, "x")
        _, _, data = await source.event()
        assert [part["run"] for part in data["runs"]] == [own]
    assert (await ask("GET", f"/realtime/v1/runs/{other}", cookie)).status == 403


async def test_a_ticket_opens_one_stream_once():
    run_id = await new_run()
    token = auth.create_public_token([f"read:runs:{run_id}"])
    answer = await ask("POST", "/realtime/v1/tickets", key_header(token))
    assert (answer.status, answer.data["expiresIn"]) == (200, 30)
    ticket = answer.data["ticket"]
    async with EventSource(f"/realtime/v1/runs/{run_id}?ticket={ticket}", {}) as source:
        await source.open()
        await source.event()
    again = await ask("GET", f"/realtime/v1/runs/{run_id}?ticket={ticket}", {"accept": "text/event-stream"})
    assert again.status == 401
    assert ticket not in json.dumps(again.data)


async def test_a_ticket_allows_what_its_token_does_and_no_more():
    token = auth.create_public_token(["read:runs:run_other"])
    ticket = (await ask("POST", "/realtime/v1/tickets", key_header(token))).data["ticket"]
    answer = await ask("GET", f"/realtime/v1/runs/{await new_run()}?ticket={ticket}", {"accept": "text/event-stream"})
    assert answer.status == 403


@pytest.mark.parametrize("query", ["ticket=x", "ticket=a:b:c", "token={token}", "access_token={token}"])
async def test_no_token_and_no_made_up_ticket_is_taken_from_the_query(query):
    run_id = await new_run()
    token = auth.create_public_token([f"read:runs:{run_id}"])
    answer = await ask(
        "GET", f"/realtime/v1/runs/{run_id}?{query.format(token=token)}", {"accept": "text/event-stream"}
    )
    assert answer.status == 401


async def test_a_reader_that_leaves_is_forgotten(eventually):
    async with EventSource(f"/realtime/v1/runs/{await new_run()}") as source:
        await source.open()
        await source.event()
        assert hub.listener_count == 1
    await sync_to_async(eventually)(lambda: hub.listener_count == 0)


async def test_who_comes_back_before_the_hub_knows_the_end_is_not_sent_away(live):
    """The run was ended by another process, of which no bell was heard."""
    live(BACKSTOP_SECONDS=3600)
    run_id = await new_run()
    async with EventSource(f"/realtime/v1/runs/{run_id}", last_id="1") as source:
        await source.open()
        await source.event()
    await Run.objects.filter(pk=run_id).aupdate(status="CANCELED", version=2, finished_at=timezone.now())
    async with EventSource(f"/realtime/v1/runs/{run_id}", last_id="1") as source:
        assert await source.start() == 200
