"""`hal0 events`: what happens, as it happens, taken up again wherever the API was away."""

import json
import re
import time
from collections.abc import Iterator
from typing import Final, NamedTuple

import click

from hal0.cli.client import Api, ApiDown, Json, path_of
from hal0.cli.exits import Exit
from hal0.cli.times import clock_of, in_local_time
from hal0.masks import escaped

ID: Final = re.compile(r"\d{1,18}-\d{1,18}", re.ASCII)
AGAIN_S: Final = 2.0
"""How long after an API went away it is asked again."""


class Told(NamedTuple):
    """One event of the stream; `id` None = it has none."""

    name: str
    id: str | None
    data: Json


def _event_id(_ctx: click.Context, _option: click.Parameter, text: str | None) -> str | None:
    if text is None or ID.fullmatch(text):
        return text
    raise click.BadParameter(
        f"{text!r} is no event's id: --json shows them, such as 3-120; for times there is "
        "`hal0 audit --since`"
    )


@click.command()
@click.option("--follow", "-f", is_flag=True, help="Go on until Ctrl-C.")
@click.option(
    "--since", metavar="ID", callback=_event_id, help="Begin behind this event, such as 3-120."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
def events(follow: bool, since: str | None, as_json: bool) -> int:
    """Show how everything is and, with --follow, what happens then.

    \b
    hal0 events --follow
    hal0 events --follow --json | jq .event
    """
    shown = _AsJson() if as_json else _Lines()
    try:
        for told in _told(Api.from_settings(), since, follow):
            for line in shown.lines(told):
                click.echo(line if as_json else in_local_time(line))
            if told.name == "snapshot" and not follow:
                return Exit.OK
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    return Exit.OK


def _told(api: Api, last_id: str | None, follow: bool) -> Iterator[Told]:
    """Yield events; who follows begins again where it was, once there was an API at all."""
    is_known = False
    while True:
        headers = {"Accept": "text/event-stream"}
        if last_id is not None:
            headers["Last-Event-ID"] = last_id
        try:
            for told in _read(api.lines(path_of("events"), headers)):
                is_known = True
                last_id = told.id or last_id
                yield told
            raise ApiDown(f"the API at {api.url} ended the stream")
        except ApiDown as away:
            if not (is_known and follow):
                raise
            click.echo(escaped(f"{away.text}; it is asked again until Ctrl-C"), err=True)
            is_known = wait_for(api)


def wait_for(api: Api) -> bool:
    """Return when there is an API again; raises Refused."""
    while True:
        time.sleep(AGAIN_S)
        try:
            api.get("/livez")
        except ApiDown:
            continue
        return True


def _read(lines: Iterator[str]) -> Iterator[Told]:
    """Yield what stands between empty lines; comments and what is cut short is nothing."""
    fields: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        if line and name:
            fields[name] = value.removeprefix(" ")
        elif not line:
            if "event" in fields and "data" in fields:
                yield Told(fields["event"], fields.get("id"), json.loads(fields["data"]))
            fields = {}


class _AsJson:
    """A JSON object a line, as the stream has it."""

    @staticmethod
    def lines(told: Told) -> Iterator[str]:
        data = {"event": told.name, "id": told.id, "data": told.data}
        yield escaped(json.dumps(data, ensure_ascii=False))


class _Lines:
    """A sentence a line: of jobs when their state is another one, of slots in the snapshot."""

    def __init__(self) -> None:
        self._said: dict[int, str] = {}

    def lines(self, told: Told) -> Iterator[str]:
        """Yield what there is to say of an event."""
        data = told.data
        if told.name == "snapshot":
            yield from self._everything(data)
        elif told.name == "transition":
            yield row_line(data)
        elif told.name == "job":
            yield from self._job(data)
        elif told.name == "incident":
            yield _incident(data)
        elif told.name == "slot_deleted":
            yield escaped(f"slot {data['name']} was deleted")
        elif told.name == "reset":
            yield escaped(f"some events are not told: {data['why']}")

    def _everything(self, data: Json) -> Iterator[str]:
        for slot in data["slots"]:
            model = f" with {slot['model']}" if slot["model"] else ""
            since = clock_of(slot["since"])
            yield escaped(f"slot {slot['name']}: {slot['state']}{model} since {since}")
        for job in data["jobs"]:
            yield from self._job(job)
        yield from map(_incident, data["incidents"])

    def _job(self, job: Json) -> Iterator[str]:
        how = "nothing to do" if job["outcome"] == "skipped" else job["state"]
        if job["error"]:
            how += f": {job['error']['code']}: {job['error']['detail']}"
        elif job["waiting_for"]:
            how += f", waits for {job['waiting_for']}"
        if self._said.get(job["id"]) != how:
            self._said[job["id"]] = how
            yield escaped(f"job {job['id']} {job['kind']} of {job['slot']}: {how}")


def row_line(row: Json) -> str:
    """Return a row of the audit as a sentence."""
    job = f", job {row['job_id']}" if row["job_id"] else ""
    moved = f"{row['from'] or 'new'} > {row['to']} {row['cause']}"
    return escaped(f"{clock_of(row['at'])} slot {row['slot']}: {moved} by {row['actor']}{job}")


def _incident(one: Json) -> str:
    back, of = sum(moved["back_at"] is not None for moved in one["slots"]), len(one["slots"])
    more = f"; {back} of {of} slots are back" if of else ""
    more += f"; acknowledged by {one['acked_by']}" if one["acked_by"] else ""
    return escaped(f"incident {one['id']}: {one['kind']} at {one['engine']}: {one['detail']}{more}")
