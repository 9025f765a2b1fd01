"""Looking at runs and changing their course over HTTP: wire-protocol 5."""

from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from realtime_runs import runs, tasks
from realtime_runs.access.policy import Policy
from realtime_runs.models import Run
from realtime_runs.packets import Packet
from tests import tasks as t
from tests.wire.api import call, get, post, token

pytestmark = pytest.mark.django_db(transaction=True)

REQUIRED = {
    "id", "status", "taskIdentifier", "isQueued", "isExecuting", "isWaiting", "isCompleted", "isFailed", "isSuccess",
    "isCancelled", "isTest", "createdAt", "updatedAt", "tags", "costInCents", "baseCostInCents", "durationMs", "depth",
    "triggerFunction",
}  # fmt: skip
NOT_FOUND = {"error": "Not found"}
FORBIDDEN = {"error": "Unauthorized", "code": "unauthorized", "param": "access_token", "type": "authorization"}


def nulls(value):
    """Paths of nulls outside of payload and output."""
    if isinstance(value, dict):
        return [
            key for key, item in value.items() if key not in ("payload", "output") and (item is None or nulls(item))
        ]
    return [item for item in value if nulls(item)] if isinstance(value, list) else []


# -- retrieve ---------------------------------------------------------------------------------------------------------


def test_a_run_is_retrieved_with_its_decoded_payload_and_output():
    text = '{"json":{"hello":"world","when":"1970-01-01T00:00:00.000Z"},"meta":{"values":{"when":["Date"]}}}'
    run_id = t.echo.trigger(
        Packet(text, "application/super+json"), tags=["user:1"], metadata={"step": 0}, idempotency_key="order-7"
    ).id
    answer = get(f"/api/v3/runs/{run_id}")
    run = answer.json()
    assert answer.status_code == 200
    assert run.keys() >= REQUIRED | {"startedAt", "finishedAt", "attemptCount", "relatedRuns"}
    assert nulls(run) == []
    expected = {
        "id": run_id,
        "taskIdentifier": t.echo.id,
        "idempotencyKey": "order-7",
        "status": "COMPLETED",
        "costInCents": 0,
        "isTest": False,
        "depth": 0,
        "tags": ["user:1"],
        "isQueued": False,
        "isCompleted": True,
        "isFailed": False,
        "isSuccess": True,
        "triggerFunction": "trigger",
        "metadata": {"step": 0},
        "payload": {"hello": "world", "when": "1970-01-01T00:00:00.000Z"},
        "output": {"hello": "world", "when": "1970-01-01T00:00:00.000Z"},
        "attemptCount": 1,
        "relatedRuns": {"children": []},
    }
    assert {name: run[name] for name in expected} == expected
    assert run["createdAt"].endswith("Z")
    assert not {"version", "ttl", "batchId", "error", "delayedUntil", "expiredAt"} & run.keys()
    assert answer["access-control-allow-origin"] == "*"


def test_a_failed_run_shows_its_error_and_no_output():
    run_id = t.fail.trigger().id
    run = get(f"/api/v3/runs/{run_id}").json()
    assert (run["status"], run["isCompleted"], run["isFailed"], run["isSuccess"]) == ("FAILED", True, True, False)
    assert run["error"].keys() == {"name", "message", "stackTrace"}
    assert "output" not in run


def test_what_a_task_returned_is_shown_also_when_it_is_odd(settings):
    run_id = t.echo.trigger(1).id
    Run.objects.update(output='["\\ud800", 12345678901234567890123]')
    assert get(f"/api/v3/runs/{run_id}").json()["output"] == ["\ud800", 12345678901234567890123]


def test_related_runs_are_those_around_it_in_few_queries(django_assert_max_num_queries):
    root, parent, child = (t.echo.trigger(n).id for n in range(3))
    Run.objects.filter(pk=parent).update(parent=root, root=root, depth=1)
    Run.objects.filter(pk=child).update(parent=parent, root=root, depth=2)
    with django_assert_max_num_queries(4):
        related = get(f"/api/v3/runs/{parent}").json()["relatedRuns"]
    assert (related["root"]["id"], related["parent"]["id"]) == (root, root)
    assert [run["id"] for run in related["children"]] == [child]
    assert related["root"].keys() >= REQUIRED
    assert "payload" not in related["root"]


@pytest.mark.parametrize("run_id", ["run_nothing", "%00", "a%2Fb", "run_ü", "..", "x" * 5000])
def test_a_run_that_is_none_is_not_found(run_id):
    for method, path in (("GET", f"/api/v3/runs/{run_id}"), ("POST", f"/api/v2/runs/{run_id}/cancel")):
        answer = call(method, path)
        assert (answer.status_code, answer.json()) == (404, NOT_FOUND)


