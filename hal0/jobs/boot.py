"""What the first process on a new boot of the host writes before anything else.

Everything that an engine held is gone. One commit says so: every slot that is not offline or in
error goes offline, `host_rebooted`. Jobs that ran are put back by rescue, for their owners are of
another boot; lanes and marks of another boot are settled.
"""

from sqlalchemy import Connection, insert, select, update

from hal0.clock import boot_id, utc_now
from hal0.db import Database
from hal0.jobs.losses import forget_held
from hal0.jobs.restore import note
from hal0.slots.queries import living_slots
from hal0.slots.transitions import Act, move
from hal0.states import Cause, SlotState
from hal0.tables import boots, engines, leases, slots


def first_act(db: Database, actor: str) -> int:
    """Note this boot if it is new; return how many slots its reboot moved."""
    with db.read() as tx:
        if _is_known(tx):
            return 0
    with db.write() as tx:
        if _is_known(tx):
            return 0
        is_first_of_all = tx.execute(select(boots.c.epoch).limit(1)).first() is None
        tx.execute(insert(boots).values(boot_id=boot_id(), first_seen_at=utc_now()))
        return 0 if is_first_of_all else _all_offline(tx, actor)


def _is_known(tx: Connection) -> bool:
    newest = tx.execute(select(boots.c.boot_id).order_by(boots.c.epoch.desc()).limit(1)).first()
    return newest is not None and newest.boot_id == boot_id()


def _all_offline(tx: Connection, actor: str) -> int:
    moved = 0
    for slot in living_slots(tx):
        if slot.state not in (SlotState.OFFLINE, SlotState.ERROR):
            move(tx, slot, SlotState.OFFLINE, Cause.HOST_REBOOTED, Act(actor))
            moved += 1
        if slot.state is not SlotState.ERROR:
            note(tx, slot, Cause.HOST_REBOOTED)
        forget_held(tx, slot.id)
    tx.execute(leases.delete())
    tx.execute(
        update(slots).values(
            engine_process=None,
            unload_job_id=None,
            unload_attempt=None,
            unload_process=None,
            unload_settle_boot=None,
            unload_settle_ms=None,
        )
    )
    tx.execute(update(engines).values(process=None, healthy_boot_id=None))
    return moved
