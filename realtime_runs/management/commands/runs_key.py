from typing import Any

from realtime_runs.access.keys import secret_keys
from realtime_runs.conf import app_settings
from realtime_runs.management.base import RunsCommand


class Command(RunsCommand):
    help = "Print the secret key with which this server's API is called."

    def handle(self, *args: Any, **options: Any) -> None:
        self.stdout.write(secret_keys()[0])
        if not app_settings.SECRET_KEYS:
            self.stderr.write(
                'Derived from SECRET_KEY. To choose one yourself, set REALTIME_RUNS = {"SECRET_KEYS": [...]}.'
            )
