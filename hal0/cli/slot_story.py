"""What `hal0 slot show` says first: since when and why, what is wrong, who loaded it, how long.

Each line answers what an operator would ask; the fields of the slot follow below.
"""

from collections.abc import Iterator
from typing import Final

from hal0.cli.client import Api, Json, path_of
from hal0.cli.glance import fading, mend_of
from hal0.cli.outcome import with_names
from hal0.cli.times import clock_of, since
from hal0.page.words import CAUSES, lasted
from hal0.states import Cause

LOOKED_AT: Final = 50
LEAST_S: Final = 0.05
"""What took less reads as 0.0 s, and is left out."""


def story(api: Api, slot: Json) -> Iterator[str]:
    """Yield the lines. Raises ApiDown, Refused."""
    name = slot["name"]
    yield from _now(api, slot)
    if slot["state"] == "error":
        yield from _error(api, slot)
    told = api.get(path_of("slots", name, "loads"), limit=LOOKED_AT)
    yield from _loads(told["items"])
    yield from _usual(slot, told["usual_s"])
    yield from _eviction(api, name)
    for warning in slot["warnings"]:
        yield f"note: {warning}"


def _now(api: Api, slot: Json) -> Iterator[str]:
    held = slot["model"] or slot["wanted_model"]
    model = f", model {held}" if held else ", no model"
    yield f"slot {slot['name']}: {slot['state']}{model}, since {since(slot['since'])}"
    row = _newest(api, slot["name"])
    if row is not None:
        yield f"why: {_why(api, row)}"
    if slot["job_id"] is not None:
        job = api.get(path_of("jobs", slot["job_id"]))
        waits = f", waits for {job['waiting_for']}" if job["waiting_for"] else ""
        yield f"under way: job {job['id']} {job['kind']} is {job['state']}{waits}"
    ahead = fading(slot)
    if ahead:
        yield f"next: {ahead}, if nobody uses it"


def _newest(api: Api, name: str, **which: object) -> Json | None:
    page = api.get(path_of("transitions"), slot=name, order="desc", limit=1, **which)
    rows: list[Json] = page["items"]
    return rows[0] if rows else None


def _why(api: Api, row: Json) -> str:
    """Say why a change came about, and who asked for the job that made it."""
    told = [f"{CAUSES[Cause(row['cause'])]} ({row['cause']})"]
    if row["job_id"]:
        job = api.get(path_of("jobs", row["job_id"]))
        told.append(f"job {job['id']} {job['kind']}, asked for by {job['actor']}")
    else:
        told.append(f"by {row['actor']}")
    if row["incident_id"]:
        told.append(f"`hal0 incident show {row['incident_id']}` says what else")
    return ", ".join(told)


def _error(api: Api, slot: Json) -> Iterator[str]:
    error, name = slot["error"] or {}, slot["name"]
    named = {"slot": name, "id": error.get("job_id")}
    yield f"error: {error.get('code')}: {with_names(str(error.get('detail')), named)}"
    for key, value in (error.get("evidence") or {}).items():
        yield f"  {key}: {value}"
    failed = api.get(path_of("jobs", "failed"), filter=f"slot:{name}")["items"]
    yield f"to mend it: remove the cause, {mend_of(slot, failed[0] if failed else None)}"


def _loads(loads: list[Json]) -> Iterator[str]:
    if not loads:
        yield "last load: none"
        return
    last = loads[0]
    yield f"last load: {_load(last)}"
    good = next((load for load in loads if load["state"] == "succeeded"), None)
    if good is not None and good is not last:
        yield f"last that succeeded: {_load(good)}"


def _load(load: Json) -> str:
    asked = f"job {load['job_id']} of {load['model']}, asked for by {load['actor']}"
    how = str(load["state"])
    if load["ended_at"] is not None:
        how += f" after {lasted(load['seconds'])}{_parts(load['phases'])}"
    why = f": {load['error']['code']}" if load["error"] else ""
    return f"{asked}, {clock_of(load['asked_at'])}, {how}{why}"


def _parts(phases: dict[str, float]) -> str:
    kept = [(name, seconds) for name, seconds in phases.items() if seconds >= LEAST_S]
    told = ", ".join(f"{name} {lasted(seconds)}" for name, seconds in kept if name != "failed")
    return f" ({told})" if told else ""


def _usual(slot: Json, usual_s: dict[str, float | None]) -> Iterator[str]:
    known = {kind: seconds for kind, seconds in usual_s.items() if seconds is not None}
    if known.get("load") is not None:
        model = slot["model"] or slot["wanted_model"]
        told = ", ".join(f"{kind} {lasted(seconds)}" for kind, seconds in known.items())
        yield f"usual of {model}: {told}"


def _eviction(api: Api, name: str) -> Iterator[str]:
    """Yield what took the slot's model last; what befell a deleted slot of its name is not told."""
    row = _newest(api, name, cause=Cause.EVICTED_BY_ENGINE)
    made = _newest(api, name, cause=Cause.CREATED)
    if row is None or (made is not None and made["id"] > row["id"]):
        return
    told = f"last evicted: {clock_of(row['at'])} by its engine"
    if row["incident_id"] is None:
        yield told
        return
    incident = api.get(path_of("incidents", row["incident_id"]))
    culprit = incident["culprit"]
    on_account = (
        f", on account of slot {culprit['slot']} (job {culprit['job_id']})" if culprit else ""
    )
    yield f"{told}{on_account}; `hal0 incident show {incident['id']}`"
