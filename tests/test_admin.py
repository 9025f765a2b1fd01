import json
from datetime import timedelta

import pytest
from django.contrib.auth.models import Permission
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from realtime_runs import runs
from realtime_runs.live.snapshot import RunError
from realtime_runs.models import Attempt, Batch, Run, RunEvent, RunTag, Tag
from realtime_runs.statuses import RunStatus

HOSTILE = "<script>alert('é')</script>"
LIST = "admin:realtime_runs_run_changelist"
PAGE = "admin:realtime_runs_run_change"

pytestmark = pytest.mark.django_db


@pytest.fixture
def make_run():
    """A failed run with two attempts and everything else that an operator looks at."""

    def make(text="text", tags=("a", "b"), **values):
        now = timezone.now()
        times = dict.fromkeys(("created_at", "updated_at", "run_at", "rank", "started_at", "finished_at"), now)
        error = RunError("ValueError", text, f"Traceback: {text}").to_json()
        stored = json.dumps({text: text}, ensure_ascii=False)
        run = Run.objects.create(
            **{"task": "t-echo", "status": RunStatus.FAILED, "payload": stored, "output": stored, "metadata": stored}
            | {"error": error, "tag_names": list(tags), "attempt": 2, "idempotency_key": text, **times, **values}
        )
        Tag.objects.bulk_create([Tag(name=name, created_at=now) for name in tags], ignore_conflicts=True)
        RunTag.objects.bulk_create(RunTag(run=run, tag_id=name) for name in tags)
        for number in (1, 2):
            Attempt.objects.create(run=run, number=number, worker=text, started_at=now, error=error)
        RunEvent.objects.bulk_create(RunEvent(run=run, status=status, attempt=1, at=now) for status in RunStatus)
        return run

    return make


def html(client, name, *args, **query):
    response = client.get(reverse(name, args=args), query)
    assert response.status_code == 200
    return response.content.decode()


def test_the_list_shows_the_newest_runs_first(admin_client, make_run):
    older, newer = make_run(id="run_1"), make_run(id="run_2", status=RunStatus.COMPLETED)
    page = html(admin_client, LIST)
    assert page.index(newer.id) < page.index(older.id)
    assert "Failed" in page
    assert "Completed" in page


def test_the_page_of_a_run_shows_its_story(admin_client, make_run):
    run = make_run("spam")
    page = html(admin_client, PAGE, run.id)
    for text in (run.id, "t-echo", "spam", "ValueError", "Traceback: spam", "Executing", "Queued"):
        assert text in page


def test_the_page_of_a_run_keeps_its_lease_token_secret(admin_client, make_run):
    lease = {"lease_token": "0123456789abcdef", "lease_until": timezone.now() + timedelta(minutes=1)}
    run = make_run(status=RunStatus.EXECUTING, **lease, finished_at=None)
    assert "0123456789abcdef" not in html(admin_client, PAGE, run.id)


@pytest.mark.parametrize("page", [LIST, PAGE])
def test_what_users_wrote_is_escaped(admin_client, make_run, page):
    run = make_run(HOSTILE, tags=[HOSTILE], task=HOSTILE, queue=HOSTILE, concurrency_key=HOSTILE)
    text = html(admin_client, page, *([run.id] if page == PAGE else []))
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert" in text


@pytest.mark.parametrize("name", [HOSTILE, "a/b", 'é:"', "x" * 128, "..", "_5F"])
def test_a_tag_may_be_looked_at_whatever_its_name(admin_client, name):
    Tag.objects.create(name=name, created_at=timezone.now())
    page = admin_client.get(reverse("admin:realtime_runs_tag_changelist"))
    assert b"<script>alert" not in page.content
    link = page.context["cl"].url_for_result(Tag(name=name))
    page = admin_client.get(link)
    assert page.status_code == 200
    assert b"<script>alert" not in page.content


def test_a_batch_may_be_looked_at(admin_client, make_run):
    batch = Batch.objects.create(run_count=1, created_at=timezone.now())
    run = make_run(batch=batch, batch_index=0)
    assert batch.id in html(admin_client, "admin:realtime_runs_batch_changelist")
    assert batch.id in html(admin_client, "admin:realtime_runs_batch_change", batch.id)
    assert batch.id in html(admin_client, PAGE, run.id)


def test_a_run_whose_parent_is_gone_may_be_looked_at(admin_client, make_run):
    run = make_run(parent_id="run_pruned", root_id="run_pruned", depth=1)
    assert run.id in html(admin_client, PAGE, run.id)


