"""Logged-in users of the site: sessions, CSRF tokens, foreign origins; and credentials where they do not belong."""

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import User
from django.test import Client

from realtime_runs.access.keys import secret_keys
from realtime_runs.access.tokens import verify
from realtime_runs.models import SpentToken
from tests import tasks as t
from tests.wire.api import token
from tests.wire.exchange import Exchange, ask

pytestmark = pytest.mark.django_db(transaction=True)

TOKENS = "/api/v1/auth/public-tokens"
WISH = {"scopes": ["read:runs:run_1"], "expirationTime": "1h"}
REFUSED = {"error": "Unauthorized", "code": "unauthorized", "param": "access_token", "type": "authorization"}
TICKETS = "/realtime/v1/tickets"
CSRF = "a" * 32


def logged_in(*, is_staff=True, is_active=True):
    """A browser of a user: Django's client with a session, which checks CSRF tokens as a browser's requests are."""
    user = User.objects.create(username="ada", is_staff=is_staff)
    client = Client(enforce_csrf_checks=True)
    client.force_login(user)
    client.cookies["csrftoken"] = CSRF
    User.objects.filter(pk=user.pk).update(is_active=is_active)
    return client


def post(client, path=TOKENS, data=None, *, content_type="application/json", **headers):
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.post(path, WISH if data is None else data, content_type=content_type, headers=given)


def cookies(client):
    return "; ".join(f"{morsel.key}={morsel.value}" for morsel in client.cookies.values())


async def post_realtime(client, path=TICKETS, **headers):
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return await ask("POST", path, {"cookie": cookies(client), **given})


# -- api/


def test_staff_make_a_token_as_the_protocol_shows():
    answer = post(logged_in(), x_csrftoken=CSRF)
    assert answer.status_code == 200
    assert verify(answer.json()["token"]).scopes.texts == ("read:runs:run_1",)


@pytest.mark.parametrize("who", [{"is_staff": False}, {"is_staff": True, "is_active": False}], ids=str)
def test_others_may_not(who):
    answer = post(logged_in(**who), x_csrftoken=CSRF)
    assert (answer.status_code, answer.json().get("code")) in [(403, "unauthorized"), (401, None)]


@pytest.mark.parametrize("headers", [{}, {"x_csrftoken": ""}, {"x_csrftoken": "b" * 32}, {"x_csrftoken": "a"}, {"x_csrftoken": "é"}], ids=str)  # fmt: skip
def test_a_session_without_its_csrf_token_changes_nothing(headers):
    answer = post(logged_in(), **headers)
    assert answer.status_code == 403
    assert "CSRF" in answer.json()["error"]


def test_reading_needs_no_csrf_token():
    run = t.echo.trigger(1)
    answer = logged_in().get(f"/api/v3/runs/{run.id}")
    assert (answer.status_code, answer.json()["id"]) == (200, run.id)


FOREIGN = [
    "https://evil.example",
    "null",
    "http://testserver.evil.example",
    "http://testserver:81",
    "https://testserver",
]


@pytest.mark.parametrize("origin", FOREIGN)
def test_a_page_of_another_origin_does_nothing_with_the_cookie_of_a_user(origin):
    # It could not know the CSRF token; even one that has leaked helps nobody.
    answer = post(logged_in(), x_csrftoken=CSRF, origin=origin)
    assert answer.status_code == 403


@pytest.mark.parametrize("origin", FOREIGN)
def test_a_page_of_another_origin_reads_nothing_with_the_cookie_of_a_user(origin):
    run = t.echo.trigger(1)
    answer = logged_in().get(f"/api/v3/runs/{run.id}", headers={"origin": origin})
    assert answer.status_code == 403
    assert not answer.has_header("Access-Control-Allow-Credentials")


def test_a_page_of_the_site_itself_may_say_so():
    run = t.echo.trigger(1)
    client = logged_in()
    assert client.get(f"/api/v3/runs/{run.id}", headers={"origin": "http://testserver"}).status_code == 200
    assert post(client, x_csrftoken=CSRF, origin="http://testserver").status_code == 200


