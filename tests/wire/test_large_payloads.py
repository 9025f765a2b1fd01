import http.client
import json
from datetime import timedelta
from urllib.parse import urlsplit

import pytest
import time_machine
from django.core.files.base import ContentFile
from django.core.files.storage import storages
from django.utils import timezone

from realtime_runs import runs
from realtime_runs.access.keys import secret_keys
from realtime_runs.engine.retention import prune
from realtime_runs.models import Run
from realtime_runs.testing import execute_queued_runs
from tests.conftest import SERVERS
from tests.tasks import echo
from tests.wire.api import call, get, post, token

pytestmark = pytest.mark.django_db

ECHO = "/api/v1/tasks/t-echo/trigger"
NAME = "/api/v2/packets/trigger%2Fpacket_b1kimhtuxuhwz9iao8ihv%2Fpayload.txt"
SUPER_JSON = "application/super+json"
FOLDER = "realtime-runs-packets"
IN_MEMORY = {"BACKEND": "django.core.files.storage.InMemoryStorage"}


@pytest.fixture(autouse=True)
def storage(settings):
    settings.STORAGES = {**settings.STORAGES, "realtime_runs": IN_MEMORY}
    return storages["realtime_runs"]


def stored() -> list[str]:
    try:
        return storages["realtime_runs"].listdir(FOLDER)[1]
    except FileNotFoundError:
        return []


def path_of(url: str) -> str:
    parts = urlsplit(url)
    assert f"{parts.scheme}://{parts.netloc}" == "http://testserver"
    return parts.path


def put(url: str, data: bytes, content_type: str = "text/plain"):
    return call("PUT", path_of(url), data, auth="", content_type=content_type)


def uploaded(data: bytes, content_type: str = "text/plain") -> str:
    """The storage path of a packet that was uploaded."""
    answer = call("PUT", NAME).json()
    assert put(answer["presignedUrl"], data, content_type).status_code == 200
    return answer["storagePath"]


def trigger(path, **options):
    return post(ECHO, {"payload": path, "options": {"payloadType": "application/store", **options}})


def test_the_example_of_the_contract(django_capture_on_commit_callbacks):
    text = "x" * 140_000
    answer = call("PUT", NAME)
    assert (answer.status_code, answer.json().keys()) == (200, {"presignedUrl", "storagePath"})
    assert put(answer.json()["presignedUrl"], text.encode()).status_code == 200
    with django_capture_on_commit_callbacks(execute=True):
        made = trigger(answer.json()["storagePath"], payloadSize=140_000)
    assert (made.status_code, made.json()["isCached"]) == (200, False)
    run = Run.objects.get(pk=made.json()["id"])
    assert (run.payload, run.payload_type) == (text, "text/plain")
    assert stored() == [], "what was used is removed"


def test_a_packet_keeps_its_own_type():
    data = b'{"json":{"a":1},"meta":{"values":{}}}'
    trigger(uploaded(data, SUPER_JSON))
    run = Run.objects.get()
    assert (run.payload, run.payload_type) == (data.decode(), SUPER_JSON)
    assert runs.retrieve(run).payload == {"a": 1}


def test_two_uploads_to_one_url_are_the_last_one():
    url = (answer := call("PUT", NAME).json())["presignedUrl"]
    put(url, b"one")
    put(url, b"two", "text/plain;charset=UTF-8")
    assert stored() == [answer["storagePath"]]
    trigger(answer["storagePath"])
    assert runs.retrieve(Run.objects.get()).payload == "two"


def test_items_of_batches_may_name_uploaded_packets(django_capture_on_commit_callbacks):
    item = {"index": 0, "task": "t-echo", "options": {"payloadType": "application/store"}}
    line = json.dumps(item | {"payload": uploaded(b"one")}).encode()
    batch_id = post("/api/v3/batches", {"runCount": 1}).json()["id"]
    for _ in range(2):  # the client may send all once more, when the packet is gone
        with django_capture_on_commit_callbacks(execute=True):
            sent = post(f"/api/v3/batches/{batch_id}/items", line, content_type="application/x-ndjson")
        assert sent.json()["sealed"] is True
    whole = {"items": [{k: v for k, v in item.items() if k != "index"} | {"payload": uploaded(b"two")}]}
    assert post("/api/v2/tasks/batch", whole).status_code == 202
    assert sorted(Run.objects.values_list("payload", flat=True)) == ["one", "two"]


def test_a_repeated_trigger_does_not_need_the_packet_again(django_capture_on_commit_callbacks):
    body = {"payload": uploaded(b"one"), "options": {"payloadType": "application/store"}}
    with django_capture_on_commit_callbacks(execute=True):
        first = post(ECHO, body, x_trigger_request_idempotency_key="k")
    assert stored() == []
    assert post(ECHO, body, x_trigger_request_idempotency_key="k").json() == first.json()


