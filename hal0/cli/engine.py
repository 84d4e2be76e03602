"""`hal0 engine`: run the embedded engine; `hal0 engine list`: which engines there are."""

import os
import sys

import click

from hal0.cli.client import Api, path_of
from hal0.cli.show import clock_of, emit, json_option, table


@click.group(invoke_without_command=True)
@click.pass_context
def engine(ctx: click.Context) -> None:
    """Run the embedded engine in the foreground, or list the engines."""
    if ctx.invoked_subcommand is None:
        os.execv(sys.executable, [sys.executable, "-m", "hal0.embedded"])  # noqa: S606


@engine.command("list")
@json_option
def list_engines(as_json: bool) -> None:
    """Show the engines that slots can use."""
    engines = list(Api.from_settings().items(path_of("engines")))
    headers = ["name", "kind", "url", "last answered", "last error"]
    rows = [
        [
            one["name"],
            one["kind"],
            one["url"],
            clock_of(one["last_health_at"]),
            one["last_error"] and one["last_error"].get("code"),
        ]
        for one in engines
    ]
    emit({"items": engines}, as_json, lambda: table(headers, rows))
