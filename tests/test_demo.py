"""The demo project: its tasks on the real file, its pages, and the command that serves it."""

import json
import os
import re
import signal
import socket
import sqlite3
from html.parser import HTMLParser

import httpx
import jwt
import pytest
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import transaction
from django.test import Client
from django.urls import reverse

from project import airports, summary
from project.forms import SAMPLES
from project.management.commands.demo import check_port, prepare_login
from project.presentation import LONGEST_TEXT, pretty
from realtime_runs import packets, runs, streams, tasks, wait
from realtime_runs.exceptions import NotJson, PayloadInvalid
from realtime_runs.models import Run
from realtime_runs.statuses import RunStatus
from tests.conftest import EMBEDDED
from tests.services import free_port

FILE = airports.DATA / "airports.csv"
HOSTILE = "<script>alert(1)</script>"


def output_of(run):
    return packets.unpack(run.output_packet)


@pytest.fixture
def working(settings, worker):
    """A worker in another process; what this one triggers waits for it. Arguments are those of `worker`."""
    settings.REALTIME_RUNS = settings.REALTIME_RUNS | {"BACKEND": EMBEDDED}
    return worker


# the file


def read_all():
    report = airports.Report("airports.csv")
    for row in airports.read(FILE):
        report.add(row)
    return report


def test_each_row_of_the_file_is_accepted_or_rejected_once():
    lines = FILE.read_text(encoding="utf-8").splitlines()
    report = read_all()
    assert report.total == len(lines) - 1 == 3376
    assert report.accepted + len(report.rejected) == report.total
    assert sum(report.states.values()) == report.accepted == 3356


def test_the_counts_by_state_are_those_of_the_file():
    report = read_all()
    assert len(report.states) == 53  # 50 states, the District of Columbia, Puerto Rico, the Virgin Islands
    # Counted another way: by the text of the lines.
    text = FILE.read_text(encoding="utf-8")
    for state in ("AK", "TX", "HI", "PR", "DC"):
        assert report.states[state] == text.count(f",{state},USA,"), state
    assert report.states["AK"] == 263


def test_rejected_rows_name_their_line_and_every_reason():
    report = read_all()
    lines = FILE.read_text(encoding="utf-8").splitlines()
    assert all(lines[row.line - 1].startswith(f"{row.code},") for row in report.rejected)
    reasons = {row.code: row.reason for row in report.rejected}
    without_place = {"CLD", "HHH", "MIB", "MQT", "RCA", "RDR", "SCE", "SKA", "ROP", "ROR", "SPN", "YAP"}
    wrong_sign = {"FAQ", "PPG", "Z08", "GUM", "GRO", "GSN", "TNI", "TT01"}
    assert set(reasons) == without_place | wrong_sign
    assert reasons["CLD"] == "no city; no state"
    assert reasons["ROP"] == "no city; no state; country 'Thailand' is not USA"
    assert reasons["GUM"] == "longitude -144.7959825 has the wrong sign: GU lies east of Greenwich"
    assert reasons["PPG"] == "latitude 14.33102278 has the wrong sign: AS lies south of the equator"


GOOD = {
    "iata": "ELP",
    "name": "El Paso International",
    "city": "El Paso",
    "state": "TX",
    "country": "USA",
    "latitude": "31.80666667",
    "longitude": "-106.3778056",
}


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({}, None),
        ({"iata": "11IS"}, None),
        ({"iata": "elp"}, "code 'elp' is not 3 or 4 capital letters or digits"),
        ({"iata": "EL"}, "code 'EL' is not 3 or 4 capital letters or digits"),
        ({"name": " "}, "no name"),
        ({"city": ""}, "no city"),
        ({"state": "Texas"}, "state 'Texas' is not two capital letters"),
        ({"country": "Mexico"}, "country 'Mexico' is not USA"),
        ({"latitude": "90.1"}, "latitude '90.1' is not a number from -90 to 90"),
        ({"latitude": "nan"}, "latitude 'nan' is not a number from -90 to 90"),
        ({"longitude": "-180.5"}, "longitude '-180.5' is not a number from -180 to 180"),
        ({"longitude": "west"}, "longitude 'west' is not a number from -180 to 180"),
    ],
)
def test_a_row_is_judged_field_by_field(changed, reason):
    assert list(airports.faults(list((GOOD | changed).values()))) == ([reason] if reason else [])


