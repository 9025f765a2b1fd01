"""What the routes of runs, metadata and wait tokens must not show, read or do: leaks, sizes and odd values."""

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from realtime_runs import wait
from realtime_runs.access.policy import Policy
from realtime_runs.engine import triggering
from realtime_runs.models import FromNow, IdempotencyClaim, Run
from tests import tasks as t
from tests.wire.api import call, get, post, token

pytestmark = pytest.mark.django_db


def child_of(parent_id, **options):
    request = triggering.Request.check(t.echo.id, 1, {"delay": "1h", **options})
    return triggering.trigger(request, parent_id=parent_id).id


def edit(run_id, **body):
    return call("PUT", f"/api/v1/runs/{run_id}/metadata", body)


class OnlyOwn(Policy):
    def can(self, user, action, run):
        return run is not None and f"user:{user.username}" in run.tag_names

    def visible(self, user, found):
        return found.tagged([f"user:{user.username}"])


def test_a_token_sees_of_the_related_runs_only_those_that_it_may_read():
    root = t.echo.trigger(1, delay="1h").id
    run = child_of(root)
    child, tagged = child_of(run), child_of(run, tags=["shown"])
    auth = token(f"read:runs:{run}", "read:tags:shown")
    assert [get(f"/api/v3/runs/{other}", auth=auth).status_code for other in (root, child, tagged)] == [403, 403, 200]
    related = get(f"/api/v3/runs/{run}", auth=auth).json()["relatedRuns"]
    assert (related.keys(), [one["id"] for one in related["children"]]) == ({"children"}, [tagged])


def test_a_user_sees_of_the_related_runs_only_those_that_are_visible_to_him(settings):
    settings.REALTIME_RUNS = {**settings.REALTIME_RUNS, "POLICY": f"{__name__}.OnlyOwn"}
    root = t.echo.trigger(1, delay="1h").id
    run = child_of(root, tags=["user:jo"])
    child_of(run)
    own = child_of(run, tags=["user:jo"])
    client = Client()
    client.force_login(User.objects.create_user("jo"))
    related = client.get(f"/api/v3/runs/{run}").json()["relatedRuns"]
    assert (related.keys(), [one["id"] for one in related["children"]]) == ({"children"}, [own])


def test_lists_do_not_read_what_they_do_not_show():
    t.echo.trigger(1, delay="1h")
    wait.complete_token(wait.create_token(), 1)
    with CaptureQueriesContext(connection) as queries:
        assert len(get("/api/v1/runs").json()["data"]) == len(get("/api/v1/waitpoints/tokens").json()["data"]) == 1
    assert not [one["sql"] for one in queries if '"payload"' in one["sql"] or '"output"' in one["sql"]]


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("filter[batch]=%00", 400),
        ("filter[createdAt][from]=2026-01-01T00:00:00%2B23:59", 200),
        ("filter[createdAt][to]=2026-01-01T00:00:00-23:59", 200),
        ("format=csv", 200),
    ],
)
def test_no_query_is_too_odd_for_a_list(query, status):
    assert get(f"/api/v1/runs?{query}").status_code == status


@pytest.mark.parametrize("accepted", ["text/html", "text/event-stream", "application/xml", "nonsense"])
def test_an_answer_is_json_whatever_the_client_says_it_accepts(accepted):
    answer = get("/api/v1/runs", accept=accepted)
    assert (answer.status_code, answer["content-type"]) == (200, "application/json")


@pytest.mark.parametrize("version", ["%0a", "x%0d%0aSet-Cookie:a=b"])
def test_the_description_has_one_version_whatever_the_query_says(version):
    assert Client().get(f"/api/schema?version={version}").status_code == 200


def test_the_queue_of_a_task_holds_its_runs_that_were_given_no_other():
    run_id = t.echo.trigger(1, delay="1h").id
    t.echo.trigger(1, delay="1h", queue="special")
    assert [run["id"] for run in get("/api/v1/runs?filter[queue]=task/t-echo").json()["data"]] == [run_id]


def test_a_replay_that_the_client_repeats_makes_one_run():
    run_id = t.echo.trigger(1, delay="1h").id
    again = {"data": {"delay": "1h"}, "x_trigger_request_idempotency_key": "k"}
    answers = [post(f"/api/v1/runs/{run_id}/replay", **again).json() for _ in range(2)]
    assert answers[0] == answers[1]
    assert Run.objects.count() == 2


def test_a_key_that_has_expired_is_held_by_nobody():
    t.echo.trigger(1, delay="1h", idempotency_key="k")
    IdempotencyClaim.objects.update(expires_at=FromNow(-1))
    assert post("/api/v1/idempotencyKeys/k/reset", {"taskIdentifier": "t-echo"}).status_code == 404


@pytest.mark.parametrize(
    "operation",
    [
        {"type": "set", "key": "a"},
        {"type": "set", "value": 1},
        {"type": "append", "key": "a"},
        {"type": "remove", "key": "a"},
        {"type": "increment", "value": 1},
        {"type": "delete"},
        {"type": "update"},
    ],
)
def test_half_an_operation_is_refused(operation):
    assert edit(t.echo.trigger(1, delay="1h").id, operations=[operation]).status_code == 400


def test_operations_for_a_parent_that_was_removed_are_for_nobody():
    parent = t.echo.trigger(1, delay="1h").id
    run = child_of(parent)
    Run.objects.filter(pk=parent).delete()
    answer = edit(run, parentOperations=[{"type": "set", "key": "a", "value": 1}])
    assert answer.json() == {"metadata": {}}


def test_a_small_body_cannot_mean_gigabytes_for_a_moment():
    run_id = t.echo.trigger(1, delay="1h").id
    many = {"type": "update", "value": {str(number): 0 for number in range(300)}}
    large = {"type": "set", "key": "$.*", "value": [*range(10_000)]}
    answer = edit(run_id, operations=[many, large, {"type": "update", "value": {"a": 1}}])
    assert answer.status_code == 413
    assert Run.objects.get().metadata == "{}"


def test_a_request_has_few_operations_that_touch_everything():
    run_id = t.echo.trigger(1, delay="1h").id
    wide = {"type": "increment", "key": "$.*", "value": 1}
    assert edit(run_id, operations=[wide] * 100).status_code == 200
    assert edit(run_id, operations=[wide] * 101).status_code == 400
