"""`python -m workers`: one worker process, from its first act to its last."""

import contextlib
import logging
import signal
import sys
import threading
from typing import Any, Final

from huey import Huey
from huey.consumer import Consumer, Scheduler

from hal0 import logs, points
from hal0.clock import monotonic_ms
from hal0.db import open_database
from hal0.errors import DatabaseError, Hal0Error
from hal0.jobs.bell import Bell
from hal0.jobs.boot import first_act
from hal0.jobs.context import Context
from hal0.jobs.owners import Owner
from hal0.jobs.rescue import leave
from hal0.settings import Settings
from workers.supervisor import Supervisor
from workers.tasks import make_huey

log = logging.getLogger(__name__)

STOP_S: Final = 10.0
"""How long threads, and then bodies, may take to put their jobs back after SIGTERM."""


class Tick(Scheduler):
    """Huey's scheduler, with periodic work looked at every second instead of every minute."""

    periodic_task_seconds = 1


class HalConsumer(Consumer):
    """Huey's consumer of threads; SIGTERM and SIGINT both end it in good order."""

    scheduler_class = Tick

    def __init__(self, huey: Huey, ctx: Context) -> None:
        self._ctx = ctx
        super().__init__(
            huey,
            workers=ctx.settings.worker_threads,
            worker_type="thread",
            check_worker_health=True,
            shutdown_timeout=STOP_S,
            graceful_signal="TERM",
        )

    def _set_signal_handlers(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._told_to_stop)

    def _told_to_stop(self, number: int, _frame: Any) -> None:
        if self._ctx.stopping.is_set():
            self._ctx.giving_up.set()  # the second signal: write nothing more, rescue will
        self._ctx.stopping.set()
        self._signum, self._restart, self._graceful = number, False, True


def main() -> int:
    """Run a worker until it is told to stop; exit code 1 when it cannot start."""
    try:
        settings = Settings.load()
        logs.set_up(settings.log_level)
        points.arm(settings.point)
        db = open_database(settings)
        first_act(db, "worker")
        owner = Owner(settings.run, "worker")
        with db.write() as tx:
            owner.register(tx)
        ctx = Context(settings, db, owner, Bell(settings.run, owner.id))
    except Hal0Error as error:
        print(f"hal0 worker: {error.code}: {error.detail}", file=sys.stderr)  # noqa: T201
        return 1
    return work(ctx)


def work(ctx: Context) -> int:
    """Serve the ledger until a signal comes, then put back what runs and go."""
    supervisor = Supervisor(ctx)
    consumer = HalConsumer(make_huey(ctx), ctx)
    supervisor.start()
    log.info("worker %s serves %s", ctx.owner.id, ctx.settings.database)
    consumer.run()
    ctx.stopping.set()
    until = monotonic_ms() + int(STOP_S * 1000)
    while ctx.bodies() and monotonic_ms() < until and not ctx.giving_up.is_set():
        threading.Event().wait(0.05)
    supervisor.end()
    ctx.giving_up.set()
    if not ctx.bodies():
        with contextlib.suppress(DatabaseError), ctx.db.write() as tx:
            leave(tx, ctx.owner.id)
    ctx.close()
    log.info("worker %s has ended", ctx.owner.id)
    return 0


if __name__ == "__main__":
    sys.exit(main())
