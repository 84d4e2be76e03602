"""Whose turn it is with periodic work: one worker's, an interval after the last turn has ended.

A row says since when nobody has the turn; that is ahead of now while somebody does. Who has it
holds it with each tick, so that the turn of a worker that has died comes free by itself. Who needs
work that begins only now is owed a turn, also by whoever has one.
"""

from typing import Final

from sqlalchemy import ColumnElement, case, update
from sqlalchemy.dialects.sqlite import insert as upsert

from hal0.clock import boot_id, monotonic_ms
from hal0.db import Database
from hal0.tables import periodic

TICK_S: Final = 1
"""How often workers ask what is due."""
EARLY_MS: Final = TICK_S * 500
"""Half a tick: the next one comes some milliseconds early, the one after it a whole tick late."""
HOLD_S: Final = 5.0
"""How long a turn is one's own without a further word."""
_OWED: Final = " owes"
"""Behind the boot of a turn after which the next one is due at once."""


def take_turn(db: Database, name: str, interval_s: float) -> bool:
    """Take the turn of `name` if it is due; True for exactly one caller. Commits softly."""
    now = monotonic_ms()
    wait_ms = max(1, int(interval_s * 1000) - EARLY_MS)
    with db.read() as tx:
        row = tx.execute(periodic.select().where(periodic.c.name == name)).one_or_none()
    if row is not None and not _is_due(row.next_boot, now - row.next_ms, wait_ms):
        return False
    mine = {"next_boot": boot_id(), "next_ms": _held_until(now)}
    with db.soft() as tx:
        if row is None:
            new = upsert(periodic).values(name=name, **mine)
            return tx.execute(new.on_conflict_do_nothing()).rowcount == 1
        taken = tx.execute(
            update(periodic)
            .where(
                periodic.c.name == name,
                periodic.c.next_boot == row.next_boot,
                periodic.c.next_ms == row.next_ms,
            )
            .values(mine)
        )
        return taken.rowcount == 1


def _is_due(next_boot: str, free_ms: int, wait_ms: int) -> bool:
    if next_boot == boot_id() + _OWED:
        return free_ms >= 0
    return next_boot != boot_id() or free_ms >= wait_ms


def hold_turn(db: Database, name: str) -> None:
    """Keep the turn of `name` a little longer, unless it has ended meanwhile. Commits softly."""
    now = monotonic_ms()
    with db.soft() as tx:
        tx.execute(
            update(periodic)
            .where(periodic.c.name == name, _is_held(now))
            .values(next_ms=_held_until(now))
        )


def end_turn(db: Database, name: str) -> None:
    """Give the turn of `name` back: its next interval begins now. Commits softly."""
    boot = boot_id()
    next_boot = case((periodic.c.next_boot == boot + _OWED, ""), else_=boot)
    with db.soft() as tx:
        tx.execute(
            update(periodic)
            .where(periodic.c.name == name)
            .values(next_boot=next_boot, next_ms=monotonic_ms())
        )


def make_due(db: Database, name: str) -> None:
    """Let a turn of `name` begin at the next tick, or when that ends which somebody has.

    Commits softly.
    """
    next_boot = case((_is_held(monotonic_ms()), boot_id() + _OWED), else_="")
    with db.soft() as tx:
        tx.execute(update(periodic).where(periodic.c.name == name).values(next_boot=next_boot))


def _is_held(now_ms: int) -> ColumnElement[bool]:
    boot = boot_id()
    return periodic.c.next_boot.in_((boot, boot + _OWED)) & (periodic.c.next_ms > now_ms)


def _held_until(now_ms: int) -> int:
    return now_ms + int(HOLD_S * 1000)
