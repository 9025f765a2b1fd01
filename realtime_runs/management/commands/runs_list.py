"""List runs, the newest first."""

from itertools import islice
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.utils import timezone

from realtime_runs import runs
from realtime_runs.display.elapsed import duration
from realtime_runs.display.progress import read_progress
from realtime_runs.exceptions import RealtimeRunsError
from realtime_runs.live.snapshot import RealtimeRun
from realtime_runs.management.base import BAD_INPUT, RunsCommand, positive
from realtime_runs.management.output import json_line, list_fields, one_line, table
from realtime_runs.statuses import RunStatus

HEADER = ["RUN", "STATUS", "TASK", "PROGRESS", "CREATED", "DURATION", "TAGS"]
LARGEST_PAGE = 100


class Command(RunsCommand):
    help = "Lists runs, the newest first: as a table on a terminal, as JSON lines into a pipe."
    examples = """
examples:
  manage.py runs_list
  manage.py runs_list --status FAILED --status CRASHED --task import-airports
  manage.py runs_list --tag user:1234 --limit 1000 --json | jq -r .id
"""

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--status", action="append", type=str.upper, choices=RunStatus.values, help="can be repeated: any of them"
        )
        parser.add_argument("--task", action="append", metavar="TASK", help="can be repeated: any of them")
        parser.add_argument("--tag", action="append", metavar="TAG", help="can be repeated: any of them")
        parser.add_argument("--batch", metavar="BATCH", help="id of a batch")
        parser.add_argument("--limit", type=positive, default=25, metavar="N", help="how many at most (default: 25)")
        parser.add_argument("--json", action="store_true", help="JSON lines also on a terminal")

    def handle(self, *args: Any, **options: Any) -> None:
        limit = options["limit"]
        try:
            page = runs.list(
                status=options["status"],
                task=options["task"],
                tag=options["tag"],
                batch=options["batch"],
                page_size=min(limit, LARGEST_PAGE),
            )
            found = islice(page, limit)  # iterating a page goes on with the next ones
            if options["json"] or not self.stdout.isatty():
                for run in found:
                    self.stdout.write(json_line(list_fields(run)))
            else:
                self.show_table(list(found))
        except RealtimeRunsError as error:
            raise CommandError(one_line(str(error)), returncode=BAD_INPUT) from error

    def show_table(self, found: list[RealtimeRun[Any, Any]]) -> None:
        if not found:
            self.stdout.write("No runs.")
            return
        for line in table(HEADER, map(row, found)):
            self.stdout.write(line)


def row(run: RealtimeRun[Any, Any]) -> list[str]:
    progress = read_progress(run.metadata)
    return [
        run.id,
        str(run.status),
        run.task_identifier,
        f"{progress.percentage:.0f}%" if progress else "",
        f"{timezone.localtime(run.created_at):%Y-%m-%d %H:%M:%S}",
        duration(run),
        " ".join(run.tags),
    ]
