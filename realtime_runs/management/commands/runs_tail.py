"""Follow one stream of a run."""

import sys
from datetime import timedelta
from typing import Any, Final

from django.core.management.base import CommandError, CommandParser

from realtime_runs import runs, streams
from realtime_runs.engine.writing import DEFAULT_KEY
from realtime_runs.exceptions import InvalidInput, RunNotFound, StreamGap
from realtime_runs.live.items import StreamRecord, StreamRestarted
from realtime_runs.live.stream_follow import ChunkReader
from realtime_runs.management.base import BAD_INPUT, FAILED, INTERRUPTED, RunsCommand, not_negative
from realtime_runs.management.chunk_text import ChunkText
from realtime_runs.management.output import chunk_fields, iso, json_line, one_line, restart_fields

FOR_EVER: Final = timedelta(days=36_500)
GOOD_ENDS: Final = frozenset({"closed", "completed"})


class Command(RunsCommand):
    help = "Shows the chunks of a stream: those that are stored, then those that come, until it ends."
    examples = """
examples:
  manage.py runs_tail run_0mbk2c5ya…
  manage.py runs_tail run_0mbk2c5ya… ai-output --from 100
  manage.py runs_tail run_0mbk2c5ya… log | jq -r .chunk

On a terminal texts run on as they come; into a pipe it writes a JSON line per chunk.

exit status: 0 the stream was closed or the run completed, 1 it ended otherwise, 2 there is no such run or stream,
130 Ctrl-C.
"""

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("run", metavar="RUN", help="id of a run")
        parser.add_argument("key", metavar="KEY", nargs="?", help=f"name of the stream (default: {DEFAULT_KEY})")
        parser.add_argument("--from", type=not_negative, default=0, dest="start", metavar="INDEX", help="begin there")

    def handle(self, *args: Any, **options: Any) -> None:
        run_id, key = options["run"], options["key"] or DEFAULT_KEY
        try:
            self.check_stream(run_id, key, may_come=options["key"] is not None)
            reader = streams.read(run_id, key, start_index=options["start"], timeout_in_seconds=FOR_EVER).records()
            if not self.show(reader):
                self.check_stream(run_id, key, may_come=False)  # perhaps it never came
        except (RunNotFound, InvalidInput) as error:
            raise CommandError(one_line(str(error)), returncode=BAD_INPUT) from error
        except StreamGap as error:
            raise CommandError(one_line(str(error)), returncode=FAILED) from error
        except KeyboardInterrupt:
            sys.exit(INTERRUPTED)
        if reader.end_reason not in GOOD_ENDS:
            message = f"Stream {key!r} of run {run_id} ended early: {reader.end_reason}."
            raise CommandError(one_line(message), returncode=FAILED)

    def check_stream(self, run_id: str, key: str, *, may_come: bool) -> None:
        """Say which streams there are where this one is not, and may not be meant."""
        run = runs.retrieve(run_id)
        if key in run.realtime_streams:
            return
        if run.is_completed or (run.realtime_streams and not may_come):
            others = f", but {', '.join(run.realtime_streams)}" if run.realtime_streams else " and no other"
            raise CommandError(one_line(f"Run {run_id} has no stream {key!r}{others}."), returncode=BAD_INPUT)
        if self.stdout.isatty():
            self.stderr.write(one_line(f"Waiting for stream {key!r} of run {run_id}."), style_func=str)

    def show(self, reader: ChunkReader[StreamRecord[Any]]) -> bool:
        """Until the stream ends. Whether there was anything to show."""
        text = ChunkText(self.stdout, labelled=False) if self.stdout.isatty() else None
        is_empty = True
        try:
            for item in reader:
                is_empty = False
                if text is None:
                    self.stdout.write(json_line(self.line_fields(reader, item)))
                    self.stdout.flush()
                elif isinstance(item, StreamRestarted):
                    text.show_restart(item)
                else:
                    text.show(reader.name.key, item.chunk)
        finally:
            if text is not None:
                text.end_line()
        return not is_empty

    def line_fields(
        self, reader: ChunkReader[StreamRecord[Any]], item: StreamRecord[Any] | StreamRestarted
    ) -> dict[str, Any]:
        if isinstance(item, StreamRestarted):
            return restart_fields(item)
        fields = chunk_fields(reader.name.run_id, reader.name.key, item.index, item.chunk)
        return fields | {"attempt": item.attempt, "at": iso(item.at)}
