import json
from datetime import timedelta

import pytest

from realtime_runs import batch, runs
from realtime_runs.access.keys import ENVIRONMENT_ID
from realtime_runs.access.policy import Policy
from realtime_runs.engine import open_batches
from realtime_runs.engine.retention import prune
from realtime_runs.models import Batch, BatchItem, FromNow, Run, SpentToken
from realtime_runs.testing import execute_queued_runs
from tests.tasks import echo
from tests.wire.api import call, claims, get, post, token

pytestmark = pytest.mark.django_db

SUPER_JSON = "application/super+json"
NDJSON = "application/x-ndjson"


def lines(*items) -> bytes:
    return b"\n".join(json.dumps(item).encode() for item in items)


def item(index, payload=None, task="t-echo", **options):
    return {"index": index, "task": task, "payload": payload, "options": options}


def create(run_count=2, **how):
    body = {"runCount": run_count, **how.pop("body", {})}
    return post("/api/v3/batches", body, **how)


def upload(batch_id, *items, **how):
    return post(
        f"/api/v3/batches/{batch_id}/items",
        items[0] if items and isinstance(items[0], bytes) else lines(*items) + b"\n",
        **{"content_type": NDJSON, **how},
    )


def opened(run_count=2, **body) -> str:
    return create(run_count, body=body).json()["id"]


def test_the_examples_of_the_contract():
    made = post("/api/v3/batches", {"runCount": 2, "taskIdentifiers": ["t-echo"]})
    batch_id = made.json()["id"]
    assert (made.status_code, made.json()) == (202, {"id": batch_id, "runCount": 2, "isCached": False})
    assert claims(made) == {"sub": ENVIRONMENT_ID, "pub": True, "scopes": [f"read:batch:{batch_id}"]}

    waiting = get(f"/api/v2/batches/{batch_id}").json()
    assert (waiting["status"], waiting["runs"], waiting["runCount"]) == ("PENDING", [], 2)

    body = (
        b'{"index":0,"task":"t-echo","payload":"{\\"json\\":{\\"n\\":0}}",'
        b'"options":{"payloadType":"application/super+json","tags":["b"],"payloadSize":16}}\n'
        b'{"index":1,"task":"t-echo","payload":"one","options":{"payloadType":"text/plain","payloadSize":3}}\n'
    )
    sent = upload(batch_id, body)
    sealed = {"id": batch_id, "itemsAccepted": 2, "itemsDeduplicated": 0, "sealed": True, "runCount": 2}
    assert (sent.status_code, sent.json()) == (200, sealed)
    again = upload(batch_id, body)
    assert (again.status_code, again.json()) == (200, sealed | {"itemsAccepted": 0, "itemsDeduplicated": 2})

    rows = list(Run.objects.order_by("batch_index"))
    assert [row.batch_id for row in rows] == [batch_id] * 2
    assert get(f"/api/v2/batches/{batch_id}").json()["status"] == "PROCESSING"
    execute_queued_runs()
    state = get(f"/api/v2/batches/{batch_id}").json()
    ids = [row.pk for row in rows]
    assert (state["status"], state["runs"], state["runCount"]) == ("COMPLETED", ids, 2)
    assert state["processing"] == {"completedAt": state["updatedAt"], "errors": []}
    assert state.keys() == {"id", "status", "createdAt", "updatedAt", "runCount", "runs", "processing"}
    old = get(f"/api/v1/batches/{batch_id}").json()
    assert old == {name: value for name, value in state.items() if name != "processing"}

    results = get(f"/api/v1/batches/{batch_id}/results").json()
    result = {"ok": True, "taskIdentifier": "t-echo", "outputType": "application/json"}
    assert results == {
        "id": batch_id,
        "items": [result | {"id": ids[0], "output": '{"n":0}'}, result | {"id": ids[1], "output": '"one"'}],
    }


def test_a_batch_in_one_request():
    answer = post(
        "/api/v2/tasks/batch",
        {"items": [{"task": "t-echo", "payload": "x", "options": {"payloadType": "text/plain"}}]},
    )
    row = Batch.objects.get()
    assert (answer.status_code, answer.json()) == (202, {"id": row.pk, "runCount": 1})
    assert claims(answer)["scopes"] == [f"read:batch:{row.pk}"]
    assert runs.retrieve(Run.objects.get()).payload == "x"
    assert Run.objects.get().trigger_function == "batchTrigger"


