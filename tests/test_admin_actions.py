"""What can be done to a run in the admin: by whom, with what result, and what is said when it cannot be done."""

import json

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.admin.utils import quote
from django.contrib.auth.models import Permission, User
from django.contrib.messages import get_messages
from django.test import Client
from django.urls import reverse

from realtime_runs import runs, wait
from realtime_runs.access.policy import Policy
from realtime_runs.models import Run, StreamChunk
from realtime_runs.statuses import RunStatus
from tests import tasks as t

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("nobody_executes")]

ACTIONS = ("cancel", "replay", "send", "complete")
HOSTILE = "</textarea><script>alert(1)</script>"


def address(name, run):
    return reverse(f"admin:realtime_runs_run_{name}", args=[quote(run.id)])


def said(response):
    return " ".join(str(message) for message in get_messages(response.wsgi_request))


def history(run):
    return [entry.get_change_message() for entry in LogEntry.objects.filter(object_id=run.id).order_by("pk")]


@pytest.fixture
def run():
    return Run.objects.get(pk=t.echo.trigger({"a": 1}, tags=["x"]).id)


# -- each of them


def test_cancelling_asks_first_and_then_cancels_with_the_children(admin_client, run):
    child = Run.objects.get(pk=t.echo.trigger(1).id)
    Run.objects.filter(pk=child.pk).update(parent=run, root=run)
    asked = admin_client.get(address("cancel", run))
    assert "1 unfinished child run</strong>" in asked.content.decode()
    assert runs.retrieve(run).status == RunStatus.QUEUED
    answer = admin_client.post(address("cancel", run))
    assert answer.url == address("change", run)
    assert "The run is canceled" in said(answer)
    assert {runs.retrieve(one).status for one in (run, child)} == {RunStatus.CANCELED}
    assert history(run) == ["Canceled the run."]
    assert (
        "Canceled the run."
        in admin_client.get(reverse("admin:realtime_runs_run_history", args=[run.id])).content.decode()
    )


@pytest.mark.parametrize("name", ["cancel", "send", "complete"])
def test_a_run_that_is_over_takes_no_more(admin_client, run, name):
    runs.cancel(run)
    for answer in (
        admin_client.get(address(name, run)),
        admin_client.post(address(name, run), {"key": "k", "value": "1"}),
    ):
        assert answer.url == address("change", run)
        assert "The run is over (Canceled)" in said(answer)
    page = admin_client.get(address("change", run)).content.decode()
    assert address(name, run) not in page
    assert address("replay", run) in page
    assert history(run) == []


def test_a_replay_has_the_payload_tags_and_options_of_the_old_run(admin_client, run):
    form = admin_client.get(address("replay", run)).context["form"]
    answer = admin_client.post(address("replay", run), {"payload": form.initial["payload"].replace("\n", "\r\n")})
    new = Run.objects.exclude(pk=run.pk).get()
    assert answer.url == address("change", new)
    assert (new.payload, new.tag_names, new.task) == (run.payload, ["x"], run.task)
    assert history(run) == [f"Replayed as {new.id}, with the same payload."]


def test_a_replay_may_have_another_payload(admin_client):
    run = Run.objects.get(pk=t.order.trigger({"items": ["a"]}).id)
    admin_client.post(address("replay", run), {"payload": '{"items": ["b"],\r\n "rush": true}'})
    new = Run.objects.exclude(pk=run.pk).get()
    assert json.loads(new.payload) == {"items": ["b"], "rush": True}


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        ('{"items": ["b"], "rush": "many"}', "rush: Input should be a valid boolean"),
        ("", "does not fit"),
        ('{"items": ', "not JSON"),
        ('{"items": NaN}', "not JSON"),
        ('{"items": ["\\u0000"]}', "U+0000"),
        (HOSTILE, "not JSON"),
    ],
)
def test_a_payload_that_does_not_fit_the_task_starts_nothing(admin_client, payload, reason):
    run = Run.objects.get(pk=t.order.trigger({"items": ["a"]}).id)
    answer = admin_client.post(address("replay", run), {"payload": payload})
    assert answer.status_code == 200
    page = answer.content.decode()
    assert reason in page
    assert "<script>alert" not in page
    assert answer.context["form"]["payload"].value() == payload  # what was typed is not lost
    assert Run.objects.count() == 1
    assert history(run) == []


def test_a_task_that_is_gone_cannot_be_replayed(admin_client, run):
    Run.objects.filter(pk=run.pk).update(task=HOSTILE)
    page = admin_client.post(address("replay", run), {"payload": "1"}).content.decode()
    assert "does not exist" in page
    assert "<script>alert" not in page


