"""What stands below the cards: jobs, the audit, incidents and models, as far as a filter lets them.

A filter that cannot be read is kept as it was typed, with what is wrong with it beside it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, select

from hal0.api.page_reading import phases_by_chain
from hal0.errors import RequestError
from hal0.jobs.filters import OF_AUDIT, OF_JOBS, audit_filter, completions, job_filter
from hal0.jobs.incident_queries import IncidentFilter, incident_page
from hal0.jobs.queries import job_page
from hal0.page.phases import Phase
from hal0.registry.catalog import living_models
from hal0.slots.audit import AuditFilter, AuditRow, audit_page
from hal0.slots.queries import Slot
from hal0.tables import jobs, slots

ROWS: Final = 50
MOST_CHANGES: Final = 200


@dataclass(frozen=True, slots=True)
class Asked:
    """Which tab, narrowed how, and behind which row."""

    tab: str
    filter: str
    before: int | None


@dataclass(frozen=True, slots=True)
class Record:
    """A tab with its rows, newest first."""

    tab: str
    filter: str
    problem: str | None
    """What is wrong with the filter."""
    rows: Sequence[Any]
    next_before: int | None
    """Behind which row the next page begins; None = there is none."""
    terms: Sequence[str]
    """What the filter can be completed to."""
    before: int | None
    """Behind which row it begins; None = with the newest one."""
    phases: Mapping[int, Sequence[Phase]]
    """Of chains of jobs, by chain id."""


def record_of(tx: Connection, asked: Asked) -> Record:
    """Return what was asked for; raises nothing for a filter that cannot be read."""
    problem, rows = None, list[Any]()
    try:
        rows = _rows(tx, asked)
    except RequestError as error:
        problem = error.detail
    shown = rows[:ROWS]
    return Record(
        asked.tab,
        asked.filter,
        problem,
        shown,
        _next(rows, asked.tab),
        _terms(tx, asked.tab),
        asked.before,
        phases_by_chain(tx, shown) if asked.tab == "jobs" else {},
    )


def changes_in(tx: Connection, slot: Slot, stretch: tuple[datetime, datetime]) -> list[AuditRow]:
    """Return the newest changes of a slot in a stretch of time, newest first."""
    since, until = stretch
    wanted = AuditFilter(slot_ids=[slot.id], since=since, until=until)
    return audit_page(tx, wanted, limit=MOST_CHANGES, newest_first=True)


def slot_of_jobs(tx: Connection, changes: Sequence[AuditRow]) -> dict[int, str]:
    """Return the slots of the jobs that made these changes, by job id: it may be another's job."""
    ids = {row.job_id for row in changes} - {None}
    named = select(jobs.c.id, slots.c.name).join(slots, slots.c.id == jobs.c.slot_id)
    return {row.id: row.name for row in tx.execute(named.where(jobs.c.id.in_(ids)))}


def _rows(tx: Connection, asked: Asked) -> list[Any]:
    limit, before = ROWS + 1, asked.before
    if asked.tab == "jobs":
        return job_page(tx, job_filter(asked.filter), limit=limit, before=before)
    if asked.tab == "audit":
        wanted = audit_filter(tx, asked.filter)
        return audit_page(tx, wanted, limit=limit, behind=before, newest_first=True)
    if asked.tab == "incidents":
        return incident_page(tx, IncidentFilter(), limit=limit, before=before)
    return living_models(tx, limit=1000)


def _next(rows: Sequence[Any], tab: str) -> int | None:
    if len(rows) <= ROWS or tab == "models":
        return None
    last = rows[ROWS - 1]
    return int(last.job.id if tab == "jobs" else last.id)


def _terms(tx: Connection, tab: str) -> list[str]:
    readers = {"jobs": OF_JOBS, "audit": OF_AUDIT}.get(tab)
    return [] if readers is None else completions(tx, readers)