def test_a_page_may_send_the_items_with_the_token_that_it_gets():
    auth = token("batchTrigger:tasks:t-echo", is_single_use=True)
    made = create(1, body={"taskIdentifiers": ["t-echo"]}, auth=auth, x_trigger_client="browser")
    batch_id = made.json()["id"]
    assert claims(made)["scopes"] == [f"read:batch:{batch_id}", f"write:batch:{batch_id}"]
    assert upload(batch_id, item(0), auth=made["x-trigger-jwt"]).json()["sealed"] is True


def test_the_spent_token_sends_the_items_of_the_batch_that_it_made_and_makes_no_other():
    auth = token("batchTrigger:tasks:t-echo", is_single_use=True)
    body = {"taskIdentifiers": ["t-echo"]}
    made = create(1, body=body, auth=auth, x_trigger_request_idempotency_key="k")
    again = create(1, body=body, auth=auth, x_trigger_request_idempotency_key="k")
    assert again.json() == made.json()
    assert upload(made.json()["id"], item(0), auth=auth).status_code == 200
    assert create(1, body=body, auth=auth).status_code == 422
    one_phase = {"items": [{"task": "t-echo"}]}
    assert post("/api/v2/tasks/batch", one_phase, auth=auth).status_code == 422
    assert (Batch.objects.count(), SpentToken.objects.count()) == (1, 1)


def test_a_batch_that_is_refused_is_no_use_of_the_token():
    auth = token("batchTrigger:tasks:t-order", is_single_use=True)
    bad = {"items": [{"task": "t-order", "payload": {}}]}
    assert post("/api/v2/tasks/batch", bad, auth=auth).status_code == 422
    good = {"items": [{"task": "t-order", "payload": {"items": []}}]}
    assert post("/api/v2/tasks/batch", good, auth=auth).status_code == 202


def test_items_may_come_in_several_uploads_in_any_order_and_runs_are_made_in_theirs():
    batch_id = opened(3)
    options = {"payloadType": "text/plain"}
    first = upload(batch_id, item(2, "c", **options), item(2, "other")).json()
    assert first == {
        "id": batch_id,
        "itemsAccepted": 1,
        "itemsDeduplicated": 1,
        "sealed": False,
        "runCount": 3,
        "enqueuedCount": 1,
        "expectedCount": 3,
    }
    assert not Run.objects.exists()
    second = upload(batch_id, *(item(n, "abc"[n], **options) for n in (1, 0, 2))).json()
    assert (second["sealed"], second["itemsAccepted"], second["itemsDeduplicated"]) == (True, 2, 1)
    assert [runs.retrieve(run).payload for run in Run.objects.order_by("batch_index")] == ["a", "b", "c"]
    assert not BatchItem.objects.exists()


def test_a_thousand_items_are_sealed_in_one_upload():
    batch_id = opened(1000)
    answer = upload(batch_id, *(item(n, n, tags=["b"], metadata={"n": n}) for n in range(1000)))
    assert answer.json()["sealed"] is True
    found = Run.objects.order_by("batch_index").values_list("payload", "metadata", "tag_names")
    assert list(found) == [(str(n), f'{{"n":{n}}}', ["b"]) for n in range(1000)]


@pytest.mark.django_db(transaction=True)
def test_the_same_items_uploaded_at_once_make_one_set_of_runs(in_threads, nobody_executes):
    batch_id = opened(60)
    forward = [item(n, n) for n in range(60)]
    orders = iter([forward, forward[::-1]] * 3)
    answers = in_threads(6, lambda: upload(batch_id, *next(orders)).json())
    assert sum(answer["itemsAccepted"] for answer in answers) == 60
    assert all(answer["sealed"] for answer in answers)
    assert sorted(Run.objects.values_list("batch_index", flat=True)) == list(range(60))


