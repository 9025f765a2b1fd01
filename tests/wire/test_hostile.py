"""Whatever a client sends: an answer that says what is wrong, never a 5xx, and nothing half done."""

import json
from typing import Any
from urllib.parse import quote

import pytest
from asgiref.sync import async_to_sync
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from realtime_runs.models import Run
from realtime_runs.packets import SUPER_JSON
from tests import tasks as t
from tests.wire.api import call
from tests.wire.exchange import Exchange, key_header
from tests.wire.test_scope_matrix import API, REALTIME, everything, ids  # noqa: F401 the fixture

pytestmark = pytest.mark.django_db(transaction=True)

HOSTILE: list[Any] = [
    None, True, 0, -1, 2**63, -(2**70), 10**40, 1e308, -0.0, 1.5, "", " ", "x" * 300, "x" * 5000, "\0", "\ud800", "\uffff",
    "é", "../..", "%00", "'; DROP TABLE x; --", "<script>alert(1)</script>", "1h30m", "9" * 400, "9" * 30 + "d", "-1h",
    "2026-13-45T99:99:99Z", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59+14:00", "run_x", [], [[]], [None], [1, "a"],
    ["\0"], ["a"] * 11, {}, {"a": None}, {"": ""}, {"name": None}, {"json": 1}, {"$.a": 1, "__proto__": 2}, [{}] * 3,
]  # fmt: skip
# Texts that json.dumps would not write.
RAW = [
    b"", b" ", b"\xff", b"\xef\xbb\xbf{}", b"{", b"[]", b"1", b'"x"', b"null", b"NaN", b'{"a": NaN}', b'{"payload": Infinity}',
    b'{"a": ' + b"9" * 5000 + b"}", b"[" * 100_000, b'{"a":' * 100_000, b'{"payload": ' + b"[" * 99 + b"]" * 99 + b"}",
    b'{"payload": "\\ud800"}', b'{"payload": "\\u0000"}', b'{"a": 1, "a": 2}', b'{"a": 1e400}', b"\0", b'{"index": 0}\n{"index": 0',
]  # fmt: skip
FIELDS = {
    "/trigger": ["payload", "context", "options"],
    "/items": ["index", "task", "payload", "options"],
    "/v3/batches": ["runCount", "taskIdentifiers", "parentRunId", "idempotencyKey", "idempotencyKeyOptions"],
    "/tasks/batch": ["items", "parentRunId"],
    "/replay": ["payload", "payloadType", "metadata", "tags", "queue", "concurrencyKey", "delay", "ttl", "idempotencyKey",
                "idempotencyKeyTTL", "maxAttempts", "maxDuration", "priority"],
    "/reschedule": ["delay"],
    "/metadata": ["operations", "parentOperations", "rootOperations", "metadata"],
    "/tags": ["tags"],
    "/waitpoints/tokens": ["timeout", "tags", "idempotencyKey", "idempotencyKeyTTL"],
    "/complete": ["data"],
    "/reset": ["taskIdentifier"],
    "/public-tokens": ["scopes", "expirationTime", "oneTimeUse", "realtime"],
    "/input/approval": ["data"],
}  # fmt: skip
OPTIONS = [
    "payloadType", "tags", "metadata", "metadataType", "idempotencyKey", "idempotencyKeyTTL", "idempotencyKeyOptions",
    "delay", "ttl", "queue", "concurrencyKey", "priority", "maxAttempts", "maxDuration", "machine", "lockToVersion", "debounce",
    "test", "parentRunId", "resumeParentOnCompletion", "concurrency", "gates",
]  # fmt: skip
WITH_BODY = [route for route in [*API, *REALTIME] if route.body is not None and route.method != "GET"]

