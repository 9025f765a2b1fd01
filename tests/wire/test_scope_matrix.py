"""Every route with every kind of credential: wire-protocol 2.3, restated here scope by scope. No leak, no change."""

import base64
import json
import time
from dataclasses import dataclass, field
from typing import Any

import jwt
import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import User
from django.test import Client

from realtime_runs import batch, streams, urls, wait
from realtime_runs.access import tokens
from realtime_runs.access.keys import secret_keys
from realtime_runs.models import Batch, Run, StreamChunk, Tag, WaitToken
from realtime_runs.wire.realtime import routes
from tests import tasks as t
from tests.wire.api import call, token
from tests.wire.exchange import Exchange, key_header

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.filterwarnings("ignore:The HMAC key is"),
]

KEY_ONLY: list[str] = []
READ_RUN = ["read:runs", "read:runs:{run}", "read:tasks", "read:tasks:{task}", "read:tags", "read:tags:a", "read:batch", "read:batch:{batch}"]  # fmt: skip
READ_BATCH = ["read:batch", "read:batch:{batch}", "read:runs"]
BATCH_OF_TASK = ["batchTrigger:tasks", "batchTrigger:tasks:{task}"]


@dataclass
class Route:
    """`granted`: the scopes of which each is enough; None: any valid credential is."""

    method: str
    path: str
    granted: list[str] | None
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


ITEM = b'{"index":0,"task":"%s","payload":"1"}\n' % t.echo.id.encode()
NDJSON = {"content_type": "application/x-ndjson"}
API = [
    Route("POST", "/api/v1/auth/jwt/claims", KEY_ONLY),
    Route("POST", "/api/v1/auth/public-tokens", KEY_ONLY, {"scopes": ["read:runs"]}),
    Route("POST", "/api/v1/tasks/{task}/trigger", ["trigger:tasks", "trigger:tasks:{task}"], {}),
    Route("POST", "/api/v3/batches", [*BATCH_OF_TASK, "batchTrigger:batch"], {"runCount": 1, "taskIdentifiers": [t.echo.id]}),
    Route("POST", "/api/v3/batches/{open_batch}/items", [*BATCH_OF_TASK, "write:batch", "write:batch:{open_batch}"], ITEM, NDJSON),
    Route("POST", "/api/v2/tasks/batch", BATCH_OF_TASK, {"items": [{"task": t.echo.id}]}),
    Route("GET", "/api/v2/batches/{batch}", READ_BATCH),
    Route("GET", "/api/v1/batches/{batch}", READ_BATCH),
    Route("GET", "/api/v1/batches/{batch}/results", KEY_ONLY),
    Route("PUT", "/api/v2/packets/trigger/packet_x/payload.json", KEY_ONLY),
    Route("GET", "/api/v1/packets/trigger/packet_x/payload.json", KEY_ONLY),
    Route("GET", "/api/v1/runs/{run}/packets/payload", READ_RUN),
    Route("GET", "/api/v3/runs/{run}", READ_RUN),
    Route("GET", "/api/v1/runs", ["read:runs", "read:tasks"]),
    Route("GET", "/api/v1/runs?filter[taskIdentifier]={task}", ["read:runs", "read:tasks", "read:tasks:{task}"]),
    Route("POST", "/api/v2/runs/{run}/cancel", ["write:runs", "write:runs:{run}", "write:tasks", "write:tasks:{task}"]),
    Route("POST", "/api/v1/runs/{run}/replay", KEY_ONLY, {}),
    Route("POST", "/api/v1/runs/{run}/reschedule", KEY_ONLY, {"delay": "1h"}),
    Route("GET", "/api/v1/runs/{run}/result", KEY_ONLY),
    Route("PUT", "/api/v1/runs/{run}/metadata", KEY_ONLY, {"metadata": {"a": 1}}),
    Route("GET", "/api/v1/runs/{run}/metadata", KEY_ONLY),
    Route("POST", "/api/v1/runs/{run}/tags", KEY_ONLY, {"tags": "new"}),
    Route("POST", "/api/v1/waitpoints/tokens", KEY_ONLY, {}),
    Route("GET", "/api/v1/waitpoints/tokens", KEY_ONLY),
    Route("GET", "/api/v1/waitpoints/tokens/{wait}", KEY_ONLY),
    Route("POST", "/api/v1/waitpoints/tokens/{wait}/complete", ["write:waitpoints", "write:waitpoints:{wait}"], {"data": 1}),
    Route("POST", "/api/v1/idempotencyKeys/key/reset", ["write:runs"], {"taskIdentifier": t.echo.id}),
]  # fmt: skip
REALTIME = [
    Route("GET", "/realtime/v1/runs/{run}", READ_RUN),
    Route("GET", "/realtime/v1/runs/{run}", READ_RUN, headers={"accept": "text/event-stream"}),
    Route("GET", "/realtime/v1/runs?tags=a,c", ["read:runs", "read:tags", "read:tags:a"]),
    Route("GET", "/realtime/v1/batches/{batch}", READ_BATCH),
    Route("POST", "/realtime/v1/tickets", None),
    Route("GET", "/realtime/v1/streams/{run}/log", READ_RUN),
    Route("PUT", "/realtime/v1/streams/{run}/self/log", KEY_ONLY),
    Route("POST", "/realtime/v1/streams/{run}/self/log", KEY_ONLY, b"1\n", {"x-client-id": "c"}),
    Route("HEAD", "/realtime/v1/streams/{run}/self/log", KEY_ONLY, headers={"x-client-id": "c"}),
    Route("POST", "/realtime/v1/streams/{run}/self/log/append", KEY_ONLY, b"text"),
    Route("GET", "/realtime/v1/streams/{run}/input/approval", READ_RUN),
    Route("POST", "/realtime/v1/streams/{run}/input/approval", ["write:inputStreams", "write:inputStreams:{run}"], {"data": 1}),
]  # fmt: skip
# Without a credential: the address says it all, or there is nothing to protect. The form takes none but a session, which
# tests/test_template_tags.py shows.
OPEN = {"packet-upload", "packet-download", "run-packet-download", "complete-wait-token", "schema", "cancel-run"}

