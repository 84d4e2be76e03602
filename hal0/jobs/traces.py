"""By what one who looks often sees which slots and jobs are others than at the last look.

A trace is all that rows say of a slot or a job, as SQLite keeps it: two that are equal are shown
alike, but for what time alone changes. Nothing is parsed and nothing is shown, so that a thousand
slots can be looked at four times a second.
"""

from collections.abc import Hashable, Iterable, Sequence
from typing import Any, Final

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Integer,
    Select,
    func,
    literal_column,
    null,
    select,
    type_coerce,
    union_all,
)
from sqlalchemy.types import NullType

from hal0.jobs.ledger.rows import IS_QUEUED, IS_RUNNING, JOB_COLUMNS, Job, read_job
from hal0.slots.overview import IN_FLIGHT
from hal0.states import Desired
from hal0.tables import (
    breakers,
    engine_lane,
    engines,
    idle_windows,
    job_attempts,
    job_progress,
    jobs,
    slots,
    speeds,
    transitions,
)

Trace = Hashable
Traces = dict[int, Trace]


def _as_kept(columns: Iterable[Column[Any]]) -> list[Any]:
    """Return columns whose values are not parsed."""
    return [type_coerce(column, NullType()) for column in columns]


_MEANT: Final = (
    select(slots.c.engine_id, func.count().label("slots"))
    .where(slots.c.deleted_at.is_(None), slots.c.desired == literal_column(f"'{Desired.LOADED}'"))
    .group_by(slots.c.engine_id)
    .subquery()
)
_SLOTS: Final = (
    select(
        *_as_kept(slots.c),
        IN_FLIGHT.c.in_flight,
        *_as_kept([speeds.c.at, speeds.c.requests]),
        *_as_kept([idle_windows.c.since_boot, idle_windows.c.since_ms]),
        *_as_kept([breakers.c.sent, breakers.c.opens_ms, breakers.c.ready_ms]),
        *_as_kept([engines.c.name, engines.c.seen]),
        _MEANT.c.slots,
    )
    .select_from(slots)
    .join(engines, engines.c.id == slots.c.engine_id)
    .join(IN_FLIGHT, IN_FLIGHT.c.slot_id == slots.c.id, isouter=True)
    .join(speeds, speeds.c.slot_id == slots.c.id, isouter=True)
    .join(idle_windows, idle_windows.c.slot_id == slots.c.id, isouter=True)
    .join(breakers, breakers.c.slot_id == slots.c.id, isouter=True)
    .join(_MEANT, _MEANT.c.engine_id == slots.c.engine_id, isouter=True)
    .where(slots.c.deleted_at.is_(None))
)
_PROGRESS: Final = [
    job_progress.c.phase,
    job_progress.c.done_bytes,
    job_progress.c.total_bytes,
    job_progress.c.rate_bytes_s,
]
_RUNNING: Final = (
    select(*_as_kept(jobs.c), *_as_kept(_PROGRESS))
    .join(
        job_progress,
        (job_progress.c.job_id == jobs.c.id) & (job_progress.c.attempt == jobs.c.attempt),
        isouter=True,
    )
    .where(IS_RUNNING)
)
_QUEUED: Final[Select[Any]] = select(*_as_kept(jobs.c), *(null() for _ in _PROGRESS)).where(
    IS_QUEUED
)
_UNFINISHED: Final = union_all(_RUNNING, _QUEUED)
ATTEMPT_ROW: Final[ColumnElement[int]] = literal_column("job_attempts.rowid", Integer)
"""Attempts have no id of their own; these grow as they end."""
# By order, not by max(): then SQLite can only go to the end of the table, whatever it counted.
_NEWEST: Final = select(
    *(
        select(row).order_by(row.desc()).limit(1).scalar_subquery()
        for row in (transitions.c.id, jobs.c.id)
    ),
    select(ATTEMPT_ROW)
    .select_from(job_attempts)
    .order_by(ATTEMPT_ROW.desc())
    .limit(1)
    .scalar_subquery(),
)
_LANES: Final = select(engine_lane.c.engine_id, engine_lane.c.job_id, engine_lane.c.attempt)
_MARKS: Final = select(slots.c.id, slots.c.unload_job_id).where(slots.c.unload_job_id.is_not(None))

_ID, _SLOT_ID, _KIND, _POSITION, _STEP, _STATE = (
    list(jobs.c.keys()).index(name)
    for name in ("id", "slot_id", "kind", "position", "step", "state")
)
_OF_ROW: Final = len(jobs.c)


class JobTraces:
    """The unfinished jobs at one moment."""

    def __init__(self, tx: Connection) -> None:
        rows = [tuple(row) for row in tx.execute(_UNFINISHED)]
        self.rows: dict[int, tuple[Any, ...]] = {row[_ID]: row[:_OF_ROW] for row in rows}
        """All of a job but its progress, by id."""
        self.progress: Traces = {row[_ID]: row[_OF_ROW:] for row in rows}
        self.first_of_slot: dict[int, int] = _first(rows)
        """By slot id the job that runs or is first in its line."""
        self.hindrances: Trace = (
            tuple(sorted(row[:_OF_ROW] for row in rows if row[_STATE] == "running")),
            *(tuple(map(tuple, tx.execute(query))) for query in (_LANES, _MARKS)),
        )
        """What the first of a line may wait for."""

    def slot_of(self, job_id: int) -> int:
        """Return the id of an unfinished job's slot."""
        slot_id: int = self.rows[job_id][_SLOT_ID]
        return slot_id


def _first(rows: Sequence[tuple[Any, ...]]) -> dict[int, int]:
    """Return the first of each line; a running one stands before all others."""
    in_order = sorted(
        rows, key=lambda row: (row[_STATE] == "running", -row[_POSITION], -row[_STEP])
    )
    return {row[_SLOT_ID]: row[_ID] for row in in_order}


def slot_traces(tx: Connection, jobs_now: JobTraces) -> Traces:
    """Return the traces of the living slots by id."""
    first = jobs_now.first_of_slot
    found: Traces = {}
    for row in tx.execute(_SLOTS):
        slot_id: int = row[0]
        job_id = first.get(slot_id)
        found[slot_id] = (*row, job_id)
    return found


def newest(tx: Connection) -> tuple[int, int, int]:
    """Return the newest transition, job and ended attempt, each by its row id; 0 = there is none.

    Attempts have no id of their own, so that a VACUUM may renumber them: a number that has become
    less says nothing.
    """
    found = tx.execute(_NEWEST).one()
    return found[0] or 0, found[1] or 0, found[2] or 0


def jobs_since(tx: Connection, job_id: int, attempt_row: int) -> set[int]:
    """Return the jobs that came to be, or of which an attempt ended, behind these rows."""
    made = tx.execute(select(jobs.c.id).where(jobs.c.id > job_id).order_by(jobs.c.id)).scalars()
    ended = tx.execute(select(job_attempts.c.job_id).where(attempt_row < ATTEMPT_ROW)).scalars()
    return {*made, *ended}


def jobs_with_ids(tx: Connection, ids: Iterable[int]) -> list[Job]:
    """Return those of these jobs that there are, oldest first."""
    wanted = select(*JOB_COLUMNS).where(jobs.c.id.in_(tuple(ids))).order_by(jobs.c.id)
    return [read_job(row) for row in tx.execute(wanted)]
