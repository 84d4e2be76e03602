"""Where Huey finds its next message: its own periodic ones first, then the ledger's next claim.

Huey's SQLite queue deletes a message before the task runs, so a killed worker loses it; hal0's jobs
are rows, and this storage only turns a claim into a message. Huey's own periodic messages live and
die with the process. Nothing that can raise lies between claim and job body.
"""

import logging
import threading
from typing import Any, Final

from huey.storage import MemoryStorage

from hal0 import points
from hal0.errors import DatabaseError
from hal0.jobs.context import Context
from hal0.jobs.ledger.claims import claim
from hal0.jobs.ledger.rows import Claim
from hal0.jobs.ledger.runnable import is_work_waiting
from hal0.states import JobKind

log = logging.getLogger(__name__)

WAIT_S: Final = 1.0
"""A lost bell costs at most this; Huey looks at its stop flag as often."""
HEAVY: Final = frozenset({JobKind.PULL, JobKind.VALIDATE})


class LedgerStorage(MemoryStorage):
    """Huey's storage over the ledger; at most half of the threads take pulls and validations."""

    blocking = True

    def __init__(self, name: str = "hal0", **options: Any) -> None:
        super().__init__(name, **options)
        self._ctx: Context | None = None
        self._to_message: Any = None
        self._claiming = threading.Lock()
        self._heavy_running = 0

    def attach(self, ctx: Context, to_message: Any) -> None:
        """Serve this context; `to_message(claim)` makes the bytes that Huey expects."""
        self._ctx = ctx
        self._to_message = to_message

    def dequeue(self) -> Any:
        """Return a message, or None after at most a second."""
        message = super().dequeue()
        ctx = self._ctx
        if message is not None or ctx is None or ctx.stopping.is_set():
            return message
        try:
            held = self._claim(ctx, look_first=True)
            if held is None:
                woken = ctx.bell.wait(WAIT_S)
                message = super().dequeue()
                if message is not None or ctx.stopping.is_set():
                    return message
                held = self._claim(ctx, look_first=not woken)
        except DatabaseError as error:
            log.warning("no claim: %s", error.detail)
            ctx.stopping.wait(WAIT_S)
            return None
        if held is None:
            return None
        points.reach("queue.claimed")
        return self._to_message(held)

    def enqueue(self, data: Any, priority: Any = None) -> None:
        """Take one of Huey's own messages and wake a thread for it."""
        super().enqueue(data, priority)
        if self._ctx is not None:
            self._ctx.bell.ring_self()

    def _claim(self, ctx: Context, *, look_first: bool) -> Claim | None:
        with self._claiming:
            has_room = self._has_room(ctx, self._heavy_running)
            may_fetch = ctx.has_place()
            if look_first:
                with ctx.db.read() as tx:
                    if not is_work_waiting(tx, heavy=has_room, fetches=may_fetch):
                        return None
            with ctx.db.soft() as tx:
                held = claim(tx, ctx.owner.id, heavy=has_room, fetches=may_fetch)
                if held is None:
                    return None
                heavy_running = self._heavy_running + (held.job.kind in HEAVY)
                has_room = self._has_room(ctx, heavy_running)
                is_more = is_work_waiting(tx, heavy=has_room, fetches=may_fetch)
            self._heavy_running = heavy_running
            if held.job.fetches:  # before another thread claims for it, and not before the commit
                ctx.take_place(held.job.id)
        if is_more:
            ctx.bell.ring_self()
        return held

    @staticmethod
    def _has_room(ctx: Context, heavy_running: int) -> bool:
        return heavy_running < ctx.settings.worker_threads // 2

    def job_is_over(self, held: Claim) -> None:
        """Free the place of a pull or validation."""
        if held.job.kind in HEAVY:
            with self._claiming:
                self._heavy_running -= 1
            if self._ctx is not None:
                self._ctx.leave_place(held.job.id)
                self._ctx.bell.ring_self()  # the runner rang before there was room