def test_a_packet_whose_trigger_was_refused_is_still_there(django_capture_on_commit_callbacks):
    path = uploaded(b"one")
    with django_capture_on_commit_callbacks(execute=True):
        assert trigger(path, tags=["x" * 129]).status_code == 422
    assert trigger(path).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "",
        "packet_x",
        "packet_" + "0" * 32,
        "../../etc/passwd",
        "/etc/passwd",
        "packet_" + "0" * 32 + "/../secret",
        "packet_" + "0" * 32 + "\n",
        "secret",
        "x" * 5000,
        "é",
    ],
    ids=lambda value: value[:40],
)
def test_a_path_that_we_did_not_give_is_refused(path, storage):
    storage.save("secret", ContentFile(b"text/plain\nsecret"))
    storage.save(f"{FOLDER}/secret", ContentFile(b"text/plain\nsecret"))
    answer = trigger(path)
    assert (answer.status_code, answer.json()["error"]) == (
        400,
        "There is no uploaded packet with this storage path.",
    )
    assert not Run.objects.exists()


@pytest.mark.parametrize(
    ("data", "content_type", "status"),
    [
        (b"{", SUPER_JSON, 400),
        (b"NaN", "application/json", 400),
        (b"\xff", "text/plain", 400),
        (b"a\0b", "text/plain", 400),
        (b" ", "application/json", 400),
    ],
)
def test_an_uploaded_packet_is_checked_like_any_payload(data, content_type, status):
    assert trigger(uploaded(data, content_type)).status_code == status
    assert not Run.objects.exists()


def test_an_upload_is_bounded_and_typed(settings):
    settings.REALTIME_RUNS = {**settings.REALTIME_RUNS, "MAX_PAYLOAD_BYTES": 1000}
    url = call("PUT", NAME).json()["presignedUrl"]
    assert put(url, b"x" * 1001).status_code == 413
    assert put(url, b"x", "text/html").status_code == 415
    assert put(url, b"x", "application/store").status_code == 415
    assert stored() == []
    assert put(url, b"x" * 1000).status_code == 200


def test_a_presigned_url_is_good_for_what_was_signed_and_for_an_hour():
    url = call("PUT", NAME).json()["presignedUrl"]
    signed = url.rpartition("/")[2]
    name, at, signature = signed.split(":")
    forged = [
        f"packet_{'0' * 32}:{at}:{signature}",
        f"{name}:{at}:{signature[:-1]}",
        f"{name}:{at}",
        name,
        "::",
        f"{name}:zzzzzzzzzzzzzzzz:{signature}",
    ]
    for text in forged:
        assert put(url.replace(signed, text), b"x").status_code == 403
    for folder in ("packets-download", "runs-packets-download"):
        assert get(f"/api/v1/{folder}/{signed}", auth="").status_code == 403
    for odd in ("%00", "%C3%A9", "%ED%A0%80", "a/b", "..%2F.."):
        assert put(url.replace(signed, odd), b"x").status_code in (403, 404)
    with time_machine.travel(timezone.now() + timedelta(minutes=61)):
        assert put(url, b"x").status_code == 403
    assert stored() == []
    assert put(url, b"x").status_code == 200


def test_only_a_key_gets_urls_to_upload_to_and_of_what_was_uploaded():
    path = uploaded(b"one")
    for auth in (token("admin"), token("trigger:tasks"), "", "wrong"):
        assert call("PUT", NAME, auth=auth).status_code == 401
        assert get(f"/api/v1/packets/{path}", auth=auth).status_code == 401


def test_an_uploaded_packet_can_be_fetched_with_its_type():
    path = uploaded(b'{"json":1}', SUPER_JSON)
    answer = get(f"/api/v1/packets/{path}")
    assert answer.json().keys() == {"presignedUrl"}
    fetched = get(path_of(answer.json()["presignedUrl"]), auth="")
    assert (fetched.content, fetched["content-type"]) == (b'{"json":1}', SUPER_JSON)
    for name in ("packet_x", "packet_" + "0" * 32, "..%2F..%2Fetc%2Fpasswd", "a%2Fb", "%00"):
        answer = get(f"/api/v1/packets/{name}")
        assert (answer.status_code, answer.json()) == (404, {"error": "Not found"})