def test_a_row_with_missing_fields_is_rejected_not_guessed():
    assert list(airports.faults(["ELP", "El Paso"])) == ["2 fields instead of 7"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "must start with the columns iata,name"),
        (b"code,name\nELP,El Paso\n", "must start with the columns iata,name"),
        (b"iata,name,city,state,country,latitude,longitude\n\xff\xfe\n", "cannot be read"),
    ],
)
def test_a_file_that_is_no_table_of_airports_is_refused(tmp_path, content, message):
    path = tmp_path / "other.csv"
    path.write_bytes(content)
    with pytest.raises(airports.UnreadableFile, match=re.escape(message)):
        list(airports.read(path))


# the tasks


@pytest.mark.django_db(transaction=True)
def test_import_airports_gives_the_counts_and_the_rejected_rows():
    run = runs.retrieve(tasks.trigger("import-airports", {"file": "airports.csv", "delayMs": 0}).id)
    assert run.status == RunStatus.COMPLETED, run.error
    output = output_of(run)
    assert (output["file"], output["total"], output["accepted"]) == ("airports.csv", 3376, 3356)
    assert sum(output["states"].values()) + len(output["rejected"]) == 3376
    assert output["rejected"][0] == {"line": 1138, "code": "CLD", "reason": "no city; no state"}
    assert run.metadata["progress"] == {"current": 3376, "total": 3376, "percentage": 100}
    assert run.metadata["status"] == "3,356 of 3,376 airports in 53 states and territories"


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    "name", ["../settings.py", "/etc/passwd", "../data/airports.csv", "./airports.csv", "README.md", "AIRPORTS.CSV", ""]
)
def test_import_airports_reads_nothing_outside_its_folder(name):
    with pytest.raises(PayloadInvalid, match=r"file: .*not a file of project/data; there is airports\.csv"):
        tasks.trigger("import-airports", {"file": name})
    assert not Run.objects.exists()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("task", "payload", "output"),
    [
        ("echo", {"any": ["thing", 1, None, 1.5]}, {"any": ["thing", 1, None, 1.5]}),
        ("echo", "text", "text"),
        ("echo", None, None),
        ("slow", {"seconds": 0}, {"slept": 0}),
        ("slow", {"seconds": 0.01}, {"slept": 0.01}),
        ("progress-task", {"items": ["a", "b", "c"], "delayMs": 0}, {"processed": 3}),
        ("progress-task", {"items": []}, {"processed": 0}),
        ("stream-text", {"text": " the quick\nfox ", "delayMs": 0}, {"chunks": 3}),
        ("stream-text", {"text": ""}, {"chunks": 0}),
        ("multi-stream", {"count": 2, "delayMs": 0}, {"streams": ["ai-output", "progress", "default"], "count": 2}),
        ("wait-approval", {"timeoutSeconds": 0}, {"approval": None, "timedOut": True}),
    ],
)
def test_demo_tasks_give_exactly_this_output(task, payload, output):
    run = runs.retrieve(tasks.trigger(task, payload).id)
    assert run.status == RunStatus.COMPLETED, run.error
    assert run.output_packet.text == json.dumps(output, separators=(",", ":"))


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(("payload", "message"), [({}, "boom"), ({"message": "bang"}, "bang")])
def test_fail_fails_at_its_first_attempt(payload, message):
    run = runs.retrieve(tasks.trigger("fail", payload).id)
    assert (run.status, run.attempt_count) == (RunStatus.FAILED, 1)
    assert (run.error.name, run.error.message) == ("RuntimeError", message)


@pytest.mark.django_db(transaction=True)
def test_progress_task_ends_with_the_last_item_and_status_completed():
    run = runs.retrieve(tasks.trigger("progress-task", {"items": ["a", "b", "c"], "delayMs": 0}).id)
    progress = {"current": 3, "total": 3, "percentage": 100, "currentItem": "c"}
    assert run.metadata == {"progress": progress, "status": "completed"}


def chunks(run_id, key):
    return [*streams.read(run_id, key)]


