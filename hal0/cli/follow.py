"""How `--wait` follows a chain to its end: every change of the slot, every step, then the outcome.

Whoever watches never changes what happens: running out of time and Ctrl-C leave the jobs going.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import click

from hal0.cli.client import Api, ApiDown, Json, path_of
from hal0.cli.exits import Exit
from hal0.cli.lines import Screen, pace_of, screen
from hal0.cli.show import as_json_text

LOOK_EVERY_S: Final = 0.2
API_GONE_S: Final = 15.0
"""How long the API may be away, as when `hal0 up` starts it again."""

UNFINISHED: Final = frozenset({"queued", "running"})


@dataclass
class Watch:
    """What was asked for, and how long to look; `seen` is the last row of the audit before it."""

    api: Api
    slot: str
    wait_s: float | None
    as_json: bool
    seen: int = 0


def start(api: Api, slot: str, wait_s: float | None, as_json: bool) -> Watch:
    """Note where the audit of the slot is before anything is asked for."""
    watch = Watch(api, slot, wait_s, as_json)
    if wait_s is not None:
        newest = api.get(path_of("transitions"), slot=slot, order="desc", limit=1)["items"]
        watch.seen = newest[0]["id"] if newest else 0
    return watch


def finish(watch: Watch, accepted: Json) -> int:
    """Say what was accepted or, with `--wait`, how it ended; return the exit code."""
    if accepted.get("already"):
        return _say(watch, accepted, f"slot {watch.slot}: it is so already", Exit.OK)
    jobs = ", ".join(map(str, accepted["jobs"]))
    if watch.wait_s is None:
        again = " (asked for before)" if accepted["deduplicated"] else ""
        return _say(watch, accepted, f"slot {watch.slot}: accepted as jobs {jobs}{again}", Exit.OK)
    try:
        chain = _follow(watch, accepted["chain_id"])
    except KeyboardInterrupt:
        click.echo(f"\nno longer watching; jobs {jobs} go on", err=True)
        return Exit.INTERRUPTED
    if chain is None:
        click.echo(
            f"still going after {watch.wait_s:g} s: `hal0 job show {accepted['jobs'][-1]}`",
            err=True,
        )
        return _say(watch, accepted, "", Exit.STILL_GOING)
    return _outcome(watch, accepted, chain)


def _say(watch: Watch, accepted: Json, text: str, code: Exit) -> int:
    if watch.as_json:
        click.echo(as_json_text(accepted))
    elif text:
        click.echo(text)
    return code


def _outcome(watch: Watch, accepted: Json, chain: Json) -> int:
    results = [
        {name: job[name] for name in ("id", "kind", "state", "outcome", "error")}
        for job in chain["jobs"]
    ]
    body = {**accepted, "state": chain["state"], "results": results}
    if chain["state"] == "succeeded":
        slot = watch.api.get(path_of("slots", watch.slot))
        model = slot["model"] or slot["wanted_model"] or "no model"
        return _say(watch, body, f"slot {watch.slot}: {slot['state']} ({model})", Exit.OK)
    failed = next((job for job in chain["jobs"] if job["state"] == "failed"), None)
    if failed is None:
        ended = next(job for job in chain["jobs"] if job["state"] == "cancelled")
        click.echo(f"hal0: job {ended['id']} ({ended['kind']}) was {ended['outcome']}", err=True)
    else:
        show_failure(failed)
    return _say(watch, body, "", Exit.FAILED)


def show_failure(job: Json) -> None:
    """Write to stderr why a job failed."""
    error = job["error"] or {}
    click.echo(f"hal0: job {job['id']} ({job['kind']}) of slot {job['slot']} failed", err=True)
    click.echo(f"  {error.get('code')}: {error.get('detail')}", err=True)
    for name, value in (error.get("evidence") or {}).items():
        click.echo(f"    {name}: {value}", err=True)


def _follow(watch: Watch, chain_id: int) -> Json | None:
    """Return the chain when it has ended; None = not in time."""
    assert watch.wait_s is not None
    until = time.monotonic() + watch.wait_s
    with screen() as shown:
        while True:
            chain = _patiently(until, lambda: watch.api.get(path_of("chains", chain_id)))
            _show_transitions(watch, shown, until)
            _show_jobs(watch, shown, chain)
            if chain["state"] not in UNFINISHED:
                return chain
            left_s = until - time.monotonic()
            if left_s <= 0:
                return None
            time.sleep(min(LOOK_EVERY_S, left_s))


def _patiently(until: float, look: Callable[[], Json]) -> Json:
    """Look again while the API is away for a moment."""
    gone_at = time.monotonic() + API_GONE_S
    while True:
        try:
            return look()
        except ApiDown:
            if time.monotonic() >= min(until, gone_at):
                raise
        time.sleep(LOOK_EVERY_S)


def _show_transitions(watch: Watch, shown: Screen, until: float) -> None:
    page = _patiently(
        until, lambda: watch.api.get(path_of("transitions"), slot=watch.slot, since=watch.seen)
    )
    for row in page["items"]:
        watch.seen = row["id"]
        shown.line(f"{watch.slot}: {row['from'] or '(none)'} → {row['to']} ({row['cause']})")


def _show_jobs(watch: Watch, shown: Screen, chain: Json) -> None:
    """Show the job that runs or is next in line, when it or its phase is another one."""
    job = next((one for one in chain["jobs"] if one["state"] in UNFINISHED), None)
    if job is None:
        return
    progress = job["progress"] or {}
    phase = progress.get("phase") or (job["waiting_for"] and f"waits for {job['waiting_for']}")
    text = f"job {job['id']} {job['kind']}" + (f": {phase}" if phase else f" {job['state']}")
    done, total = progress.get("done_bytes", 0), progress.get("total_bytes", 0)
    pace = pace_of(progress.get("rate_bytes_s"), progress.get("left_s"))
    shown.progress(text, done, total, pace)