@pytest.mark.parametrize("is_key", [True, False])
def test_who_sends_a_credential_needs_no_csrf_token_and_speaks_for_it_alone(is_key):
    client = logged_in()
    credential = secret_keys()[0] if is_key else token("admin")
    answer = post(client, authorization=f"Bearer {credential}", origin="https://evil.example")
    assert answer.status_code == (200 if is_key else 401)


def test_a_wrong_credential_does_not_fall_back_to_the_session():
    assert post(logged_in(), authorization="Bearer wrong", x_csrftoken=CSRF).status_code == 401


def test_nobody_is_told_how_to_authenticate():
    answer = post(Client())
    assert answer.status_code == 401
    assert answer["WWW-Authenticate"] == 'Bearer realm="realtime_runs"'
    assert answer.json().keys() == {"error"}


FORMS = [
    ("application/x-www-form-urlencoded", b"csrfmiddlewaretoken=" + CSRF.encode()),
    ("application/x-www-form-urlencoded", b"a=1&" * 2000),
    ("application/x-www-form-urlencoded; charset=nowhere", b"a=1"),
    ("application/x-www-form-urlencoded; charset=utf-16", b"a=1"),
    ("multipart/form-data", b"--x"),
    ("multipart/form-data; boundary=x", b"--x\r\nContent-Disposition: form-data\r\n\r\n"),
    ("multipart/form-data; boundary=\x07", b""),
    ("multipart/form-data; boundary=x", b"--x\r\n" * 3000),
]


@pytest.mark.parametrize("header", ["", CSRF])
@pytest.mark.parametrize(("content_type", "body"), FORMS, ids=lambda part: repr(part[:40]))
def test_a_form_of_a_user_is_refused_and_no_failure(content_type, body, header):
    answer = logged_in().generic("POST", TOKENS, body, content_type=content_type, headers={"x-csrftoken": header})
    assert 400 <= answer.status_code < 500
    assert answer.json().keys() >= {"error"}


HOSTILE_COOKIES = ["x", "x" * 4000, '"aaaaaaaa\\000"', "é" * 8, "a;b" * 9, '"\\377\\376aaaaaa"', "../../etc/passwd"]


@pytest.mark.parametrize("value", HOSTILE_COOKIES, ids=lambda value: value[:20])
def test_a_session_cookie_of_anything_is_nobodys(value):
    answer = Client().get("/api/v1/runs", headers={"cookie": f"sessionid={value}"})
    assert answer.status_code == 401


@pytest.mark.parametrize("name", ["token", "access_token", "authorization", "key", "ticket", "jwt"])
def test_a_credential_in_the_url_opens_nothing(name):
    for credential in (secret_keys()[0], token("read:all")):
        answer = Client().get("/api/v1/runs", {name: credential})
        assert answer.status_code == 401
        assert credential not in answer.content.decode()


# -- realtime/


async def test_a_user_comes_with_the_same_session_to_a_consumer():
    client = await sync_to_async(logged_in)()
    answer = await post_realtime(client, x_csrftoken=CSRF)
    assert (answer.status, answer.data.keys()) == (200, {"ticket", "expiresIn"})


@pytest.mark.parametrize("headers", [{}, {"x_csrftoken": "b" * 32}, *({"x_csrftoken": CSRF, "origin": o} for o in FOREIGN)], ids=str)  # fmt: skip
async def test_a_consumer_checks_csrf_tokens_and_origins_as_a_view_does(headers):
    client = await sync_to_async(logged_in)()
    answer = await post_realtime(client, **headers)
    assert answer.status == 403
    assert "own site" in answer.data["error"] if "origin" in headers else "CSRF" in answer.data["error"]