@pytest.mark.django_db(transaction=True)
def test_a_told_story_is_its_pieces_joined():
    handle = tasks.trigger("tell-story", {"text": "one two\n three.", "delayMs": 0})
    assert chunks(handle, "ai-output") == ["one", " two", "\n three."]


@pytest.mark.django_db(transaction=True)
def test_stream_text_writes_a_chunk_a_word():
    handle = tasks.trigger("stream-text", {"text": " the quick\nfox ", "delayMs": 0})
    assert chunks(handle, "ai-output") == ["the", "quick", "fox"]


@pytest.mark.django_db(transaction=True)
def test_multi_stream_writes_three_streams():
    handle = tasks.trigger("multi-stream", {"count": 2, "delayMs": 0})
    assert runs.retrieve(handle).realtime_streams == ("ai-output", "progress", "default")
    assert chunks(handle, "ai-output") == ["token-0", "token-1"]
    assert chunks(handle, "progress") == [{"step": 1, "total": 2}, {"step": 2, "total": 2}]
    assert chunks(handle, "default") == ["default-0", "default-1"]


APPROVAL = {"approved": True, "by": ["Ada", None]}


@pytest.mark.django_db(transaction=True)
def test_wait_approval_takes_what_was_sent_before_it_began():
    with transaction.atomic():
        handle = tasks.trigger("wait-approval")
        streams.input("approval").send(handle, APPROVAL)
    run = runs.retrieve(handle)
    assert output_of(run) == {"approval": APPROVAL}
    assert run.metadata == {"waitingFor": "input"}
    assert run.realtime_streams == ()


@pytest.mark.parametrize("mode", ["input", "token"])
def test_wait_approval_goes_on_when_somebody_approves(working, eventually, mode):
    working()
    token = wait.create_token()
    handle = tasks.trigger("wait-approval", {"mode": mode, "tokenId": token.id})
    eventually(lambda: runs.retrieve(handle).is_waiting)
    assert runs.retrieve(handle).metadata == {"waitingFor": mode}
    if mode == "input":
        streams.input("approval").send(handle, APPROVAL)
    else:
        wait.complete_token(token, APPROVAL)
    assert output_of(runs.poll(handle, interval=0.05, timeout=20)) == {"approval": APPROVAL}


def test_wait_approval_gives_up_on_a_token_after_its_own_time(working):
    working()
    handle = tasks.trigger(
        "wait-approval", {"mode": "token", "tokenId": wait.create_token(timeout="1h").id, "timeoutSeconds": 0.2}
    )
    assert output_of(runs.poll(handle, interval=0.05, timeout=20)) == {"approval": None, "timedOut": True}


@pytest.mark.django_db(transaction=True)
def test_wait_approval_for_a_token_needs_one():
    with pytest.raises(PayloadInvalid, match='mode "token" needs a tokenId'):
        tasks.trigger("wait-approval", {"mode": "token"})


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("file", ["LICENSE", "docs/explanation/how-it-works.md"])
def test_summarise_file_streams_the_whole_file_and_picks_some_of_its_sentences(file):
    handle = tasks.trigger("summarise-file", {"file": file, "sentences": 2, "delayMs": 0})
    run = runs.retrieve(handle)
    assert run.status == RunStatus.COMPLETED, run.error
    pieces, text = chunks(handle, "text"), (summary.ROOT / file).read_text(encoding="utf-8")
    assert len(pieces) > 3
    assert "".join(pieces) == text
    assert run.metadata["progress"] == {"current": len(pieces), "total": len(pieces), "percentage": 100}
    output = output_of(run)
    assert output["summary"].count(".") == 2
    assert all(sentence in " ".join(summary.sentences(text)) for sentence in output["summary"].split(". "))
    assert run.metadata["status"] == f"2 of {output['sentences']} sentences"


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    "name", ["../main.txt", "/etc/passwd", "docs/../README.md", "./README.md", "project/settings.py", "docs", "", "\0"]
)
def test_summarise_file_reads_nothing_but_the_texts_of_the_repository(name):
    with pytest.raises((PayloadInvalid, NotJson), match=r"not a text of this repository; take README\.md|U\+0000"):
        tasks.trigger("summarise-file", {"file": name})
    assert not Run.objects.exists()