def test_a_token_reads_what_its_scopes_name():
    run_id = t.echo.trigger(1, tags=["a"]).id
    for scope in (f"read:runs:{run_id}", f"read:tasks:{t.echo.id}", "read:tags:a", "read:runs", "admin", "*:all"):
        assert get(f"/api/v3/runs/{run_id}", auth=token(scope)).status_code == 200, scope
    for scope in ("read:runs:run_x", "read:tasks:x", "read:tags:b", "write:runs", f"read:run:{run_id}", "read:runs:"):
        answer = get(f"/api/v3/runs/{run_id}", auth=token(scope))
        assert (answer.status_code, answer.json()) == (403, FORBIDDEN), scope


# -- list -------------------------------------------------------------------------------------------------------------


def listed(query="", **how):
    answer = get(f"/api/v1/runs?{query}", **how)
    assert answer.status_code == 200, answer.content
    return answer.json()


def ids(page):
    return [run["id"] for run in page["data"]]


def test_runs_are_listed_newest_first_in_pages_with_cursors():
    made = [t.echo.trigger(n).id for n in range(5)]
    first = listed("page[size]=2")
    assert ids(first) == [made[4], made[3]]
    assert first["pagination"] == {"next": made[3]}
    second = listed(f"page[size]=2&page[after]={first['pagination']['next']}")
    assert ids(second) == [made[2], made[1]]
    assert second["pagination"] == {"next": made[1], "previous": made[2]}
    # The client keeps the parameters of the page it came from: a step back has both.
    back = listed(f"page[size]=2&page[after]={made[3]}&page[before]={second['pagination']['previous']}")
    assert ids(back) == [made[4], made[3]]
    item = first["data"][0]
    assert item.keys() >= REQUIRED | {"env"}
    assert item["env"].keys() == {"id", "name"}
    assert not {"payload", "output", "error"} & item.keys()
    assert nulls(first) == []


FILTERS = {
    "filter[status]=COMPLETED": {"done", "tagged", "test", "queued_elsewhere"},
    "filter[status]=COMPLETED,FAILED": {"done", "tagged", "failed", "test", "queued_elsewhere"},
    "filter[status]=DEQUEUED": set(),
    "filter[taskIdentifier]=test.fail": {"failed"},
    "filter[tag]=a,nothing": {"tagged"},
    "filter[isTest]=true": {"test"},
    "filter[isTest]=false": {"done", "tagged", "failed", "queued_elsewhere"},
    "filter[queue]=elsewhere": {"queued_elsewhere"},
    "filter[queue]=task%2Ftest.fail,elsewhere": {"failed", "queued_elsewhere"},
    "filter[createdAt][period]=1h": {"done", "tagged", "failed", "test", "queued_elsewhere"},
    "filter[createdAt][from]=1700000000000": {"done", "tagged", "failed", "test", "queued_elsewhere"},
    "filter[createdAt][to]=2020-01-01T00%3A00%3A00Z": set(),
    "filter[createdAt][to]=1700000000000": set(),
    "filter[batch]=batch_nothing": set(),
    "filter[version]=20240101.1": set(),
    "filter[machine]=micro": set(),
    "filter[env]=env_x&unknown=5": {"done", "tagged", "failed", "test", "queued_elsewhere"},
}


def test_filters_narrow_the_list():
    made = {
        t.echo.trigger(1).id: "done",
        t.echo.trigger(1, tags=["a", "b"]).id: "tagged",
        t.fail.trigger().id: "failed",
        t.echo.trigger(1, is_test=True).id: "test",
        t.echo.trigger(1, queue="elsewhere").id: "queued_elsewhere",
    }
    for query, expected in FILTERS.items():
        assert {made[run_id] for run_id in ids(listed(query.replace("test.fail", t.fail.id)))} == expected, query


