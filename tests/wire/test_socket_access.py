"""Who may do what over the WebSocket: sessions of logged-in users, and the scopes of tokens."""

import pytest
from asgiref.sync import sync_to_async
from channels.auth import AuthMiddlewareStack
from channels.routing import URLRouter
from django.contrib.auth.models import User
from django.test import Client

from realtime_runs import batch, routing, runs
from realtime_runs.access.policy import Policy
from tests import tasks as t
from tests.wire.api import token
from tests.wire.socket_client import SUBPROTOCOL, Socket

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _nobody_executes(settings):
    settings.REALTIME_RUNS = {**settings.REALTIME_RUNS, "BACKEND": "tests.in_process.IdleBackend"}


@pytest.fixture
def often(settings):
    """Rights are asked again much more often."""
    settings.REALTIME_RUNS = {**settings.REALTIME_RUNS, "PING_SECONDS": 0.1}


@sync_to_async
def new_run(payload=None, **options):
    return t.echo.trigger(payload, **options).id


# -- sessions


class OwnRuns(Policy):
    def can(self, user, action, run):
        if run is None:
            return action == "read"
        return f"user:{user.username}" in run.tag_names

    def visible(self, user, runs):
        return runs.tagged([f"user:{user.username}"])


ORIGIN = "http://127.0.0.1"


def ours():
    return URLRouter(routing.websocket_urlpatterns)


@sync_to_async
def logged_in(*, is_staff=True):
    client = Client()
    client.force_login(User.objects.create(username="ada", is_staff=is_staff))
    return client


def of_session(client, origin=ORIGIN, **more):
    cookies = "; ".join(f"{morsel.key}={morsel.value}" for morsel in client.cookies.values())
    return Socket(
        subprotocols=[SUBPROTOCOL], headers={"cookie": cookies} | ({} if origin is None else {"origin": origin}), **more
    )


FOREIGN = [
    None,
    "",
    "null",
    "https://evil.example",
    "http://127.0.0.1.evil.example",
    "http://127.0.0.1:81",
    "https://127.0.0.1",
    "http://evil127.0.0.1",
    "http://127.0.0.1@evil.example",
    "file://",
    "http://[",
]


@pytest.mark.parametrize("origin", FOREIGN)
async def test_a_session_is_good_for_pages_of_its_site_alone(origin):
    assert await of_session(await logged_in(), origin).refused() == 4403


async def test_a_page_of_the_site_comes_with_its_session():
    run_id = await new_run()
    client = await logged_in()
    async with of_session(client) as socket, of_session(client, "https://127.0.0.1", scheme="wss") as secure:
        for one in (socket, secure):
            await one.subscribe({"run": run_id})
            assert (await one.frame())["type"] == "runs"


async def test_a_site_that_is_trusted_may_use_the_session(settings):
    settings.CSRF_TRUSTED_ORIGINS = ["https://app.example"]
    async with of_session(await logged_in(), "https://app.example") as socket:
        await socket.subscribe({"tag": "a"})


async def test_with_a_token_pages_of_every_site_may_come():
    async with Socket(token("read:runs"), headers={"origin": "https://anywhere.example"}):
        pass


async def test_a_wrong_token_does_not_fall_back_to_the_session():
    socket = of_session(await logged_in())
    socket._communicator.scope["subprotocols"].append("bearer.nonsense")
    assert await socket.refused() == 4401


@pytest.mark.parametrize("is_wrapped", [False, True])
@pytest.mark.parametrize("end", ["logout", "inactive"])
async def test_a_user_who_is_logged_out_is_closed(often, end, is_wrapped):
    client = await logged_in()
    async with of_session(client, application=AuthMiddlewareStack(ours()) if is_wrapped else None) as socket:
        if end == "logout":
            await sync_to_async(client.logout)()
        else:
            await sync_to_async(User.objects.update)(is_active=False)
        assert await socket.closed() == 4401


async def test_a_user_whom_a_middleware_of_the_project_has_found_counts():
    user = await sync_to_async(User.objects.create)(username="eve", is_staff=True)

    async def application(scope, receive, send):
        await ours()({**scope, "user": user}, receive, send)

    socket = Socket(subprotocols=[SUBPROTOCOL], headers={"origin": ORIGIN}, application=application)
    async with socket:
        await socket.subscribe({"tag": "a"})
        assert (await socket.frame())["type"] == "runs"


async def test_a_session_is_not_refreshed_by_a_token():
    async with of_session(await logged_in()) as socket:
        await socket.send(type="refresh", token=token("read:runs"))
        assert await socket.closed() == 4403