MARKDOWN = """# Tea. And more

Tea is **made** of leaves, [say the books](books.md). Is it hot?
Yes `always`.

| Tea. | Cup. |

```python
tea = "Not prose."
```

1. First the pot is warmed with
   boiling water.
- Then wait.
"""


def test_sentences_are_found_in_prose_only():
    assert list(summary.sentences(MARKDOWN)) == [
        "Tea is made of leaves, say the books.",
        "Is it hot?",
        "Yes always.",
        "First the pot is warmed with boiling water.",
        "Then wait.",
    ]
    assert "".join(summary.paragraphs(MARKDOWN)) == MARKDOWN


def test_a_summary_has_the_weightiest_sentences_in_their_order():
    text = (
        "Kettles boil water for tea every single morning before breakfast starts. "
        "Somebody painted another fence green yesterday afternoon. "
        "Kettles boil water, water makes tea, tea needs kettles. Yes."
    )
    found = summary.summarise("tea.md", text, 2)
    assert (found.sentences, found.words) == (4, 28)
    assert found.summary.startswith("Kettles boil water for tea every")
    assert found.summary.endswith("tea needs kettles.")
    assert summary.summarise("tea.md", text, 1).summary == "Kettles boil water, water makes tea, tea needs kettles."
    assert summary.summarise("empty.md", "", 2).summary == ""


def test_progress_task_shows_how_far_it_is_while_it_runs(working):
    working()
    handle = tasks.trigger("progress-task", {"items": list("abcdefgh"), "delayMs": 400})
    with runs.subscribe_to_run(handle.id) as updates:
        seen = [run.metadata["progress"] for run in updates if "progress" in run.metadata]
    percentages = {progress["current"]: progress["percentage"] for progress in seen}
    assert len(percentages) >= 4  # on SQLite another process looks every half second, and skips what it missed
    assert percentages.items() <= {1: 13, 2: 25, 3: 38, 4: 50, 5: 63, 6: 75, 7: 88, 8: 100}.items()
    assert [progress["current"] for progress in seen] == sorted(progress["current"] for progress in seen)


def test_a_canceled_import_gives_its_thread_back(working, eventually):
    working(SYNC_CONCURRENCY=1)
    endless = tasks.trigger("import-airports", {"delayMs": 60_000})
    eventually(lambda: runs.retrieve(endless.id).metadata.get("progress"))
    assert runs.cancel(endless.id).status == RunStatus.CANCELED
    # The only thread for sync tasks is free again, or this one would wait for half an hour.
    after = tasks.trigger("import-airports", {"delayMs": 0})
    eventually(lambda: runs.retrieve(after.id).is_success)
    assert runs.retrieve(endless.id).status == RunStatus.CANCELED


# the pages


class Page(HTMLParser):
    """What of a page a strict policy would block, and what its links and forms point to."""

    def __init__(self, html):
        super().__init__()
        self.inline = []
        self.links = []
        self.runs = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        if tag == "style" or (tag == "script" and "src" not in values):
            self.inline.append(tag)
        self.inline += [f"{tag} {name}" for name in values if name == "style" or name.startswith("on")]
        if tag == "a":
            self.links.append(values["href"])
        if "data-run" in values:
            self.runs.append(values["data-run"])


@pytest.fixture
def delayed_run(transactional_db):
    """A run that stays as it is, with hostile text wherever text can be."""
    return tasks.trigger(
        "echo", {HOSTILE: HOSTILE}, tags=[HOSTILE], metadata={"status": HOSTILE, HOSTILE: 1}, delay="1h"
    )


@pytest.fixture
def failed_run(transactional_db):
    return tasks.trigger("fail", {"message": HOSTILE})


def test_home_shows_the_runs_and_a_button_for_each_task(client, delayed_run, failed_run):
    response = client.get("/")
    html = response.content.decode()
    assert response.status_code == 200
    assert Page(html).runs == [failed_run.id, delayed_run.id]
    for sample in SAMPLES:
        assert f'aria-label="Run {sample.task}"' in html


@pytest.mark.parametrize("which", ["home", "delayed", "failed"])
def test_pages_show_hostile_text_as_text(client, delayed_run, failed_run, which):
    path = {"home": "/", "delayed": f"/runs/{delayed_run.id}", "failed": f"/runs/{failed_run.id}"}[which]
    html = client.get(path).content.decode()
    assert HOSTILE not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html


