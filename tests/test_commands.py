"""The operator's commands: what they print into a pipe and on a terminal, and how they end."""

import io
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError, OutputWrapper, SystemCheckError
from django.utils import timezone

from realtime_runs import batch, runs, streams, tasks
from realtime_runs.access import keys
from realtime_runs.display.elapsed import seconds
from realtime_runs.display.progress import Progress, read_progress
from realtime_runs.management.chunk_text import ChunkText
from realtime_runs.management.live_line import LiveLine
from realtime_runs.management.output import printable, restart_fields
from realtime_runs.models import Run
from realtime_runs.statuses import RunStatus
from realtime_runs.streams import StreamRestarted
from tests.conftest import EMBEDDED, ROOT
from tests.forking import ForkedProgram

pytestmark = pytest.mark.django_db(transaction=True)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def command(name, *arguments, terminal=False):
    """What the command prints."""
    out = Terminal() if terminal else io.StringIO()
    call_command(name, *arguments, stdout=out, stderr=out)
    return out.getvalue()


def json_lines(text):
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture
def working(worker, server_env, settings):
    """A worker in another process, which does what this one and commands in further processes trigger."""
    server_env["REALTIME_RUNS_BACKEND"] = EMBEDDED
    settings.REALTIME_RUNS = settings.REALTIME_RUNS | {"BACKEND": EMBEDDED}
    return worker()


# runs_trigger


# -- all of them


COMMANDS = [
    ("runs_trigger", "echo"),
    ("runs_list",),
    ("runs_cancel", "run_1"),
    ("runs_tail", "run_1"),
    ("runs_prune",),
    ("runs_key",),
    ("runs_worker",),
]


@pytest.mark.parametrize("arguments", COMMANDS, ids=lambda arguments: arguments[0])
def test_a_wrong_setting_is_told_before_anything_is_done(arguments, settings):
    settings.REALTIME_RUNS = {"LEASE_SECOND": 5}
    with pytest.raises(SystemCheckError, match="has no setting 'LEASE_SECOND'"):
        call_command(*arguments, skip_checks=False)


def test_a_command_needs_nothing_of_the_rest_of_the_site(settings):
    settings.ROOT_URLCONF = "not.there"
    assert call_command("runs_list", skip_checks=False, stdout=io.StringIO()) is None


def test_trigger_prints_the_id_of_the_run():
    run = runs.retrieve(command("runs_trigger", "echo", '{"a": [1]}', "--tag", "x", "--tag", "user:1").strip())
    assert (run.task_identifier, run.payload, run.tags) == ("echo", {"a": [1]}, ("user:1", "x"))


def test_trigger_without_json_gives_no_payload():
    run = runs.retrieve(command("runs_trigger", "echo", "--delay", "1h").strip())
    assert run.payload_packet.text is None
    assert run.status == RunStatus.DELAYED
    assert timedelta(minutes=59) < run.delayed_until - timezone.now() <= timedelta(hours=1)


def test_trigger_twice_with_one_key_is_one_run():
    first, second = (command("runs_trigger", "echo", "1", "--idempotency-key", "k") for _ in range(2))
    assert first == second
    assert Run.objects.count() == 1


def test_trigger_reads_the_payload_from_standard_input(monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO('{"from": "stdin", "é": "ü"}'))
    assert runs.retrieve(command("runs_trigger", "echo", "-").strip()).payload == {"from": "stdin", "é": "ü"}


