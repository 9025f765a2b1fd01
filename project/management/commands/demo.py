"""Serve the demo: database, login and server in one go."""

import signal
import socket
import warnings
from argparse import ArgumentTypeError
from contextlib import suppress
from typing import Any

from daphne.endpoints import build_endpoint_description_strings  # type: ignore[import-untyped]  # has no types
from daphne.server import Server  # type: ignore[import-untyped]  # has no types
from django.conf import settings
from django.contrib.auth import authenticate, get_user_model
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import OperationalError, connection
from django.utils.module_loading import import_string

from realtime_runs.engine.backends.base import get_backend

HOST = "127.0.0.1"  # the login is known to everybody, so nobody from outside
LOGIN = "admin"
PASSWORD = "admin"  # noqa: S105 - no secret: it is printed


class Command(BaseCommand):
    help = "Migrates the database, makes the login admin/admin if there is none, and serves the demo on 127.0.0.1."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--port", type=port_number, default=8000, help="default: 8000")

    def handle(self, *args: Any, **options: Any) -> None:
        port = options["port"]
        check_port(port)
        try:
            call_command("migrate", verbosity=0, interactive=False)
        except OperationalError as error:
            raise CommandError(f"The database cannot be used: {error}") from error
        login = prepare_login()
        connection.close()  # serving may take days and uses its own
        # Static files are read in one piece here, as Django warns; they are small.
        warnings.filterwarnings("ignore", message="StreamingHttpResponse must consume synchronous iterators")
        server = Server(
            application=import_string(settings.ASGI_APPLICATION),
            endpoints=build_endpoint_description_strings(host=HOST, port=port),
            ready_callable=lambda: self.greet(port, login),
        )
        server.run()
        if not server.listening_addresses:
            raise CommandError(port_taken(port))  # somebody was faster
        self.stop_worker()

    def stop_worker(self) -> None:
        """Let running work come to its end; Daphne does not tell the worker that it has ended itself."""
        self.stdout.write("\nStopping. What runs gets a moment; Ctrl-C again ends it at once.")
        signal.signal(signal.SIGINT, signal.default_int_handler)  # Twisted's still stands, and would swallow it
        with suppress(KeyboardInterrupt):  # what is cut off here is found and done again by the next worker
            get_backend().stop()
        self.stdout.write("Stopped.")

    def greet(self, port: int, login: str) -> None:
        database = connection.settings_dict
        lines = {
            "Page": f"http://{HOST}:{port}/",
            "Admin": f"http://{HOST}:{port}/admin/   {login}",
            "Data": f"{connection.vendor} {database['NAME']}",
        }
        self.stdout.write(self.style.MIGRATE_HEADING("\n  realtime_runs demo\n"))
        for name, text in lines.items():
            self.stdout.write(f"  {name:<7}{text}")
        self.stdout.write("\n  Ctrl-C ends it.\n")
        self.stdout.flush()


def port_number(text: str) -> int:
    try:
        port = int(text)
    except ValueError:
        port = 0
    if not 1 <= port <= 65535:
        raise ArgumentTypeError(f"{text!r} is not a port; take a number from 1 to 65535")
    return port


def check_port(port: int) -> None:
    """Raise CommandError if the server could not listen: better said before anything else is done."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does; old connections do not count
        try:
            probe.bind((HOST, port))
            probe.listen()
        except PermissionError:
            raise CommandError(f"Port {port} may not be used by this user. Try: make demo PORT=8001") from None
        except OSError:
            raise CommandError(port_taken(port)) from None


def port_taken(port: int) -> str:
    other = port + 1 if port < 65535 else 8001
    return f"Port {port} is taken by another program. Choose another one: make demo PORT={other}"


def prepare_login() -> str:
    """Make the superuser of the demo if there is none at all, and say how to log in."""
    users = get_user_model()._default_manager
    if not users.filter(is_superuser=True).exists():
        if not settings.DEBUG:
            raise CommandError(
                f"DEBUG is off, so no login {LOGIN}/{PASSWORD} is made. Make your own first: manage.py createsuperuser"
            )
        users.create_superuser(username=LOGIN, email="", password=PASSWORD)
    if authenticate(username=LOGIN, password=PASSWORD) is None:
        return "(log in as your superuser)"
    return f"login {LOGIN}, password {PASSWORD}"