def test_options_of_items_wait_with_them():
    batch_id = opened(2)
    options = {
        "metadata": {"a": 1},
        "delay": "2020-01-01T00:00:00.000Z",
        "idempotencyKey": "hash",
        "idempotencyKeyOptions": {"key": "order 7"},
        "maxDuration": 5,
    }
    upload(batch_id, item(1, "{}", **options))
    upload(batch_id, item(0, '{"json": 5}', payloadType=SUPER_JSON))
    second = runs.retrieve(batch.retrieve(batch_id).run_ids[1])
    assert (second.metadata, second.idempotency_key, second.max_duration) == ({"a": 1}, "order 7", 5)
    assert (second.status, second.trigger_function) == ("QUEUED", "batchTrigger")
    assert echo.trigger(idempotency_key="hash").id == second.id


def test_an_item_whose_key_is_held_makes_no_run():
    held = echo.trigger(idempotency_key="k")
    batch_id = opened(3)
    answer = upload(batch_id, item(0, idempotencyKey="k"), item(1, idempotencyKey="new"), item(2, idempotencyKey="new"))
    assert answer.json()["sealed"] is True
    assert Run.objects.count() == 2
    state = get(f"/api/v2/batches/{batch_id}").json()
    assert held.id not in state["runs"]
    assert len(state["runs"]) == state["runCount"] == 1
    assert upload(batch_id, item(0), item(1), item(2)).json()["sealed"] is True


def test_a_batch_of_held_items_only_is_completed():
    echo.trigger(idempotency_key="k")
    batch_id = opened(1)
    upload(batch_id, item(0, idempotencyKey="k"))
    state = get(f"/api/v2/batches/{batch_id}").json()
    assert (state["status"], state["runs"], state["processing"]["errors"]) == ("COMPLETED", [], [])