BAD_INPUT = {
    "bad JSON": (["echo", "{"], "payload is not JSON"),
    "NaN": (["echo", "NaN"], "payload is not JSON"),
    "NUL": (["echo", '"\\u0000"'], "U+0000"),
    "too deep": (["echo", "[" * 100_000], "nested"),
    "unknown task": (["nope", "1"], "Task 'nope' does not exist. Known tasks: "),
    "no payload": (["slow"], "The payload does not fit task 'slow'"),
    "wrong field": (["slow", '{"seconds": "soon"}'], "seconds: "),
    "outside the folder": (["import-airports", '{"file": "../settings.py"}'], "file: "),
    "delay": (["echo", "1", "--delay", "soon"], "delay 'soon' must be"),
    "tag": (["echo", "1", "--tag", "x" * 200], "128"),
    "eleven tags": (["echo", "1", *(f"--tag={n}" for n in range(11))], "MAX_TAGS"),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_trigger_refuses_bad_input_in_one_line(case):
    arguments, message = BAD_INPUT[case]
    with pytest.raises(CommandError, match=re.escape(message)) as caught:
        command("runs_trigger", *arguments, "--follow")
    assert caught.value.returncode == 2
    assert len(str(caught.value).splitlines()) == 1
    assert not Run.objects.exists()


def test_trigger_exits_2_without_a_traceback(start_process, server_env):
    process = start_process(["manage.py", "runs_trigger", "slow", '{"seconds": -1}'], env=server_env)
    assert process.wait() == 2
    assert re.fullmatch(r"CommandError: The payload does not fit task 'slow': seconds: .*\n", process.output())


def test_following_a_run_that_completes_ends_with_its_output():
    lines = json_lines(command("runs_trigger", "echo", '{"é": 1}', "--follow"))
    last = lines[-1]
    assert last == {
        "id": last["id"],
        "status": "COMPLETED",
        "version": last["version"],
        "metadata": {},
        "output": {"é": 1},
    }
    assert Run.objects.get().pk == last["id"]


def test_following_a_run_that_fails_ends_with_its_error():
    out = io.StringIO()
    with pytest.raises(CommandError, match=r"^Run run_\w+ is FAILED: boom$") as caught:
        call_command("runs_trigger", "fail", "{}", "--follow", stdout=out)
    assert caught.value.returncode == 1
    last = json_lines(out.getvalue())[-1]
    assert last["status"] == "FAILED"
    assert last["error"]["name"] == "RuntimeError"
    assert last["error"]["message"] == "boom"
    assert "raise RuntimeError" in last["error"]["stackTrace"]
    assert "output" not in last


def test_following_the_import_shows_rising_progress_as_it_happens_and_the_counts(working, server_env):
    arguments = [sys.executable, "manage.py", "runs_trigger", "import-airports", '{"delayMs": 60}', "--follow"]
    env = {name: value for name, value in server_env.items() if name != "PYTHONUNBUFFERED"}
    with subprocess.Popen(arguments, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True) as process:
        arrived = [(json.loads(line), time.monotonic()) for line in process.stdout]
    assert process.returncode == 0
    versions = [line["version"] for line, _ in arrived]
    assert versions == sorted(set(versions))
    progress = [(line["metadata"]["progress"]["current"], at) for line, at in arrived if "progress" in line["metadata"]]
    current = [rows for rows, _ in progress]
    assert current == sorted(current)
    assert len(set(current)) >= 3  # on SQLite another process looks every half second, and skips what it missed
    assert current[-1] == 3376
    assert progress[-1][1] - progress[0][1] > 0.8  # and not all at the end, when the pipe is closed
    last = arrived[-1][0]
    assert last["status"] == "COMPLETED"
    assert (last["output"]["total"], last["output"]["accepted"], len(last["output"]["rejected"])) == (3376, 3356, 20)


class OnTerminal:
    """A command that believes to be on a terminal of 100 columns."""

    def __init__(self, arguments, env):
        self.ours, theirs = pty.openpty()
        env = env | {"COLUMNS": "100", "LINES": "30"}
        terminal = Path(os.ttyname(theirs))
        self.process = ForkedProgram(["manage.py", *arguments], ROOT, env, terminal, stdin=terminal)
        select.select([self.ours], [], [], 30)  # by its first word the command has opened its side
        os.close(theirs)
        self.text = ""

    def read_until(self, text, timeout=30):
        """Read on until the text came; None reads to the end."""
        deadline = time.monotonic() + timeout
        while text is None or text not in self.text:
            ready, _, _ = select.select([self.ours], [], [], max(0, deadline - time.monotonic()))
            assert ready, f"{text!r} did not come: {self.text}"
            try:
                data = os.read(self.ours, 65536)
            except OSError:  # the other side is closed
                data = b""
            if not data:
                assert text is None, f"ended before {text!r}: {self.text}"
                return
            self.text += data.decode()

    def press(self, key):
        os.write(self.ours, key.encode())

    def end(self):
        self.read_until(None)
        return self.process.wait(10)


@pytest.fixture
def on_terminal(server_env):
    started = []

    def start(*arguments):
        started.append(OnTerminal(arguments, server_env))
        return started[-1]

    yield start
    for terminal in started:
        if terminal.process.poll() is None:
            os.kill(terminal.process.pid, signal.SIGKILL)
        terminal.process.wait()
        os.close(terminal.ours)


def test_a_terminal_gets_one_line_that_is_drawn_anew(working, on_terminal):
    terminal = on_terminal("runs_trigger", "import-airports", '{"delayMs": 70}', "--follow")
    assert terminal.end() == 0
    run_id, drawn, output = terminal.text.split("\r\n", 2)
    assert run_id.startswith("run_")
    drawings = drawn.split("\r")[1:]
    percentages = [int(found[1]) for drawing in drawings if (found := re.search(r" (\d+)%", drawing))]
    assert percentages == sorted(percentages)
    assert len(set(percentages)) >= 4
    assert "COMPLETED" in drawings[-1]
    assert "█" * 28 + "  100%" in drawings[-1]
    assert all(len(drawing.removesuffix("\x1b[K")) < 100 for drawing in drawings)
    assert json.loads(output)["accepted"] == 3356


def test_a_terminal_gets_the_traceback_of_a_failed_run():
    out = Terminal()
    with pytest.raises(CommandError, match="is FAILED: bang"):
        call_command("runs_trigger", "fail", '{"message": "bang"}', "--follow", stdout=out)
    assert "Traceback (most recent call last):\n" in out.getvalue()
    assert "RuntimeError: bang\n" in out.getvalue()


# streams


def test_following_with_streams_writes_a_line_per_chunk_too():
    lines = json_lines(command("runs_trigger", "multi-stream", '{"count": 2, "delayMs": 0}', "--streams"))
    found = [(line["stream"], line["index"], line["chunk"]) for line in lines if "stream" in line]
    assert sorted(found, key=str) == [
        ("ai-output", 0, "token-0"),
        ("ai-output", 1, "token-1"),
        ("default", 0, "default-0"),
        ("default", 1, "default-1"),
        ("progress", 0, {"step": 1, "total": 2}),
        ("progress", 1, {"step": 2, "total": 2}),
    ]
    updates = [line for line in lines if "stream" not in line]
    assert updates[-1]["output"]["count"] == 2
    assert {line["id"] for line in lines} == {Run.objects.get().pk}


def test_following_with_streams_ends_as_without():
    with pytest.raises(CommandError, match="is FAILED: boom") as caught:
        command("runs_trigger", "fail", "{}", "--follow", "--streams")
    assert caught.value.returncode == 1


def test_a_terminal_gets_the_words_of_a_stream_as_they_come(working, on_terminal):
    payload = json.dumps({"text": "the quick \x1b[2J brown fox", "delayMs": 700})
    terminal = on_terminal("runs_trigger", "stream-text", payload, "--streams")
    terminal.read_until("ai-output: the")
    assert "fox" not in terminal.text
    assert terminal.end() == 0
    assert "ai-output: the quick \ufffd[2J brown fox\r\n" in terminal.text
    assert "stream-text  COMPLETED" in terminal.text
    assert json.loads(terminal.text[terminal.text.index("{") :]) == {"chunks": 5}


@pytest.mark.parametrize(
    ("chunks", "text"),
    [
        ([("a", "one"), ("a", "two")], "a: one two\n"),
        ([("a", "str"), ("a", "ing"), ("a", " is"), ("a", "n't")], "a: str ing isn't\n"),
        ([("a", "one\n"), ("a", "two\nthree")], "a: one\na: two\na: three\n"),
        ([("a", "one"), ("b", "two"), ("a", "three")], "a: one\nb: two\na: three\n"),
        ([("a", "one"), ("a", {"é": [1]}), ("a", None)], 'a: one\na: {"é": [1]}\na: null\n'),
        ([("a", ""), ("a", "x\r\ny\tz")], "a: x\na: y    z\n"),
        ([("a\n", "\x1b[2J\r\x07\u202e\u2028\x9b")], "a�: �[2J" + "�" * 5 + "\n"),
        ([("a", {"\x1b": "\x9b"})], 'a: {"\\u001b": "�"}\n'),
        ([], ""),
    ],
)
def test_chunks_are_written_for_people(chunks, text):
    out = io.StringIO()
    shown = ChunkText(OutputWrapper(out), labelled=True)
    for stream, chunk in chunks:
        shown.show(stream, chunk)
    shown.end_line()
    assert out.getvalue() == text


# runs_tail


@pytest.fixture
def written_run():
    """A completed run with the streams ai-output, progress and default."""
    return tasks.trigger("multi-stream", {"count": 3, "delayMs": 0}).id


def test_tail_writes_a_line_per_chunk_from_an_index_on(written_run):
    lines = json_lines(command("runs_tail", written_run, "progress", "--from", "1"))
    assert [(line["index"], line["chunk"], line["attempt"]) for line in lines] == [
        (1, {"step": 2, "total": 3}, 1),
        (2, {"step": 3, "total": 3}, 1),
    ]
    assert {(line["id"], line["stream"]) for line in lines} == {(written_run, "progress")}


def test_tail_shows_the_default_stream_and_on_a_terminal_only_its_text(written_run):
    assert command("runs_tail", written_run, terminal=True) == "default-0 default-1 default-2\n"


def test_tail_follows_until_the_stream_ends(working, on_terminal):
    words = "one two three four five six seven eight nine ten"  # for longer than a command takes to begin
    handle = tasks.trigger("stream-text", {"text": words, "delayMs": 600})
    terminal = on_terminal("runs_tail", handle.id, "ai-output")  # it need not be there yet
    terminal.read_until("one")
    assert "ten" not in terminal.text
    assert terminal.end() == 0
    assert terminal.text.endswith(f"{words}\r\n")


def test_a_new_attempt_that_begins_a_stream_anew_is_told():
    restarted, out = StreamRestarted("run_1", "draft", 2, 1), io.StringIO()
    text = ChunkText(OutputWrapper(out), labelled=False)
    text.show("draft", "first")
    text.show_restart(restarted)
    text.show("draft", "second")
    text.end_line()
    assert out.getvalue() == "first\n--- attempt 2 begins anew ---\nsecond\n"
    assert restart_fields(restarted) == {"id": "run_1", "stream": "draft", "index": 1, "restartedBy": 2}


def test_tail_of_a_stream_that_is_not_there_names_the_others(written_run):
    with pytest.raises(CommandError, match="has no stream 'nope', but ai-output, progress, default") as caught:
        command("runs_tail", written_run, "nope")
    assert caught.value.returncode == 2
    with pytest.raises(CommandError, match="has no stream 'default' and no other"):
        command("runs_tail", tasks.trigger("echo", 1).id)


def test_tail_of_an_unknown_run_exits_2():
    with pytest.raises(CommandError, match="Run 'run_missing' does not exist") as caught:
        command("runs_tail", "run_missing")
    assert caught.value.returncode == 2


def test_tail_of_a_stream_that_ended_early_exits_1(three_runs):
    delayed = three_runs[2]
    streams.append("log", "begun", target=delayed)
    runs.cancel(delayed)
    out = io.StringIO()
    with pytest.raises(CommandError, match=f"Stream 'log' of run {delayed} ended early: canceled") as caught:
        call_command("runs_tail", delayed, "log", stdout=out)
    assert caught.value.returncode == 1
    assert [line["chunk"] for line in json_lines(out.getvalue())] == ["begun"]


@pytest.mark.parametrize("start", ["-1", "x"])
def test_tail_refuses_what_is_no_index(written_run, start):
    with pytest.raises(CommandError, match="argument --from"):
        command("runs_tail", written_run, f"--from={start}")


def test_ctrl_c_leaves_a_tail_quietly(working, on_terminal):
    handle = tasks.trigger("stream-text", {"text": "one two", "delayMs": 60_000})
    terminal = on_terminal("runs_tail", handle.id, "ai-output")
    terminal.read_until("one")
    terminal.press("\x03")
    assert terminal.end() == 130
    assert terminal.text.endswith("one^C\r\n")
    assert not runs.retrieve(handle).is_completed
    runs.cancel(handle)


def test_ctrl_c_leaves_the_run_alone_and_says_so(working, on_terminal):
    terminal = on_terminal("runs_trigger", "slow", '{"seconds": 60}', "--follow")
    terminal.read_until("EXECUTING")
    terminal.press("\x03")
    assert terminal.end() == 130
    run = runs.retrieve(Run.objects.get().pk)
    assert f"Stopped following. Run {run.id} goes on" in terminal.text
    assert "Traceback" not in terminal.text
    assert run.status == RunStatus.EXECUTING
    runs.cancel(run.id)


def test_a_run_that_nobody_takes_says_what_may_be_missing(settings):
    settings.REALTIME_RUNS = settings.REALTIME_RUNS | {"BACKEND": EMBEDDED}
    run = runs.retrieve(tasks.trigger("echo", 1).id)
    line = LiveLine(OutputWrapper(io.StringIO()))
    assert "is a worker running?" not in line.text(run, 1)
    assert "is a worker running?" in line.text(run, 10)


@pytest.mark.parametrize(
    ("progress", "expected"),
    [
        ({"percentage": 40}, Progress(40)),
        ({"percentage": 140}, Progress(100)),
        ({"current": 2, "total": 5}, Progress(40, "2 of 5")),
        ({"current": 1200, "total": 3376, "percentage": 36, "currentItem": "x"}, Progress(36, "1,200 of 3,376")),
        ({"current": 1.5, "total": 3}, Progress(50, "1.5 of 3")),
        ({"current": 2, "total": 0}, None),
        ({"current": 2}, None),
        (0, Progress(0)),
        (0.25, Progress(25)),
        (1, Progress(100)),
        (1.5, Progress(1.5)),
        (40, Progress(40)),
        (-3, Progress(0)),
        (10**400, None),
        (True, None),
        ("40", None),
        ([1], None),
        (None, None),
    ],
)
def test_progress_is_understood_in_all_its_forms(progress, expected):
    assert read_progress({"progress": progress}) == expected


def test_a_run_cannot_steer_the_terminal():
    hostile = "\x1b[2J\x1b]0;title\x07\u202e\x9b"
    assert printable(hostile).isprintable()
    handle = tasks.trigger("echo", 1, metadata={"status": hostile}, tags=[hostile], delay="1h")
    line = LiveLine(OutputWrapper(io.StringIO())).text(runs.retrieve(handle.id), 1)
    assert line.isprintable()
    assert all(row.isprintable() for row in command("runs_list", terminal=True).splitlines())


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [(0, "0.00 s"), (9_990, "9.99 s"), (12_340, "12.3 s"), (125_000, "2 min 05 s"), (3_720_000, "1 h 02 min")],
)
def test_durations_are_written_for_people(milliseconds, text):
    assert seconds(milliseconds) == text


