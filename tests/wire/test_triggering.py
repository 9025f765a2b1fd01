import json
import uuid
from datetime import UTC, datetime, timedelta

import pytest
from django.utils import timezone

from realtime_runs import runs
from realtime_runs.access import tokens
from realtime_runs.access.keys import ENVIRONMENT_ID
from realtime_runs.engine import registry
from realtime_runs.engine.retention import prune
from realtime_runs.models import AnsweredRequest, FromNow, IdempotencyClaim, Run, RunTag, SpentToken, Tag
from realtime_runs.tasks import task
from tests.access.claims import a_token
from tests.tasks import echo
from tests.wire.api import call, claims, post, token

pytestmark = pytest.mark.django_db

ECHO = "/api/v1/tasks/t-echo/trigger"
HASH = "df8cf80227ec3237922df0ecd88385c546e4a31bdb8127b033f01e6f21f175df"
SUPER_JSON = "application/super+json"


def nothing_is_stored() -> bool:
    models = (Run, Tag, RunTag, IdempotencyClaim, SpentToken, AnsweredRequest)
    return not any(model.objects.exists() for model in models)


def refused(answer, status):
    """The error of a refusal that left nothing."""
    assert answer.status_code == status, answer.content
    assert nothing_is_stored()
    return answer.json()["error"]


def test_the_example_of_the_contract():
    text = '{"json":{"hello":"world","when":"1970-01-01T00:00:00.000Z"},"meta":{"values":{"when":["Date"]}}}'
    body = {
        "payload": text,
        "options": {
            "payloadType": SUPER_JSON,
            "payloadSize": 96,
            "idempotencyKey": HASH,
            "idempotencyKeyOptions": {"key": "order-7", "scope": "global"},
            "tags": ["user:1"],
            "metadata": {"step": 0},
        },
    }
    headers = {
        "trigger-version": "4.8.3",
        "x-trigger-api-version": "2025-07-16",
        "x-trigger-realtime-streams-version": "v2",
        "x-trigger-source": "sdk",
        "x-trigger-request-idempotency-key": "ace8f5d9-ddd9-4af4-b194-8587b8a3106c",
    }
    answer = post(ECHO, body, **headers)
    run = Run.objects.get()
    assert (answer.status_code, answer.json()) == (200, {"id": run.pk, "isCached": False})
    assert answer["content-type"] == "application/json"
    scopes = [f"read:runs:{run.pk}", f"write:inputStreams:{run.pk}"]
    assert claims(answer) == {"sub": ENVIRONMENT_ID, "pub": True, "scopes": scopes}
    assert (run.payload, run.payload_type) == (text, SUPER_JSON)
    assert (run.idempotency_key, run.tag_names, run.metadata) == ("order-7", ["user:1"], '{"step":0}')
    assert runs.retrieve(run).payload == {"hello": "world", "when": "1970-01-01T00:00:00.000Z"}

    again = post(ECHO, body | {"payload": "5"})
    assert again.json() == {"id": run.pk, "isCached": True}
    assert claims(again)["scopes"] == scopes


@pytest.mark.parametrize(
    ("body", "stored"),
    [
        (
            {"payload": "plain words", "options": {"payloadType": "text/plain", "payloadSize": 11}},
            ("plain words", "text/plain"),
        ),
        ({"payload": {"a": [1, None]}}, ('{"a":[1,null]}', "application/json")),
        ({"payload": '{"a": 1 }'}, ('{"a": 1 }', "application/json")),
        ({"payload": 5, "options": {"payloadType": SUPER_JSON}}, ("5", "application/json")),
        ({"payload": None}, ("null", "application/json")),
        ({"options": {"payloadType": "application/json"}}, (None, "application/json")),
        ({}, (None, "application/json")),
        ({"payload": "", "options": {"payloadType": "text/plain"}}, ("", "text/plain")),
    ],
)
def test_text_and_type_of_the_payload_are_kept_verbatim(body, stored):
    assert post(ECHO, body).status_code == 200
    assert Run.objects.values_list("payload", "payload_type").get() == stored


