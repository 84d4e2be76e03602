"""`hal0 incident …`: what happened at engines, what it cost, and what has come back."""

from datetime import datetime
from typing import Any

import click

from hal0.cli import known
from hal0.cli.client import Api, Json, path_of
from hal0.cli.show import emit, emit_list, json_option, list_options, table
from hal0.cli.since import Since
from hal0.cli.times import clock_of, in_local_time
from hal0.masks import escaped


@click.group()
def incident() -> None:
    """What happened at engines, and what it cost."""


@incident.command("list")
@click.option("--engine", metavar="NAME", shell_complete=known.engines, help="At this engine.")
@click.option("--kind", metavar="KIND", help="Of this kind, such as load_failed.")
@click.option(
    "--slot", metavar="NAME", shell_complete=known.slots, help="That this slot caused or suffered."
)
@click.option(
    "--since",
    type=Since(),
    metavar="TIME|ID",
    help="So long ago (90m, 2h, 3d), since a local (14:00) or RFC 3339 time, or behind an id.",
)
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="How many.")
@list_options
def list_incidents(limit: int, as_json: bool, is_quiet: bool, **query: Any) -> None:
    """Show incidents, newest first."""
    found = list(Api.from_settings().items(path_of("incidents"), limit, **query))
    headers = ["id", "at", "kind", "engine", "culprit", "slots", "back", "detail"]
    rows = [
        [
            one["id"],
            clock_of(one["at"]),
            one["kind"],
            one["engine"],
            one["culprit"] and one["culprit"]["slot"],
            len(one["slots"]),
            sum(moved["back_at"] is not None for moved in one["slots"]),
            one["detail"],
        ]
        for one in found
    ]
    emit_list(found, "id", lambda: table(headers, rows), as_json=as_json, is_quiet=is_quiet)


@incident.command(short_help="Acknowledge an incident.")
@click.argument("incident_id", type=int, shell_complete=known.incidents)
@json_option
def ack(incident_id: int, as_json: bool) -> None:
    """Acknowledge an incident: it leaves the top of the page, and stays in the list."""
    seen = Api.from_settings().post(path_of("incidents", incident_id, "ack"))
    said = (
        f"incident {incident_id} acknowledged by {seen['acked_by']}, {clock_of(seen['acked_at'])}"
    )
    emit(seen, as_json, lambda: click.echo(said))


@incident.command(short_help="Show one incident.")
@click.argument("incident_id", type=int, shell_complete=known.incidents)
@json_option
def show(incident_id: int, as_json: bool) -> None:
    """Show one incident: what happened, which slots it cost their model, and who is back."""
    found = Api.from_settings().get(path_of("incidents", incident_id))
    emit(found, as_json, lambda: _tell(found))


def _tell(one: Json) -> None:
    click.echo(f"incident {one['id']}: {one['kind']} at {clock_of(one['at'])}")
    click.echo(in_local_time(escaped(one["detail"])))
    culprit = one["culprit"]
    if culprit is not None:
        click.echo(
            f"because of slot {culprit['slot']}, model {culprit['model'] or 'unknown'}, job "
            f"{culprit['job_id']}: `hal0 job show {culprit['job_id']}`"
        )
    if not one["slots"]:
        click.echo("no slot lost its model")
        return
    rows = [
        [moved["slot"], moved["from"], moved["to"], moved["cause"], _fate(moved)]
        for moved in one["slots"]
    ]
    table(["slot", "from", "to", "cause", "and now"], rows)


def _fate(moved: Json) -> str:
    if moved["back_at"] is None:
        return f"away: {moved['why_away']}"
    lost, back = map(datetime.fromisoformat, (moved["at"], moved["back_at"]))
    away_s = max(0.0, (back - lost).total_seconds())
    return f"back since {clock_of(moved['back_at'])}, after {away_s:.1f} s"
