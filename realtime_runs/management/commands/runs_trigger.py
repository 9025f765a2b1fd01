"""Trigger a task from the command line, and follow its run if asked to."""

import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from django.core.management.base import CommandError, CommandParser

from realtime_runs import runs, tasks
from realtime_runs.exceptions import RealtimeRunsError
from realtime_runs.live.items import RunUpdate, StreamChunk
from realtime_runs.live.snapshot import RealtimeRun
from realtime_runs.live.with_streams import Item
from realtime_runs.management.base import BAD_INPUT, FAILED, INTERRUPTED, RunsCommand
from realtime_runs.management.chunk_text import ChunkText
from realtime_runs.management.live_line import LiveLine
from realtime_runs.management.output import (
    chunk_fields,
    json_line,
    one_line,
    printable,
    restart_fields,
    update_fields,
)
from realtime_runs.packets import parse, unpack


class Command(RunsCommand):
    help = "Triggers a task. Prints the run's id, or with --follow its progress and what came of it."
    examples = """
examples:
  manage.py runs_trigger echo '"hello"'
  manage.py runs_trigger import-airports '{"file": "airports.csv"}' --tag import --follow
  manage.py runs_trigger slow - --delay 10s < payload.json
  manage.py runs_trigger import-airports '{}' --follow | jq .metadata.progress
  manage.py runs_trigger summarise-file '{}' --follow --streams

On a terminal --follow draws a progress bar, and --streams writes the chunks of the run's streams as they come; into a
pipe they write a JSON line per update and per chunk.

exit status: 0 triggered (with --follow: the run completed), 1 the run ended otherwise, 2 the input was refused,
130 Ctrl-C while following (the run goes on).
"""

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("task", metavar="TASK", help="id of the task")
        parser.add_argument("payload", metavar="JSON", nargs="?", help="the payload; - reads it from standard input")
        parser.add_argument("--tag", action="append", default=[], dest="tags", metavar="TAG", help="can be repeated")
        parser.add_argument("--follow", action="store_true", help="show the run until it is final")
        parser.add_argument("--streams", action="store_true", help="follow, and show the chunks of its streams, too")
        parser.add_argument("--idempotency-key", metavar="KEY", help="a second trigger with it finds the first run")
        parser.add_argument("--delay", help="do not start before, for example 30s or 1h30m")

    def handle(self, *args: Any, **options: Any) -> None:
        run_id = self.trigger(options)
        if not (options["follow"] or options["streams"]):
            self.stdout.write(run_id)
            return
        try:
            if self.stdout.isatty():
                run = self.follow_on_terminal(run_id, with_streams=options["streams"])
            else:
                run = self.follow_as_lines(run_id, with_streams=options["streams"])
        except KeyboardInterrupt:
            message = f"Stopped following. Run {run_id} goes on; manage.py runs_cancel {run_id} would end it."
            raise CommandError(message, returncode=INTERRUPTED) from None
        if not run.is_success:
            reason = f": {run.error.message}" if run.error else "."
            raise CommandError(one_line(f"Run {run_id} is {run.status}{reason}"), returncode=FAILED)

    def trigger(self, options: dict[str, Any]) -> str:
        text = sys.stdin.read() if options["payload"] == "-" else options["payload"]
        names = ("tags", "idempotency_key", "delay")
        given = {name: options[name] for name in names if options[name] is not None}
        try:
            payload = None if text is None else parse(text, "payload")
            return tasks.trigger(options["task"], payload, **given).id
        except RealtimeRunsError as error:
            raise CommandError(one_line(str(error)), returncode=BAD_INPUT) from error

    def follow_on_terminal(self, run_id: str, *, with_streams: bool) -> RealtimeRun[Any, Any]:
        self.stdout.write(run_id)
        text = ChunkText(self.stdout, labelled=True)
        with LiveLine(self.stdout) as line, follow(run_id, with_streams) as updates:
            try:
                for item in updates:
                    if isinstance(item, RunUpdate):
                        run = item.run
                        line.show(run)
                        continue
                    line.hide()  # the line that is drawn anew and texts that run on cannot both be the last one
                    if isinstance(item, StreamChunk):
                        text.show(item.stream, item.chunk)
                    else:
                        text.show_restart(item)
            finally:
                text.end_line()
        if run.is_success:
            self.write_lines(json.dumps(unpack(run.output_packet), indent=2, ensure_ascii=False))
        elif run.error is not None and run.error.stack_trace:
            self.write_lines(run.error.stack_trace)
        return run

    def write_lines(self, text: str) -> None:
        for line in text.splitlines():
            self.stdout.write(printable(line))

    def follow_as_lines(self, run_id: str, *, with_streams: bool) -> RealtimeRun[Any, Any]:
        with follow(run_id, with_streams) as updates:
            for item in updates:
                if isinstance(item, RunUpdate):
                    run = item.run
                self.stdout.write(json_line(line_fields(item)))
                self.stdout.flush()  # whoever reads the pipe wants it now, not when a buffer is full
        return run


@contextmanager
def follow(run_id: str, with_streams: bool) -> Iterator[Iterable[Item[Any, Any]]]:
    subscription = runs.subscribe_to_run(run_id)
    if with_streams:
        with subscription.with_streams() as items:
            yield items
    else:
        with subscription as updates:
            yield map(RunUpdate, updates)


def line_fields(item: Item[Any, Any]) -> dict[str, Any]:
    if isinstance(item, RunUpdate):
        return update_fields(item.run)
    if isinstance(item, StreamChunk):
        return chunk_fields(item.run.id, item.stream, item.index, item.chunk)
    return restart_fields(item)