def test_every_option_does_what_it_says():
    options = {
        "tags": "one",
        "metadata": '{"json": {"step": 1}}',
        "metadataType": SUPER_JSON,
        "delay": "1h30m",
        "ttl": 600,
        "queue": {"name": "slow"},
        "concurrencyKey": 7,
        "priority": 10,
        "maxAttempts": 5,
        "maxDuration": 90,
        "test": True,
    }
    ignored = {
        "concurrency": ["a", "b"],
        "gates": [],
        "machine": "small-1x",
        "region": "eu",
        "lockToVersion": "1",
        "externalDeploymentId": None,
        "bulkActionId": "x",
        "debounce": {"key": "k", "delay": "1s"},
        "resumeParentOnCompletion": True,
        "somethingNew": {},
    }
    assert post(ECHO, {"payload": 1, "context": {"x": 1}, "options": options | ignored}).status_code == 200
    run = runs.retrieve(Run.objects.get())
    assert (run.tags, run.metadata, run.status, run.ttl) == (("one",), {"step": 1}, "DELAYED", "600")
    assert (run.queue, run.concurrency_key, run.priority) == ("slow", "7", 10)
    assert (run.max_attempts, run.max_duration, run.is_test) == (5, 90, True)
    assert run.delayed_until - run.created_at == timedelta(minutes=90)


@pytest.mark.parametrize(
    ("delay", "seconds"),
    [("2w", 1209600), ("1hr", 3600), ("1d2h3m4s", 93784), (5, 5), ("2020-01-01T00:00:00Z", 0)],
)
def test_a_delay_is_a_duration_or_a_time(delay, seconds):
    assert post(ECHO, {"options": {"delay": delay}}).status_code == 200
    run = Run.objects.get()
    assert -0.001 < (run.run_at - run.created_at).total_seconds() - seconds <= 0  # SQLite's clock has milliseconds


def test_a_delay_may_be_a_time_to_come():
    when = datetime(timezone.now().year + 1, 1, 1, tzinfo=UTC)
    assert post(ECHO, {"options": {"delay": when.isoformat().replace("+00:00", ".000Z")}}).status_code == 200
    assert abs(Run.objects.get().delayed_until - when) < timedelta(seconds=5)


def test_a_tasks_id_may_hold_a_slash(monkeypatch):
    monkeypatch.setattr(registry, "_tasks", dict(registry._tasks))

    @task(id="a/b/trigger")
    def slashed(): ...

    assert post("/api/v1/tasks/a%2Fb%2Ftrigger/trigger", {}).status_code == 200
    assert Run.objects.get().task == "a/b/trigger"
    assert post("/api/v1/tasks/a%2Fb/trigger", {}, auth=token("trigger:tasks:a/b/trigger")).status_code == 403


