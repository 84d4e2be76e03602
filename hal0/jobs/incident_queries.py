"""What happened at engines, newest first: what each event cost, who is back, and who is not, why.

The view `audit_incidents` says the same in plain `sqlite3`; a test compares the two.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, exists, select

from hal0.errors import EngineLost, EngineUnreachable, IncidentNotFound
from hal0.jobs.ledger.breaker import breakers_of
from hal0.jobs.outlook import hindrance
from hal0.jobs.queries import MAX_ID, first_unfinished
from hal0.slots.queries import Slot, slot_by_id
from hal0.slots.spec import load_key
from hal0.states import Cause, Desired, IncidentKind, SlotState
from hal0.tables import engines, failed_keys, incidents, jobs, models, slots, transitions

HAS_A_MODEL: Final = (SlotState.READY, SlotState.IDLE)
"""The states by which a slot that lost its model gets one again."""


@dataclass(frozen=True, slots=True)
class MovedSlot:
    """A slot that an incident moved; `why_away` None = it has a model again."""

    transition_id: int
    slot: str
    from_state: str
    to_state: str
    cause: str
    at: datetime
    back_at: datetime | None
    why_away: str | None


@dataclass(frozen=True, slots=True)
class Incident:
    """One event of an engine, and all that it cost; `culprit` is the slot of a load, if one was."""

    id: int
    at: datetime
    kind: IncidentKind
    engine: str
    detail: str
    culprit: str | None
    culprit_model: str | None
    culprit_job_id: int | None
    moved: tuple[MovedSlot, ...]
    evidence: Mapping[str, Any] | None
    acked_at: datetime | None
    """When somebody said that they have seen it; None = nobody did."""
    acked_by: str | None


@dataclass(frozen=True, slots=True)
class IncidentFilter:
    """Which incidents; all of what is given must fit. `since` is an instant, or behind an id."""

    engine_id: int | None = None
    kind: IncidentKind | None = None
    slot_ids: Sequence[int] | None = None
    since: datetime | int | None = None


_CULPRIT: Final = slots.alias("culprit")
_LATER: Final = transitions.alias("later")
_INCIDENTS: Final = (
    select(
        incidents.c.id,
        incidents.c.at,
        incidents.c.kind,
        engines.c.name.label("engine"),
        incidents.c.detail,
        _CULPRIT.c.name.label("culprit"),
        models.c.name.label("culprit_model"),
        incidents.c.job_id.label("culprit_job_id"),
        incidents.c.evidence,
        incidents.c.acked_at,
        incidents.c.acked_by,
    )
    .join(engines, engines.c.id == incidents.c.engine_id)
    .join(_CULPRIT, _CULPRIT.c.id == incidents.c.slot_id, isouter=True)
    .join(jobs, jobs.c.id == incidents.c.job_id, isouter=True)
    .join(models, models.c.id == jobs.c.model_id, isouter=True)
)
_BACK_AT: Final = (
    select(_LATER.c.at)
    .where(
        _LATER.c.slot_id == transitions.c.slot_id,
        _LATER.c.id > transitions.c.id,
        _LATER.c.to_state.in_(HAS_A_MODEL),
    )
    .order_by(_LATER.c.id)
    .limit(1)
    .correlate(transitions)
    .scalar_subquery()
)
_MOVED: Final = select(
    transitions.c.id,
    transitions.c.incident_id,
    transitions.c.slot_id,
    slots.c.name.label("slot"),
    transitions.c.from_state,
    transitions.c.to_state,
    transitions.c.cause,
    transitions.c.at,
    _BACK_AT.label("back_at"),
).join(slots, slots.c.id == transitions.c.slot_id)


def incident_page(
    tx: Connection, wanted: IncidentFilter, *, limit: int, before: int | None = None
) -> list[Incident]:
    """Return up to `limit` incidents, newest first, older than the id `before`."""
    query = _INCIDENTS.where(*_conditions(wanted)).order_by(incidents.c.id.desc()).limit(limit)
    if before is not None:
        query = query.where(incidents.c.id < before)
    return _with_slots(tx, tx.execute(query).all())


def incident_detail(tx: Connection, incident_id: int) -> Incident:
    """Return the incident; raises IncidentNotFound."""
    found: Sequence[Any] = ()
    if incident_id <= MAX_ID:
        found = tx.execute(_INCIDENTS.where(incidents.c.id == incident_id)).all()
    if not found:
        raise IncidentNotFound(
            f"there is no incident {incident_id}; `hal0 incident list` shows them",
            evidence={"incident_id": incident_id},
        )
    return _with_slots(tx, found)[0]


def unacknowledged(tx: Connection, limit: int) -> list[int]:
    """Return the ids of up to `limit` incidents that nobody has acknowledged, newest first."""
    wanted = (
        select(incidents.c.id)
        .where(incidents.c.acked_at.is_(None))
        .order_by(incidents.c.id.desc())
        .limit(limit)
    )
    return list(tx.execute(wanted).scalars())


def incidents_with_ids(tx: Connection, ids: Collection[int]) -> list[Incident]:
    """Return those of these incidents that there are, newest first."""
    wanted = _INCIDENTS.where(incidents.c.id.in_(ids)).order_by(incidents.c.id.desc())
    return _with_slots(tx, tx.execute(wanted).all())


def _conditions(wanted: IncidentFilter) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if wanted.engine_id is not None:
        conditions.append(incidents.c.engine_id == wanted.engine_id)
    if wanted.kind is not None:
        conditions.append(incidents.c.kind == wanted.kind)
    if wanted.slot_ids is not None:
        of_slot = transitions.c.slot_id.in_(wanted.slot_ids)
        moved = exists().where(transitions.c.incident_id == incidents.c.id, of_slot)
        conditions.append(incidents.c.slot_id.in_(wanted.slot_ids) | moved)
    if isinstance(wanted.since, int):
        conditions.append(incidents.c.id > wanted.since)
    elif wanted.since is not None:
        conditions.append(incidents.c.at >= wanted.since)
    return conditions


def _with_slots(tx: Connection, found: Sequence[Any]) -> list[Incident]:
    kind_of = {row.id: IncidentKind(row.kind) for row in found}
    of_these = _MOVED.where(transitions.c.incident_id.in_(kind_of)).order_by(transitions.c.id)
    rows = tx.execute(of_these).all()
    away = _Away(tx, {row.slot_id for row in rows if row.back_at is None})
    moved: dict[int, list[MovedSlot]] = defaultdict(list)
    for row in rows:
        why = None if row.back_at else away.why(row.slot_id, kind_of[row.incident_id])
        moved[row.incident_id].append(
            MovedSlot(
                row.id,
                row.slot,
                row.from_state,
                row.to_state,
                row.cause,
                row.at,
                row.back_at,
                why,
            )
        )
    return [
        Incident(**{**row._mapping, "kind": kind_of[row.id]}, moved=tuple(moved[row.id]))
        for row in found
    ]


class _Away:
    """Slots that have had no model since an incident, and why they have none yet."""

    def __init__(self, tx: Connection, slot_ids: Collection[int]) -> None:
        self._slots = {slot_id: slot_by_id(tx, slot_id) for slot_id in slot_ids}
        self._at_work = first_unfinished(tx) if slot_ids else {}
        self._breakers = breakers_of(tx, *slot_ids) if slot_ids else {}
        gone = select(slots.c.id).where(slots.c.id.in_(slot_ids), slots.c.deleted_at.is_not(None))
        self._deleted = frozenset(tx.execute(gone).scalars())
        keys = select(failed_keys).where(failed_keys.c.slot_id.in_(slot_ids))
        self._failed = {(row.slot_id, row.load_key): row.job_id for row in tx.execute(keys)}

    def why(self, slot_id: int, kind: IncidentKind) -> str:
        """Say why a slot that an incident of this kind moved has no model yet."""
        slot = self._slots[slot_id]
        if slot_id in self._deleted:
            return "the slot was deleted"
        if slot.desired is Desired.UNLOADED:
            return _of_unwanted(slot)
        if slot_id in self._at_work:
            return f"job {self._at_work[slot_id]} is under way"
        if slot.state is SlotState.ERROR:
            return _of_error(slot)
        return self._of_machines(slot, kind)

    def _of_machines(self, slot: Slot, kind: IncidentKind) -> str:
        to_do = f"`hal0 slot load {slot.name}` does"
        if slot.restore is not None:
            kept_away = hindrance(self._breakers.get(slot.id), None)
            return kept_away or "a machine loads it again at its next look"
        if kind is IncidentKind.LOAD_MADE_ROOM:
            return f"no machine brings back what made room for a load that succeeded; {to_do}"
        failed = self._failed.get((slot.id, load_key(slot.wanted_model_id or 0, slot.options)))
        if failed is not None:
            return f"job {failed} sent that load and failed: no machine sends it again; {to_do}"
        return f"no machine loads it; {to_do}"


def _of_unwanted(slot: Slot) -> str:
    """Say whose wish it was, as far as that is known: an engine does not say who unloaded."""
    if slot.cause != Cause.UNLOADED_ELSEWHERE:
        return "nobody wants it loaded any more"
    return (
        "it was unloaded past hal0, or dropped after another client's failed load; "
        f"`hal0 slot load {slot.name}` brings it back"
    )


def _of_error(slot: Slot) -> str:
    error = slot.error or {}
    if error.get("code") in (EngineLost.code, EngineUnreachable.code):
        return "its engine does not answer; when it does, the slot comes back by itself"
    job_id = error.get("job_id")
    return f"job {job_id} failed: {error.get('code')}; see `hal0 job show {job_id}`"