# -- refused items ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        (item(30, 1, task="t-none"), "Item 30 of the batch: Task 't-none' does not exist."),
        (item(30, {"rush": 1}, task="t-order"), "Item 30 of the batch: The payload does not fit task 't-order'"),
        (item(30, 1, tags=["x" * 129]), "Item 30 of the batch: tag"),
        (item(30, "{"), "Item 30 of the batch: payload is not JSON"),
        (item(30, "packet_x", payloadType="application/store"), "Item 30 of the batch: There is no uploaded packet"),
        (item(30, "../../x", payloadType="application/store"), "Item 30 of the batch: There is no uploaded packet"),
        (item(30, 5, payloadType="application/store"), "Item 30 of the batch: payload: expected a storage path"),
        (item(30, metadata="["), "Item 30 of the batch: metadata is not JSON"),
        (item(40, 1), "Item 40 of the batch: the batch was made for 40 items"),
        (item(10**30, 1), "the batch was made for 40 items"),
        (item(-1, 1), "Item -1 of the batch: index"),
        ({"index": 30}, "Item 30 of the batch: task: This field is required."),
        ({"task": "t-echo"}, "Item 30 of the batch: index: This field is required."),
        (item(30, options=[]) | {"options": []}, "Item 30 of the batch: options"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_an_item_that_can_make_no_run_refuses_the_whole_upload_and_is_named(bad, error):
    batch_id = opened(40)
    answer = upload(batch_id, *(item(n, n) for n in range(30)), bad)
    assert answer.status_code == 422
    assert error in answer.json()["error"]
    assert "t-fail" not in answer.json()["error"], "the tasks that there are"
    assert not BatchItem.objects.exists()
    assert not Run.objects.exists()
    assert upload(batch_id, *(item(n, n) for n in range(40))).json()["sealed"] is True


@pytest.mark.parametrize(
    "bad", [b"{", b"[]", b"\xff", b'{"index": NaN}', b'{"a": ' + b"[" * 50_000 + b"]" * 50_000 + b"}"], ids=str
)
def test_a_line_that_is_not_a_json_object_is_a_bad_request_and_named(bad):
    batch_id = opened(2)
    answer = upload(batch_id, lines(item(0)) + b"\n\n" + bad)
    assert answer.status_code == 400
    assert answer.json()["error"].startswith("Line 2: ")
    assert not BatchItem.objects.exists()


def test_a_bad_item_of_a_batch_in_one_request_refuses_it_and_is_named():
    answer = post("/api/v2/tasks/batch", {"items": [{"task": "t-echo"}, {"task": "t-order", "payload": {}}]})
    assert answer.status_code == 422
    assert answer.json()["error"].startswith("Item 1 of the batch: The payload does not fit")
    assert not Batch.objects.exists()
    malformed = post("/api/v2/tasks/batch", {"items": [{"task": "t-echo"}, {"payload": 1}]})
    assert (malformed.status_code, malformed.json()["details"][0]["path"]) == (400, ["items", 1, "task"])


def test_items_come_as_lines_of_json():
    batch_id = opened()
    for content_type in ("application/json", "text/plain", "", "multipart/form-data; boundary=x"):
        answer = post(f"/api/v3/batches/{batch_id}/items", lines(item(0)), content_type=content_type)
        assert answer.status_code == 415
        assert answer.json()["error"]
    assert upload(batch_id, lines(item(0)), content_type="application/x-ndjson; charset=utf-8").status_code == 200


def test_items_of_an_unknown_batch_are_refused():
    answer = upload("batch_none", item(0))
    assert (answer.status_code, answer.json()["error"]) == (422, "There is no batch 'batch_none' to add items to.")
    assert upload("batch_none", item(0), auth=token("batchTrigger:tasks:t-echo")).status_code == 422
    assert upload("batch_none", item(0), auth=token("batchTrigger:tasks:t-order")).status_code == 403
    assert upload("batch_none", auth=token("batchTrigger:tasks:t-order")).status_code == 403


def test_a_line_of_an_upload_is_bounded(settings):
    settings.REALTIME_RUNS = {**settings.REALTIME_RUNS, "MAX_PAYLOAD_BYTES": 1000, "MAX_METADATA_BYTES": 1000}
    answer = upload(opened(), item(0, "x" * 80_000))
    assert (answer.status_code, "Request body too large" in answer.json()["error"]) == (413, True)


def test_an_empty_upload_changes_nothing():
    batch_id = opened(2)
    answer = upload(batch_id)
    assert (answer.status_code, answer.json()["sealed"], answer.json()["enqueuedCount"]) == (200, False, 0)


# -- creating ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 400),
        ({"runCount": 0}, 400),
        ({"runCount": -1}, 400),
        ({"runCount": 1001}, 400),
        ({"runCount": 10**400}, 400),
        ({"runCount": "many"}, 400),
        ({"runCount": 1, "taskIdentifiers": "t-echo"}, 400),
        ({"runCount": 1, "taskIdentifiers": [5, None]}, 400),
        ({"runCount": 1, "parentRunId": "run_none"}, 422),
        ({"runCount": 1, "idempotencyKey": "x" * 2049}, 400),
        ({"runCount": 1, "idempotencyKeyOptions": {"key": 5, "scope": "none"}}, 400),
        ({"runCount": 1, "taskIdentifiers": ["x" * 200] * 700}, 413),
    ],
    ids=lambda value: str(value)[:50],
)
def test_a_batch_that_cannot_be_is_refused(body, status):
    answer = post("/api/v3/batches", body)
    assert answer.status_code == status
    assert answer.json()["error"]
    assert not Batch.objects.exists()


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"items": []}, 400),
        ({"items": {}}, 400),
        ({"items": [1]}, 400),
        ({"items": [{"task": "t-echo"}] * 501}, 400),
        ({"items": [{}] * 200_000}, 400),
        ({"items": [{"task": "t-echo", "payload": "x" * 1_000_000}]}, 413),
        ({"items": [{"task": "t-echo"}], "parentRunId": "run_none"}, 422),
    ],
    ids=lambda value: str(value)[:50],
)
def test_a_batch_in_one_request_that_cannot_be_is_refused(body, status):
    assert post("/api/v2/tasks/batch", body).status_code == status
    assert not Batch.objects.exists()


def test_a_known_key_brings_the_old_batch():
    key = {"idempotencyKey": "hash", "idempotencyKeyOptions": {"key": "nightly", "scope": "global"}}
    first = create(1, body=key)
    batch_id = first.json()["id"]
    assert first.json() == {"id": batch_id, "runCount": 1, "isCached": False, "idempotencyKey": "hash"}
    abandoned = create(1, body=key).json()
    assert (abandoned["id"], abandoned["isCached"]) == (batch_id, False), "its items are still to be sent"
    upload(batch_id, item(0))
    again = create(1, body=key)
    assert again.json() == first.json() | {"isCached": True}
    assert again["x-trigger-jwt"]
    assert get(f"/api/v2/batches/{batch_id}").json()["idempotencyKey"] == "nightly"
    Batch.objects.update(created_at=FromNow(-timedelta(days=31)))
    assert create(1, body=key).json()["id"] != batch_id


