"""`hal0 status`: what is wrong, else what takes longest, else that all is well; then all slots."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import click

from hal0.cli.client import Api
from hal0.cli.exits import Exit
from hal0.cli.glance import Glance, Looker, about
from hal0.cli.show import emit, json_option, table
from hal0.cli.times import clock_of, in_local_time
from hal0.masks import escaped


@click.command()
@json_option
def status(as_json: bool) -> int:
    """Say what is wrong and what mends it, else what is under way, then a line for each slot.

    Exit code 1 when a slot is in error, its last load failed, or an engine or all workers are
    missing; 7 when there is no API.
    """
    seen = Looker(Api.from_settings()).look()
    emit(told(seen), as_json, lambda: _show(seen))
    return Exit.FAILED if seen.troubles else Exit.OK


def told(seen: Glance) -> dict[str, Any]:
    """Return a look as JSON has it."""
    return {
        "well": not seen.troubles,
        "sentence": seen.sentence,
        "troubles": [asdict(trouble) for trouble in seen.troubles],
        "slots": seen.slots,
        "jobs": seen.jobs,
        "engines": seen.engines,
        "workers": seen.workers,
        "incidents": seen.incidents,
    }


def _show(seen: Glance) -> None:
    click.echo(in_local_time(escaped(seen.sentence)))
    if seen.slots:
        table(*slot_rows(seen))
    for line in (*_more(seen), *incident_lines(seen)):
        click.echo(in_local_time(escaped(line)))


def slot_rows(seen: Glance) -> tuple[list[str], list[list[object]]]:
    """Return the slots of a look as a table."""
    headers = ["slot", "state", "model", "req", "tok/s", "since", "about"]
    return headers, [
        [
            slot["name"],
            slot["state"],
            slot["model"] or slot["wanted_model"],
            slot["in_flight"] or None,
            rate_of(slot),
            clock_of(slot["since"]),
            about(slot, seen),
        ]
        for slot in seen.slots
    ]


def rate_of(slot: dict[str, Any]) -> str | None:
    """Return tokens per second of the last requests; None = nobody told any."""
    rate = None if slot["speed"] is None else slot["speed"]["tokens_per_s"]
    return None if rate is None else f"{rate:.1f}"


def _more(seen: Glance) -> Iterator[str]:
    """Yield what is wrong beside what the first line says."""
    yield from (trouble.sentence for trouble in seen.troubles[1:])


def incident_lines(seen: Glance) -> Iterator[str]:
    """Yield a line for each incident that nobody acknowledged."""
    for one in seen.incidents:
        at = clock_of(one["at"])
        yield (
            f"incident {one['id']}: {one['kind']} at engine {one['engine']}, {at}: "
            f"{one['detail']}; `hal0 incident ack {one['id']}`"
        )