def test_a_payload_that_is_too_long_to_edit_is_replayed_as_it_is(admin_client):
    run = Run.objects.get(pk=t.echo.trigger("x" * 100_000).id)
    assert "too long to be changed" in admin_client.get(address("replay", run)).content.decode()
    admin_client.post(address("replay", run), {"payload": "1"})
    assert Run.objects.exclude(pk=run.pk).get().payload == run.payload


def test_sending_stores_a_record_for_the_task(admin_client, run):
    answer = admin_client.post(address("send", run), {"key": "approval", "value": '{"ok": true}'})
    assert answer.url == address("change", run)
    assert json.loads(bytes(StreamChunk.objects.get().data)) == {"ok": True}
    assert history(run) == ["Sent to the input stream “approval”."]
    assert admin_client.get(address("send", run)).context["form"].initial["key"] == "approval"
    assert "1 sent, 0 taken" in admin_client.get(address("change", run)).content.decode()


@pytest.mark.parametrize(
    ("form", "reason"),
    [
        ({"key": "k", "value": "{"}, "not JSON"),
        ({"key": "", "value": "1"}, "required"),
        ({"key": "k" * 256, "value": "1"}, "255"),
        ({"key": "k", "value": ""}, "required"),
        ({"key": "k", "value": json.dumps("x" * 2_000_000)}, "at most"),
        ({"key": "k", "value": "[" * 200 + "]" * 200}, "nested"),
    ],
)
def test_what_cannot_be_sent_is_not(admin_client, run, form, reason):
    answer = admin_client.post(address("send", run), form)
    assert (answer.status_code, StreamChunk.objects.count()) == (200, 0)
    assert reason in answer.content.decode()


def test_completing_a_wait_token_that_the_payload_names(admin_client):
    token = wait.create_token()
    run = Run.objects.get(pk=t.echo.trigger({"tokenId": token.id}).id)
    assert admin_client.get(address("complete", run)).context["form"].initial == {"token": token.id}
    admin_client.post(address("complete", run), {"token": token.id, "value": '{"approved": true}'})
    assert wait.retrieve_token(token).output == {"approved": True}
    assert history(run) == [f"Completed {token.id}."]
    again = admin_client.post(address("complete", run), {"token": token.id, "value": "1"})
    assert "is completed already" in again.content.decode()
    assert wait.retrieve_token(token).output == {"approved": True}


@pytest.mark.parametrize("token", ["waitpoint_nothing", HOSTILE[:40], "\ufffd"])
def test_a_wait_token_that_is_not_there_cannot_be_completed(admin_client, run, token):
    page = admin_client.post(address("complete", run), {"token": token, "value": "1"}).content.decode()
    assert "There is no wait token with this id" in page
    assert "<script>alert" not in page


# -- who may


class MayOnly(Policy):
    allowed = ()

    def can(self, user, action, run):
        return action == "read" or action in self.allowed

    def visible(self, user, runs):
        return runs


@pytest.fixture
def staff(client):
    def log_in(*codenames):
        user = User.objects.create_user("ada", is_staff=True)
        user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
        client.force_login(user)
        return client

    return log_in


@pytest.mark.parametrize("name", ACTIONS)
def test_who_may_only_look_has_no_buttons_and_is_refused(staff, run, name):
    client = staff("view_run")
    assert address(name, run) not in client.get(address("change", run)).content.decode()
    for answer in (client.get(address(name, run)), client.post(address(name, run), {"key": "k", "value": "1"})):
        assert answer.status_code == 403
    assert runs.retrieve(run).version == 1
    assert Run.objects.count() == 1


@pytest.mark.parametrize("name", ACTIONS)
def test_the_permission_to_change_is_not_enough_without_the_policy(staff, run, settings, name, monkeypatch):
    settings.REALTIME_RUNS = {**settings.REALTIME_RUNS, "POLICY": f"{__name__}.MayOnly"}
    client = staff("change_run")
    assert client.get(address(name, run)).status_code == 403
    monkeypatch.setattr(MayOnly, "allowed", (name,))
    assert client.get(address(name, run)).status_code == 200
    page = client.get(address("change", run)).content.decode()
    assert [each for each in ACTIONS if address(each, run) in page] == [name]


@pytest.mark.parametrize("name", ACTIONS)
def test_nothing_is_done_without_the_csrf_token_or_a_login(run, name, admin_user):
    client = Client(enforce_csrf_checks=True)
    assert "/login/" in client.get(address(name, run)).url
    client.force_login(admin_user)
    assert client.post(address(name, run), {"key": "k", "value": "1"}).status_code == 403
    assert (runs.retrieve(run).status, Run.objects.count()) == (RunStatus.QUEUED, 1)
