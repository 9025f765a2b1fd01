"""Looking at runs in the admin: the list, the page of one, who may."""

import json
from datetime import timedelta

import pytest
from django.contrib.auth.backends import BaseBackend
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from realtime_runs import runs, wait
from realtime_runs.access.policy import Policy
from realtime_runs.admin import RunAdmin, bounded, overview
from realtime_runs.ids import earliest_run_id
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
            Attempt.objects.create(run=run, number=number, worker=text[:128], started_at=now, error=error)
        story = (("QUEUED", 0), ("EXECUTING", 1), ("QUEUED", 1), ("EXECUTING", 2), ("WAITING", 2), (run.status, 2))
        RunEvent.objects.bulk_create(RunEvent(run=run, status=s, attempt=n, at=now) for s, n in story)
        return run

    return make


@pytest.fixture(autouse=True)
def _nothing_shared():
    overview.forget()


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
    for text in (
        run.id,
        "t-echo",
        "spam",
        "ValueError",
        "Traceback: spam",
        "Executing",
        "Queued",
        "Waiting to be tried again",
    ):
        assert text in page
    for kind in ("queued", "executing", "retrying", "waiting"):
        assert f'class="rr-{kind}"' in page


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


def test_a_wait_token_may_be_looked_at(admin_client):
    token = wait.create_token(tags=[HOSTILE])
    wait.complete_token(token, {"text": HOSTILE})
    for page in (
        html(admin_client, "admin:realtime_runs_waittoken_changelist", status="COMPLETED"),
        html(admin_client, "admin:realtime_runs_waittoken_change", token.id),
    ):
        assert token.id in page
        assert "<script>alert" not in page


def test_long_texts_are_cut_and_can_be_downloaded_whole(admin_client, make_run):
    text = json.dumps("é" * 100_000, ensure_ascii=False)
    run = make_run(payload=text, metadata=json.dumps({"rows": list(range(2000))}))
    page = html(admin_client, PAGE, run.id)
    assert len(page) < 300_000
    assert "1,501 more" in page or "more</li>" in page
    answer = admin_client.get(reverse("admin:realtime_runs_run_payload", args=[run.id]))
    assert answer.content.decode() == text
    assert answer["Content-Type"].startswith("text/plain")
    assert answer["X-Content-Type-Options"] == "nosniff"
    assert answer["Content-Disposition"].startswith("attachment")


def test_children_are_shown_as_far_as_fifty(admin_client, make_run):
    parent = make_run()
    Run.objects.bulk_create(
        Run(task="t", status="CANCELED", parent=parent, root=parent, **dict.fromkeys(
            ("created_at", "updated_at", "run_at", "rank", "finished_at"), timezone.now()
        ))
        for _ in range(60)
    )  # fmt: skip
    page = html(admin_client, PAGE, parent.id)
    assert page.count("<run-progress") == 51
    assert "there are more" in page


@pytest.mark.parametrize("run_id", ["run_nothing", "_00", "a/b", "run_x/change"])
def test_a_run_that_is_not_there_is_said_to_be_missing(admin_client, run_id):
    assert admin_client.get(f"{reverse(LIST)}{run_id}/change/", follow=False).status_code == 302


def test_a_part_of_the_page_is_the_page_without_what_is_around_it(admin_client, make_run):
    run = make_run(realtime_streams=["one", "two"])
    part = html(admin_client, PAGE, run.id, part="", streams="1")
    assert "<html" not in part
    assert part.count("<pre part") == 1  # of the stream that the page does not have yet


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


def test_the_columns_of_a_run_cannot_be_edited(admin_client, make_run):
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


# -- permissions


class OwnRuns(Policy):
    def can(self, user, action, run):
        return action == "read" and (run is None or user.username in run.tag_names)

    def visible(self, user, runs):
        return runs.tagged([user.username])


@pytest.fixture
def own_runs(settings):
    settings.REALTIME_RUNS = {**settings.REALTIME_RUNS, "POLICY": f"{__name__}.OwnRuns"}


@pytest.fixture
def staff(client, django_user_model):
    """`staff("view_run")`: somebody with these permissions is logged in."""

    def log_in(*codenames):
        user = django_user_model.objects.create_user("ada", is_staff=True)
        user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
        client.force_login(user)
        return client

    return log_in


def test_the_policy_says_which_runs_somebody_sees(own_runs, staff, make_run):
    own, other = make_run(tags=["ada"]), make_run(tags=["grace"], parent_id=None)
    child = make_run(tags=["grace"], parent_id=own.pk, root_id=own.pk)
    client = staff("view_run", "view_tag")
    page = html(client, LIST)
    assert own.id in page
    assert other.id not in page
    assert html(client, LIST, q=other.id).count(other.id) == html(client, LIST, q="nothing").count("nothing")
    shown = html(client, PAGE, own.id)
    assert own.id in shown
    assert child.id not in shown
    assert other.id not in html(client, "admin:realtime_runs_tag_change", "grace")
    for run in (other, child):
        answer = client.get(reverse(PAGE, args=[run.id]))
        assert answer.status_code == 302  # as for one that does not exist
        assert run.task not in answer.content.decode()