def test_a_run_with_odd_characters_may_be_looked_at(admin_client, make_run):
    run = make_run()
    Run.objects.filter(pk=run.pk).update(
        output=json.dumps("\ud800\0"), metadata=json.dumps({"a": "\ud800"}), error=RunError("E", "\ud800\0").to_json()
    )
    assert run.id in html(admin_client, PAGE, run.id)


@pytest.mark.parametrize("model", ["run", "batch", "tag"])
def test_nothing_can_be_added(admin_client, model):
    address = reverse(f"admin:realtime_runs_{model}_add")
    assert address not in html(admin_client, f"admin:realtime_runs_{model}_changelist")
    assert admin_client.post(address, {}).status_code == 403


def test_a_run_cannot_be_changed(admin_client, make_run):
    run = make_run()
    page = html(admin_client, PAGE, run.id)
    assert 'name="_save"' not in page
    assert "<textarea" not in page
    answer = admin_client.post(reverse(PAGE, args=[run.id]), {"status": "COMPLETED", "task": "other"})
    assert answer.status_code == 403
    run.refresh_from_db()
    assert (run.status, run.task) == (RunStatus.FAILED, "t-echo")


def test_a_run_cannot_be_deleted(admin_client, make_run):
    run = make_run()
    assert (
        admin_client.post(reverse("admin:realtime_runs_run_delete", args=[run.id]), {"post": "yes"}).status_code == 403
    )
    admin_client.post(reverse(LIST), {"action": "delete_selected", "_selected_action": run.id, "post": "yes"})
    assert Run.objects.filter(pk=run.pk).exists()


@pytest.mark.parametrize(("codename", "status"), [(None, 403), ("view_batch", 403), ("view_run", 200)])
def test_staff_need_the_permission_to_view(client, django_user_model, make_run, codename, status):
    user = django_user_model.objects.create_user("staff", is_staff=True)
    if codename:
        user.user_permissions.add(Permission.objects.get(codename=codename))
    client.force_login(user)
    run = make_run()
    assert client.get(reverse(LIST)).status_code == status
    assert client.get(reverse(PAGE, args=[run.id])).status_code == status


def test_a_run_is_found_by_its_id(admin_client, make_run):
    wanted, other = make_run(), make_run()
    page = html(admin_client, LIST, q=wanted.id)
    assert wanted.id in page
    assert other.id not in page


def test_runs_are_filtered_by_status(admin_client, make_run):
    failed, canceled = make_run(), make_run(status=RunStatus.CANCELED)
    page = html(admin_client, LIST, status__exact="CANCELED")
    assert canceled.id in page
    assert failed.id not in page


def queries(client, name, *args):
    html(client, name, *args)  # what is looked up only once, such as content types
    with CaptureQueriesContext(
        connection,
    ) as captured:
        html(client, name, *args)
    return [query["sql"] for query in captured]


def test_more_runs_need_no_more_queries_for_the_list(admin_client, make_run):
    make_run()
    few = queries(admin_client, LIST)
    for number in range(30):
        make_run(tags=[f"tag-{number}"])
    assert len(queries(admin_client, LIST)) == len(few)
    assert len(few) <= 8


def test_a_longer_story_needs_no_more_queries_for_the_page(admin_client, make_run):
    run = make_run()
    few = queries(admin_client, PAGE, run.id)
    now = timezone.now()
    Attempt.objects.bulk_create(Attempt(run=run, number=n, worker="w", started_at=now) for n in range(3, 40))
    RunEvent.objects.bulk_create(RunEvent(run=run, status="QUEUED", attempt=n, at=now) for n in range(40))
    assert len(queries(admin_client, PAGE, run.id)) == len(few)
    assert len(few) <= 12


def test_the_list_reads_no_payloads(admin_client, make_run):
    # Of a hundred runs, each may be megabytes long.
    make_run()
    read = [sql for sql in queries(admin_client, LIST) if "realtime_runs_run" in sql]
    assert read
    for column in ("payload", "output", "error", "metadata"):
        assert not [sql for sql in read if f'"{column}"' in sql]


def test_a_run_can_still_be_followed_to_its_end_after_somebody_looked(admin_client, make_run):
    run = make_run()
    before = runs.retrieve(run.id)
    html(admin_client, PAGE, run.id)
    assert runs.retrieve(run.id).version == before.version
