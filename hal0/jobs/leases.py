"""What API processes leave behind when they die with requests in flight: their leases.

A slot serves if, and only if, a living process has a lease on what it holds. Who died was found by
its lock (`jobs.owners`); where no lease is left the slot serves no more, and keeps its model.
"""

import logging
from typing import Final

from sqlalchemy import Connection, delete, exists, or_, select

from hal0 import points
from hal0.clock import utc_now
from hal0.jobs.context import Context
from hal0.settings import Settings
from hal0.slots.queries import Slot, slot_by_id
from hal0.slots.times import times_of
from hal0.slots.transitions import Act, move
from hal0.states import Cause, SlotState
from hal0.tables import leases, owners, slots

log = logging.getLogger(__name__)

_IS_OWNED: Final = exists().where(owners.c.id == leases.c.owner_id, owners.c.ended_at.is_(None))
_IS_LEASED: Final = exists().where(
    leases.c.slot_id == slots.c.id, leases.c.generation == slots.c.generation
)
_SERVING: Final = select(slots.c.id).where(slots.c.state == SlotState.SERVING, ~_IS_LEASED)
_IS_ANYTHING_LEFT: Final = select(
    or_(select(leases.c.slot_id).where(~_IS_OWNED).exists(), _SERVING.exists())
)


def clear_leases(ctx: Context) -> int:
    """Take away the leases of owners that ended; return how many slots serve no more."""
    with ctx.db.read() as tx:
        if not tx.execute(_IS_ANYTHING_LEFT).scalar_one():
            return 0
    cleared = ctx.write(lambda tx: _clear(tx, ctx.settings))
    if cleared:
        points.reach("leases.cleared")
        ctx.ring()  # an unload may have waited for them
    return cleared


def _clear(tx: Connection, settings: Settings) -> int:
    tx.execute(delete(leases).where(~_IS_OWNED))
    left = [slot_by_id(tx, slot_id) for slot_id in tx.execute(_SERVING).scalars()]
    for slot in left:
        to = SlotState.IDLE if _is_idle(slot, settings) else SlotState.READY
        log.warning("no living API serves it: %s", to, extra={"slot": slot.name})
        move(tx, slot, to, Cause.LEASES_CLEARED, Act("worker"))
    return len(left)


def _is_idle(slot: Slot, settings: Settings) -> bool:
    limit_s = times_of(slot, settings).idle_after_s
    if limit_s == 0 or slot.last_used_at is None:
        return False
    return (utc_now() - slot.last_used_at).total_seconds() >= limit_s
