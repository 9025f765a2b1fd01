"""Cancel runs."""

from typing import Any

from django.core.management.base import CommandError, CommandParser

from realtime_runs import runs
from realtime_runs.exceptions import RunNotFound
from realtime_runs.management.base import FAILED, RunsCommand
from realtime_runs.management.output import one_line


class Command(RunsCommand):
    help = "Cancels runs, and the runs that they have triggered. A finished run stays as it is."
    examples = """
examples:
  manage.py runs_cancel run_0mbk2c5ya…
  manage.py runs_list --tag import --status QUEUED --json | jq -r .id | xargs manage.py runs_cancel

exit status: 0 each run is final now, 1 at least one does not exist.
"""

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("runs", metavar="RUN", nargs="+", help="id of a run")

    def handle(self, *args: Any, **options: Any) -> None:
        unknown = 0
        for run_id in options["runs"]:
            try:
                self.stdout.write(one_line(self.cancel(run_id)))
            except RunNotFound as error:
                unknown += 1
                self.stderr.write(one_line(str(error)))
        if unknown:
            raise CommandError(f"{unknown} of {len(options['runs'])} runs not found.", returncode=FAILED)

    def cancel(self, run_id: str) -> str:
        """Cancel the run and say what happened to it. Raises RunNotFound."""
        before = runs.retrieve(run_id)
        after = runs.cancel(run_id)
        if before.is_completed:
            return f"{run_id}: was {before.status} already"
        if not after.is_cancelled:
            return f"{run_id}: {after.status}, it finished first"
        return f"{run_id}: {after.status} (was {before.status})"