async def test_the_session_is_of_the_user_whom_the_policy_is_asked_about():
    client = await sync_to_async(logged_in)(is_staff=False)
    run = await sync_to_async(t.echo.trigger)(1)
    answer = await ask("GET", f"/realtime/v1/runs/{run.id}", {"cookie": cookies(client)})
    assert (answer.status, answer.data) == (403, REFUSED)
    await sync_to_async(User.objects.update)(is_staff=True)
    answer = await ask("GET", f"/realtime/v1/runs/{run.id}?offset=-1", {"cookie": cookies(client)})
    assert answer.status == 200


@pytest.mark.parametrize("end", ["logout", "inactive", "password"])
async def test_a_session_that_has_ended_is_nobodys(end):
    client = await sync_to_async(logged_in)()
    cookie = cookies(client)
    if end == "logout":
        await sync_to_async(client.logout)()
    elif end == "inactive":
        await sync_to_async(User.objects.update)(is_active=False)
    else:
        await sync_to_async(User.objects.update)(password="another")
    answer = await ask("POST", TICKETS, {"cookie": cookie, "x-csrftoken": CSRF})
    assert answer.status == 401


@pytest.mark.parametrize("value", HOSTILE_COOKIES, ids=lambda value: value[:20])
async def test_a_session_cookie_of_anything_is_nobodys_for_a_consumer(value):
    answer = await ask("POST", TICKETS, {"cookie": f"sessionid={value}"})
    assert answer.status == 401


@pytest.mark.parametrize("host", ["evil.example", "a b", "[", "", "x" * 300])
async def test_a_host_that_is_not_ours_is_refused_and_no_failure(host, settings):
    settings.ALLOWED_HOSTS = ["127.0.0.1"]
    client = await sync_to_async(logged_in)()
    answer = await post_realtime(client, host=host, x_csrftoken=CSRF, origin="http://127.0.0.1")
    assert answer.status in (400, 403)


@pytest.mark.parametrize("name", ["token", "access_token", "authorization", "key", "jwt", "ticket"])
async def test_a_credential_in_the_url_of_a_subscription_opens_nothing(name):
    run = await sync_to_async(t.echo.trigger)(1)
    for credential in (secret_keys()[0], token("read:all")):
        answer = await ask("GET", f"/realtime/v1/runs/{run.id}?{name}={credential}", {"accept": "text/event-stream"})
        assert answer.status == 401
        assert credential not in str(answer.data)


# -- tickets


async def ticket_of(credential):
    answer = await ask("POST", TICKETS, {"authorization": f"Bearer {credential}"})
    return answer.data["ticket"]


async def open_with(ticket, run_id):
    async with Exchange(
        "GET", f"/realtime/v1/runs/{run_id}?ticket={ticket}", {"accept": "text/event-stream"}
    ) as exchange:
        return await exchange.start()


async def test_a_ticket_is_good_once_and_not_wider_than_whom_it_stands_for():
    mine, other = [await sync_to_async(t.echo.trigger)(number) for number in range(2)]
    reader = token(f"read:runs:{mine.id}")
    ticket = await ticket_of(reader)
    assert await open_with(ticket, mine.id) == 200
    assert await open_with(ticket, mine.id) == 401
    assert await open_with(await ticket_of(reader), other.id) == 403
    assert await sync_to_async(SpentToken.objects.count)() == 2


async def test_a_ticket_ends_with_the_key_that_signed_it(settings):
    run = await sync_to_async(t.echo.trigger)(1)
    first, second = ("the-first-secret-key-of-this-server", "the-second-secret-key-of-this-server")
    for later, status in [([second, first], 200), ([second], 401)]:
        settings.REALTIME_RUNS = {**settings.REALTIME_RUNS, "SECRET_KEYS": [first]}
        ticket = await ticket_of(first)
        settings.REALTIME_RUNS = {**settings.REALTIME_RUNS, "SECRET_KEYS": later}
        assert await open_with(ticket, run.id) == status


@pytest.mark.parametrize(
    "text", ["x", "a:b:c", "eyJ9:1:x", "%00", "%C3%A9:1:2", ":" * 100, "a" * 5000, "%ED%A0%80:1:1"]
)
async def test_a_ticket_of_anything_is_nobodys(text):
    assert await open_with(text, "run_1") == 401