# runs_list


@pytest.fixture
def three_runs():
    """(completed, failed, delayed), the oldest first."""
    completed = tasks.trigger("echo", 1, tags=["a", "b"], metadata={"progress": 0.5})
    failed = tasks.trigger("fail", {}, tags=["b"])
    delayed = tasks.trigger("echo", 1, delay="1h")
    return completed.id, failed.id, delayed.id


def listed(*arguments):
    return [line["id"] for line in json_lines(command("runs_list", *arguments))]


def test_list_writes_json_lines_into_a_pipe(three_runs):
    completed, failed, delayed = three_runs
    lines = json_lines(command("runs_list"))
    assert [line["id"] for line in lines] == [delayed, failed, completed]
    assert (lines[2]["taskIdentifier"], lines[2]["status"], lines[2]["tags"]) == ("echo", "COMPLETED", ["a", "b"])
    assert "startedAt" not in lines[0]  # absent, not null
    assert lines[2]["finishedAt"] >= lines[2]["startedAt"] >= lines[2]["createdAt"]


def test_list_filters(three_runs):
    completed, failed, delayed = three_runs
    assert listed("--status", "failed") == [failed]
    assert listed("--status", "FAILED", "--status", "DELAYED") == [delayed, failed]
    assert listed("--task", "fail") == [failed]
    assert listed("--tag", "a") == [completed]
    assert listed("--limit", "1") == [delayed]
    handle = batch.trigger([{"task": "echo", "payload": 1}, {"task": "echo", "payload": 2}])
    assert set(listed("--batch", handle.id)) == set(handle.run_ids)