async def test_a_user_follows_what_the_policy_allows_and_learns_nothing_of_the_rest(settings):
    settings.REALTIME_RUNS = {**settings.REALTIME_RUNS, "POLICY": f"{__name__}.OwnRuns"}
    mine, other = await new_run(tags=["user:ada", "a"]), await new_run(tags=["a"])
    async with of_session(await logged_in(is_staff=False)) as socket:
        await socket.subscribe({"tag": "a"})
        assert [run["run"] for run in (await socket.frame())["runs"]] == [mine]
        await socket.subscribe({"run": mine})
        assert (await socket.frame())["type"] == "runs"
        answers = []
        for run_id in (other, "run_nothing"):
            for to in ({"run": run_id}, {"stream": {"run": run_id}}):
                await socket.subscribe(to)
                answers.append(await socket.frame())
        assert {(one["type"], one["code"]) for one in answers} == {("error", "not_found")}
        await sync_to_async(runs.add_tags)(other, "b")
        assert await socket.is_quiet(0.3)
        errors = set()
        for id, run_id in ((90, other), (91, "run_nothing")):
            await socket.send(type="send", id=id, run=run_id, input="i", data=1)
            errors.add((await socket.frame())["code"])
        assert errors == {"forbidden"}
        await socket.send(type="send", id=92, run=mine, input="i", data=1)
        assert await socket.frame() == {"type": "sent", "id": 92}


async def test_a_run_that_a_user_may_not_see_any_more_ends(often, settings):
    settings.REALTIME_RUNS = {**settings.REALTIME_RUNS, "POLICY": f"{__name__}.OwnRuns"}
    run_id = await new_run(tags=["user:ada"])
    async with of_session(await logged_in(is_staff=False)) as socket:
        id = await socket.subscribe({"stream": {"run": run_id}})
        await socket.frame()
        await sync_to_async(User.objects.update)(username="eve")
        ended = await socket.frame()
        assert (ended["id"], ended["type"]) == (id, "error")


# -- scopes

SCOPES = {
    "read:runs": {"run", "stream", "tag", "tags", "batch"},
    "read:runs:RUN": {"run", "stream"},
    "read:runs:run_other": set(),
    "read:tags": {"run", "stream", "tag", "tags"},
    "read:tags:a": {"run", "stream", "tag", "tags"},
    "read:tags:b": {"run", "stream", "tags"},
    "read:tags:c": set(),
    "read:batch:BATCH": {"run", "stream", "batch"},
    "read:batch:batch_other": set(),
    "read:tasks:TASK": {"run", "stream"},
    "read:tasks:other": set(),
    "write:runs": set(),
    "write:inputStreams:RUN": {"send"},
    "write:inputStreams": {"send"},
    "admin": {"run", "stream", "tag", "tags", "batch", "send"},
    "nothing": set(),
}


@pytest.mark.parametrize("scope", SCOPES)
async def test_a_token_follows_what_its_scopes_say_and_nothing_else(scope):
    items = [{"task": t.echo, "payload": 1, "options": {"tags": ["a", "b"]}}]
    handle = await sync_to_async(batch.trigger)(items)
    run_id = handle.run_ids[0]
    allowed = SCOPES[scope]
    targets = {
        "run": {"run": run_id},
        "stream": {"stream": {"run": run_id}},
        "tag": {"tag": "a"},
        "tags": {"tag": ["a", "b"]},
        "batch": {"batch": handle.id},
    }
    async with Socket(
        token(scope.replace("RUN", run_id).replace("BATCH", handle.id).replace("TASK", t.echo.id))
    ) as socket:
        for kind, to in targets.items():
            await socket.subscribe(to)
            frame = await socket.frame()
            assert (frame["type"] in ("runs", "chunks")) == (kind in allowed), kind
            assert kind in allowed or frame["code"] == "forbidden"
        await socket.send(type="send", id=50, run=run_id, input="i", data=1)
        assert ((await socket.frame())["type"] == "sent") == ("send" in allowed)
        if not allowed & {"run"}:  # who may not read it does not learn whether it is there
            for to in ({"run": "run_nothing"}, {"stream": {"run": "run_nothing"}}):
                await socket.subscribe(to)
                assert (await socket.frame())["code"] == "forbidden"


async def test_columns_that_a_token_hides_are_not_sent():
    run_id = await new_run("x" * 300_000, metadata={"a": 1})
    async with Socket(token("read:runs", skip_columns=["payload", "metadata"])) as socket:
        await socket.subscribe({"run": run_id})
        (run,) = (await socket.frame())["runs"]
    assert not run["set"].keys() & {"payload", "payloadPresignedUrl", "metadata"}