@pytest.mark.parametrize(
    ("payload", "type_", "content"),
    [("héllo", "text/plain", "héllo"), ('{"json":[1]}', SUPER_JSON, '{"json":[1]}'), (5, "application/json", "5")],
)
def test_payload_and_output_of_a_run_can_be_fetched_with_exactly_their_type(payload, type_, content):
    run_id = post(ECHO, {"payload": payload, "options": {"payloadType": type_}}).json()["id"]
    auth = token(f"read:runs:{run_id}")
    assert get(f"/api/v1/runs/{run_id}/packets/output", auth=auth).status_code == 404
    url = get(f"/api/v1/runs/{run_id}/packets/payload", auth=auth).json()["presignedUrl"]
    fetched = get(path_of(url), auth="")
    assert (fetched.status_code, fetched.content.decode(), fetched["content-type"]) == (200, content, type_)
    assert fetched["access-control-allow-origin"] == "*"
    assert (fetched["x-content-type-options"], fetched["cache-control"]) == ("nosniff", "no-store")
    execute_queued_runs()
    url = get(f"/api/v1/runs/{run_id}/packets/output", auth=auth).json()["presignedUrl"]
    assert get(path_of(url), auth="")["content-type"] == "application/json"
    Run.objects.all().delete()
    assert get(path_of(url), auth="").status_code == 404


def test_who_may_fetch_the_packets_of_a_run():
    run_id = echo.trigger("x", tags=["user:1"]).id
    path = f"/api/v1/runs/{run_id}/packets/payload"
    for scope in (f"read:runs:{run_id}", "read:tasks:t-echo", "read:tags:user:1", "read:runs"):
        assert get(path, auth=token(scope)).status_code == 200
    for scope in ("read:runs:run_other", "read:tags:user:2", "read:tasks:t-order", f"write:runs:{run_id}"):
        assert get(path, auth=token(scope)).status_code == 403
    assert get(path, auth="").status_code == 401
    assert get("/api/v1/runs/run_none/packets/payload", auth=token("read:runs")).status_code == 404
    assert get(f"/api/v1/runs/{run_id}/packets/error").status_code == 404


def test_what_nobody_used_is_removed_after_a_day():
    old = uploaded(b"old")
    with time_machine.travel(timezone.now() + timedelta(hours=23)):
        young = uploaded(b"young")
        list(prune(timedelta(days=30)))
        assert sorted(stored()) == sorted([old, young])
    with time_machine.travel(timezone.now() + timedelta(hours=25)):
        list(prune(timedelta(days=30)))
        assert stored() == [young]


def test_without_a_storage_of_its_own_it_is_the_default_one(settings):
    settings.STORAGES = {"default": IN_MEMORY, "staticfiles": settings.STORAGES["staticfiles"]}
    list(prune(timedelta(days=30)))  # also before anything was uploaded
    path = uploaded(b"one")
    assert storages["default"].listdir(FOLDER)[1] == [path]


@pytest.mark.parametrize("host", ["evil.example.com", "a b", "x" * 300])
@pytest.mark.parametrize("middleware", [True, False])
def test_a_host_that_is_not_ours_is_no_part_of_an_url(host, middleware, settings):
    if not middleware:  # Django's would refuse it before us
        settings.MIDDLEWARE = [path for path in settings.MIDDLEWARE if "CommonMiddleware" not in path]
    answer = call("PUT", NAME, host=host)
    assert answer.status_code == 400
    assert host not in answer.content.decode()


# -- a real server ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SERVERS)
@pytest.mark.django_db(transaction=True)
def test_large_payloads_and_chunked_items_of_a_real_server(kind, asgi_server, eventually, tmp_path):
    env = {"MEDIA_ROOT": str(tmp_path)}
    server = asgi_server(kind, env=env)

    def ask(method, path, body=None, **headers):
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
        try:
            connection.request(method, path, body, headers)  # a generator is sent in chunks, without a length
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    key = {"Authorization": f"Bearer {secret_keys()[0]}"}
    status, content = ask("PUT", NAME, **key)
    assert status == 200
    place = json.loads(content)
    parts = urlsplit(place["presignedUrl"])
    assert (parts.hostname, parts.port) == ("127.0.0.1", server.port)
    text = b"x" * 3_000_000
    assert ask("PUT", parts.path, text, **{"Content-Type": "text/plain"}) == (200, b"")

    status, content = ask("POST", "/api/v3/batches", b'{"runCount": 2}', **key)
    batch_id = json.loads(content)["id"]
    lines = [
        {
            "index": 0,
            "task": "t-echo",
            "payload": place["storagePath"],
            "options": {"payloadType": "application/store"},
        },
        {"index": 1, "task": "t-echo", "payload": '"' * 3_000_000, "options": {"payloadType": "text/plain"}},
    ]
    data = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    chunks = (data[start : start + 50_000] for start in range(0, len(data), 50_000))
    status, content = ask(
        "POST", f"/api/v3/batches/{batch_id}/items", chunks, **key, **{"Content-Type": "application/x-ndjson"}
    )
    assert (status, json.loads(content)["sealed"]) == (200, True)

    def finished():
        return json.loads(ask("GET", f"/api/v2/batches/{batch_id}", **key)[1])["status"] == "COMPLETED"

    eventually(finished)
    assert list(Run.objects.order_by("batch_index").values_list("payload", flat=True)) == [
        text.decode(),
        '"' * 3_000_000,
    ]
