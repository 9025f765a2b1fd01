"""Wait tokens and idempotency keys over HTTP: wire-protocol 10 and 11."""

import json

import pytest

from realtime_runs import runs, wait
from realtime_runs.access import tokens
from realtime_runs.models import FromNow, WaitToken
from tests import tasks as t
from tests.wire.api import call, get, post, token

pytestmark = pytest.mark.django_db(transaction=True)
URL = "/api/v1/waitpoints/tokens"


def new(**body):
    answer = post(URL, body)
    assert answer.status_code == 200
    return answer.json()


def test_a_token_is_made_with_an_address_and_a_token_of_its_own():
    answer = post(URL, {"timeout": "10m", "tags": ["doc:1"], "idempotencyKey": "approve-1"})
    made = answer.json()
    assert answer.status_code == 200
    assert made.keys() == {"id", "isCached", "url"}
    assert made["isCached"] is False
    assert made["url"].startswith(f"http://testserver{URL}/{made['id']}/callback/")
    claims = json.loads(answer["x-trigger-jwt-claims"])
    assert claims["scopes"] == [f"write:waitpoints:{made['id']}"]
    signed = tokens.verify(answer["x-trigger-jwt"])
    assert list(signed.scopes.texts) == claims["scopes"]
    assert 86_000 < signed.seconds_left <= 86_400
    again = new(timeout="5m", idempotencyKey="approve-1")
    assert (again["id"], again["isCached"]) == (made["id"], True)


def test_a_token_can_be_made_of_nothing():
    assert post(URL).status_code == 200


@pytest.mark.parametrize(
    "body", [{"timeout": "soon"}, {"timeout": -1}, {"tags": 5}, {"idempotencyKey": "x" * 3000}, [], {"idempotencyKeyTTL": "x"}, {"tags": ["x" * 10_240]}], ids=lambda body: str(body)[:40]
)  # fmt: skip
def test_a_token_that_means_nothing_is_not_made(body):
    assert post(URL, body).status_code in (400, 413)
    assert WaitToken.objects.count() == 0


def test_a_completed_token_has_its_output():
    made = new(tags=["a"], idempotencyKey="k")
    before = get(f"{URL}/{made['id']}").json()
    assert before.keys() == {
        "id",
        "url",
        "status",
        "tags",
        "createdAt",
        "timeoutAt",
        "idempotencyKey",
        "idempotencyKeyExpiresAt",
    }
    assert (before["status"], before["tags"]) == ("WAITING", ["a"])
    answer = post(f"{URL}/{made['id']}/complete", {"data": {"status": "ok"}})
    assert (answer.status_code, answer.json()) == (200, {"success": True})
    after = get(f"{URL}/{made['id']}").json()
    assert (after["status"], json.loads(after["output"]), after["outputType"]) == (
        "COMPLETED",
        {"status": "ok"},
        "application/json",
    )
    assert after["completedAt"].endswith("Z")
    assert post(f"{URL}/{made['id']}/complete", {"data": 2}).json() == {"success": True}
    assert wait.retrieve_token(made["id"]).output == {"status": "ok"}


def test_a_token_that_timed_out_has_an_error_as_its_output():
    made = new()
    WaitToken.objects.update(timeout_at=FromNow(-1))
    after = get(f"{URL}/{made['id']}").json()
    assert (after["status"], after["outputIsError"], after["outputType"]) == ("TIMED_OUT", True, "application/json")
    assert json.loads(after["output"])["code"] == "TRIGGER_WAITPOINT_TIMEOUT"
    assert post(f"{URL}/{made['id']}/complete", {"data": 1}).json() == {"success": True}
    assert wait.retrieve_token(made["id"]).is_timed_out


