"""Which process start owns what, and whether it lives.

An owner is one start of one process: boot, pid, start and a random part, never reused. While it
lives it holds `flock` on `run/owners/<id>`, which the kernel gives back at death, however sudden.
When the run folder was emptied, or cannot be read, pid and start decide.
"""

import fcntl
import os
import secrets
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from sqlalchemy import Connection, insert, select, update

from hal0.clock import boot_id, utc_now
from hal0.processes import kill_exactly, start_ticks
from hal0.tables import owners

FOLDER = "owners"


@dataclass(frozen=True, slots=True)
class OwnerRow:
    """An owner that has not been seen to end."""

    id: str
    kind: str
    boot_id: str
    pid: int
    pid_start: int


@dataclass(frozen=True, slots=True)
class Beat:
    """The last sign of life that an owner wrote, in milliseconds of the boot's monotonic clock."""

    owner_id: str
    at_ms: int


class Owner:
    """This process, as an owner: its row, and its lock as long as it lives."""

    def __init__(self, run: Path, kind: str) -> None:
        pid = os.getpid()
        start = start_ticks(pid)
        assert start is not None
        self.row = OwnerRow(
            f"{kind}-{pid}-{start}-{boot_id()[:8]}-{secrets.token_hex(4)}",
            kind,
            boot_id(),
            pid,
            start,
        )
        self._path = run / FOLDER / self.row.id
        self._lock = self._hold()

    @property
    def id(self) -> str:
        """The name that rows carry."""
        return self.row.id

    def _hold(self) -> IO[str]:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        lock = self._path.open("w")
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return lock

    def register(self, tx: Connection, beat_s: float | None = None) -> None:
        """Insert this owner's row; `beat_s` is how often its jobs beat, by its own settings."""
        row, now = self.row, utc_now()
        tx.execute(
            insert(owners).values(
                id=row.id,
                kind=row.kind,
                boot_id=row.boot_id,
                pid=row.pid,
                pid_start=row.pid_start,
                started_at=now,
                seen_at=now,
                beat_s=beat_s,
            )
        )

    def renew(self) -> None:
        """Make the lock file again if somebody emptied the run folder."""
        if not self._path.exists():
            old, self._lock = self._lock, self._hold()
            old.close()

    def close(self) -> None:
        """Give the lock back and take the file away."""
        self._path.unlink(missing_ok=True)
        self._lock.close()


def living_rows(tx: Connection) -> list[OwnerRow]:
    """Return the owners that nobody has seen end."""
    rows = tx.execute(
        select(owners.c.id, owners.c.kind, owners.c.boot_id, owners.c.pid, owners.c.pid_start)
        .where(owners.c.ended_at.is_(None))
        .order_by(owners.c.started_at)
    )
    return [OwnerRow(**row._mapping) for row in rows]


def note_seen(tx: Connection, owner_id: str) -> None:
    """Write that an owner is at work; soft."""
    tx.execute(update(owners).where(owners.c.id == owner_id).values(seen_at=utc_now()))


def note_end(tx: Connection, owner_id: str) -> None:
    """Write that an owner has ended."""
    tx.execute(
        update(owners)
        .where(owners.c.id == owner_id, owners.c.ended_at.is_(None))
        .values(ended_at=utc_now())
    )


def is_alive(row: OwnerRow, run: Path) -> bool:
    """Tell whether the process of this owner still runs, stopped or hung ones too."""
    if row.boot_id != boot_id():
        return False
    try:
        with (run / FOLDER / row.id).open("r") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
    except OSError:
        pass  # an emptied run folder, one that we may not read, an owner that went in good order
    return start_ticks(row.pid) == row.pid_start


def kill(row: OwnerRow) -> bool:
    """SIGKILL a silent owner before its jobs are taken; False = it was gone already."""
    return row.boot_id == boot_id() and kill_exactly(row.pid, row.pid_start)


def forget_files(run: Path, owner_id: str) -> None:
    """Take away the lock file and the bell of a dead owner, where that can be done."""
    for folder in (FOLDER, "bells"):
        with suppress(OSError):
            (run / folder / owner_id).unlink()
