"""Every change of a slot's state, once, with its audit row: the only writer of either.

`move` inserts the row; a trigger moves the slot. The database itself refuses a row that does not
begin at the slot's state or that follows no edge of `hal0.states`, so neither a bug here nor a
person with `sqlite3` can leave a state without its reason. Leases end with the state that they are
the reason for: whoever takes a serving slot away takes them away in the same commit.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, exc, insert, update

from hal0.clock import utc_now
from hal0.errors import IllegalTransition
from hal0.slots.leases import forget_leases
from hal0.slots.queries import Slot, slot_by_id
from hal0.states import DISPATCHABLE, TRANSIENT, Cause, SlotState
from hal0.tables import slots, transitions


@dataclass(frozen=True, slots=True)
class Act:
    """On whose behalf something is written."""

    actor: str
    job_id: int | None = None
    attempt: int | None = None
    request_id: str | None = None
    incident_id: int | None = None


_INSERT = insert(transitions)


def move(
    tx: Connection,
    slot: Slot,
    to: SlotState,
    cause: Cause,
    act: Act,
    evidence: Mapping[str, Any] | None = None,
) -> Slot:
    """Move `slot` from the state that it was read in; return it as it is now.

    Needs a write transaction. Raises IllegalTransition when the slot has moved meanwhile or no
    edge leads there; nothing is written then.
    """
    row = {
        "slot_id": slot.id,
        "from_state": slot.state,
        "to_state": to,
        "cause": cause,
        "at": utc_now(),
        "actor": act.actor,
        "job_id": act.job_id,
        "attempt": act.attempt,
        "request_id": act.request_id,
        "incident_id": act.incident_id,
        "generation": slot.generation,
        "evidence": None if evidence is None else dict(evidence),
    }
    try:
        tx.execute(_INSERT, row)
    except exc.IntegrityError as error:
        raise IllegalTransition(
            f"slot {slot.name} cannot go {slot.state} → {to} ({cause}): {error.orig}",
            evidence={"slot": slot.name, "from": slot.state, "to": to, "cause": cause},
        ) from error
    if slot.state is SlotState.SERVING and to not in DISPATCHABLE:
        forget_leases(tx, slot.id)
    if to is not SlotState.ERROR and to not in TRANSIENT and slot.error is not None:
        tx.execute(update(slots).where(slots.c.id == slot.id).values(error=None))
    return slot_by_id(tx, slot.id)


def create(tx: Connection, values: Mapping[str, Any], act: Act) -> Slot:
    """Insert a slot, offline, with the row `created`. Raises IntegrityError for a taken name."""
    now = utc_now()
    slot_id = tx.execute(
        insert(slots).values(created_at=now, **values).returning(slots.c.id)
    ).scalar_one()
    tx.execute(
        _INSERT,
        {
            "slot_id": slot_id,
            "from_state": None,
            "to_state": SlotState.OFFLINE,
            "cause": Cause.CREATED,
            "at": now,
            "actor": act.actor,
            "request_id": act.request_id,
            "generation": 0,
        },
    )
    return slot_by_id(tx, slot_id)