@pytest.mark.parametrize("which", ["home", "run", "missing", "bad cursor"])
def test_pages_work_under_a_strict_policy(client, failed_run, which):
    paths = {"home": "/", "run": f"/runs/{failed_run.id}", "missing": "/runs/run_missing", "bad cursor": "/?after=x"}
    response = client.get(paths[which])
    policy = response["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert Page(response.content.decode()).inline == []


def test_run_page_shows_the_error_with_its_traceback(client, failed_run):
    html = client.get(f"/runs/{failed_run.id}").content.decode()
    assert "RuntimeError: &lt;script&gt;" in html
    assert "Traceback (most recent call last)" in html
    assert "raise RuntimeError" in html


def test_a_run_that_does_not_exist_is_said_to(client, transactional_db):
    response = client.get("/runs/run_missing")
    assert response.status_code == 404
    assert "run_missing" in response.content.decode()
    assert client.get("/runs/run_missing/decision").status_code == 404
    assert client.post("/runs/run_missing/cancel").status_code == 404


def test_a_cursor_that_is_none_is_refused(client, transactional_db):
    assert client.get("/?after=nonsense").status_code == 400


def test_older_and_newer_lead_through_all_runs(client, transactional_db):
    ids = [tasks.trigger("echo", n, delay="1h").id for n in range(60)]
    seen, path = [], "/"
    while path:
        page = Page(client.get(path).content.decode())
        seen += page.runs
        path = next(("/" + link for link in page.links if link.startswith("?after=")), None)
    ids.sort(reverse=True)
    assert seen == ids
    newer = next(link for link in page.links if link.startswith("?before="))
    assert Page(client.get("/" + newer).content.decode()).runs == ids[25:50]


def test_trigger_starts_a_run_and_leads_to_its_page(client, transactional_db):
    response = client.post("/trigger", {"task": "echo", "payload": '{"hello": "world"}'})
    (run,) = runs.list().data
    assert (response.status_code, response["Location"]) == (302, f"/runs/{run.id}")
    assert (run.task_identifier, run.payload, run.tags) == ("echo", {"hello": "world"}, ("demo",))


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.task)
def test_the_payload_of_each_button_fits_its_task(client, transactional_db, sample, settings):
    # Fits, and not more: the samples take their time when they run.
    tasks.trigger(sample.task, sample.payload, delay="1h")
    (run,) = runs.list().data
    assert run.task_identifier == sample.task


def test_trigger_and_cancel_need_the_csrf_token(transactional_db):
    client = Client(enforce_csrf_checks=True)
    fields = {"task": "echo", "payload": "1"}
    assert client.post("/trigger", fields).status_code == 403
    assert not Run.objects.exists()
    waiting = tasks.trigger("echo", 1, delay="1h")
    assert client.post(f"/runs/{waiting.id}/cancel").status_code == 403
    assert runs.retrieve(waiting.id).status == RunStatus.DELAYED

    client.get("/")
    token = {"csrfmiddlewaretoken": client.cookies["csrftoken"].value}
    assert client.post("/trigger", fields | token).status_code == 302
    assert client.post(f"/runs/{waiting.id}/cancel", token).status_code == 302
    assert runs.retrieve(waiting.id).status == RunStatus.CANCELED


@pytest.mark.parametrize("path", ["/trigger", "/runs/run_x/cancel"])
def test_nothing_is_changed_by_following_a_link(client, transactional_db, path):
    assert client.get(path).status_code == 405


@pytest.mark.parametrize(
    ("task", "payload", "message"),
    [
        ("slow", "{", "not JSON"),
        ("slow", "", "This field is required"),
        ("slow", '{"seconds": -1}', "seconds"),
        ("slow", "[" * 200_000, "nested"),
        ("echo", "1" * 5000, "not JSON"),
        ("echo", '"\\u0000"', "U+0000"),
        ("import-airports", '{"file": "../settings.py"}', "not a file of project/data"),
    ],
)
def test_bad_input_is_explained_and_kept_for_correction(client, transactional_db, task, payload, message):
    response = client.post("/trigger", {"task": task, "payload": payload})
    html = response.content.decode()
    assert response.status_code == 400
    assert message in html
    assert payload[:40].replace('"', "&quot;") in html
    assert not Run.objects.exists()


