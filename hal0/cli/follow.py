"""How `--wait` follows a chain to its end: every change of the slot, the end of every job.

Whoever watches never changes what happens: running out of time and Ctrl-C leave the jobs going.
What is said of the end is in `outcome.py`.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import click

from hal0.cli.client import Api, ApiDown, Json, Refused, path_of
from hal0.cli.exits import Exit
from hal0.cli.lines import Screen, pace_of, screen
from hal0.cli.outcome import how_it_ended, how_it_is, show_why, with_names
from hal0.cli.show import as_json_text

LOOK_EVERY_S: Final = 0.2
API_GONE_S: Final = 15.0
"""How long the API may be away, as when `hal0 up` starts it again."""

UNFINISHED: Final = frozenset({"queued", "running"})


@dataclass
class Watch:
    """What was asked for, and how long to look; `seen` is the last row of the audit shown."""

    api: Api
    slot: str
    wait_s: float | None
    as_json: bool
    seen: int = 0
    untold: list[int] = field(default_factory=list)
    """The jobs whose end was not shown yet, in their order."""


def start(api: Api, slot: str, wait_s: float | None, as_json: bool) -> Watch:
    """Note where the audit of the slot is before anything is asked for."""
    watch = Watch(api, slot, wait_s, as_json)
    if wait_s is not None:
        try:
            newest = api.get(path_of("transitions"), slot=slot, order="desc", limit=1)["items"]
        except Refused as exc:
            if exc.exit is not Exit.NOT_FOUND:
                raise
            newest = []  # the order is refused too, and says what it misses
        watch.seen = newest[0]["id"] if newest else 0
    return watch


def finish(watch: Watch, accepted: Json) -> int:
    """Say what was accepted or, with `--wait`, how it ended; return the exit code."""
    if accepted.get("already"):
        slot = watch.api.get(path_of("slots", watch.slot))
        return _say(watch, accepted, f"{how_it_is(slot)} already", Exit.OK)
    jobs = named(accepted["jobs"])
    if watch.wait_s is None:
        again = " (asked for before)" if accepted["deduplicated"] else ""
        return _say(watch, accepted, f"slot {watch.slot}: accepted as {jobs}{again}", Exit.OK)
    watch.untold = list(accepted["jobs"])
    try:
        chain = _follow(watch, accepted["chain_id"])
    except KeyboardInterrupt:
        goes = "goes" if len(accepted["jobs"]) == 1 else "go"
        click.echo(f"\nno longer watching slot {watch.slot}; {jobs} {goes} on", err=True)
        return Exit.INTERRUPTED
    current = _current(chain)
    if current is not None:
        where = f"slot {watch.slot}, job {current['id']} ({current['kind']}) is {current['state']}"
        click.echo(
            f"still going after {watch.wait_s:g} s: {where}; `hal0 job show {current['id']}`",
            err=True,
        )
        return _say(watch, accepted, "", Exit.STILL_GOING)
    return _outcome(watch, accepted, chain)


def named(jobs: Sequence[int]) -> str:
    """Return jobs as a sentence names them."""
    return f"job{'' if len(jobs) == 1 else 's'} {', '.join(map(str, jobs))}"


def _say(watch: Watch, accepted: Json, text: str, code: Exit) -> int:
    if watch.as_json:
        click.echo(as_json_text(accepted))
    elif text:
        click.echo(text)
    return code


def _outcome(watch: Watch, accepted: Json, chain: Json) -> int:
    results = [
        {**{name: job[name] for name in ("id", "kind", "state", "outcome")}, "error": _error(job)}
        for job in chain["jobs"]
    ]
    body = {**accepted, "state": chain["state"], "results": results}
    if chain["state"] == "succeeded":
        slot = watch.api.get(path_of("slots", watch.slot))
        return _say(watch, body, how_it_ended(chain, slot), Exit.OK)
    show_why(chain)
    return _say(watch, body, "", Exit.FAILED)


def _error(job: Json) -> Json | None:
    """Return what a job failed with, or was given up for, with names in its advice."""
    error: Json | None = job["error"]
    if error is None:
        return None
    named = {"slot": job["slot"], "id": error.get("job_id") or job["id"]}
    return {**error, "detail": with_names(str(error["detail"]), named)}


def _current(chain: Json) -> Json | None:
    """Return the job that runs or is next in line, None when the chain has ended."""
    unfinished: list[Json] = [job for job in chain["jobs"] if job["state"] in UNFINISHED]
    return next((job for job in unfinished if job["state"] == "running"), None) or next(
        iter(unfinished), None
    )


def _follow(watch: Watch, chain_id: int) -> Json:
    """Return the chain as it has ended, or as it is when the time is over."""
    assert watch.wait_s is not None
    until = time.monotonic() + watch.wait_s
    with screen() as shown:
        while True:
            chain = _patiently(until, lambda: watch.api.get(path_of("chains", chain_id)))
            _show_changes(watch, shown, chain, until)
            _show_progress(watch, shown, _current(chain))
            left_s = until - time.monotonic()
            if chain["state"] not in UNFINISHED or left_s <= 0:
                return chain
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


def _show_changes(watch: Watch, shown: Screen, chain: Json, until: float) -> None:
    """Show what is new, in its order: changes of the slot, and jobs of this chain that ended.

    A change by a job that began after `chain` was read waits for the next look.
    """
    page = _patiently(
        until, lambda: watch.api.get(path_of("transitions"), slot=watch.slot, since=watch.seen)
    )
    ends = {job["id"]: job for job in chain["jobs"] if job["state"] not in UNFINISHED}
    for row in page["items"]:
        _show_ends(watch, shown, ends, before=row["job_id"])
        if row["job_id"] in watch.untold and watch.untold[0] != row["job_id"]:
            return
        watch.seen = row["id"]
        shown.line(f"{watch.slot}: {row['from'] or '(none)'} → {row['to']} ({row['cause']})")
    _show_ends(watch, shown, ends, before=None)


def _show_ends(watch: Watch, shown: Screen, ends: dict[int, Json], before: int | None) -> None:
    """Show which jobs have ended; those in front of `before`, if that is one of them."""
    if before is not None and before not in watch.untold:
        return
    while watch.untold and watch.untold[0] != before and watch.untold[0] in ends:
        job = ends[watch.untold.pop(0)]
        how = "nothing to do" if job["outcome"] == "skipped" else job["outcome"]
        shown.line(f"{watch.slot}: job {job['id']} {job['kind']}: {how}")


def _show_progress(watch: Watch, shown: Screen, job: Json | None) -> None:
    """Show the job that runs or is next in line, when it or its phase is another one."""
    if job is None:
        return
    progress = job["progress"] or {}
    phase = progress.get("phase") or (job["waiting_for"] and f"waits for {job['waiting_for']}")
    text = f"{watch.slot}: job {job['id']} {job['kind']}" + (
        f": {phase}" if phase else f" {job['state']}"
    )
    done, total = progress.get("done_bytes", 0), progress.get("total_bytes", 0)
    pace = pace_of(progress.get("rate_bytes_s"), progress.get("left_s"))
    shown.progress(text, done, total, pace)