# -- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({"tags": [f"t{n}" for n in range(11)]}, 422),
        ({"tags": ["x" * 129]}, 422),
        ({"tags": [1]}, 400),
        ({"tags": {"a": 1}}, 400),
        ({"metadata": [1]}, 400),
        ({"metadata": "{"}, 400),
        ({"metadata": {"big": "x" * (256 * 1024)}}, 413),
        ({"idempotencyKey": "x" * 2049}, 400),
        ({"idempotencyKey": "k", "idempotencyKeyTTL": "1h30m"}, 400),
        ({"idempotencyKey": "k", "idempotencyKeyTTL": "9" * 60 + "d"}, 400),
        ({"idempotencyKeyOptions": {"scope": "global"}}, 400),
        ({"delay": "soon"}, 400),
        ({"delay": "-1h"}, 400),
        ({"delay": "2026-13-45T00:00:00Z"}, 400),
        ({"delay": "2030-01-01T00:00:00"}, 400),
        ({"delay": "9999-12-31T23:59:59-14:00"}, 400),
        ({"delay": "1" * 5000}, 400),
        ({"ttl": True}, 400),
        ({"ttl": 10**400}, 400),
        ({"priority": 10**400}, 400),
        ({"priority": "high"}, 400),
        ({"maxAttempts": 0}, 400),
        ({"maxAttempts": 10**400}, 400),
        ({"maxDuration": []}, 400),
        ({"queue": "slow"}, 400),
        ({"queue": {"name": "x" * 256}}, 400),
        ({"concurrencyKey": 10**400}, 400),
        ({"concurrencyKey": "x" * 256}, 400),
        ({"payloadSize": -1}, 400),
        ({"payloadType": "image/png"}, 400),
        ({"payloadType": "application/json; charset=utf-8"}, 400),
        ({"payloadType": "x" * 200}, 400),
        ({"payloadType": "application/store"}, 400),
        ({"test": {}}, 400),
        ({"parentRunId": "run_none"}, 422),
        ([], 400),
        (None, 400),
    ],
    ids=lambda value: str(value)[:50],
)
def test_a_bad_option_is_refused_and_leaves_nothing(options, status):
    assert refused(post(ECHO, {"payload": {"a": 1}, "options": options}), status)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", "Request body is empty"),
        (b"{", "Invalid JSON"),
        (b"[]", "must be a JSON object"),
        (b'{"payload": NaN}', "Invalid JSON"),
        (b'{"payload": 1e999}', "Invalid JSON"),
        (b'{"payload": "\\u0000"}', "U+0000"),
        (b'{"payload": "\\ud800"}', "surrogate"),
        (b"\xff", "UTF-8"),
        (b'{"payload": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested"),
        (b'{"payload": ' + b"1" * 5000 + b"}", "Invalid JSON"),
        (b'{"payload": "plain words"}', "payload is not JSON"),
        (rb'{"payload": "\"\\u0000\"", "options": {"payloadType": "application/super+json"}}', "U+0000"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_body_that_cannot_be_used_is_refused(data, error):
    assert error in refused(post(ECHO, data), 400)


def test_a_payload_that_does_not_fit_the_task_is_refused_with_the_field():
    answer = post("/api/v1/tasks/t-order/trigger", {"payload": {"items": "no list"}})
    refused(answer, 422)
    assert answer.json()["details"][0]["path"] == ["items"]


def test_an_unknown_task_is_not_found_and_others_are_not_named():
    assert refused(post("/api/v1/tasks/t-ecko/trigger", {}), 404) == "Task 't-ecko' not found"
    assert "t-echo" not in post("/api/v1/tasks/%00%0A/trigger", {}).content.decode()


@pytest.mark.parametrize(("more", "status"), [(0, 200), (1, 413)])
def test_a_payload_has_at_most_3_mib(more, status):
    payload = '"' * (3 * 1024 * 1024 + more)  # the most that escaping can make of it
    answer = post(ECHO, {"payload": payload, "options": {"payloadType": "text/plain"}})
    assert answer.status_code == status
    assert Run.objects.count() == (status == 200)


def test_a_body_over_the_limit_is_refused_before_it_is_read():
    assert "Request body too large" in refused(post(ECHO, b" " * (8 * 1024 * 1024)), 413)


def test_without_a_credential_nothing_is_said_but_401():
    for auth in ("", "wrong", "a.b.c", a_token(scopes=["trigger:tasks:t-echo"], exp=1)):
        answer = post(ECHO, b"{", auth=auth)
        assert refused(answer, 401)
        assert answer["www-authenticate"].startswith("Bearer")
        assert answer["access-control-allow-origin"] == "*"


@pytest.mark.parametrize(
    ("scopes", "status"),
    [
        (["trigger:tasks:t-echo"], 200),
        (["trigger:tasks"], 200),
        (["admin"], 200),
        (["trigger:tasks:t-order"], 403),
        (["batchTrigger:tasks:t-echo"], 403),
        (["read:tasks:t-echo"], 403),
        ([], 403),
    ],
)
def test_a_token_triggers_the_tasks_that_its_scopes_name(scopes, status):
    assert post(ECHO, {"payload": 1}, auth=token(*scopes)).status_code == status
    assert post("/api/v1/tasks/t-no-such/trigger", {}, auth=token("trigger:tasks:t-echo")).status_code == 403


def test_only_post():
    answer = call("GET", ECHO)
    assert refused(answer, 405) == "Method not allowed"
    assert "POST" in answer["allow"]


@pytest.mark.parametrize(
    "path",
    [
        ECHO,
        "/api/v2/tasks/batch",
        "/api/v3/batches",
        "/api/v3/batches/batch_x/items",
        "/api/v2/batches/batch_x",
        "/api/v1/runs/run_x/packets/payload",
    ],
)
def test_pages_of_other_origins_may_ask(path):
    answer = call(
        "OPTIONS",
        path,
        auth="",
        origin="https://app.example.com",
        access_control_request_method="POST",
        access_control_request_headers="authorization,x-trigger-client",
    )
    assert answer.status_code == 204
    assert answer["access-control-allow-origin"] == "*"
    assert answer["access-control-allow-headers"] == "authorization,x-trigger-client"
    refusal = post(path, b"{", auth="")
    assert "x-trigger-jwt" in refusal["access-control-expose-headers"]


@pytest.mark.parametrize("path", ["/api/v1/tasks/a%0Ab/no", "/api/v2/batches/batch_%00", "/api/v9", "/api/%0A"])
def test_other_paths_are_not_found_in_json(path):
    answer = call("GET", path)
    assert (answer.status_code, answer.json()) == (404, {"error": "Not found"})


# -- idempotency ------------------------------------------------------------------------------------------------------


def test_a_64_digit_key_without_what_the_user_wrote_is_shown_as_it_is():
    post(ECHO, {"options": {"idempotencyKey": HASH}})
    assert Run.objects.get().idempotency_key == HASH
    assert echo.trigger(idempotency_key=HASH).is_cached


def test_a_key_is_free_again_after_its_ttl():
    options = {"idempotencyKey": "k", "idempotencyKeyTTL": "0s"}
    first, second = (post(ECHO, {"options": options}).json() for _ in range(2))
    assert first["id"] != second["id"]


def test_a_key_in_the_headers_wins_over_the_body():
    body = {"options": {"idempotencyKey": HASH, "idempotencyKeyOptions": {"key": "body"}}}
    headers = {"idempotency-key": "of the header", "idempotency-key-ttl": "1h"}
    first, second = (post(ECHO, body, **headers).json() for _ in range(2))
    assert second == {"id": first["id"], "isCached": True}
    assert Run.objects.get().idempotency_key == "of the header"
    assert post(ECHO, body).json()["isCached"] is False
    assert post(ECHO, body, idempotency_key="x", idempotency_key_ttl="soon").status_code == 400


def test_a_repeated_request_gets_the_same_run_as_if_it_were_the_first():
    key = str(uuid.uuid4())
    auth = token("trigger:tasks:t-echo", is_single_use=True)
    first = post(ECHO, {"payload": 1}, auth=auth, x_trigger_request_idempotency_key=key)
    again = post(ECHO, {"payload": 1}, auth=auth, x_trigger_request_idempotency_key=key)
    assert (again.status_code, again.json()) == (200, first.json())
    assert claims(again) == claims(first)
    assert Run.objects.count() == SpentToken.objects.count() == 1


def test_the_same_request_key_of_another_task_or_caller_is_another_request():
    key = {"x_trigger_request_idempotency_key": "1"}
    order = {"payload": {"items": []}}
    answers = [
        post(ECHO, {}, **key),
        post("/api/v1/tasks/t-order/trigger", order, **key),
        post(ECHO, {}, auth=token("trigger:tasks:t-echo"), **key),
        post("/api/v2/tasks/batch", {"items": [{"task": "t-echo"}]}, **key),
    ]
    assert len({answer.json()["id"] for answer in answers}) == 4
    assert Run.objects.count() == 4


def test_a_refused_request_is_not_remembered():
    key = {"x_trigger_request_idempotency_key": "1"}
    assert post(ECHO, {"options": {"tags": ["x" * 129]}}, **key).status_code == 422
    assert post(ECHO, {}, **key).status_code == 200


@pytest.mark.django_db(transaction=True)
def test_of_the_same_request_many_times_at_once_one_makes_a_run(in_threads, nobody_executes):
    answers = in_threads(8, lambda: post(ECHO, {}, x_trigger_request_idempotency_key="k"))
    assert {json.dumps(answer.json()) for answer in answers} == {
        json.dumps({"id": Run.objects.get().pk, "isCached": False})
    }


# -- single-use tokens ------------------------------------------------------------------------------------------------


def test_a_single_use_token_makes_one_run():
    auth = token("trigger:tasks:t-echo", is_single_use=True)
    assert post(ECHO, {}, auth=auth).status_code == 200
    answer = post(ECHO, {}, auth=auth)
    assert (answer.status_code, answer.json()) == (422, {"error": "This single-use token has already been spent."})
    assert Run.objects.count() == 1


def test_a_token_for_several_uses_makes_several():
    auth = token("trigger:tasks:t-echo", is_single_use=False)
    assert [post(ECHO, {}, auth=auth).status_code for _ in range(2)] == [200, 200]


def test_a_refused_request_is_no_use_of_the_token():
    auth = token("trigger:tasks:t-echo", "trigger:tasks:t-none", is_single_use=True)
    for path, body in [
        (ECHO, {"payload": "{"}),
        (ECHO, {"options": {"tags": ["x" * 129]}}),
        ("/api/v1/tasks/t-none/trigger", {}),
        ("/api/v1/tasks/t-order/trigger", {}),
    ]:
        assert post(path, body, auth=auth).status_code in (400, 403, 404, 422)
    assert post(ECHO, {}, auth=auth).status_code == 200


@pytest.mark.django_db(transaction=True)
def test_of_many_uses_at_once_one_succeeds(in_threads, nobody_executes):
    auth = token("trigger:tasks:t-echo", is_single_use=True)
    answers = in_threads(8, lambda: post(ECHO, {}, auth=auth).status_code)
    assert sorted(answers) == [200] + [422] * 7
    assert Run.objects.count() == 1


def test_the_columns_that_a_token_may_not_see_stay_hidden_to_the_one_that_it_brings():
    answer = post(ECHO, {}, auth=token("trigger:tasks:t-echo", skip_columns=["payload"]))
    assert claims(answer)["realtime"] == {"skipColumns": ["payload"]}
    assert tokens.verify(answer["x-trigger-jwt"]).skip_columns == {"payload"}


# -- children ---------------------------------------------------------------------------------------------------------


def test_a_run_may_be_made_the_child_of_another():
    root = post(ECHO, {}).json()["id"]
    child = post(ECHO, {"options": {"parentRunId": root, "resumeParentOnCompletion": True}}).json()["id"]
    grandchild = post(ECHO, {"options": {"parentRunId": child}}).json()["id"]
    run = Run.objects.get(pk=grandchild)
    assert (run.parent_id, run.root_id, run.depth) == (child, root, 2)


def test_a_canceled_run_has_no_new_children():
    parent = post(ECHO, {}).json()["id"]
    runs.cancel(parent)
    assert post(ECHO, {"options": {"parentRunId": parent}}).status_code == 422
    assert Run.objects.count() == 1


def test_a_token_makes_children_only_of_runs_that_it_may_read():
    parent = post(ECHO, {}).json()["id"]
    for scopes, parent_id, status in [
        ([], parent, 403),
        ([], "run_none", 403),
        (["read:runs:run_other"], parent, 403),
        (["read:tasks:t-echo"], parent, 200),
        (["read:runs"], "run_none", 422),
    ]:
        auth = token("trigger:tasks:t-echo", *scopes)
        assert post(ECHO, {"options": {"parentRunId": parent_id}}, auth=auth).status_code == status


# -- housekeeping -----------------------------------------------------------------------------------------------------


def test_what_need_not_be_remembered_is_removed():
    post(ECHO, {}, x_trigger_request_idempotency_key="old", auth=token("trigger:tasks", is_single_use=True))
    old = list(AnsweredRequest.objects.values_list("pk", flat=True))
    AnsweredRequest.objects.update(created_at=FromNow(-3600))
    SpentToken.objects.update(expires_at=FromNow(-1))
    post(ECHO, {}, x_trigger_request_idempotency_key="new", auth=token("trigger:tasks:t-echo", is_single_use=True))
    list(prune(timedelta(days=30)))
    assert not AnsweredRequest.objects.filter(pk__in=old).exists()
    assert (AnsweredRequest.objects.count(), SpentToken.objects.count(), Run.objects.count()) == (1, 1, 2)
