"""`hal0 audit`: every change of a slot's state, with its cause."""

from typing import Any

import click

from hal0.cli.client import Api, Json, path_of
from hal0.cli.show import clock_of, emit, json_option, table
from hal0.cli.since import Since


@click.command()
@click.option("--slot", metavar="NAME", help="Of this slot, also when it is deleted.")
@click.option(
    "--since",
    type=Since(),
    metavar="TIME|ID",
    help="So long ago (90m, 2h, 3d), since a local or RFC 3339 time, or behind a row's id.",
)
@click.option("--cause", metavar="CAUSE", help="Of this cause.")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="How many.")
@json_option
def audit(limit: int, as_json: bool, **query: Any) -> None:
    """Show the newest changes of slots, oldest of them first; with --since, the first behind it."""
    order = "asc" if query["since"] else "desc"
    rows = list(Api.from_settings().items(path_of("transitions"), limit, order=order, **query))
    if order == "desc":
        rows.reverse()
    emit({"items": rows}, as_json, lambda: table(*_columns(rows)))


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
