"""The manual page `hal0(1)`, written from the commands themselves: `python -m hal0.cli.manual`.

One page for all commands, in the macros of man(7), so that `man hal0` and a search in it answer.
What `--help` says is said here in the same words. The page is kept in `docs/man`, and installed.
"""

import inspect
import re
import sys
import textwrap
from collections.abc import Iterator
from typing import Final

import click

from hal0 import __version__
from hal0.cli import COMMANDS, hal0
from hal0.cli.exits import Exit

EXITS: Final = {
    Exit.OK: "Done; of an order without --wait: accepted.",
    Exit.FAILED: "Failed; of status, doctor: something is wrong.",
    Exit.USAGE: "The command line, or what it asks for, cannot be meant.",
    Exit.NOT_FOUND: "There is no such thing.",
    Exit.NOT_ALLOWED: "No token, or one that may not do this.",
    Exit.CONFLICT: "Something else is in the way.",
    Exit.STILL_GOING: "--wait ran out; the job goes on.",
    Exit.DOWN: "The engine or the API cannot be reached, or cannot work.",
    Exit.INTERRUPTED: "Interrupted.",
}
EXAMPLES: Final = {
    "Why is a slot in error, who loaded it last, what evicted it, how long do loads take?": (
        "hal0 slot show chat"
    ),
    "What is wrong anywhere, and what mends it?": "hal0 status",
    "What failed tonight? Without --dry-run all of it is retried.": (
        "hal0 job retry --all --filter since:12h --dry-run"
    ),
    "The audit of the last week as a table for other programs.": (
        "hal0 audit --since 7d --format csv > week.csv"
    ),
}
WIDTH: Final = 76
ALIKE: Final = frozenset({"json", "quiet", "help"})
"""Options that mean the same everywhere: they are told once."""


def manual() -> str:
    """Return the page as roff."""
    return "\n".join([*_lines(), ""])


def _lines() -> Iterator[str]:
    yield f'.TH HAL0 1 "" "hal0 {__version__}" "User Commands"'
    yield ".SH NAME"
    yield r"hal0 \- keep the slots of a local model server in order"
    yield ".SH SYNOPSIS"
    yield r".B hal0"
    yield r"[\fB\-\-no\-color\fR] \fICOMMAND\fR [\fIARGS\fR]"
    yield ".SH DESCRIPTION"
    yield from _paragraphs(
        "hal0 keeps named slots of a local model server in order. A slot holds at most one model. "
        "Files are checked before every load, every change of a slot is a row of the audit, and "
        "work goes on where a process died.\n\n"
        "Data goes to standard output, all else to standard error. People are told times of this "
        "machine, with their zone, and sizes in GiB; --json says UTC and bytes."
    )
    yield ".SS Options of many commands"
    yield from _definition(r"\-\-json", "Print JSON; fields may be added, none is taken away.")
    yield from _definition(r"\-\-quiet, \-q", "Of a list print names alone; of jobs ids.")
    yield from _definition(r"\-\-help, \-h", "Say what a command takes.")
    yield ".SH COMMANDS"
    for name in COMMANDS:
        command = hal0.get_command(click.Context(hal0), name)
        assert command is not None
        yield from _command(f"hal0 {name}", command)
    yield from _environment()
    yield ".SH EXIT STATUS"
    for code in Exit:
        yield from _definition(str(code.value), EXITS[code])
    yield ".SH EXAMPLES"
    for question, line in EXAMPLES.items():
        yield from _definition(_escaped(question), line)
    yield ".SH SEE ALSO"
    yield "README of hal0;"
    yield r"\fBcurl\fR(1), \fBsystemctl\fR(1)"


def _command(path: str, command: click.Command) -> Iterator[str]:
    """Tell of a command, then of those below it."""
    if not isinstance(command, click.Group) or command.invoke_without_command:
        context = click.Context(command, info_name=path)
        arguments = (param for param in command.params if isinstance(param, click.Argument))
        usage = " ".join([path, *(one.make_metavar(context) for one in arguments)])
        yield f".SS {_escaped(usage)}"
        yield from _paragraphs(inspect.cleandoc(command.help or ""))
        yield from _options(command, context)
    if isinstance(command, click.Group):
        for name, below in command.commands.items():
            yield from _command(f"{path} {name}", below)


def _options(command: click.Command, context: click.Context) -> Iterator[str]:
    for param in command.params:
        if isinstance(param, click.Argument):
            continue
        told = param.get_help_record(context)
        if told is None or ALIKE & _bare(param):
            continue
        yield from _definition(_escaped(told[0]), told[1])


def _bare(param: click.Parameter) -> set[str]:
    return {option.lstrip("-") for option in param.opts}


def _environment() -> Iterator[str]:
    from hal0.settings import Settings
    from hal0.where import PREFIX

    yield ".SH ENVIRONMENT"
    yield from _paragraphs(
        "Settings come from the environment, else from hal0.toml in HAL0_HOME, where they are "
        "named without HAL0_ and in lower case."
    )
    yield from _definition("NO_COLOR", "Set to anything: no colours.")
    for name, field in Settings.model_fields.items():
        told = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", field.description or "")
        yield from _definition(f"{PREFIX}{name.upper()}", told.replace("`", ""))


def _paragraphs(text: str) -> Iterator[str]:
    r"""Write paragraphs; one that begins with \b, as click has it, keeps its lines."""
    for at, paragraph in enumerate(text.split("\n\n")):
        if at:
            yield ".PP"
        if paragraph.startswith("\b"):
            yield ".nf"
            yield from map(_line, paragraph.splitlines()[1:])
            yield ".fi"
        else:
            yield from _filled(paragraph)


def _definition(term: str, text: str) -> Iterator[str]:
    yield ".TP"
    yield rf"\fB{term}\fR"
    yield from _filled(text)


def _filled(text: str) -> Iterator[str]:
    lines = textwrap.wrap(
        text, WIDTH, break_long_words=False, break_on_hyphens=False, replace_whitespace=True
    )
    yield from map(_line, lines)


def _line(text: str) -> str:
    """Return a line of text that roff takes for no request."""
    escaped = _escaped(text)
    return rf"\&{escaped}" if escaped[:1] in (".", "'") else escaped


def _escaped(text: str) -> str:
    return text.replace("\\", r"\e").replace("-", r"\-").replace("…", "...").replace("→", "->")


if __name__ == "__main__":
    sys.stdout.write(manual())