IDS = {"runs": "run", "tasks": "task", "tags": "tag", "batch": "batch", "waitpoints": "wait", "inputStreams": "run"}
KINDS = [("read", kind) for kind in IDS] + [("write", kind) for kind in IDS]
KINDS += [("trigger", "tasks"), ("batchTrigger", "tasks"), ("batchTrigger", "batch")]
POOL = [
    *(f"{action}:{kind}{rest}" for action, kind in KINDS for rest in ("", f":{{{IDS[kind]}}}", f":{{other_{IDS[kind]}}}")),
    "write:batch:{open_batch}",
    "read:tags:b", "read", "read:", ":", "", "read:runs:", "read:tags:", "read:runs:*", "READ:runs:{run}", "read:run:{run}",
    " read:runs:{run}", "read:runs:{run} ", "Admin", "admin:runs", "*", "**:runs", "read:all:{run}", "read:runs:{run}:x",
]  # fmt: skip


@pytest.fixture
def ids(settings) -> dict[str, str]:
    settings.REALTIME_RUNS = {**settings.REALTIME_RUNS, "BACKEND": "tests.in_process.IdleBackend"}
    names: dict[str, str] = {"task": t.echo.id, "other_task": t.nothing.id, "tag": "a", "other_tag": "b"}
    for prefix, task, tags in (("", t.echo, ["a", "c"]), ("other_", t.nothing, ["b"])):
        made = batch.trigger([{"task": task, "options": {"tags": tags, "delay": "1h"}}])
        names |= {f"{prefix}batch": made.id, f"{prefix}run": made.run_ids[0], f"{prefix}wait": wait.create_token().id}
        streams.append("log", 1, target=made.run_ids[0])
        streams.close("log", target=made.run_ids[0])
    names["open_batch"] = call("POST", "/api/v3/batches", {"runCount": 2, "taskIdentifiers": [t.echo.id]}).json()["id"]
    return names


def everything() -> Any:
    """What a refused request must leave as it is."""
    return [
        sorted(Run.objects.values_list("pk", "version")),
        sorted(Batch.objects.values_list("pk", "run_count", "is_open")),
        sorted(WaitToken.objects.values_list("pk", "status")),
        StreamChunk.objects.count(),
        sorted(Tag.objects.values_list("pk", flat=True)),
    ]


def ask_api(route: Route, ids: dict[str, str], auth: str) -> int:
    answer = call(route.method, route.path.format(**ids), route.body, auth=auth, **route.headers)
    if answer.status_code in (401, 403):
        assert_refused(answer.status_code, answer.json(), auth)
    return int(answer.status_code)


async def ask_realtime(route: Route, ids: dict[str, str], auth: str) -> int:
    body = (
        route.body if isinstance(route.body, bytes) else b"" if route.body is None else json.dumps(route.body).encode()
    )
    headers = {**route.headers, **(key_header(auth) if auth else {})}
    async with Exchange(route.method, route.path.format(**ids), headers, body) as exchange:
        status = await exchange.start()
        if status in (401, 403) and route.method != "HEAD":
            assert_refused(status, await exchange.json(), auth)
    return status


def assert_refused(status: int, body: Any, auth: str) -> None:
    """Says why, and nothing of what was asked for."""
    if status == 403:
        body.pop("ok", None)  # of input streams
        assert body == {
            "error": "Unauthorized",
            "code": "unauthorized",
            "param": "access_token",
            "type": "authorization",
        }
    assert not auth or auth not in json.dumps(body)


