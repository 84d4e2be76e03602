"""Is the database whole, and do its rows and the clocks agree."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Final

import psutil
from sqlalchemy import Connection, func, select

from hal0.cli.findings import Finding
from hal0.clock import boot_id, monotonic_ms, utc_now
from hal0.db import deleted_under, open_database, revision
from hal0.settings import Settings
from hal0.sqlite_errors import database_errors
from hal0.tables import REVISION, breakers, engines, idle_windows, owners, transitions

AHEAD: Final = timedelta(minutes=1)
"""A row that is newer than now by more than this was written by another clock."""
AHEAD_MS: Final = 1000


@contextmanager
def reading(settings: Settings) -> Iterator[Connection]:
    """Open the database for one look. Raises DatabaseError."""
    db = open_database(settings)
    try:
        with db.read() as tx:
            yield tx
    finally:
        db.close()


def database(settings: Settings) -> Iterator[Finding]:
    """Look at the schema, then at every page of the file."""
    path, found = settings.database, revision(settings.database)
    if found is None:
        yield Finding("database", "note", f"{path} is not there yet", "`hal0 up` makes it")
        return
    if found != REVISION:
        to_do = "install the newer hal0" if found > REVISION else "run `hal0 db upgrade`"
        detail = f"{path} has schema {found}, this hal0 knows {REVISION}"
        yield Finding("database", "wrong", detail, to_do)
        return
    yield from _divided(path)
    with database_errors(path):
        connection = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=5)
        try:
            result = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        finally:
            connection.close()
    if result == "ok":
        yield Finding("database", "ok", f"{path} is whole, schema {found}")
    else:
        yield Finding("database", "wrong", f"{path} is damaged: {result}", "restore a backup")


def _divided(path: Path) -> Iterator[Finding]:
    """Look for processes that go on in files of the database that were deleted."""
    for pid in psutil.pids():
        if gone := deleted_under(pid, path):
            yield Finding(
                "database",
                "wrong",
                f"process {pid} goes on in {', '.join(gone)}, which was deleted or replaced under "
                "it: nobody else sees what it writes",
                "stop all of hal0, then look again; what is missed is in a copy, if anywhere",
            )


def clock(settings: Settings) -> Iterator[Finding]:
    """Compare both clocks with what the newest rows say; neither may be behind them."""
    with reading(settings) as tx:
        newest = [
            tx.execute(
                select(transitions.c.at).order_by(transitions.c.id.desc()).limit(1)
            ).scalar(),
            tx.execute(select(func.max(owners.c.seen_at))).scalar(),
        ]
        stamps = _stamps(tx)
    now, now_ms = utc_now(), monotonic_ms()
    ahead = max((at - now for at in newest if at is not None), default=timedelta())
    ahead_ms = max((ms - now_ms for ms in stamps), default=0)
    if ahead > AHEAD:
        yield Finding(
            "clock",
            "wrong",
            f"the newest rows are {ahead.total_seconds():.0f} s in the future",
            "set the host's clock: it was set back, or the rows come from another host. Limits and "
            "scans run by another clock; times in rows are of this one",
        )
    if ahead_ms > AHEAD_MS:
        yield Finding(
            "clock",
            "wrong",
            f"this command's monotonic clock is {ahead_ms / 1000:.0f} s behind that of a worker",
            "run all of hal0 in one time namespace: containers may have clocks of their own",
        )
    if ahead <= AHEAD and ahead_ms <= AHEAD_MS:
        yield Finding("clock", "ok", "agrees with the newest rows")


def _stamps(tx: Connection) -> list[int]:
    """Return the newest milliseconds of this boot that workers wrote of what they had seen."""
    pairs = (
        (engines.c.scanned_ms, engines.c.scanned_boot),
        (breakers.c.sent_ms, breakers.c.sent_boot),
        (idle_windows.c.since_ms, idle_windows.c.since_boot),
    )
    found = (
        tx.execute(select(func.max(ms)).where(boot == boot_id())).scalar_one() for ms, boot in pairs
    )
    return [ms for ms in found if ms is not None]
