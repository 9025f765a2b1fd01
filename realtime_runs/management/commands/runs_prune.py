"""Remove old runs that are final."""

from typing import Any

from django.core.management.base import CommandError, CommandParser

from realtime_runs.conf import app_settings
from realtime_runs.durations import parse_duration
from realtime_runs.engine import retention
from realtime_runs.exceptions import InvalidOption
from realtime_runs.management.base import BAD_INPUT, RunsCommand, positive
from realtime_runs.management.output import one_line


class Command(RunsCommand):
    help = "Removes final runs that ended long ago, in small transactions so that nobody else has to wait."
    examples = """
examples:
  manage.py runs_prune --older-than 30d --dry-run
  manage.py runs_prune --older-than 12h --batch-size 100
  0 4 * * *  manage.py runs_prune          (crontab: every night, the age of the setting RETENTION)
"""

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--older-than", metavar="AGE", help="30d or 12h, say (default: the setting RETENTION)")
        parser.add_argument("--batch-size", type=positive, default=500, metavar="N", help="runs a transaction")
        parser.add_argument("--dry-run", action="store_true", help="only count")

    def handle(self, *args: Any, **options: Any) -> None:
        age = options["older_than"] or app_settings.RETENTION
        try:
            older_than = parse_duration(age, "older-than")
        except InvalidOption as error:
            raise CommandError(one_line(str(error)), returncode=BAD_INPUT) from error
        verb = "Would remove" if options["dry_run"] else "Removed"
        total = 0
        for number in retention.prune(older_than, options["batch_size"], dry_run=options["dry_run"]):
            total += number
            if self.stdout.isatty():
                self.stdout.write(f"\r{verb} {total:,} runs", ending="")
                self.stdout.flush()
        start = "\r" if self.stdout.isatty() else ""
        self.stdout.write(f"{start}{verb} {total:,} runs that ended more than {age} ago.")