def test_list_goes_through_as_many_pages_as_it_takes():
    batch.trigger([{"task": "echo", "payload": n, "options": {"delay": "1h"}} for n in range(130)])
    assert len(set(listed("--limit", "1000"))) == 130
    assert len(listed("--limit", "120")) == 120
    assert len(listed()) == 25


def test_list_aligns_a_table_on_a_terminal(three_runs):
    header, *rows = command("runs_list", terminal=True).splitlines()
    assert [row.split()[0] for row in rows] == list(three_runs)[::-1]
    for name, values in {"STATUS": ["DELAYED", "FAILED", "COMPLETED"], "TASK": ["echo", "fail", "echo"]}.items():
        assert [row[header.index(name) :].split()[0] for row in rows] == values
    assert rows[2][header.index("PROGRESS") :].startswith("50%")
    assert rows[2].endswith("a b")
    assert json_lines(command("runs_list", "--json", terminal=True))


def test_list_of_nothing_says_so_to_people_only():
    assert command("runs_list") == ""
    assert command("runs_list", terminal=True) == "No runs.\n"


@pytest.mark.parametrize("arguments", [["--status", "DONE"], ["--limit", "0"], ["--limit", "many"]])
def test_list_refuses_filters_without_meaning(arguments):
    with pytest.raises(CommandError, match=f"argument {arguments[0]}"):
        command("runs_list", *arguments)


