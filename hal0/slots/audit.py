"""What happened to slots: pages of the audit, in either direction, by row id."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Column, Connection, select

from hal0.states import Cause, SlotState
from hal0.tables import slots, transitions


@dataclass(frozen=True, slots=True)
class AuditRow:
    """One change of a slot's state."""

    id: int
    at: datetime
    slot: str
    from_state: str | None
    to_state: str
    cause: str
    actor: str
    job_id: int | None
    request_id: str | None
    incident_id: int | None
    evidence: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Which rows; all of what is given must fit. `since` is an instant, or behind an id."""

    slot_ids: Sequence[int] | None = None
    cause: Cause | None = None
    since: datetime | int | None = None
    to_state: SlotState | None = None
    actor: str | None = None
    job_id: int | None = None
    incident_id: int | None = None
    until: datetime | None = None


def _first_at(tx: Connection, since: datetime) -> int:
    """Return the id of the first row at or after an instant; the index on `at` finds it."""
    row = tx.execute(
        select(transitions.c.id)
        .where(transitions.c.at >= since)
        .order_by(transitions.c.at, transitions.c.id)
        .limit(1)
    ).first()
    return 2**63 - 1 if row is None else int(row.id)


def audit_page(
    tx: Connection,
    wanted: AuditFilter,
    *,
    limit: int,
    behind: int | None = None,
    newest_first: bool = False,
) -> list[AuditRow]:
    """Return up to `limit` rows; `behind` is the id of the last one seen in this direction."""
    key = transitions.c.id
    query = (
        select(
            key,
            transitions.c.at,
            slots.c.name.label("slot"),
            transitions.c.from_state,
            transitions.c.to_state,
            transitions.c.cause,
            transitions.c.actor,
            transitions.c.job_id,
            transitions.c.request_id,
            transitions.c.incident_id,
            transitions.c.evidence,
        )
        .join(slots, slots.c.id == transitions.c.slot_id)
        .order_by(key.desc() if newest_first else key)
        .limit(limit)
    )
    if behind is not None:
        query = query.where(key < behind if newest_first else key > behind)
    if wanted.slot_ids is not None:
        query = query.where(transitions.c.slot_id.in_(wanted.slot_ids))
    if wanted.cause is not None:
        query = query.where(transitions.c.cause == wanted.cause)
    exact: tuple[tuple[Column[Any], object], ...] = (
        (transitions.c.to_state, wanted.to_state),
        (transitions.c.actor, wanted.actor),
        (transitions.c.job_id, wanted.job_id),
        (transitions.c.incident_id, wanted.incident_id),
    )
    for column, value in exact:
        if value is not None:
            query = query.where(column == value)
    if wanted.until is not None:
        query = query.where(transitions.c.at < wanted.until)
    if isinstance(wanted.since, int):
        query = query.where(key > wanted.since)
    elif wanted.since is not None:
        query = query.where(key >= _first_at(tx, wanted.since))
    return [AuditRow(**row._mapping) for row in tx.execute(query)]