@pytest.mark.parametrize(
    "query",
    [
        *(f"page[size]={size}" for size in ("0", "101", "x", "-1", "1.5", "", "٣")),
        *(f"page[after]={cursor}" for cursor in ("run_nothing", "%00", "x" * 3000, "%ED%A0%80")),
        "page[before]=nothing",
        *(f"filter[status]={status}" for status in ("NOTHING", "completed", "COMPLETED,X", "%00")),
        "filter[machine]=huge",
        "filter[isTest]=yes",
        *(f"filter[createdAt][from]={time}" for time in ("x", "2020-01-01", "2020-01-01T00:00:00", "9" * 16, "-5", "%00")),
        *(f"filter[createdAt][period]={period}" for period in ("x", "-1h", "1h" * 50, "%00")),
        "filter[tag]=%00",
    ],
)  # fmt: skip
def test_a_query_that_means_nothing_is_refused(query):
    answer = get(f"/api/v1/runs?{query}")
    assert answer.status_code == 400, query
    assert answer.json()["error"].startswith("Query Error")
    assert answer.json()["details"]


def test_who_may_list():
    t.echo.trigger(1)
    assert listed(auth=token("read:runs"))["data"]
    assert listed(f"filter[taskIdentifier]={t.echo.id}", auth=token(f"read:tasks:{t.echo.id}"))["data"]
    for query, scope in (("", f"read:tasks:{t.echo.id}"), (f"filter[taskIdentifier]={t.echo.id},x", f"read:tasks:{t.echo.id}"), ("", "read:tags")):  # fmt: skip
        assert get(f"/api/v1/runs?{query}", auth=token(scope)).status_code == 403


def test_a_list_costs_a_fixed_number_of_queries(django_assert_max_num_queries):
    t.echo.batch_trigger(range(30), tags=["a"])
    with django_assert_max_num_queries(3):
        assert len(listed("filter[tag]=a&page[size]=20")["data"]) == 20


# -- cancel, replay, reschedule, result -------------------------------------------------------------------------------


def test_a_run_is_canceled_once_and_stays_so():
    run_id = t.echo.trigger(1, delay="1h").id
    for _ in range(2):
        answer = post(f"/api/v2/runs/{run_id}/cancel")
        assert (answer.status_code, answer.json()) == (200, {"id": run_id})
    run = runs.retrieve(run_id)
    assert (run.status, run.version) == ("CANCELED", 2)
    assert run.finished_at is not None


def test_a_token_without_the_scope_does_not_learn_whether_a_run_exists():
    run_id = t.echo.trigger(1, delay="1h").id
    for path in (f"/api/v2/runs/{run_id}/cancel", "/api/v2/runs/run_nothing/cancel"):
        answer = post(path, auth=token("write:runs:run_other"))
        assert (answer.status_code, answer.json()) == (403, FORBIDDEN)
    assert runs.retrieve(run_id).status == "DELAYED"
    assert post("/api/v2/runs/run_x/cancel", auth=token("write:runs:run_x")).status_code == 404
    assert post(f"/api/v2/runs/{run_id}/cancel", auth=token(f"write:tasks:{t.echo.id}")).status_code == 200


def test_a_replay_is_a_new_run_with_the_same_payload_and_tags():
    old = t.echo.trigger({"a": 1}, tags=["x"], idempotency_key="k").id
    answer = post(f"/api/v1/runs/{old}/replay")
    new = runs.retrieve(answer.json()["id"])
    assert answer.status_code == 200
    assert new.id != old
    assert (new.payload, new.tags, new.status) == ({"a": 1}, ("x",), "COMPLETED")


def test_a_replay_takes_overrides():
    old = t.echo.trigger({"a": 1}).id
    body = {
        "payload": '{"json":{"hello":"again"}}', "payloadType": "application/super+json", "metadata": {"m": 1},
        "tags": ["y"], "queue": {"name": "q"}, "concurrencyKey": "c", "delay": "1h", "ttl": "2h", "maxAttempts": 2,
        "maxDuration": 60, "priority": 5, "machine": "micro", "version": "1", "region": "x",
        "idempotencyKey": "new", "idempotencyKeyTTL": "1h",
    }  # fmt: skip
    new = runs.retrieve(post(f"/api/v1/runs/{old}/replay", body).json()["id"])
    assert (new.payload, new.metadata, new.tags, new.queue) == ({"hello": "again"}, {"m": 1}, ("y",), "q")
    assert (new.concurrency_key, new.status, new.ttl, new.max_attempts) == ("c", "DELAYED", "2h", 2)
    assert (new.max_duration, new.priority, new.idempotency_key) == (60, 5, "new")


@pytest.mark.parametrize(
    "body", [{"unknown": 1}, {"payloadType": "text/html"}, {"tags": 5}, {"delay": "soon"}, {"queue": 5}, [], "x", {"maxAttempts": 0}]
)  # fmt: skip
def test_a_replay_that_means_nothing_is_refused_and_makes_no_run(body):
    old = t.echo.trigger(1).id
    assert post(f"/api/v1/runs/{old}/replay", body).status_code == 400
    assert Run.objects.count() == 1