json_values = st.recursive(
    st.sampled_from(HOSTILE) | st.text(max_size=8) | st.floats(allow_nan=False) | st.integers(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def fields_of(route: Any) -> list[str]:
    return next((fields for end, fields in FIELDS.items() if route.path.endswith(end)), [])


def bodies(route: Any) -> st.SearchStrategy[bytes]:
    fields = fields_of(route)
    options = st.dictionaries(st.sampled_from(OPTIONS), json_values, max_size=3)
    objects = st.dictionaries(st.sampled_from([*fields, "unknown"]), json_values | options, max_size=3)
    valid = route.body if isinstance(route.body, dict) else {"index": 0, "task": t.echo.id}
    mutated = objects.map(lambda changes: {**valid, **changes})
    with_options = options.map(lambda given: {**valid, "payload": "x", "options": given})
    encoded = (objects | mutated | with_options | json_values).map(lambda value: json.dumps(value).encode())
    return encoded | st.sampled_from(RAW) | st.binary(max_size=40)


def send(route: Any, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
    if path.startswith("/api/"):
        answer = call(route.method, path, body, **headers)
        return answer.status_code, answer.content

    async def exchange() -> tuple[int, bytes]:
        async with Exchange(route.method, path, {**headers, **key_header()}, body) as one:
            status = await one.start()
            is_stream = one.headers.get("content-type") == "text/event-stream"
            return status, b"" if is_stream or route.method == "HEAD" else await one.rest()

    return async_to_sync(exchange)()


def check(status: int, content: bytes) -> None:
    assert status < 500, content
    if status >= 400 and content:
        assert isinstance(json.loads(content)["error"], str)
        assert b"Traceback" not in content


@pytest.mark.parametrize("route", WITH_BODY, ids=str)
def test_bodies(route, ids):  # noqa: F811
    path = route.path.format(**ids)
    before = everything()

    @settings(max_examples=40, suppress_health_check=list(HealthCheck))
    @given(
        bodies(route),
        st.sampled_from([{}, {"content_type": "text/plain"}, {"content_type": "multipart/form-data; boundary=x"}]),
    )
    def attack(body: bytes, headers: dict[str, str]) -> None:
        nonlocal before
        given = route.headers | headers if path.startswith("/api/") else route.headers
        status, content = send(route, path, body, given)
        found, before = before, everything()
        assert status < 500, content
        if not path.endswith(("/self/log", "/items")):  # lines before the bad one stay, as they must
            check(status, content)
            assert status < 400 or before == found

    attack()
    for value in HOSTILE:  # each field alone with each of them
        for name in fields_of(route):
            valid = route.body if isinstance(route.body, dict) else {"index": 0, "task": t.echo.id}
            status, content = send(route, path, json.dumps({**valid, name: value}).encode(), route.headers)
            assert status < 500, (name, value, content)


def test_options_of_a_trigger(ids):  # noqa: F811
    for number, name in enumerate(OPTIONS):
        for value in HOSTILE[number % 3 :: 3]:
            count = Run.objects.count()
            answer = call(
                "POST",
                f"/api/v1/tasks/{t.echo.id}/trigger",
                {"payload": "1", "options": {name: value, "delay": "1h"} if name != "delay" else {name: value}},
            )
            assert answer.status_code < 500, (name, value)
            if answer.status_code != 200:
                assert Run.objects.count() == count


@pytest.mark.parametrize("text", [*(raw for raw in RAW if raw), b'{"json":' * 3000])
def test_payload_texts(ids, text):  # noqa: F811
    for kind in ("application/json", SUPER_JSON, "text/plain", "application/store"):
        body = {"payload": text.decode("utf-8", "surrogateescape"), "options": {"payloadType": kind}}
        answer = call("POST", f"/api/v1/tasks/{t.echo.id}/trigger", body)
        assert answer.status_code < 500
        if answer.status_code == 200:
            assert call("GET", f"/api/v3/runs/{answer.json()['id']}").status_code == 200


@pytest.mark.parametrize("route", [*API, *REALTIME], ids=str)
def test_ids_and_queries(route, ids):  # noqa: F811
    names = ("run", "batch", "open_batch", "wait", "task")
    before = everything()
    for value in ("\0", "%00", "é\u2028", "x" * 3000, "..", "a b", "'", "\n", "run_" + "0" * 28, "\x80"):
        path = route.path.partition("?")[0].format(**ids | dict.fromkeys(names, value))
        spelled = quote(path) if path.startswith("/api/") else path
        if any(f"{{{name}}}" in route.path.partition("?")[0] for name in names) and route.body is None:
            status, content = send(route, spelled, b"", route.headers)
            assert status in (400, 401, 403, 404), (value, content)
        query = f"?{quote(value)}={quote(value)}&tags={quote(value)}&offset={quote(value)}&handle={quote(value)}&page[size]={quote(value)}"
        if route.method == "GET":
            path = route.path.partition("?")[0].format(**ids)
            status, content = send(route, path + query, b"", route.headers)
            assert status < 500, (value, content)
    many = "?" + "&".join(f"a{number}=1" for number in range(1500))
    if route.method == "GET":
        assert send(route, route.path.partition("?")[0].format(**ids) + many, b"", route.headers)[0] < 500
    assert everything() == before


@pytest.mark.parametrize("route", [route for route in REALTIME if route.method == "GET"], ids=str)
def test_positions(route, ids):  # noqa: F811
    path = route.path.format(**ids)
    for value in (
        "x",
        "-1",
        "1.5",
        "9" * 40,
        "9" * 18,
        "1_0",
        "0.",
        "9" * 17 + ".AAAA",
        "9" * 16 + ".~x",
        "1.!!!!",
        "é",
        "1-2",
        "-",
        "5" * 5000,
    ):
        for accept in ("*/*", "text/event-stream"):
            headers = {
                **route.headers,
                "accept": accept,
                "last-event-id": value,
                "timeout-seconds": value,
                "x-trigger-stream-start": value,
            }
            status, content = send(route, path, b"", headers)
            assert status in (200, 204, 400, 409), (value, accept, content)
