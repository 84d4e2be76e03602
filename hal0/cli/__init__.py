"""The command `hal0`: one file a noun, none imported before it is asked for.

`hal0 --help` shows a line for each command from the table here, so it costs a fifth of a second of
CPU at most; click is all that it needs.
"""

import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any, Final, cast

import click
from click.shell_completion import CompletionItem

from hal0 import __version__
from hal0.cli import output
from hal0.cli.exits import Exit, Failure, exit_for
from hal0.errors import Hal0Error, RequestError, SettingsError
from hal0.file_modes import keep_others_out
from hal0.masks import escaped

COMMANDS: Final = {
    "status": ("hal0.cli.status:status", "What is wrong, what is under way, or that all is well."),
    "top": ("hal0.cli.top:top", "Slots and jobs, live."),
    "up": ("hal0.cli.up:up", "Run engine, API and worker, and keep them running."),
    "setup": ("hal0.cli.setup:setup", "Walk through a first run, from nothing to an answer."),
    "demo": ("hal0.cli.demo:demo", "Show what hal0 does, in a home of its own."),
    "slot": ("hal0.cli.slot:slot", "Named places that hold one model each."),
    "model": ("hal0.cli.model:model", "Registered models and their files."),
    "apply": ("hal0.cli.apply:apply", "Bring about the slots and models that a file declares."),
    "export": ("hal0.cli.apply:export", "Write the file that declares what is there."),
    "job": ("hal0.cli.job:job", "Work on slots: see, retry, cancel."),
    "incident": ("hal0.cli.incident:incident", "What happened at engines, and what it cost."),
    "audit": ("hal0.cli.audit:audit", "Every change of a slot's state, with its cause."),
    "events": ("hal0.cli.events:events", "What happens, as it happens."),
    "engine": ("hal0.cli.engine:engine", "Run the embedded engine, or list the engines."),
    "lemond": ("hal0.cli.lemond:lemond", "The Lemonade server: install by a pin, go back."),
    "doctor": ("hal0.cli.doctor:doctor", "Find what is wrong on this machine."),
    "token": ("hal0.cli.token:token", "Who may come in over the network, and as what."),
    "db": ("hal0.cli.db:db", "The database: upgrade, info."),
    "backup": ("hal0.cli.care:backup", "Copy the database while hal0 runs."),
    "restore": ("hal0.cli.care:restore", "Put a copy in the place of the database."),
    "prune": ("hal0.cli.care:prune", "Delete finished jobs, and audit rows, that are old."),
    "api": ("hal0.cli.serve:api", "Run the API."),
    "worker": ("hal0.cli.serve:worker", "Run a worker."),
    "systemd": ("hal0.cli.systemd:systemd", "Write the units that run hal0 as services: install."),
    "completion": ("hal0.cli.completion:completion", "What a shell completes commands with."),
    "version": ("hal0.cli.serve:version", "Show the version."),
}
"""Name to where the command is, and its line of help."""

NO_COLOR: Final = "--no-color"


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

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that a line names; raises NoSuchCommand, with names much like it."""
        try:
            return super().resolve_command(ctx, args)
        except click.exceptions.NoSuchCommand as exc:
            raise click.exceptions.NoSuchCommand(
                exc.command_name, possibilities=COMMANDS, ctx=ctx
            ) from None

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Return the names that begin so, or the options; no command is imported for it."""
        named = [
            CompletionItem(name, help=line)
            for name, (_, line) in COMMANDS.items()
            if name.startswith(incomplete)
        ]
        return [*named, *click.Command.shell_complete(self, ctx, incomplete)]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the lines of the table."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="hal0 %(version)s")
@click.option(NO_COLOR, "is_plain", is_flag=True, help="Without colours, as with NO_COLOR set.")
@click.pass_context
def hal0(ctx: click.Context, is_plain: bool) -> None:
    """Keep the slots of a local model server in order.

    \b
    HAL0_HOME        the folder of hal0 and its database, for commands of this machine
    HAL0_URL         where the API is, for all others; else where HAL0_BIND says
    HAL0_TOKEN_FILE  a file with the token to send
    NO_COLOR         set to anything: no colours
    README and `man hal0` have all settings.

    \b
    Exit codes: 0 ok, 1 failed, 2 usage, 3 not found, 4 not allowed, 5 conflict,
    6 --wait ran out (the job goes on), 7 engine or API down, 130 interrupted.
    """
    if is_plain or os.environ.get("NO_COLOR"):
        ctx.color = False


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
        result: Any = hal0.main(args=_plain_first(words), prog_name="hal0", standalone_mode=False)
    except click.ClickException as exc:
        exc.show()
        return exc.exit_code
    except click.Abort:
        return Exit.INTERRUPTED
    except Failure as exc:
        _complain("\n".join([exc.text, *exc.more]))
        return exc.exit
    except Hal0Error as exc:
        _complain(f"{escaped(exc.detail)} [{exc.code}]")
        return _exit_for(exc)
    return result if isinstance(result, int) else Exit.OK


def _plain_first(words: list[str]) -> list[str]:
    """Return the words with --no-color in front, wherever it was given as an option."""
    end = words.index("--") if "--" in words else len(words)
    if NO_COLOR not in words[:end]:
        return words
    return [NO_COLOR, *(word for word in words[:end] if word != NO_COLOR), *words[end:]]


def _complain(text: str) -> None:
    from hal0.cli.times import in_local_time

    sys.stderr.write(f"hal0: {in_local_time(text)}\n")


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