def test_a_delayed_run_is_given_another_start():
    run_id = t.echo.trigger(1, delay="5m").id
    answer = post(f"/api/v1/runs/{run_id}/reschedule", {"delay": "1h"})
    run = answer.json()
    assert (answer.status_code, run["id"], run["status"], run["isQueued"]) == (200, run_id, "DELAYED", True)
    assert runs.retrieve(run_id).delayed_until - timezone.now() > timedelta(minutes=50)
    for delay in ("soon", -5, None, {}, "2020-13-01T00:00:00Z"):
        assert post(f"/api/v1/runs/{run_id}/reschedule", {"delay": delay}).status_code == 400, delay
    runs.cancel(run_id)
    answer = post(f"/api/v1/runs/{run_id}/reschedule", {"delay": "1h"})
    assert answer.status_code == 422
    assert "CANCELED" in answer.json()["error"]


def test_a_result_is_there_when_the_run_is_over():
    done, failed, delayed = t.echo.trigger({"n": 0}).id, t.fail.trigger().id, t.echo.trigger(1, delay="1h").id
    assert get(f"/api/v1/runs/{done}/result").json() == {
        "ok": True, "id": done, "taskIdentifier": t.echo.id, "output": '{"n":0}', "outputType": "application/json",
    }  # fmt: skip
    result = get(f"/api/v1/runs/{failed}/result").json()
    assert result["ok"] is False
    assert result["error"].keys() == {"type", "name", "message", "stackTrace"}
    assert result["error"]["type"] == "BUILT_IN_ERROR"
    assert get(f"/api/v1/runs/{delayed}/result").status_code == 404
    runs.cancel(delayed)
    assert get(f"/api/v1/runs/{delayed}/result").json()["error"]["code"] == "TASK_RUN_CANCELLED"


@pytest.mark.parametrize("path", ["replay", "reschedule", "result", "metadata", "tags"])
def test_no_public_token_may_do_what_needs_a_key(path):
    run_id = t.echo.trigger(1, delay="1h").id
    method = {"result": "GET", "metadata": "PUT"}.get(path, "POST")
    for run in (run_id, "run_nothing"):
        assert call(method, f"/api/v1/runs/{run}/{path}", {}, auth=token("admin")).status_code == 401
        assert call(method, f"/api/v1/runs/{run}/{path}", {}, auth="").status_code == 401


# -- users of the site ------------------------------------------------------------------------------------------------


class OnlyOwn(Policy):
    def can(self, user, action, run):
        return (run is None and action == "read") or (run is not None and f"user:{user.username}" in run.tag_names)

    def visible(self, user, found):
        return found.tagged([f"user:{user.username}"])


@pytest.fixture
def site(settings):
    settings.REALTIME_RUNS = {**settings.REALTIME_RUNS, "POLICY": f"{__name__}.OnlyOwn"}
    client = Client(enforce_csrf_checks=True)
    client.force_login(User.objects.create_user("jo"))
    return client


def test_a_user_sees_and_cancels_what_the_policy_says(site):
    own = t.echo.trigger(1, tags=["user:jo"], delay="1h").id
    other = t.echo.trigger(1, delay="1h").id
    assert [run["id"] for run in site.get("/api/v1/runs").json()["data"]] == [own]
    assert site.get(f"/api/v3/runs/{own}").status_code == 200
    assert site.get(f"/api/v3/runs/{other}").status_code == 403
    answer = site.post(f"/api/v2/runs/{own}/cancel")
    assert answer.status_code == 403
    assert "CSRF" in answer.json()["error"]
    site.get("/admin/login/")  # sets the cookie
    headers = {"X-CSRFToken": site.cookies["csrftoken"].value}
    assert site.post(f"/api/v2/runs/{own}/cancel", headers=headers).status_code == 200
    assert site.post(f"/api/v2/runs/{other}/cancel", headers=headers).status_code == 403
    assert site.post(f"/api/v1/runs/{other}/replay", headers=headers).status_code == 403
    assert (runs.retrieve(own).status, runs.retrieve(other).status) == ("CANCELED", "DELAYED")


def test_a_user_who_is_nobody_special_may_do_nothing_by_default(settings):
    client = Client()
    client.force_login(User.objects.create_user("jo"))
    run_id = tasks.trigger(t.echo.id, 1).id
    assert client.get(f"/api/v3/runs/{run_id}").status_code == 403
    assert client.get("/api/v1/runs").status_code == 403