def test_a_key_does_not_bring_the_batch_of_other_tasks():
    key = {"idempotencyKey": "k"}
    batch_id = opened(1, taskIdentifiers=["t-order"], **key)
    auth = token("batchTrigger:tasks:t-echo")
    other = create(1, body={"taskIdentifiers": ["t-echo"], **key}, auth=auth)
    assert other.json()["id"] != batch_id


@pytest.mark.django_db(transaction=True)
def test_of_many_batches_with_one_key_at_once_one_is_made(in_threads, nobody_executes):
    answers = in_threads(6, lambda: create(1, body={"idempotencyKey": "k"}).json()["id"])
    assert set(answers) == {Batch.objects.get().pk}


def test_runs_of_a_batch_are_children_of_its_parent():
    parent = echo.trigger().id
    upload(opened(1, parentRunId=parent, resumeParentOnCompletion=True), item(0))
    post("/api/v2/tasks/batch", {"items": [{"task": "t-echo"}], "parentRunId": parent})
    assert Run.objects.filter(parent=parent, root=parent, depth=1).count() == 2


def test_a_batch_whose_parent_was_canceled_meanwhile_makes_no_runs():
    parent = echo.trigger().id
    batch_id = opened(1, parentRunId=parent)
    runs.cancel(parent)
    assert upload(batch_id, item(0)).status_code == 422
    assert Run.objects.count() == 1


# -- who may ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scopes", "tasks", "status"),
    [
        (["batchTrigger:batch"], None, 202),
        (["batchTrigger:tasks"], ["t-echo"], 202),
        (["batchTrigger:tasks:t-echo", "batchTrigger:tasks:t-order"], ["t-echo", "t-order"], 202),
        (["batchTrigger:tasks:t-echo"], ["t-echo", "t-order"], 403),
        (["batchTrigger:tasks:t-echo"], [], 403),
        (["batchTrigger:tasks:t-echo"], None, 403),
        (["trigger:tasks:t-echo"], ["t-echo"], 403),
        (["trigger:tasks"], ["t-echo"], 403),
        ([], ["t-echo"], 403),
    ],
)
def test_who_may_begin_a_batch(scopes, tasks, status):
    body = {} if tasks is None else {"taskIdentifiers": tasks}
    assert create(1, body=body, auth=token(*scopes)).status_code == status


def test_who_may_trigger_a_batch_in_one_request():
    def status(*scopes):
        body = {"items": [{"task": "t-echo"}, {"task": "t-nothing"}]}
        return post("/api/v2/tasks/batch", body, auth=token(*scopes)).status_code

    assert status("batchTrigger:tasks") == 202
    assert status("batchTrigger:tasks:t-echo", "batchTrigger:tasks:t-nothing") == 202
    assert status("batchTrigger:tasks:t-echo") == 403
    assert status("trigger:tasks") == status("batchTrigger:batch") == 403


def test_who_may_send_items():
    batch_id = opened(2)

    both = (item(0), item(1, task="t-nothing"))

    def status(*scopes, items=both):
        return upload(batch_id, *items, auth=token(*scopes)).status_code

    assert status("batchTrigger:tasks:t-echo") == 403
    assert status("write:batch:batch_other") == 403
    assert status(f"read:batch:{batch_id}", "trigger:tasks", "batchTrigger:batch") == 403
    assert status("batchTrigger:tasks", items=()) == 403
    assert not BatchItem.objects.exists()
    assert status(f"write:batch:{batch_id}", items=()) == 200
    assert status("batchTrigger:tasks:t-echo", "batchTrigger:tasks:t-nothing") == 200
    assert status("batchTrigger:tasks:t-echo") == 403, "also of a batch that is made"


