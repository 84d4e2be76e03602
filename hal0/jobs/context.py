"""What a job's body works with: the database, the engines, its claim's fate, its progress."""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Final, TypeVar

from sqlalchemy import Connection, bindparam, select
from sqlalchemy.dialects.sqlite import insert as upsert

from hal0.clock import monotonic_ms, utc_now
from hal0.db import Database
from hal0.errors import (
    ClaimLost,
    DatabaseError,
    DatabaseFull,
    DatabaseLocked,
    DatabaseUnwritable,
    Hal0Error,
)
from hal0.jobs.bell import Bell, ring
from hal0.jobs.engine_room import EngineRoom
from hal0.jobs.ledger.rows import Claim
from hal0.jobs.owners import Owner
from hal0.registry.catalog import StoredVerdicts
from hal0.settings import Settings
from hal0.tables import job_progress, slots

log = logging.getLogger(__name__)
T = TypeVar("T")

PROGRESS_MS: Final = 1000
"""A progress row is written at most this often."""
SMOOTHING: Final = 0.3
"""How much the last second counts in a rate."""


CUT_S: Final = 1.0
"""Between the commit that takes a model from requests that run and the unload: four looks of those
who forward them (ADR-0007)."""

_SLOT_NAME: Final = select(slots.c.name).where(slots.c.id == bindparam("id"))


@dataclass(frozen=True, slots=True)
class Told:
    """What was last written of a body's progress, and at which rate it goes."""

    at_ms: int
    phase: str
    done_bytes: int
    rate_bytes_s: float | None = None

    def then(self, now_ms: int, phase: str, done_bytes: int) -> "Told":
        """Return what follows: the rate is smoothed over the last few seconds of one phase."""
        passed_s, gained = (now_ms - self.at_ms) / 1000, done_bytes - self.done_bytes
        if phase != self.phase or gained < 0 or passed_s <= 0:
            return Told(now_ms, phase, done_bytes)
        rate = gained / passed_s
        if self.rate_bytes_s is not None:
            rate = SMOOTHING * rate + (1 - SMOOTHING) * self.rate_bytes_s
        return Told(now_ms, phase, done_bytes, rate)


@dataclass(eq=False)
class Body:
    """One job's body while it runs in this process."""

    held: Claim
    thread: threading.Thread = field(default_factory=threading.current_thread)
    lost: threading.Event = field(default_factory=threading.Event)
    told: Told | None = None

    @property
    def is_running(self) -> bool:
        """Whether the thread of this body is alive: only then does its job beat."""
        return self.thread.is_alive()


class Context:
    """One worker process's means; shared by its threads."""

    def __init__(self, settings: Settings, db: Database, owner: Owner, bell: Bell) -> None:
        self.settings = settings
        self.db = db
        self.owner = owner
        self.bell = bell
        self.stopping = threading.Event()
        self.engines = EngineRoom(self.stopping)
        self.verdicts = StoredVerdicts(db)
        self.giving_up = threading.Event()
        self.cut_s = CUT_S
        self.fenced_writes = 0
        """So many commits were refused, for what they belong to was another's meanwhile."""
        # With four threads and more, one place of those for pulls and validations is never taken
        # by a download, for hours.
        self._places = max(1, settings.worker_threads // 2 - 1)
        self._downloads: set[int] = set()
        self._bodies: dict[int, Body] = {}
        self._slot_names: dict[int, str] = {}
        self._lock = threading.Lock()

    # -- what runs here -----------------------------------------------------------------------

    @contextmanager
    def body(self, held: Claim) -> Iterator[Body]:
        """Be the body of a claim."""
        body = Body(held)
        with self._lock:
            self._bodies[held.job.id] = body
        try:
            yield body
        finally:
            with self._lock:
                if self._bodies.get(held.job.id) is body:
                    del self._bodies[held.job.id]

    def bodies(self) -> list[Body]:
        """Return the bodies that run now."""
        with self._lock:
            return list(self._bodies.values())

    def subject_of(self, held: Claim) -> dict[str, object]:
        """Return what records say that are about this claim (`hal0.logs.about`)."""
        return {"slot": self.slot_name(held.job.slot_id), **held.subject}

    def slot_name(self, slot_id: int) -> str | None:
        """Return how a slot is called, read once for all its jobs; None = it cannot be read now."""
        if slot_id not in self._slot_names:
            with suppress(DatabaseError), self.db.read() as tx:
                self._slot_names[slot_id] = tx.execute(_SLOT_NAME, {"id": slot_id}).scalar_one()
        return self._slot_names.get(slot_id)

    # -- what bodies do ----------------------------------------------------------------------

    def commit(self, write: Callable[[Connection], T]) -> T:
        """Run `write` in one durable transaction, again and again until it is written.

        A locked database, a full or failing disk must not make a result untrue: the thread keeps
        it and takes nothing else. Only a process that must exit gives up; rescue finds the job.
        """
        pause_s = 0.05
        level = logging.WARNING
        while True:
            try:
                return self.write(write)
            except (DatabaseLocked, DatabaseFull, DatabaseUnwritable) as error:
                if self.giving_up.wait(pause_s):
                    raise
                log.log(level, "not written yet: %s", error.detail)
                pause_s, level = min(pause_s * 2, 2.0), logging.DEBUG

    def write(self, write: Callable[[Connection], T]) -> T:
        """Run `write` in one durable transaction, once; for who looks around and comes by again."""
        try:
            with self.db.write() as tx:
                return write(tx)
        except ClaimLost:
            with self._lock:
                self.fenced_writes += 1
            raise

    def progress(self, body: Body, phase: str, done_bytes: int, total_bytes: int) -> None:
        """Write how far a body is, softly: at most once a second, at a new phase and at the end.

        A `total_bytes` of 0 = nobody knows.
        """
        now, told = monotonic_ms(), body.told
        is_news = told is None or told.phase != phase or 0 < total_bytes <= done_bytes
        if told is not None and not is_news and now - told.at_ms < PROGRESS_MS:
            return
        told = Told(now, phase, done_bytes) if told is None else told.then(now, phase, done_bytes)
        body.told = told
        row = {
            "attempt": body.held.job.attempt,
            "phase": phase,
            "done_bytes": done_bytes,
            "total_bytes": total_bytes,
            "at": utc_now(),
            "rate_bytes_s": told.rate_bytes_s,
        }
        statement = upsert(job_progress).values(job_id=body.held.job.id, **row)
        try:
            with self.db.soft() as tx:
                tx.execute(statement.on_conflict_do_update(index_elements=["job_id"], set_=row))
        except Hal0Error as error:
            log.debug("progress not written: %s", error.detail)

    def take_place(self, job_id: int) -> bool:
        """Let a job fetch bytes in one of the places for downloads; False = none is free."""
        with self._lock:
            if job_id not in self._downloads and len(self._downloads) >= self._places:
                return False
            self._downloads.add(job_id)
            return True

    def leave_place(self, job_id: int) -> None:
        """Free the place of a job, if it has one."""
        with self._lock:
            self._downloads.discard(job_id)

    def has_place(self) -> bool:
        """Whether a place for a download is free now."""
        with self._lock:
            return len(self._downloads) < self._places

    def should_stop(self, body: Body) -> bool:
        """Whether a long read should end: the process stops, or the claim is another's."""
        return self.stopping.is_set() or body.lost.is_set()

    def ring(self) -> None:
        """Wake all workers."""
        ring(self.settings.run)

    def close(self) -> None:
        """Give up the engines, the bell, the lock and the connections."""
        self.engines.close()
        self.bell.close()
        self.owner.close()
        self.db.close()
