"""`hal0 engine`: run the embedded engine; `hal0 engine add`, `list`, `show`: which there are."""

import os
import sys
from collections.abc import Iterator

import click

from hal0.cli import known
from hal0.cli.client import Api, Json, path_of
from hal0.cli.show import emit, emit_list, facts, json_option, list_options, table
from hal0.cli.times import clock_of


@click.group(invoke_without_command=True)
@click.pass_context
def engine(ctx: click.Context) -> None:
    """Run the embedded engine in the foreground, or list the engines."""
    if ctx.invoked_subcommand is None:
        os.execv(sys.executable, [sys.executable, "-m", "hal0.embedded"])  # noqa: S606


@engine.command("add")
@click.argument("name")
@click.option("--kind", required=True, metavar="KIND", help="embedded, lemonade or llamacpp.")
@click.option("--url", required=True, metavar="URL", help="Where it is, without a path.")
@click.option("--key-file", metavar="FILE", help="A file that workers can read, with its API key.")
@json_option
def add_engine(as_json: bool, **given: str | None) -> None:
    """Make another inference server known.

    \b
    hal0 engine add router --kind llamacpp --url http://127.0.0.1:8080
    """
    body = {name: value for name, value in given.items() if value is not None}
    added = Api.from_settings().post(path_of("engines"), body)
    emit(
        added,
        as_json,
        lambda: click.echo(f"engine {added['name']} is added; `hal0 doctor` asks it"),
    )


@engine.command("list")
@list_options
def list_engines(as_json: bool, is_quiet: bool) -> None:
    """Show the engines that slots can use."""
    engines = list(Api.from_settings().items(path_of("engines")))
    headers = ["name", "kind", "url", "version", "loaded", "strangers", "last answered", "error"]
    rows = [[*_cells(one)] for one in engines]
    emit_list(engines, "name", lambda: table(headers, rows), as_json=as_json, is_quiet=is_quiet)


def _cells(one: Json) -> Iterator[object]:
    seen = one["seen"] or {}
    holds = seen.get("max_models")
    yield from (one["name"], one["kind"], one["url"], seen.get("version"))
    yield f"{len(seen['models'])}{f' of {holds}' if holds else ''}" if seen else None
    yield ", ".join(seen.get("strangers", ())) or None
    yield clock_of(one["last_health_at"])
    yield one["last_error"] and one["last_error"].get("code")


@engine.command()
@click.argument("name", shell_complete=known.engines)
@json_option
def show(name: str, as_json: bool) -> None:
    """Show one engine, and what was last seen of it."""
    shown = Api.from_settings().get(path_of("engines", name))
    emit(shown, as_json, lambda: facts(shown))