def test_list_ends_quietly_when_its_reader_goes_away(server_env):
    tasks.trigger("echo", 1, delay="1h")
    reader, writer = os.pipe()
    os.close(reader)
    arguments = [sys.executable, "manage.py", "runs_list"]
    done = subprocess.run(arguments, cwd=ROOT, env=server_env, stdout=writer, stderr=subprocess.PIPE, timeout=30)
    os.close(writer)
    assert done.stderr == b""


# runs_cancel


def test_cancel_says_what_happened_to_each(three_runs):
    completed, _failed, delayed = three_runs
    assert command("runs_cancel", delayed, completed).splitlines() == [
        f"{delayed}: CANCELED (was DELAYED)",
        f"{completed}: was COMPLETED already",
    ]
    assert runs.retrieve(delayed).status == RunStatus.CANCELED
    assert runs.retrieve(completed).status == RunStatus.COMPLETED


def test_cancel_of_an_unknown_run_does_the_others_and_exits_1(three_runs):
    delayed = three_runs[2]
    out, errors = io.StringIO(), io.StringIO()
    with pytest.raises(CommandError, match="1 of 2 runs not found") as caught:
        call_command("runs_cancel", "run_missing", delayed, stdout=out, stderr=errors)
    assert caught.value.returncode == 1
    assert out.getvalue() == f"{delayed}: CANCELED (was DELAYED)\n"
    assert errors.getvalue() == "Run 'run_missing' does not exist.\n"


