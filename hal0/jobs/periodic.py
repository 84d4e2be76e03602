"""Which periodic work is due: once per interval over all workers, by compare-and-set."""

from sqlalchemy import update
from sqlalchemy.dialects.sqlite import insert as upsert

from hal0.clock import boot_id, monotonic_ms
from hal0.db import Database
from hal0.tables import periodic


def is_due(db: Database, name: str, interval_s: float) -> bool:
    """Take this turn of periodic work `name`; True for exactly one caller an interval."""
    now, boot = monotonic_ms(), boot_id()
    following = now + int(interval_s * 1000)
    with db.read() as tx:
        row = tx.execute(periodic.select().where(periodic.c.name == name)).one_or_none()
    if row is not None and row.next_boot == boot and row.next_ms > now:
        return False
    with db.soft() as tx:
        if row is None:
            new = upsert(periodic).values(name=name, next_boot=boot, next_ms=following)
            return tx.execute(new.on_conflict_do_nothing()).rowcount == 1
        taken = tx.execute(
            update(periodic)
            .where(
                periodic.c.name == name,
                periodic.c.next_boot == row.next_boot,
                periodic.c.next_ms == row.next_ms,
            )
            .values(next_boot=boot, next_ms=following)
        )
        return taken.rowcount == 1