def test_a_token_for_some_tasks_cannot_make_a_batch_for_them_and_fill_it_with_others():
    auth = token("batchTrigger:tasks:t-echo")
    made = create(1, body={"taskIdentifiers": ["t-echo"]}, auth=auth, x_trigger_client="browser")
    answer = upload(made.json()["id"], item(0, task="t-nothing"), auth=made["x-trigger-jwt"])
    assert answer.status_code == 422
    assert "not among those that the batch was made for" in answer.json()["error"]


def test_who_may_read_a_batch():
    batch_id = echo.batch_trigger([1]).id

    def status(path, *scopes):
        return get(path, auth=token(*scopes)).status_code

    for path in (f"/api/v2/batches/{batch_id}", f"/api/v1/batches/{batch_id}"):
        assert status(path, f"read:batch:{batch_id}") == status(path, "read:runs") == 200
        for scope in ("read:batch:batch_other", f"write:batch:{batch_id}", "read:runs:run_x", "read:tasks"):
            assert status(path, scope) == 403
    assert status("/api/v2/batches/batch_none", f"read:batch:{batch_id}") == 404
    assert get("/api/v2/batches/batch_none").json() == {"error": "Not found"}
    assert status(f"/api/v1/batches/{batch_id}/results", "read:runs", f"read:batch:{batch_id}", "admin") == 401
    assert get("/api/v1/batches/batch_none/results").status_code == 404


class SomeRuns(Policy):
    def can(self, user, action, run):
        return action == "read"

    def visible(self, user, runs):
        return runs.tagged(["mine"])


def test_a_user_of_the_site_sees_those_runs_of_a_batch_that_the_policy_shows(client, django_user_model, settings):
    settings.REALTIME_RUNS = {**settings.REALTIME_RUNS, "POLICY": f"{__name__}.SomeRuns"}
    made = batch.trigger([{"task": echo, "options": {"tags": ["mine"]}}, {"task": echo}])
    client.force_login(django_user_model.objects.create_user("ada"))
    assert client.get(f"/api/v2/batches/{made.id}").json()["runs"] == [made.run_ids[0]]
    assert client.post("/api/v2/tasks/batch", {"items": [{"task": "t-echo"}]}, "application/json").status_code == 403


# -- results and housekeeping -----------------------------------------------------------------------------------------


def test_results_tell_of_finished_runs_only_and_why_they_failed():
    made = batch.trigger(
        [
            {"task": "t-fail", "payload": "why", "options": {"max_attempts": 1}},
            {"task": "t-echo", "options": {"delay": 60}},
            {"task": "t-nothing"},
            {"task": "t-echo", "options": {"delay": 60}},
        ]
    )
    runs.cancel(made.run_ids[3])
    execute_queued_runs()
    failed, nothing, canceled = get(f"/api/v1/batches/{made.id}/results").json()["items"]
    assert {name: failed[name] for name in ("ok", "id", "taskIdentifier")} == {
        "ok": False,
        "id": made.run_ids[0],
        "taskIdentifier": "t-fail",
    }
    assert failed["error"].keys() == {"type", "name", "message", "stackTrace"}
    assert (failed["error"]["type"], failed["error"]["message"]) == ("BUILT_IN_ERROR", "why")
    assert nothing["ok"] is True
    assert canceled["error"] == {"type": "INTERNAL_ERROR", "code": "TASK_RUN_CANCELLED"}


def test_batches_that_nobody_completes_are_removed_after_a_day():
    old, young = opened(2), opened(2)
    upload(old, item(0))
    upload(young, item(0))
    Batch.objects.filter(pk=old).update(created_at=FromNow(-timedelta(hours=25)))
    list(prune(timedelta(0)))
    assert list(Batch.objects.values_list("pk", flat=True)) == [young]
    assert BatchItem.objects.count() == 1


def test_a_batch_takes_no_more_memory_than_a_page_of_its_items(monkeypatch):
    """Items are stored and made into runs a page at a time."""
    monkeypatch.setattr(open_batches, "_PAGE", 2)
    batch_id = opened(5)
    assert upload(batch_id, *(item(n, n) for n in range(5))).json()["sealed"] is True
    assert [run.payload for run in Run.objects.order_by("batch_index")] == list("01234")


def test_only_the_methods_that_there_are():
    assert call("GET", "/api/v3/batches").status_code == 405
    assert call("DELETE", f"/api/v2/batches/{opened(1)}").status_code == 405
