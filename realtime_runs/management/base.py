"""What the `runs_…` commands have in common."""

import io
import os
import sys
from argparse import ArgumentTypeError, RawDescriptionHelpFormatter
from typing import Any, Final

from django.core.management.base import BaseCommand, CommandParser, DjangoHelpFormatter

FAILED = 1
BAD_INPUT = 2  # as argparse has it
INTERRUPTED = 130  # as shells have it for Ctrl-C

# Not those of URLs, the admin and every other app: they load the whole site, a third of the time a command takes.
OUR_CHECKS: Final = ["realtime_runs"]


class HelpFormatter(DjangoHelpFormatter, RawDescriptionHelpFormatter):
    """Django's order of the options; the examples keep their lines."""


class RunsCommand(BaseCommand):
    """A command with `examples` under its help, whose output may be piped into a program that stops reading."""

    examples = ""
    requires_system_checks = OUR_CHECKS

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        return super().create_parser(
            prog_name, subcommand, epilog=self.examples, formatter_class=HelpFormatter, **kwargs
        )

    def run_from_argv(self, argv: list[str]) -> None:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="replace")  # a tag need not fit the terminal's encoding
        try:
            super().run_from_argv(argv)
            sys.stdout.flush()
        except BrokenPipeError:
            # The reader went away (`| head`). Python flushes once more at exit, which must not fail again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(FAILED)


def positive(text: str) -> int:
    """For `type=` of an option: a whole number from 1."""
    number = int(text)
    if number < 1:
        raise ArgumentTypeError(f"{text} is not above zero")
    return number


def not_negative(text: str) -> int:
    """For `type=` of an option: a whole number from 0."""
    number = int(text)
    if number < 0:
        raise ArgumentTypeError(f"{text} is below zero")
    return number
