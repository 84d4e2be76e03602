"""What keeps a machine from loading a model again and again that a slot keeps losing.

Automatic loads, those that requests ask for too, are counted when they are sent, for one that was
sent has cost the engine its time. After each, the next must wait: 10 s, then twice as long each
time, up to 5 min; after the fifth the slot is parked until an operator loads it. Five minutes with
the model loaded on one boot, an operator's load, or a request after an unload in good order forget
the count; the time that a load takes does not. A refusal writes nothing.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection, delete, select, update
from sqlalchemy.dialects.sqlite import insert as upsert

from hal0.clock import boot_id, monotonic_ms, utc_now
from hal0.tables import breakers

FIRST_S: Final = 10.0
LONGEST_S: Final = 300.0
PARKED_AFTER: Final = 5
HEALED_AFTER_S: Final = 300.0


@dataclass(frozen=True, slots=True)
class Breaker:
    """Automatic loads of one slot in a row; `opens_ms` is on the boot of the last one."""

    slot_id: int
    sent: int
    sent_boot: str
    sent_ms: int
    opens_ms: int
    opens_at: datetime
    ready_boot: str | None
    ready_ms: int | None
    """Since when the slot has what was loaded, on `ready_boot`; None = it was not ready since."""

    @property
    def is_parked(self) -> bool:
        """Whether only an operator may load this slot."""
        return self.sent >= PARKED_AFTER

    @property
    def refuses(self) -> bool:
        """Whether no machine may load this slot now."""
        return self.is_parked or (self.sent_boot == boot_id() and monotonic_ms() < self.opens_ms)

    @property
    def is_healed(self) -> bool:
        """Whether a slot that has its model still has had it for so long that it is well."""
        if self.ready_ms is None or self.ready_boot != boot_id():
            return False
        return monotonic_ms() - self.ready_ms >= HEALED_AFTER_S * 1000


_ALL = select(breakers)


def breakers_of(tx: Connection, *slot_ids: int) -> dict[int, Breaker]:
    """Return the breakers of these slots, or of all, by slot id; a slot without has none."""
    wanted = _ALL.where(breakers.c.slot_id.in_(slot_ids)) if slot_ids else _ALL
    return {row.slot_id: Breaker(**row._mapping) for row in tx.execute(wanted)}


def count_sent(tx: Connection, slot_id: int) -> None:
    """Count an automatic load, in the commit that marks it as sent."""
    before = breakers_of(tx, slot_id).get(slot_id)
    sent = 1 if before is None else before.sent + 1
    pause_s = min(FIRST_S * 2 ** (sent - 1), LONGEST_S)
    now_ms = monotonic_ms()
    row = {
        "sent": sent,
        "sent_boot": boot_id(),
        "sent_ms": now_ms,
        "opens_ms": now_ms + int(pause_s * 1000),
        "opens_at": utc_now() + timedelta(seconds=pause_s),
        "ready_boot": None,
        "ready_ms": None,
    }
    statement = upsert(breakers).values(slot_id=slot_id, **row)
    tx.execute(statement.on_conflict_do_update(index_elements=["slot_id"], set_=row))


def note_ready(tx: Connection, slot_id: int) -> None:
    """Note that a slot has its model from now on; nothing is noted where nothing is counted."""
    tx.execute(
        update(breakers)
        .where(breakers.c.slot_id == slot_id)
        .values(ready_boot=boot_id(), ready_ms=monotonic_ms())
    )


def take_back(tx: Connection, slot_id: int) -> None:
    """Count one load less: the engine certainly never got it."""
    mine = breakers.c.slot_id == slot_id
    tx.execute(delete(breakers).where(mine, breakers.c.sent <= 1))
    tx.execute(
        update(breakers)
        .where(mine)
        .values(sent=breakers.c.sent - 1, opens_ms=breakers.c.sent_ms, opens_at=utc_now())
    )


def forget(tx: Connection, slot_id: int) -> None:
    """Begin anew: an operator asked, or the slot has been well for long enough."""
    tx.execute(delete(breakers).where(breakers.c.slot_id == slot_id))