# runs_prune


@pytest.fixture
def aged_runs(three_runs):
    """The completed and the failed run ended 40 days ago; a third one just now."""
    completed, failed, delayed = three_runs
    Run.objects.filter(pk__in=[completed, failed]).update(finished_at=timezone.now() - timedelta(days=40))
    Run.objects.filter(pk=delayed).update(created_at=timezone.now() - timedelta(days=40))
    return completed, failed, delayed, tasks.trigger("echo", 1).id


def test_prune_removes_old_final_runs_and_no_others(aged_runs):
    *_, delayed, new = aged_runs
    assert command("runs_prune", "--older-than", "30d") == "Removed 2 runs that ended more than 30d ago.\n"
    assert set(listed()) == {delayed, new}
    assert command("runs_prune", "--older-than", "30d") == "Removed 0 runs that ended more than 30d ago.\n"


def test_prune_only_counts_in_a_dry_run(aged_runs):
    assert "Would remove 2 runs" in command("runs_prune", "--older-than", "30d", "--dry-run", "--batch-size", "1")
    assert set(listed()) == set(aged_runs)


def test_prune_goes_by_the_setting_when_no_age_is_given(aged_runs, settings):
    settings.REALTIME_RUNS = settings.REALTIME_RUNS | {"RETENTION": "50d"}
    assert command("runs_prune") == "Removed 0 runs that ended more than 50d ago.\n"


def test_prune_shows_its_progress_on_a_terminal(aged_runs):
    shown = command("runs_prune", "--older-than", "30d", "--batch-size", "1", terminal=True)
    assert "\rRemoved 1 runs\rRemoved 2 runs" in shown


@pytest.mark.parametrize("arguments", [["--older-than", "soon"], ["--older-than=-1d"], ["--batch-size", "0"]])
def test_prune_refuses_what_has_no_meaning(aged_runs, arguments):
    with pytest.raises(CommandError, match=r"soon|-1d|above zero"):
        command("runs_prune", *arguments)
    assert len(listed()) == 4


# runs_key


def test_runs_key_prints_the_key_that_signs_and_says_elsewhere_where_it_comes_from(settings, capsys):
    call_command("runs_key")
    printed = capsys.readouterr()
    assert printed.out == f"{keys.secret_keys()[0]}\n"
    assert "Derived from SECRET_KEY" in printed.err
    assert keys.secret_keys()[0] not in printed.err

    chosen = ["the-first-secret-key-of-this-server", "the-second-secret-key-of-this-server"]
    settings.REALTIME_RUNS = {**settings.REALTIME_RUNS, "SECRET_KEYS": chosen}
    call_command("runs_key")
    assert capsys.readouterr() == (f"{chosen[0]}\n", "")