def test_counters_and_overview_are_of_the_runs_that_one_sees(own_runs, staff, make_run):
    make_run(tags=["ada"], task="task-of-ada")
    make_run(tags=["grace"], task="task-of-grace")
    client = staff("view_run")
    assert client.get(reverse("admin:realtime_runs_run_counts")).json()["failed"] == "1"
    page = html(client, "admin:realtime_runs_run_overview")
    assert "task-of-ada" in page
    assert "task-of-grace" not in page


def test_two_who_see_different_runs_share_no_answer(own_runs, staff, make_run, django_user_model, admin_client):
    make_run(tags=["ada"], task="task-of-ada")
    assert "task-of-ada" in html(staff("view_run"), "admin:realtime_runs_run_overview")
    assert "task-of-ada" not in html(admin_client, "admin:realtime_runs_run_overview")


class PerRun(BaseBackend):
    """Grants the view of one run."""

    def has_perm(self, user, perm, obj=None):
        return perm == "realtime_runs.view_run" and obj is not None and obj.task == "t-granted"


def test_a_backend_may_grant_the_view_of_single_runs(staff, settings, make_run):
    settings.AUTHENTICATION_BACKENDS = ["django.contrib.auth.backends.ModelBackend", f"{__name__}.PerRun"]
    granted, other = make_run(task="t-granted"), make_run()
    client = staff()
    client.force_login(User.objects.get(username="ada"), backend="django.contrib.auth.backends.ModelBackend")
    assert client.get(reverse(PAGE, args=[granted.id])).status_code == 200
    assert client.get(reverse(PAGE, args=[other.id])).status_code == 403
    assert client.get(reverse(LIST)).status_code == 403


@pytest.mark.parametrize("name", ["overview", "counts"])
def test_the_other_pages_need_the_permission_too(staff, name):
    address = reverse(f"admin:realtime_runs_run_{name}")
    assert staff("view_batch").get(address).status_code == 403


@pytest.mark.parametrize("name", ["payload", "output"])
def test_whole_payloads_need_the_permission_too(staff, make_run, name):
    address = reverse(f"admin:realtime_runs_run_{name}", args=[make_run().id])
    assert staff("view_batch").get(address).status_code == 403


# -- finding


def found(client, **query):
    return [run.pk for run in client.get(reverse(LIST), query).context["cl"].result_list]


def test_a_run_is_found_by_its_id(admin_client, make_run):
    wanted, _ = make_run(), make_run()
    assert found(admin_client, q=f" {wanted.id} ") == [wanted.id]


def test_a_run_is_found_by_a_tag_and_by_its_idempotency_key(admin_client, make_run):
    tagged = make_run(tags=["user:1"])
    keyed = make_run("user:1", tags=[])
    make_run(tags=["user:12"])
    long = make_run("k" * 2000, tags=[])
    make_run("k" * 1999, tags=[])
    assert set(found(admin_client, q="user:1")) == {keyed.id, tagged.id}
    assert found(admin_client, q="k" * 2000) == [long.id]


@pytest.mark.parametrize("text", ["user:", "run_nothing", "%", "\0", "'", HOSTILE])
def test_a_search_for_what_is_not_there_finds_nothing(admin_client, make_run, text):
    make_run("user:1", tags=["user:1"])
    shown = admin_client.get(reverse(LIST), {"q": text})
    assert shown.status_code == 200
    assert "\0" in text or not shown.context["cl"].result_list  # Django's own form refuses that character
    assert b"<script>alert" not in shown.content


def test_runs_are_filtered(admin_client, make_run):
    batch = Batch.objects.create(run_count=1, created_at=timezone.now())
    old = timezone.now() - timedelta(hours=5)
    plain = make_run(status=RunStatus.CANCELED, task="a/b ü", tags=["x y"], batch=batch, batch_index=0)
    other = make_run(id=f"{earliest_run_id(old)}{'z' * 19}", created_at=old, tags=["x"])
    assert found(admin_client) == [plain.id, other.id]
    for query in ({"status": "CANCELED"}, {"task": "a/b ü"}, {"tag": "x y"}, {"batch": batch.id}):
        assert found(admin_client, **query) == [plain.id], query
        assert found(admin_client, created="1d", **query) == [plain.id], query
    for period, ids in {
        "15m": [plain.id],
        "1h": [plain.id],
        "1d": [plain.id, other.id],
        "7d": [plain.id, other.id],
    }.items():
        assert found(admin_client, created=period) == ids
    for query in ({"tag": "nothing"}, {"tag": "\0"}, {"task": HOSTILE}, {"batch": "batch_1"}):
        assert found(admin_client, **query) == []


