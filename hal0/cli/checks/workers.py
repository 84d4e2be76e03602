"""Does somebody carry out the jobs: workers, beats of jobs, and what dead processes left."""

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

from sqlalchemy import Connection, and_, literal_column, select

from hal0.cli.checks.database import reading
from hal0.cli.findings import Finding
from hal0.clock import boot_id, utc_now
from hal0.jobs import bell, owners
from hal0.jobs.owners import OwnerRow, is_alive, living_rows
from hal0.processes import is_stopped
from hal0.settings import BEATS_MISSED, Settings
from hal0.tables import job_beats, jobs, slots
from hal0.tables import owners as owner_rows


def workers(settings: Settings) -> Iterator[Finding]:
    """Look for the processes that carry out jobs."""
    with reading(settings) as tx:
        rows = [row for row in living_rows(tx) if row.kind == "worker"]
    living = [row for row in rows if is_alive(row, settings.run)]
    for row in living:
        if is_stopped(row.pid, row.pid_start):
            to_do = f"let it go on (kill -CONT {row.pid}) or end it (kill -KILL {row.pid})"
            yield Finding("worker", "wrong", f"process {row.pid} lies stopped", to_do)
        else:
            yield Finding("worker", "ok", f"process {row.pid} runs")
    for row in rows:
        if row not in living:
            when = "before the last boot" if row.boot_id != boot_id() else "without a word"
            yield Finding(
                "worker", "note", f"process {row.pid} ended {when}; its jobs are taken over"
            )
    if not living:
        yield Finding("worker", "wrong", "none runs: jobs stay queued", "start `hal0 up`")


def beats(settings: Settings) -> Iterator[Finding]:
    """Look for running jobs of which nothing has been heard for longer than they may be silent."""
    with reading(settings) as tx:
        running = [row._mapping for row in tx.execute(_RUNNING)]
    for job in running:
        silent_s = (utc_now() - (job["at"] or job["started_at"])).total_seconds()
        limit_s = max(settings.silence_s, BEATS_MISSED * (job["beat_s"] or 0))
        if silent_s <= limit_s:
            continue
        yield Finding(
            f"job {job['id']}",
            "wrong",
            f"this {job['kind']} of slot {job['slot']} runs, and has not beaten for "
            f"{silent_s:.0f} s (it is silent after {limit_s:g} s)",
            _to_do(job),
        )


_RUNNING = (
    select(
        jobs.c.id,
        jobs.c.kind,
        jobs.c.started_at,
        job_beats.c.at,
        slots.c.name.label("slot"),
        owner_rows.c.pid,
        owner_rows.c.beat_s,
    )
    .join(slots, slots.c.id == jobs.c.slot_id)
    .join(
        job_beats,
        and_(job_beats.c.job_id == jobs.c.id, job_beats.c.attempt == jobs.c.attempt),
        isouter=True,
    )
    .join(owner_rows, owner_rows.c.id == jobs.c.owner_id, isouter=True)
    .where(jobs.c.state == literal_column("'running'"))
    .order_by(jobs.c.id)
)


def _to_do(job: Mapping[Any, Any]) -> str:
    """A worker alone takes nothing from itself."""
    if job["pid"] is None:
        return "start a worker: `hal0 worker`, or `hal0 up`"
    return (
        f"a second worker (`hal0 worker`) ends process {job['pid']} and takes the job over; "
        f"or end it (kill -KILL {job['pid']}) and start one"
    )


def leftovers(settings: Settings) -> Iterator[Finding]:
    """Look for locks and bells of processes that have ended; workers take away what they find."""
    folders = [settings.run / owners.FOLDER, settings.run / bell.FOLDER]
    found = {path for folder in folders if folder.is_dir() for path in folder.iterdir()}
    if not found:
        return
    with reading(settings) as tx:
        rows = _owners(tx, {path.name for path in found})
    stale = [
        path for path in found if path.name in rows and not is_alive(rows[path.name], settings.run)
    ]
    if stale:
        yield Finding(
            "run folder",
            "note",
            f"{len(stale)} locks and bells in {settings.run} are of processes that have ended",
            "nothing fails of it; a worker takes them away, or you may empty the folder",
        )
    else:
        yield Finding("run folder", "ok", f"all that is in {settings.run} is in use")


def _owners(tx: Connection, names: set[str]) -> dict[str, OwnerRow]:
    columns = [owner_rows.c[field.name] for field in fields(OwnerRow)]
    rows = tx.execute(select(*columns).where(owner_rows.c.id.in_(names)))
    return {row.id: OwnerRow(**row._mapping) for row in rows}