def test_tokens_are_listed_newest_first_by_status_tags_and_key():
    first, second, third = new(tags=["doc:1"]), new(tags=["doc:2"], idempotencyKey="k"), new()
    wait.complete_token(third["id"])

    def found(query=""):
        answer = get(f"{URL}?{query}")
        assert answer.status_code == 200
        return [one["id"] for one in answer.json()["data"]]

    assert found() == [third["id"], second["id"], first["id"]]
    assert found("filter[status]=WAITING&filter[tags]=doc:1,doc:2&page[size]=5") == [second["id"], first["id"]]
    assert found("filter[idempotencyKey]=k") == [second["id"]]
    page = get(f"{URL}?page[size]=1").json()
    assert page["pagination"] == {"next": third["id"]}
    assert "output" not in page["data"][0]
    for query in ("filter[status]=NOTHING", "page[size]=0", "page[after]=x", "filter[tags]=%00"):
        assert get(f"{URL}?{query}").status_code == 400, query


def test_only_a_token_for_it_completes_it():
    made = new()
    assert post(f"{URL}/{made['id']}/complete", {}, auth=token("write:waitpoints:waitpoint_x")).status_code == 403
    assert post(f"{URL}/{made['id']}/complete", {}, auth="").status_code == 401
    assert wait.retrieve_token(made["id"]).is_waiting
    answer = post(f"{URL}/{made['id']}/complete", {"data": None}, auth=token(f"write:waitpoints:{made['id']}"))
    assert answer.status_code == 200
    assert answer["access-control-allow-origin"] == "*"
    for method, path in (("GET", URL), ("POST", URL), ("GET", f"{URL}/{made['id']}")):
        assert call(method, path, auth=token("admin")).status_code == 401


@pytest.mark.parametrize(
    ("body", "expected"), [(b'{"x":1}', {"x": 1}), (b"no json", {}), (b"", {}), (b"\xff", {}), (b'"\\ud800"', {})]
)
def test_who_has_the_address_completes_it_with_whatever_it_sends(body, expected):
    made = new()
    path = made["url"].removeprefix("http://testserver")
    assert post(path[:-1] + ("0" if path[-1] != "0" else "1"), b"{}", auth="").status_code == 401
    answer = post(path, body, auth="", content_type="text/plain")
    assert (answer.status_code, answer.json()) == (200, {"success": True})
    assert wait.retrieve_token(made["id"]).output == expected


def test_the_address_of_one_token_is_not_that_of_another():
    first, second = new(), new()
    path = first["url"].removeprefix("http://testserver").replace(first["id"], second["id"])
    assert post(path, b"{}", auth="").status_code == 401
    assert wait.retrieve_token(second["id"]).is_waiting


def test_the_address_holds_after_the_key_was_changed(settings):
    settings.REALTIME_RUNS = {**settings.REALTIME_RUNS, "SECRET_KEYS": ["the-first-secret-key-of-this-server"]}
    path = new()["url"].removeprefix("http://testserver")
    settings.REALTIME_RUNS = {
        **settings.REALTIME_RUNS,
        "SECRET_KEYS": ["the-second-secret-key-of-this-server", "the-first-secret-key-of-this-server"],
    }
    assert post(path, b"{}", auth="").status_code == 200


def test_what_is_no_token_is_not_found():
    for method, path in (("GET", "waitpoint_x"), ("POST", "waitpoint_x/complete"), ("GET", "%00")):
        assert call(method, f"{URL}/{path}").status_code == 404


def test_a_key_that_is_reset_makes_a_new_run():
    first = t.echo.trigger(1, idempotency_key="a/b").id
    url = "/api/v1/idempotencyKeys/a%2Fb/reset"
    for wrong in ({"taskIdentifier": "other"}, {"taskIdentifier": "x" * 300}, {}):
        assert post(url, wrong).status_code in (400, 404)
    assert t.echo.trigger(1, idempotency_key="a/b").id == first
    answer = post(url, {"taskIdentifier": t.echo.id})
    assert (answer.status_code, answer.json()) == (200, {"id": "a/b"})
    assert t.echo.trigger(1, idempotency_key="a/b").id != first
    assert post(url, {"taskIdentifier": t.echo.id}).status_code == 200
    assert post(url, {"taskIdentifier": t.echo.id}).status_code == 404
    assert post(url, {"taskIdentifier": t.echo.id}, auth=token("write:runs:run_x")).status_code == 403
    assert post(url, {"taskIdentifier": t.echo.id}, auth=token("write:runs")).status_code == 404
    assert runs.retrieve(first).idempotency_key == "a/b"
