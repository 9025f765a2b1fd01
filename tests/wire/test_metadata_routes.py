"""Metadata and tags over HTTP: wire-protocol 6."""

import pytest

from realtime_runs import runs
from realtime_runs.models import FromNow, Run
from tests import tasks as t
from tests.wire.api import call, get, post

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def run_id():
    return t.echo.trigger(1, delay="1h").id


def put(run_id, body, **how):
    return call("PUT", f"/api/v1/runs/{run_id}/metadata", body, **how)


def test_operations_are_applied_and_the_whole_object_comes_back(run_id):
    body = {
        "operations": [
            {"type": "set", "key": "a", "value": {"b": 1}},
            {"type": "increment", "key": "n", "value": 2},
            {"type": "append", "key": "l", "value": [1]},
            {"type": "set", "key": "$.a.c", "value": None},
            {"type": "delete", "key": "nothing"},
            {"type": "remove", "key": "l", "value": 5},
        ],
        "rootOperations": [{"type": "append", "key": "log", "value": "x"}],
        "metadata": {"ignored": True},
    }
    answer = put(run_id, body)
    expected = {"a": {"b": 1, "c": None}, "n": 2, "l": [[1]], "log": ["x"]}
    assert (answer.status_code, answer.json()) == (200, {"metadata": expected})
    assert get(f"/api/v1/runs/{run_id}/metadata").json() == {"metadata": expected}
    assert runs.retrieve(run_id).version == 2


def test_without_operations_the_metadata_replaces_everything(run_id):
    put(run_id, {"metadata": {"a": 1}})
    assert put(run_id, {"metadata": {"b": 2}}).json() == {"metadata": {"b": 2}}
    assert put(run_id, {}).json() == {"metadata": {"b": 2}}
    assert put(run_id, None).json() == {"metadata": {"b": 2}}


def test_operations_for_those_above_go_to_them():
    root, parent, child = (t.echo.trigger(n, delay="1h").id for n in range(3))
    Run.objects.filter(pk=parent).update(parent=root, root=root)
    Run.objects.filter(pk=child).update(parent=parent, root=root)
    one = [{"type": "increment", "key": "n", "value": 1}]
    assert put(child, {"parentOperations": one * 2, "rootOperations": one * 3}).json() == {"metadata": {}}
    assert runs.retrieve(parent).metadata == {"n": 2}
    assert runs.retrieve(root).metadata == {"n": 3}
    assert put(root, {"parentOperations": one, "operations": one}).json() == {"metadata": {"n": 5}}


@pytest.mark.parametrize(
    "body",
    [
        {"operations": [{"type": "explode", "key": "a"}]},
        {"operations": [{"key": "a"}]},
        {"operations": [{"type": "increment", "key": "a", "value": "1"}]},
        {"operations": [{"type": "set", "key": "__proto__", "value": 1}]},
        {"operations": [{"type": "set", "key": "$.constructor.x", "value": 1}]},
        {"operations": [{"type": "set", "key": "$.", "value": 1}]},
        {"operations": [{"type": "set", "key": 5, "value": 1}]} if False else {"operations": [5]},
        {"operations": [{"type": "update", "value": [1]}]},
        {"operations": "x"},
        {"metadata": [1]},
        {"metadata": "x"},
        [1],
        b'{"metadata": {"a": NaN}}',
        b'{"metadata": {"a": "\\ud800"}}',
        b'{"metadata": {"a": "\\u0000"}}',
        b'{"metadata": ' + b'{"a":' * 500 + b"1" + b"}" * 500 + b"}",
        b'{"metadata": {"a": ' + b"9" * 5000 + b"}}",
        b"\xff",
    ],
    ids=str,
)
def test_what_is_no_operation_is_refused_and_nothing_changes(run_id, body):
    answer = put(run_id, body)
    assert answer.status_code == 400
    assert isinstance(answer.json()["error"], str)
    assert (runs.retrieve(run_id).metadata, runs.retrieve(run_id).version) == ({}, 1)


def test_all_operations_or_none(run_id):
    one = {"type": "set", "key": "a", "value": 1}
    assert (
        put(run_id, {"operations": [one], "rootOperations": [{**one, "key": "b", "value": "x" * 300_000}]}).status_code
        == 413
    )
    assert put(run_id, {"operations": [one, {"type": "set", "key": "__proto__"}]}).status_code == 400
    assert put(run_id, b'{"metadata": {"a": "' + b"x" * 2**21 + b'"}}').status_code == 413
    assert runs.retrieve(run_id).metadata == {}


def test_a_run_that_ended_long_ago_is_left_alone(run_id):
    runs.cancel(run_id)
    assert put(run_id, {"metadata": {"a": 1}}).status_code == 200
    Run.objects.update(finished_at=FromNow(-3700))
    answer = put(run_id, {"metadata": {"a": 2}})
    assert answer.status_code == 422
    assert "more than an hour ago" in answer.json()["error"]
    assert runs.retrieve(run_id).metadata == {"a": 1}


def test_concurrent_writers_lose_nothing(run_id, in_threads):
    body = {"operations": [{"type": "increment", "key": "n", "value": 1}]}

    def add():
        return [put(run_id, body).status_code for _ in range(10)]

    assert in_threads(6, add) == [[200] * 10] * 6
    assert runs.retrieve(run_id).metadata == {"n": 60}


@pytest.mark.parametrize("path", ["metadata", "tags"])
def test_an_unknown_run_is_not_found(path):
    method = "PUT" if path == "metadata" else "POST"
    answer = call(method, f"/api/v1/runs/run_nothing/{path}", {"tags": "a"} if path == "tags" else {})
    assert (answer.status_code, answer.json()) == (404, {"error": "Not found"})


def test_tags_are_added_once(run_id):
    url = f"/api/v1/runs/{run_id}/tags"
    assert post(url, {"tags": ["a", "b", "a", " "]}).json() == {"message": "2 tags added"}
    assert post(url, {"tags": "c"}).json() == {"message": "1 tag added"}
    assert post(url, {"tags": ["c"]}).json() == {"message": "0 tags added"}
    assert runs.retrieve(run_id).tags == ("a", "b", "c")


def test_too_many_tags_are_refused_and_none_is_added(run_id):
    url = f"/api/v1/runs/{run_id}/tags"
    assert post(url, {"tags": [str(n) for n in range(11)]}).status_code == 422
    assert post(url, {"tags": ["x" * 129]}).status_code == 422
    for tags in (5, [5], None, {"a": 1}):
        assert post(url, {"tags": tags}).status_code == 400
    assert post(url, b'{"tags": ["\\u0000"]}').status_code == 400
    assert runs.retrieve(run_id).tags == ()
