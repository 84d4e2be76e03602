"""The command `hal0`: one file a noun, none imported before it is asked for.

`hal0 --help` shows a line for each command from the table here, so it costs a fifth of a second of
CPU at most; click is all that it needs.
"""

import importlib
import sys
from collections.abc import Sequence
from typing import Any, Final, cast

import click

from hal0 import __version__
from hal0.cli import output
from hal0.cli.exits import Exit, Failure, exit_for
from hal0.errors import Hal0Error, RequestError, SettingsError
from hal0.file_modes import keep_others_out
from hal0.masks import escaped

COMMANDS: Final = {
    "up": ("hal0.cli.up:up", "Run engine, API and worker, and keep them running."),
    "demo": ("hal0.cli.demo:demo", "Show what hal0 does, in a home of its own."),
    "slot": ("hal0.cli.slot:slot", "Named places that hold one model each."),
    "model": ("hal0.cli.model:model", "Registered models and their files."),
    "job": ("hal0.cli.job:job", "Work on slots: see, retry, cancel."),
    "incident": ("hal0.cli.incident:incident", "What happened at engines, and what it cost."),
    "audit": ("hal0.cli.audit:audit", "Every change of a slot's state, with its cause."),
    "engine": ("hal0.cli.engine:engine", "Run the embedded engine, or list the engines."),
    "lemond": ("hal0.cli.lemond:lemond", "The Lemonade server: install by a pin, go back."),
    "doctor": ("hal0.cli.doctor:doctor", "Find what is wrong on this machine."),
    "token": ("hal0.cli.token:token", "Who may come in over the network, and as what."),
    "db": ("hal0.cli.db:db", "The database: upgrade, info."),
    "api": ("hal0.cli.serve:api", "Run the API."),
    "worker": ("hal0.cli.serve:worker", "Run a worker."),
    "systemd": ("hal0.cli.systemd:systemd", "Write the units that run hal0 as services: install."),
    "version": ("hal0.cli.serve:version", "Show the version."),
}
"""Name to where the command is, and its line of help."""


class LazyGroup(click.Group):
    """A group whose commands are imported when they are run."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command; None for a name that is none."""
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        return cast(click.Command, getattr(importlib.import_module(module), name))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the lines of the table."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="hal0 %(version)s")
def hal0() -> None:
    """Keep the slots of a local model server in order.

    \b
    HAL0_HOME        the folder of hal0 and its database, for commands of this machine
    HAL0_URL         where the API is, for all others; else where HAL0_BIND says
    HAL0_TOKEN_FILE  a file with the token to send
    README has all settings.

    \b
    Exit codes: 0 ok, 1 failed, 2 usage, 3 not found, 4 not allowed, 5 conflict,
    6 --wait ran out (the job goes on), 7 engine or API down, 130 interrupted.
    """  # noqa: D301  (click wants the character itself)


def main(args: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code."""
    keep_others_out()
    output.open_all()
    words = sys.argv[1:] if args is None else list(args)
    for word in words:
        if not _is_text(word):
            sys.stderr.write(f"hal0: the argument {word!r} is no UTF-8 text\n")
            return Exit.USAGE
    try:
        return _run(words)
    except OSError as exc:
        if not output.has_failed():
            raise
        sys.stderr.write(f"hal0: the output cannot be written: {exc.strerror}\n")
        return Exit.FAILED


def _run(words: list[str]) -> int:
    try:
        result: Any = hal0.main(args=words, prog_name="hal0", standalone_mode=False)
    except click.ClickException as exc:
        exc.show()
        return exc.exit_code
    except click.Abort:
        return Exit.INTERRUPTED
    except Failure as exc:
        sys.stderr.write("\n".join([f"hal0: {exc.text}", *exc.more, ""]))
        return exc.exit
    except Hal0Error as exc:
        sys.stderr.write(f"hal0: {escaped(exc.detail)} [{exc.code}]\n")
        return _exit_for(exc)
    return result if isinstance(result, int) else Exit.OK


def _exit_for(error: Hal0Error) -> Exit:
    """Return the code for an error of this process: what an API would refuse ends the same."""
    if isinstance(error, RequestError):
        return exit_for(error.status)
    return Exit.USAGE if isinstance(error, SettingsError) else Exit.FAILED


def _is_text(word: str) -> bool:
    """Tell whether a word can be sent as JSON: bytes that are no UTF-8 arrive as surrogates."""
    try:
        word.encode()
    except UnicodeEncodeError:
        return False
    return True
