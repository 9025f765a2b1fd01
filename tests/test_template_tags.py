"""What the template tags render, and the form of the cancel button."""

import json
import re
from html.parser import HTMLParser
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.template import Context, Template
from django.test import Client, RequestFactory, override_settings

from realtime_runs import auth, batch, runs, streams
from realtime_runs.access.keys import secret_keys
from realtime_runs.access.policy import Policy
from realtime_runs.display.chunks import MOST_CHARACTERS
from realtime_runs.exceptions import InvalidOption
from realtime_runs.models import Run
from realtime_runs.statuses import RunStatus
from tests import tasks as t

pytestmark = pytest.mark.django_db

HOSTILE = "</pre><script>alert('x')</script>&amp;\"' \ud800\0 é"


@pytest.fixture(autouse=True)
def _nobody_executes(settings: Any) -> None:
    settings.REALTIME_RUNS = {**settings.REALTIME_RUNS, "BACKEND": "tests.in_process.IdleBackend"}


def render(source: str, user: Any = None, **context: Any) -> str:
    request = RequestFactory().get("/page?x=1&y=2")
    request.user = user or AnonymousUser()
    return Template("{% load realtime_runs %}" + source).render(Context({"request": request, **context}))


class Reader(HTMLParser):
    """What a browser makes of it: elements by name and by part, with attributes and text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.attributes: dict[str, dict[str, str | None]] = {}
        self.texts: dict[str, str] = {}
        self._open: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        name = dict(attrs).get("part") or tag
        self.attributes[name] = dict(attrs)
        self.texts[name] = ""
        if tag not in ("input", "meta", "link"):
            self._open.append(name)

    def handle_endtag(self, tag: str) -> None:
        self._open.pop()

    def handle_data(self, data: str) -> None:
        for name in self._open:
            self.texts[name] += data


def change(run_id: str, **values: Any) -> Run:
    """The row as if a worker had written it."""
    if isinstance(values.get("metadata"), dict):
        values["metadata"] = json.dumps(values["metadata"])
    Run.objects.filter(pk=run_id).update(**values)
    return Run.objects.get(pk=run_id)


def test_a_run_may_be_an_id_a_row_a_handle_or_a_snapshot() -> None:
    handle = t.echo.trigger(1)
    row = Run.objects.defer("payload", "output").get(pk=handle.id)
    found = {
        render("{% run_status run %}{% run_progress run %}", run=run)
        for run in (handle.id, handle, row, runs.retrieve(handle))
    }
    assert len(found) == 1


def test_a_run_whose_payload_was_not_read_is_shown_without_a_query(django_assert_num_queries: Any) -> None:
    row = Run.objects.defer("payload", "output").get(pk=t.echo.trigger("x" * 1000).id)
    with django_assert_num_queries(0):
        render("{% run_status run %}{% run_progress run %}", run=row)


@pytest.mark.parametrize("status", RunStatus)
def test_every_status_is_said_in_words(status: RunStatus) -> None:
    run = runs.retrieve(t.echo.trigger(1))
    html = render("{% run_status run %}", run=type(run)(**{**vars(run), "status": status}))
    page = Reader(html)
    assert page.texts["label"] == status.label
    assert page.attributes["run-status"] == {
        "run": run.id,
        "data-task": "t-echo",
        "data-status": status.value,
        "data-version": "1",
    }


@pytest.mark.parametrize(
    ("metadata", "value", "text", "spoken"),
    [
        ({}, "0", "  ", None),
        ({"progress": {"current": 1200, "total": 3376}}, "35.55", "35% 1,200 of 3,376 ", "35%, 1,200 of 3,376"),
        ({"progress": {"percentage": 40, "currentItem": "LHR"}}, "40", "40%  LHR", "40%, LHR"),
        ({"progress": 0.5, "status": "half"}, "50", "50%  half", "50%, half"),
        ({"progress": "soon", "status": ["no text"]}, "0", "  ", None),
        ({"progress": {"percentage": 99.99}}, "99.99", "99%  ", "99%"),
    ],
)
def test_progress_is_a_bar_and_words(metadata: Any, value: str, text: str, spoken: str | None) -> None:
    run = change(t.echo.trigger(1).id, metadata=metadata)
    page = Reader(render("{% run_progress run %}", run=run))
    assert page.texts["text"] == text
    assert page.attributes["bar"]["value"] == value
    assert page.attributes["bar"]["aria-label"] == "Progress of t-echo"
    assert page.attributes["bar"].get("aria-valuetext") == spoken


def test_what_a_task_writes_is_text_everywhere() -> None:
    run_id = t.echo.trigger(1).id
    # As an earlier version or another program may have stored it.
    run = change(run_id, task="<script>", metadata={"status": HOSTILE, "progress": {"percentage": 1}})
    streams.append("out", "<b>\n", target=run_id)
    html = render('{% run_status run %}{% run_progress run %}{% run_stream run "out" %}', run=runs.retrieve(run.id))
    assert "<script" not in html
    assert "<b>" not in html
    html.encode()
    assert Reader(html).texts["note"] == HOSTILE.replace("\ud800", "\ufffd").replace("\0", "\ufffd")


def test_a_stream_is_shown_as_far_as_it_is_stored() -> None:
    run = t.echo.trigger(1)
    for chunk in ("\nHello ", "<world>", {"a": ["é", 1]}, 2, "\n", "end"):
        streams.append("out", chunk, target=run.id)
    html = render('{% run_stream run "out" %}', run=run)
    page = Reader(html)
    # A browser drops one line break behind <pre>.
    assert page.texts["text"] == '\n\nHello <world>\n{"a":["é",1]}\n2\n\nend'
    assert page.attributes["run-stream"] == {"run": run.id, "key": "out", "data-next-index": "6"}
    assert page.attributes["text"]["role"] == "log"
    assert "hidden" in page.attributes["omitted"]
    streams.close("out", target=run.id)
    assert Reader(render('{% run_stream run "out" %}', run=run)).attributes["run-stream"]["data-end"] == "closed"


def test_a_long_stream_is_shown_from_near_its_end() -> None:
    run = t.echo.trigger(1)
    for number in range(130):
        streams.append("out", f"{number:01000} ", target=run.id)
    page = Reader(render('{% run_stream run "out" %}', run=run))
    assert MOST_CHARACTERS - 1010 < len(page.texts["text"]) <= MOST_CHARACTERS + 1
    assert page.texts["text"].endswith("000129 ")
    assert "hidden" not in page.attributes["omitted"]
    assert page.attributes["run-stream"]["data-next-index"] == "130"


def test_a_stream_that_nobody_has_written_is_empty() -> None:
    page = Reader(render("{% run_stream run %}", run=t.echo.trigger(1)))
    assert page.texts["text"] == "\n"
    assert page.attributes["run-stream"]["data-next-index"] == "0"


def test_a_batch_says_how_many_of_its_runs_are_over() -> None:
    handle = batch.trigger([{"task": "t-echo", "payload": n} for n in range(5)])
    runs.cancel(handle.run_ids[0])
    change(handle.run_ids[1], status=RunStatus.FAILED, finished_at=runs.retrieve(handle.run_ids[0]).finished_at)
    page = Reader(render("{% batch_progress batch %}", batch=handle))
    assert page.texts["text"] == "2 of 5 finished 1 failed 1 canceled"
    assert (page.attributes["bar"]["value"], page.attributes["bar"]["max"]) == ("2", "5")
    assert "data-end" not in page.attributes["batch-progress"]
    assert render("{% batch_progress batch %}", batch=handle.id) == render(
        "{% batch_progress batch %}", batch=batch.retrieve(handle)
    )


@pytest.mark.parametrize("tag", ["run_status x", "run_progress x", 'run_stream x "k"', "batch_progress x"])
@pytest.mark.parametrize("unknown", ["run_gone", "<b>\0"])
def test_what_does_not_exist_is_said_and_breaks_no_page(tag: str, unknown: str) -> None:
    html = render(f"{{% {tag} %}}", x=unknown)
    assert "<b>" not in html
    assert re.fullmatch(r"No such (run|batch)", Reader(html).texts["missing"])


def test_of_a_run_that_does_not_exist_there_is_nothing_to_cancel() -> None:
    html = render("{% run_cancel_button 'run_gone' %}")
    assert html == '<run-cancel run="run_gone" data-missing hidden></run-cancel>'


@pytest.mark.parametrize("nothing", ["", None, 5])
def test_a_variable_that_is_no_run_is_a_mistake_of_the_template(nothing: Any) -> None:
    for tag in ("run_status x", "batch_progress x", "run_status misspelled"):
        with pytest.raises(InvalidOption):
            render(f"{{% {tag} %}}", x=nothing)


def test_the_page_learns_where_the_server_is() -> None:
    page = Reader(render("{% realtime_runs_js %}"))
    assert page.attributes["meta"] == {"name": "realtime-runs", "data-base": "/"}
    assert page.attributes["script"] == {"type": "module", "src": "/static/realtime_runs/elements.js"}
    assert page.attributes["link"]["href"] == "/static/realtime_runs/elements.css"
    page = Reader(render('{% realtime_runs_js token="a.b.c" refresh_url="/again?a=1&b=2" base="/runs/" %}'))
    assert page.attributes["meta"].pop("data-csrf")
    assert page.attributes["meta"] == {
        "name": "realtime-runs",
        "data-base": "/runs/",
        "data-token": "a.b.c",
        "data-refresh": "/again?a=1&b=2",
    }


# -- cancelling -------------------------------------------------------------------------------------------------------


class OwnRuns(Policy):
    def can(self, user: Any, action: Any, run: Run | None) -> bool:
        return run is not None and f"user:{user.pk}" in run.tag_names


@pytest.fixture
def user() -> User:
    return User.objects.create_user("ann", is_staff=True)


@pytest.fixture
def client(user: User) -> Client:
    client = Client(enforce_csrf_checks=True)
    client.force_login(user)
    return client


def press(client: Client, run_id: str, *, token: bool = True, **data: str) -> Any:
    """As a browser would submit the form."""
    given = {"csrfmiddlewaretoken": "x" * 32, **data} if token else data
    client.cookies["csrftoken"] = "x" * 32
    return client.post(f"/pages/runs/{run_id}/cancel", given)


def test_the_button_is_a_form_that_leads_back(user: User, client: Client) -> None:
    run = t.echo.trigger(1)
    page = Reader(render("{% run_cancel_button run %}", user=user, run=run))
    assert page.attributes["form"] == {"part": "form", "method": "post", "action": f"/pages/runs/{run.id}/cancel"}
    assert page.attributes["button"]["aria-label"] == "Cancel t-echo"
    assert page.attributes["input"] == {"type": "hidden", "name": "next", "value": "/page?x=1&y=2"}
    answer = press(client, run.id, next="/page?x=1&y=2")
    assert (answer.status_code, answer["Location"]) == (302, "/page?x=1&y=2")
    assert runs.retrieve(run).is_cancelled


def test_the_form_takes_a_session_and_no_other_credential(client: Client) -> None:
    run = t.echo.trigger(1)
    client.logout()
    for key in (auth.create_public_token(["admin", "write:runs"]), secret_keys()[0]):
        client.defaults["HTTP_AUTHORIZATION"] = f"Bearer {key}"
        assert press(client, run.id).status_code == 403
    assert not runs.retrieve(run).is_completed


def test_the_button_is_hidden_when_the_run_is_over(user: User) -> None:
    run = t.echo.trigger(1)
    runs.cancel(run)
    page = Reader(render("{% run_cancel_button run %}", user=user, run=run))
    assert "hidden" in page.attributes["run-cancel"]
    assert "button" not in page.attributes


def test_the_button_is_missing_for_who_may_not() -> None:
    run = t.echo.trigger(1)
    for nobody in (AnonymousUser(), User.objects.create_user("bob")):
        assert "<form" not in render("{% run_cancel_button run %}", user=nobody, run=run)


def test_a_page_of_its_own_view_decides_for_itself() -> None:
    page = Reader(render('{% run_cancel_button run action="/my/view" %}', run=t.echo.trigger(1)))
    assert page.attributes["form"]["action"] == "/my/view"


def test_the_policy_decides_of_each_run(client: Client, user: User, settings: Any) -> None:
    settings.REALTIME_RUNS = {**settings.REALTIME_RUNS, "POLICY": f"{__name__}.OwnRuns"}
    own, other = t.echo.trigger(1, tags=[f"user:{user.pk}"]), t.echo.trigger(1)
    assert press(client, other.id).status_code == 403
    assert press(client, "run_gone").status_code == 403
    assert press(client, own.id).status_code == 302
    assert (runs.retrieve(own).is_cancelled, runs.retrieve(other).is_cancelled) == (True, False)
    assert "<form" not in render("{% run_cancel_button run %}", user=user, run=other)


@pytest.mark.parametrize("elsewhere", ["https://elsewhere.example/", "//elsewhere.example", "javascript:alert(1)", ""])
def test_nobody_is_led_elsewhere(client: Client, elsewhere: str) -> None:
    assert press(client, t.echo.trigger(1).id, next=elsewhere)["Location"] == "/"


@override_settings(MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware",
                               "django.contrib.auth.middleware.AuthenticationMiddleware"])  # fmt: skip
def test_a_form_of_another_site_is_refused_whatever_the_middleware(client: Client) -> None:
    run = t.echo.trigger(1)
    assert press(client, run.id, token=False).status_code == 403
    assert not runs.retrieve(run).is_cancelled


def test_who_is_not_logged_in_is_refused(client: Client) -> None:
    run = t.echo.trigger(1)
    client.logout()
    assert press(client, run.id).status_code == 403
    client.cookies["sessionid"] = '"a\\000b"'  # which PostgreSQL could not look for
    assert press(client, run.id).status_code == 403
    assert not runs.retrieve(run).is_cancelled


def test_a_script_gets_json(client: Client) -> None:
    run = t.echo.trigger(1)
    json_please = {"headers": {"Accept": "application/json", "X-CSRFToken": "x" * 32}}
    client.cookies["csrftoken"] = "x" * 32
    answer = client.post(f"/pages/runs/{run.id}/cancel", **json_please)
    assert answer.json() == {"id": run.id, "status": "CANCELED"}
    assert answer["Cache-Control"] == "max-age=0, no-cache, no-store, must-revalidate, private"
    answer = client.post("/pages/runs/run_gone/cancel", **json_please)
    assert (answer.status_code, answer.json()) == (404, {"error": "Not found"})
    client.logout()
    client.cookies["csrftoken"] = "x" * 32
    answer = client.post(f"/pages/runs/{run.id}/cancel", **json_please)
    assert (answer.status_code, answer.json()) == (403, {"error": "Forbidden"})


def test_only_a_form_cancels(client: Client) -> None:
    assert client.get(f"/pages/runs/{t.echo.trigger(1).id}/cancel").status_code == 405
