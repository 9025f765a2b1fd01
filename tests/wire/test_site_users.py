"""Users of the site: what of the project's settings their sessions obey, and what its policy is asked about them."""

import json

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.test import Client

from realtime_runs.access import tokens
from realtime_runs.access.policy import Policy
from realtime_runs.models import Run
from tests import tasks as t
from tests.wire.exchange import ask

pytestmark = pytest.mark.django_db(transaction=True)

# Of each half one: a view of Django, and a consumer, which no middleware has seen.
MINT = "/api/v1/auth/public-tokens"
UNSAFE = [MINT, "/realtime/v1/tickets"]
READS = ["/api/v3/runs/{}", "/realtime/v1/runs/{}?offset=-1"]
CSRF = "a" * 32


def status(method, path, headers, body=b'{"scopes": ["read:runs"]}'):
    """What exactly these headers get."""
    if path.startswith("/realtime/"):
        return async_to_sync(ask)(method, path, headers, body).status
    client = Client(enforce_csrf_checks=True)
    return client.generic(method, path, body, content_type="application/json", headers=headers).status_code


def session_of(name="ada", **values):
    client = Client()
    client.force_login(User.objects.create_user(name, **values))
    return client.session


def cookie(session, csrf=CSRF):
    return {"cookie": f"sessionid={session.session_key}; csrftoken={csrf}", "x-csrftoken": CSRF}


# -- settings of the project


@pytest.mark.parametrize("template", READS)
def test_pages_of_an_origin_that_the_project_trusts_may_use_a_session(settings, template):
    settings.CSRF_TRUSTED_ORIGINS = ["https://app.example", "https://*.trusted.example"]
    path, headers = template.format(t.echo.trigger(1).id), cookie(session_of(is_staff=True))
    origins = ["https://app.example", "https://a.trusted.example", "http://app.example", "https://eviltrusted.example"]
    assert [status("GET", path, {**headers, "origin": origin}) for origin in origins] == [200, 200, 403, 403]


@pytest.mark.parametrize("path", UNSAFE)
def test_a_csrf_token_that_is_kept_in_the_session_is_looked_for_there(settings, path):
    settings.CSRF_USE_SESSIONS = True
    session = session_of(is_staff=True)
    headers = cookie(session)
    assert status("POST", path, headers) == 403
    session["_csrftoken"] = CSRF
    session.save()
    assert status("POST", path, headers) == 200


@pytest.mark.parametrize("path", UNSAFE)
def test_the_name_of_the_csrf_header_is_that_of_the_project(settings, path):
    settings.CSRF_HEADER_NAME = "HTTP_X_OURS"
    headers = cookie(session_of(is_staff=True))
    assert status("POST", path, headers) == 403
    assert status("POST", path, {**headers, "x-ours": CSRF}) == 200


def test_after_a_rotation_of_the_secret_key_a_consumer_logs_nobody_out(settings):
    session, path = session_of(is_staff=True), READS[1].format(t.echo.trigger(1).id)
    settings.SECRET_KEY_FALLBACKS = [settings.SECRET_KEY]
    settings.SECRET_KEY = "another-secret-key-of-this-site-and-a-long-one"
    assert [status("GET", path, cookie(session)) for _ in range(2)] == [200, 200]
    assert Session.objects.filter(pk=session.session_key).exists()


@pytest.mark.parametrize("path", UNSAFE)
def test_a_form_of_a_user_is_not_read_to_look_for_its_csrf_token(path):
    headers = cookie(session_of(is_staff=True)) | {"content-type": "application/x-www-form-urlencoded"}
    del headers["x-csrftoken"]
    assert status("POST", path, headers, f"csrfmiddlewaretoken={CSRF}".encode()) == 403


# -- tickets


@pytest.mark.parametrize("end", [lambda users: users.update(is_active=False), lambda users: users.delete()])
def test_a_ticket_of_a_user_who_is_gone_is_nobodys(end):
    headers, path = cookie(session_of(is_staff=True)), READS[1].format(t.echo.trigger(1).id)
    tickets = [async_to_sync(ask)("POST", UNSAFE[1], headers).data["ticket"] for _ in range(2)]
    events = {"accept": "text/event-stream"}
    assert status("GET", f"{path}&ticket={tickets[0]}", events) == 200
    end(User.objects.all())
    assert status("GET", f"{path}&ticket={tickets[1]}", events) == 401


# -- the policy


class Noting(Policy):
    """Users may read the runs that have their name as a tag."""

    asked: list[tuple[str, str, str | None]] = []

    def can(self, user, action, run):
        self.asked.append((user.username, action, run and run.pk))
        return run is not None and action == "read" and user.username in run.tag_names

    def visible(self, user, runs):
        return runs.tagged([user.username])


@pytest.fixture
def asked(settings):
    settings.REALTIME_RUNS = {**settings.REALTIME_RUNS, "POLICY": f"{__name__}.Noting"}
    Noting.asked.clear()
    return Noting.asked


@pytest.mark.parametrize("template", READS)
def test_the_policy_is_asked_about_the_run_that_a_user_wants(asked, template):
    own, other = (t.echo.trigger(1, tags=[tag]).id for tag in ("ada", "grace"))
    headers = cookie(session_of())
    assert [status("GET", template.format(run_id), headers) for run_id in (own, other)] == [200, 403]
    assert asked == [("ada", "read", own), ("ada", "read", other)]


def test_what_the_policy_refuses_is_not_done(asked):
    run_id = t.echo.trigger(1, tags=["ada"], delay="1h").id
    headers = cookie(session_of(is_staff=True))
    for path in (f"/api/v2/runs/{run_id}/cancel", f"/api/v1/tasks/{t.echo.id}/trigger", MINT):
        assert status("POST", path, headers, json.dumps({"scopes": ["admin"]}).encode()) == 403
    assert asked == [("ada", "cancel", run_id), ("ada", "trigger", None), ("ada", "tokens", None)]
    assert list(Run.objects.values_list("pk", "status")) == [(run_id, "DELAYED")]


def test_about_keys_and_tokens_the_policy_is_not_asked(asked):
    run_id = t.echo.trigger(1).id
    for credential in (tokens.secret_keys()[0], tokens.sign(["read:runs"], life=tokens.longest_life())):
        headers = {"authorization": f"Bearer {credential}", **cookie(session_of(credential[-20:]))}
        assert [status("GET", template.format(run_id), headers) for template in READS] == [200, 200]
    assert asked == []
