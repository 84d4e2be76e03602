"""How `--wait` is read: alone it waits to the end, with seconds that long at most."""

import math
from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


class WaitingCommand(click.Command):
    """A command with `--wait [SECONDS]`, where a name that follows is no number of seconds."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Join `--wait` with its number, or with the mark of none."""
        joined: list[str] = []
        rest = list(args)
        while rest:
            word = rest.pop(0)
            if word == "--":
                joined += [word, *rest]
                break
            if word == "--wait":
                word = f"--wait={rest.pop(0)}" if rest and _is_number(rest[0]) else "--wait=inf"
            joined.append(word)
        return super().parse_args(ctx, joined)


def _is_number(word: str) -> bool:
    return word.replace(".", "", 1).isdigit()


def _seconds(ctx: click.Context, param: click.Parameter, value: float | None) -> float | None:
    if value is not None and (math.isnan(value) or value < 0):
        raise click.BadParameter("takes a number of seconds, 0 or more")
    return value


def wait_option(function: F) -> F:
    """Add the option."""
    return click.option(
        "--wait",
        "wait_s",
        type=float,
        metavar="[SECONDS]",
        callback=_seconds,
        help="Follow the jobs until they end, or for so long; Ctrl-C stops watching only.",
    )(function)