def test_a_task_that_has_no_button_cannot_be_started(client, transactional_db):
    assert client.post("/trigger", {"task": "t-echo", "payload": "1"}).status_code == 400
    assert not Run.objects.exists()


def test_a_board_shows_the_runs_of_its_tag_by_what_they_do(client, delayed_run, failed_run):
    runs.add_tags(failed_run, ["a/b"])
    html = client.get("/tags/a/b").content.decode()
    assert Page(html).runs == [failed_run.id, ""]  # the second is the template of a card
    stopped = html.index("Stopped")
    assert stopped < html.index(failed_run.id)
    assert client.get(f"/tags/{HOSTILE}").status_code == 200
    assert client.get("/tags/" + "x" * 129).status_code in (200, 400)


@pytest.mark.parametrize(
    ("page", "scopes"),
    [("/", ["read:runs"]), ("/runs/{}", ["read:runs:{}"]), ("/tags/a", ["read:tags:a"])],
)
def test_a_page_gets_a_token_for_what_it_shows_and_another_one_later(client, delayed_run, page, scopes):
    html = client.get(page.format(delayed_run.id)).content.decode()
    (meta,) = re.findall(r'<meta name="realtime-runs"[^>]*>', html)
    token, refresh = re.search('data-token="([^"]+)"', meta)[1], re.search('data-refresh="([^"]+)"', meta)[1]
    assert client.get(refresh).status_code == 405
    later = client.post(refresh).json()["token"]
    for given in (token, later):
        claims = jwt.decode(given, options={"verify_signature": False})
        assert claims["scopes"] == [scope.format(delayed_run.id) for scope in scopes]
    assert Client(enforce_csrf_checks=True).post(refresh).status_code == 403


@pytest.mark.parametrize(("button", "approved"), [("approve", True), ("reject", False)])
def test_a_decision_reaches_the_task_that_waits_for_it(client, working, eventually, button, approved):
    working()
    handle = tasks.trigger("wait-approval", {})
    page = f"/runs/{handle.id}/decision"
    assert "Approve" in client.get(page).content.decode()
    assert client.post(page, {button: "1"}).status_code == 200
    eventually(lambda: runs.retrieve(handle.id).is_completed)
    assert output_of(runs.retrieve(handle.id)) == {"approval": {"approved": approved}}
    assert "does not wait any more" in client.post(page, {button: "1"}).content.decode()


def test_the_page_of_an_import_lists_what_was_rejected(client, transactional_db):
    handle = tasks.trigger("import-airports", {"delayMs": 0})
    html = client.get(f"/runs/{handle.id}").content.decode()
    assert "3,356 of 3,376 airports accepted" in html
    assert "no city; no state; country &#x27;Thailand&#x27; is not USA" in html
    assert html.count("<tr>") == 21


def test_the_page_of_an_import_that_goes_on_shows_its_report_so_far_and_no_other(client, transactional_db):
    so_far = {"file": "a.csv", "total": 1200, "accepted": 1190, "states": {"TX": 1190}, "rejected": []}
    for report, is_shown in ((so_far, True), ({"rejected": 5}, False), (HOSTILE, False)):
        handle = tasks.trigger("import-airports", {}, delay="1h", metadata={"report": report})
        html = client.get(f"/runs/{handle.id}").content.decode()
        assert ("1,190 of 1,200 airports accepted so far" in html) is is_shown
        assert ("10 rejected so far" in html) is is_shown
        assert HOSTILE not in html


def test_text_that_is_no_utf8_or_endless_is_still_shown():
    assert pretty("half \ud83d") == '"half \N{REPLACEMENT CHARACTER}"'
    assert len(pretty("x" * 10 * LONGEST_TEXT)) == LONGEST_TEXT


# the command


# These start it with project.settings and a SQLite file of their own, whatever the other tests use.
on_sqlite = pytest.mark.sqlite


@pytest.fixture
def free_standing(tmp_path):
    """The environment of somebody who starts the demo: project.settings and a SQLite file that is not there yet."""
    env = {name: value for name, value in os.environ.items() if name not in ("REDIS_URL", "PYTHONWARNINGS")}
    return env | {"DJANGO_SETTINGS_MODULE": "project.settings", "DATABASE_URL": f"sqlite:///{tmp_path}/demo.sqlite3"}


