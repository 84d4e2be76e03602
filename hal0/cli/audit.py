"""`hal0 audit`: changes of slots with their causes: a page, all of them, or as they happen.

A table and `--json` are a page of rows. The other formats are the export of the API, handed on row
by row as it comes, however many there are.
"""

import json
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any, Final

import click

from hal0.cli import known
from hal0.cli.client import Api, ApiDown, Json, path_of
from hal0.cli.events import row_line, wait_for
from hal0.cli.exits import Exit
from hal0.cli.show import emit, json_option, table
from hal0.cli.since import Since, Until
from hal0.cli.times import clock_of
from hal0.masks import escaped

FORMATS: Final = ("table", "json", "csv", "ndjson")
NARROWING: Final = ("slot", "cause", "since", "until")
"""What an export takes as terms of its filter."""

OF_TABLE: Final = 100
LOOK_EVERY_S: Final = 0.5


@click.command()
@click.option(
    "--slot",
    metavar="NAME",
    shell_complete=known.slots,
    help="Of this slot, also when it is deleted.",
)
@click.option(
    "--since",
    type=Since(),
    metavar="TIME|ID",
    help="So long ago (90m, 2h, 3d), since a local (14:00) or RFC 3339 time, or behind an id.",
)
@click.option("--until", type=Until(), metavar="TIME", help="Before then; times as of --since.")
@click.option("--filter", metavar="TERMS", help="As on the page: 'slot:chat state:error'.")
@click.option("--cause", metavar="CAUSE", shell_complete=known.causes, help="Of this cause.")
@click.option("--limit", type=click.IntRange(1), help=f"How many in a table; {OF_TABLE}.")
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    default="table",
    show_default=True,
    help="json, csv and ndjson have all rows, not a page.",
)
@click.option("--follow", "-f", is_flag=True, help="Go on until Ctrl-C; a table is lines then.")
@json_option
def audit(form: str, follow: bool, limit: int | None, as_json: bool, **query: Any) -> int:
    """Show the newest changes of slots, oldest of them first; with --since, the first behind it.

    \b
    hal0 audit --slot chat --since 2h
    hal0 audit --since 14:00 --until 14:10
    hal0 audit --filter 'state:error since:7d' --format csv > errors.csv
    hal0 audit --follow --format ndjson
    """
    api = Api.from_settings()
    if follow:
        if as_json or form in ("json", "csv"):
            raise click.UsageError("--follow has no end, so it goes with table and ndjson alone")
        terms = (query["filter"] or "").split()
        if query["until"] or any(term.startswith("until:") for term in terms):
            raise click.UsageError("--follow has no end, and until says one: leave one out")
        return _follow(api, form == "ndjson", limit or OF_TABLE, query)
    if form == "table":
        rows = _page(api, limit or OF_TABLE, query)
        emit({"items": rows}, as_json, lambda: table(*_columns(rows)))
        return Exit.OK
    if as_json or limit is not None:
        raise click.UsageError(f"--format {form} has all rows: leave --json and --limit out")
    for line in _exported(api, form, query):
        click.echo(line)
    return Exit.OK


def _page(api: Api, limit: int | None, query: Mapping[str, Any]) -> list[Json]:
    order = "asc" if query["since"] else "desc"
    rows = list(api.items(path_of("transitions"), limit, order=order, **query))
    if order == "desc":
        rows.reverse()
    return rows


def _exported(api: Api, form: str, query: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of an export as they come."""
    terms = [f"{name}:{query[name]}" for name in NARROWING if query[name]]
    text = " ".join([*filter(None, [query["filter"]]), *terms])
    route = "transitions.csv" if form == "csv" else "transitions.ndjson"
    lines = api.lines(path_of(route), {}, filter=text)
    if form == "csv":
        yield from (escaped(line) for line in lines) if sys.stdout.isatty() else lines
    elif form == "ndjson":
        yield from map(escaped, lines)
    else:
        yield from _document(map(escaped, lines))


def _document(rows: Iterator[str]) -> Iterator[str]:
    """Make one JSON object of rows, with no more than two in memory; nothing of a refusal."""
    before = next(rows, None)
    yield '{"items": ['
    for row in rows:
        yield f"{before},"
        before = row
    if before is not None:
        yield before
    yield "]}"


def _follow(api: Api, as_json: bool, limit: int, query: Mapping[str, Any]) -> int:
    try:
        for row in _rows(api, limit, query):
            line = json.dumps(row, ensure_ascii=False) if as_json else row_line(row)
            click.echo(escaped(line))
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    return Exit.OK


def _rows(api: Api, limit: int, query: Mapping[str, Any]) -> Iterator[Json]:
    """Yield a page of rows, or all since a time, then each new one, whenever the API is there."""
    newest = api.get(path_of("transitions"), order="desc", limit=1)["items"]
    seen = newest[0]["id"] if newest else 0
    for row in _page(api, None if query["since"] else limit, query):
        seen = max(seen, row["id"])
        yield row
    terms = [term for term in (query["filter"] or "").split() if not term.startswith("since:")]
    rest = {**query, "filter": " ".join(terms) or None, "since": None}
    while True:
        try:
            for row in api.items(path_of("transitions"), **{**rest, "since": seen}):
                seen = row["id"]
                yield row
        except ApiDown as away:
            click.echo(escaped(f"{away.text}; it is asked again until Ctrl-C"), err=True)
            wait_for(api)
        time.sleep(LOOK_EVERY_S)


def _columns(rows: list[Json]) -> tuple[list[str], list[list[object]]]:
    headers = ["id", "at", "slot", "from", "to", "cause", "actor", "job", "evidence"]
    return headers, [
        [
            row["id"],
            clock_of(row["at"]),
            row["slot"],
            row["from"],
            row["to"],
            row["cause"],
            row["actor"],
            row["job_id"],
            row["evidence"],
        ]
        for row in rows
    ]
