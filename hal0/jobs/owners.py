"""Which process start owns what, and whether it lives.

An owner is one start of one process: boot, pid, start and a random part, never reused. While it
lives it holds `flock` on `run/owners/<id>`, which the kernel gives back at death, however sudden.
When the run folder was emptied, or cannot be read, it counts what the process with that pid and
start has open: that very file of this home, be it deleted. A pid alone proves nothing, and nobody
is killed by it: rows of a copied home, or of a copy that was put back elsewhere, name processes
of the home that they were copied from, and those may live.
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
from hal0.processes import DELETED, kill_exactly, open_files, start_ticks
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


def note_seen(tx: Connection, owner_id: str, fenced_writes: int = 0) -> None:
    """Write that an owner is at work, and how many of its writes the fence stopped; soft."""
    values = {"seen_at": utc_now(), "fenced_writes": fenced_writes}
    tx.execute(update(owners).where(owners.c.id == owner_id).values(values))


def note_end(tx: Connection, owner_id: str) -> None:
    """Write that an owner has ended."""
    tx.execute(
        update(owners)
        .where(owners.c.id == owner_id, owners.c.ended_at.is_(None))
        .values(ended_at=utc_now())
    )


def is_alive(row: OwnerRow, run: Path) -> bool:
    """Tell whether the process of this owner still runs in this home, stopped or hung ones too."""
    try:
        return _is_here(row, run)
    except PermissionError:
        return True  # nobody who may not even look at it calls it dead


def kill(row: OwnerRow, run: Path) -> bool:
    """SIGKILL a silent owner of this home before its jobs are taken; False = there is none."""
    with suppress(PermissionError):
        return _is_here(row, run) and kill_exactly(row.pid, row.pid_start)
    return False


def _is_here(row: OwnerRow, run: Path) -> bool:
    """Tell whether the process lives and works in this home; raises PermissionError: not known."""
    if row.boot_id != boot_id():
        return False
    lock = run / FOLDER / row.id
    return _is_locked(lock) or (
        start_ticks(row.pid) == row.pid_start
        and not {str(lock.resolve()), f"{lock.resolve()}{DELETED}"}.isdisjoint(open_files(row.pid))
    )


def _is_locked(lock: Path) -> bool:
    with suppress(OSError), lock.open("r") as file:  # an emptied folder, one that we may not read
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def forget_files(run: Path, owner_id: str) -> None:
    """Take away the lock file and the bell of a dead owner, where that can be done."""
    for folder in (FOLDER, "bells"):
        with suppress(OSError):
            (run / folder / owner_id).unlink()