@on_sqlite
def test_demo_says_so_when_the_port_is_taken(start_process, free_standing, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        process = start_process(["manage.py", "demo", "--port", str(port)], env=free_standing, fresh=True)
        assert process.wait() == 1
    message = f"Port {port} is taken by another program. Choose another one: make demo PORT={port + 1}"
    assert process.output().strip() == f"CommandError: {message}"
    with sqlite3.connect(tmp_path / "demo.sqlite3") as database:  # looked at by the system checks, but not migrated
        assert not database.execute("SELECT * FROM sqlite_master").fetchall()
    database.close()


def test_a_port_that_was_in_use_a_moment_ago_is_free():
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
        with socket.create_connection(address), server.accept()[0]:
            pass  # the server's side closes last but one and stays in TIME_WAIT
    check_port(address[1])


@pytest.mark.parametrize("port", ["0", "65536", "http"])
def test_demo_refuses_what_is_no_port(port):
    with pytest.raises(CommandError, match="take a number from 1 to 65535"):
        call_command("demo", "--port", port)


def test_demo_makes_no_known_login_when_debug_is_off(db, settings):
    settings.DEBUG = False
    with pytest.raises(CommandError, match="createsuperuser"):
        prepare_login()
    assert not get_user_model().objects.exists()


def test_demo_makes_the_login_once_and_leaves_others_alone(db, settings, client):
    settings.DEBUG = True
    assert prepare_login() == prepare_login() == "login admin, password admin"
    assert client.login(username="admin", password="admin")
    user = get_user_model().objects.get()
    user.set_password("changed")
    user.save()
    assert prepare_login() == "(log in as your superuser)"
    assert get_user_model().objects.get().check_password("changed")


@on_sqlite
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_demo_serves_runs_and_ends(start_process, free_standing, eventually, number):
    port = free_port()
    process = start_process(["manage.py", "demo", "--port", str(port)], env=free_standing, fresh=True)
    printed = process.wait_for_output("Ctrl-C ends it", timeout=30)
    assert f"http://127.0.0.1:{port}/\n" in printed
    assert f"http://127.0.0.1:{port}/admin/   login admin, password admin" in printed

    with httpx.Client(base_url=f"http://127.0.0.1:{port}", follow_redirects=True) as browser:
        eventually(lambda: reaches(browser))
        for path in ("/static/project/runs.css", "/static/project/fresh.js", "/static/admin/css/base.css"):
            assert browser.get(path).status_code == 200, path
        assert browser.get("/static/project/fresh.js").headers["content-type"].startswith("text/javascript")

        start = {"task": "echo", "payload": '"hi"', "csrfmiddlewaretoken": browser.cookies["csrftoken"]}
        page = browser.post("/trigger", data=start).url
        eventually(lambda: 'data-status="COMPLETED"' in browser.get(page).text)
        assert "&quot;hi&quot;" in browser.get(page).text

        browser.get("/admin/login/")
        login = {"username": "admin", "password": "admin", "csrfmiddlewaretoken": browser.cookies["csrftoken"]}
        assert "Site administration" in browser.post("/admin/login/?next=/admin/", data=login).text

    os.kill(process.pid, number)
    assert process.wait() == 0
    assert process.output().endswith("Stopped.\n")
    assert "Traceback" not in process.output()


def reaches(browser):
    try:
        return browser.get("/").status_code == 200
    except httpx.TransportError:
        return False


@pytest.mark.parametrize("kind", ["daphne", "uvicorn"])
def test_the_application_works_the_same_under_both_servers(asgi_server, settings, eventually, kind):
    settings.REALTIME_RUNS = settings.REALTIME_RUNS | {"BACKEND": EMBEDDED}  # the server's worker has to do it
    server = asgi_server(kind)
    assert httpx.get(server.url + "/static/project/runs.css").status_code == 200
    handle = tasks.trigger("progress-task", {"items": ["a"], "delayMs": 0})
    eventually(lambda: runs.retrieve(handle.id).is_success)
    assert reverse("run", args=[handle.id]) in httpx.get(server.url).text