def expected_of(route: Route, scope: str, ids: dict[str, str]) -> set[int]:
    if route.granted is None:
        return {200}
    if not route.granted:
        return {401}
    return {200, 202, 404} if scope.format(**ids) in [one.format(**ids) for one in route.granted] else {403}


def wrong_tokens(ids: dict[str, str]) -> dict[str, str]:
    claims = {
        "sub": tokens.ENVIRONMENT_ID, "pub": True, "scopes": ["admin"], "iss": tokens.ISSUER, "aud": tokens.AUDIENCE,
        "exp": time.time() + 600,
    }  # fmt: skip
    key = secret_keys()[0]

    def signed(**changes: Any) -> str:
        given = {name: value for name, value in (claims | changes).items() if value is not None}
        return jwt.encode(given, key, algorithm="HS256")

    none = ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in ({"alg": "none"}, claims)) + "."  # fmt: skip
    return {
        "none": "",
        "another key": "tr_dev_0123456789012345678901234567890123456789",
        "beginning of the key": key[:-1],
        "no signature": none,
        "another algorithm": jwt.encode(claims, key, algorithm="HS512"),
        "forged": jwt.encode(claims, "f" * 40, algorithm="HS256"),
        "expired": signed(exp=time.time() - 1),
        "for ever": signed(exp=None),
        "too long": signed(exp=time.time() + 40 * 86_400),
        "issuer": signed(iss="https://elsewhere"),
        "audience": signed(aud="https://elsewhere"),
        "environment": signed(sub="env_other"),
        "not public": signed(pub="true"),
        "scopes as text": signed(scopes="admin"),
    }


@pytest.mark.parametrize("route", API, ids=str)
def test_api_routes_let_nobody_in_without_a_valid_credential(route, ids):
    before = everything()
    for name, text in wrong_tokens(ids).items():
        assert ask_api(route, ids, text) == 401, name
    assert everything() == before


@pytest.mark.parametrize("route", API, ids=str)
def test_api_routes_let_in_who_has_the_scope_and_nobody_else(route, ids):
    before = everything()
    for scope in POOL:
        expected = expected_of(route, scope, ids)
        if 403 in expected or 401 in expected:
            assert ask_api(route, ids, token(scope.format(**ids))) in expected, scope
    assert ask_api(route, ids, token()) in ({403} if route.granted else {401})
    assert everything() == before
    for scope in (scope for scope in [*POOL, *route.granted] if 200 in expected_of(route, scope, ids)):
        assert ask_api(route, ids, token(scope.format(**ids))) in (200, 202, 404), scope
    assert ask_api(route, ids, token("admin")) in ((200, 202, 404) if route.granted else (401,))
    assert ask_api(route, ids, secret_keys()[0]) < 500


@pytest.mark.parametrize("route", REALTIME, ids=str)
async def test_realtime_routes_let_nobody_in_without_a_valid_credential(route, ids):
    before = await sync_to_async(everything)()
    for name, text in wrong_tokens(ids).items():
        assert await ask_realtime(route, ids, text) == 401, name
    assert await sync_to_async(everything)() == before


@pytest.mark.parametrize("route", REALTIME, ids=str)
async def test_realtime_routes_let_in_who_has_the_scope_and_nobody_else(route, ids):
    before = await sync_to_async(everything)()
    for scope in POOL:
        expected = expected_of(route, scope, ids)
        if 200 not in expected:
            assert await ask_realtime(route, ids, token(scope.format(**ids))) in expected, scope
    assert await sync_to_async(everything)() == before
    for scope in (scope for scope in POOL if 200 in expected_of(route, scope, ids)):
        assert await ask_realtime(route, ids, token(scope.format(**ids))) in (200, 202), scope
    assert await ask_realtime(route, ids, secret_keys()[0]) < 500


@pytest.mark.parametrize("route", API, ids=str)
def test_a_user_of_the_site_who_is_no_staff_is_let_in_nowhere(route, ids):
    client = Client()
    client.force_login(User.objects.create_user("jo"))
    before = everything()
    content = route.body if isinstance(route.body, bytes) else json.dumps(route.body)
    answer = client.generic(
        route.method,
        route.path.format(**ids),
        content,
        content_type=route.headers.get("content_type", "application/json"),
    )
    assert answer.status_code == 403
    assert everything() == before


def test_every_route_is_in_these_tables():
    """A new route is closed, or somebody has thought about it."""
    declared = {
        (route.path.partition("?")[0].format(**dict.fromkeys(("run", "batch", "open_batch", "wait"), "x"), task="x"))
        for route in API
    }
    for pattern in urls.urlpatterns:
        if pattern.name in OPEN or str(pattern.pattern) in ("^api/", "api/docs"):
            continue
        assert any(pattern.resolve(path.removeprefix("/")) for path in declared), pattern
    paths = {route.path.partition("?")[0].removeprefix("/") for route in REALTIME}
    for pattern in routes.http_urlpatterns[:-1]:
        assert any(pattern.resolve(path) for path in paths), pattern