def test_a_filter_keeps_the_others(admin_client, make_run):
    make_run(tags=["x"])
    page = html(admin_client, LIST, tag="x", status="FAILED", q="x")
    assert '<input type="hidden" name="status" value="FAILED">' in page
    assert "?q=x&amp;status=FAILED&amp;task=t-echo&amp;tag=x" in page or "status=FAILED" in page


@pytest.mark.parametrize("query", [{"payload__contains": "a"}, {"lease_token__startswith": "a"}, {"tags__name": "a"}])
def test_nothing_else_can_be_filtered_by(admin_client, query):
    assert admin_client.get(reverse(LIST), query).status_code == 400


def test_the_tasks_to_choose_from_are_those_of_this_process(admin_client, make_run):
    make_run(task="removed-task")
    (choice,) = [
        next(spec.choices(cl))
        for cl in [admin_client.get(reverse(LIST), {"task": "removed-task"}).context["cl"]]
        for spec in cl.filter_specs
        if spec.title == "task"
    ]
    assert choice["typed"] == "removed-task"
    assert "removed-task" not in [name for name, _, _ in choice["links"]]


# -- turning pages


def test_pages_are_turned_there_and_back_without_losing_a_run(admin_client, make_run, monkeypatch):
    monkeypatch.setattr(RunAdmin, "list_per_page", 3)
    ids = sorted((make_run(tags=[]).id for _ in range(8)), reverse=True)
    seen, url = [], "?"
    pages = []
    while url:
        cl = admin_client.get(f"{reverse(LIST)}{url}").context["cl"]
        pages.append([run.pk for run in cl.result_list])
        seen += pages[-1]
        last, url = cl, cl.older_url
    assert seen == ids
    for expected in pages[-2::-1]:
        last = admin_client.get(f"{reverse(LIST)}{last.newer_url}").context["cl"]
        assert [run.pk for run in last.result_list] == expected
    assert last.newer_url == ""


def test_a_page_behind_the_end_says_so(admin_client, make_run):
    run = make_run()
    assert "Nothing more." in html(admin_client, LIST, behind=run.id)
    assert admin_client.get(reverse(LIST), {"behind": "\0"}).status_code == 302


def test_the_count_goes_no_further_than_it_must(admin_client, make_run, monkeypatch):
    monkeypatch.setattr(RunAdmin, "list_per_page", 2)
    monkeypatch.setattr(bounded, "MOST", 3)
    monkeypatch.setattr(bounded.count, "__defaults__", (3,))
    for _ in range(5):
        make_run(tags=[])
    assert "2 of 3+" in html(admin_client, LIST)


def test_the_counts_say_how_many_runs_are_new(admin_client, make_run):
    address = reverse("admin:realtime_runs_run_counts")
    first = make_run(id="run_1", tags=["x"])
    make_run(id="run_2", tags=["x"])
    make_run(id="run_3", tags=["y"])
    assert admin_client.get(address, {"counts": first.id}).json() == {
        "queued": "0", "executing": "0", "failed": "3", "newer": "2",
    }  # fmt: skip
    assert admin_client.get(address, {"counts": first.id, "tag": "x"}).json()["newer"] == "1"
    assert "newer" not in admin_client.get(address).json()


# -- what it costs


def queries(client, name, *args):
    overview.forget()
    html(client, name, *args)  # what is looked up only once, such as content types
    overview.forget()
    with CaptureQueriesContext(connection) as captured:
        html(client, name, *args)
    return [query["sql"] for query in captured]


def test_more_runs_need_no_more_queries_for_the_list(admin_client, make_run):
    make_run()
    few = queries(admin_client, LIST)
    for number in range(30):
        make_run(tags=[f"tag-{number}"])
    assert len(queries(admin_client, LIST)) == len(few)
    assert len(few) <= 9


def test_a_longer_story_needs_no_more_queries_for_the_page(admin_client, make_run):
    run = make_run()
    few = queries(admin_client, PAGE, run.id)
    now = timezone.now()
    Attempt.objects.bulk_create(Attempt(run=run, number=n, worker="w", started_at=now) for n in range(3, 40))
    RunEvent.objects.bulk_create(RunEvent(run=run, status="QUEUED", attempt=n, at=now) for n in range(40))
    assert len(queries(admin_client, PAGE, run.id)) == len(few)
    assert len(few) <= 14


def test_the_list_reads_no_payloads(admin_client, make_run):
    # Of a hundred runs, each may be megabytes long.
    make_run()
    read = [sql for sql in queries(admin_client, LIST) if "realtime_runs_run" in sql]
    assert read
    for column in ("payload", "output", "error"):
        assert not [sql for sql in read if f'"{column}",' in sql]


def test_a_run_can_still_be_followed_to_its_end_after_somebody_looked(admin_client, make_run):
    run = make_run()
    before = runs.retrieve(run.id)
    html(admin_client, PAGE, run.id)
    assert runs.retrieve(run.id).version == before.version
