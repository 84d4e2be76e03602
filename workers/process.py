"""One worker process, from its first act to its last."""

import contextlib
import logging
import os
import signal
import sys
from collections.abc import Callable
from typing import Any, Final

from huey import Huey
from huey.consumer import Consumer, Scheduler

from hal0 import logs, notify, points
from hal0.clock import monotonic_ms
from hal0.db import open_database
from hal0.errors import DatabaseError, Hal0Error
from hal0.file_modes import keep_others_out
from hal0.jobs.bell import Bell
from hal0.jobs.boot import first_act
from hal0.jobs.context import Context
from hal0.jobs.owners import Owner, forget_files, note_seen
from hal0.jobs.periodic import TICK_S
from hal0.jobs.rescue import leave
from hal0.settings import Settings
from workers.supervisor import END_S, Supervisor
from workers.tasks import make_huey

log = logging.getLogger(__name__)

STOP_S: Final = 10.0
"""How long threads, and then bodies, may take to put their jobs back after SIGTERM."""
LONGEST_STOP_S: Final = 2 * STOP_S + END_S
"""Until a worker has done what it can; what still runs then is put back for it, and it goes."""


class Tick(Scheduler):
    """Huey's scheduler, with periodic work looked at every second instead of every minute."""

    periodic_task_seconds = TICK_S


class HalConsumer(Consumer):
    """Huey's consumer of threads; SIGTERM and SIGINT both end it in good order, the second at once.

    It is ready when its threads claim, which they do not before signals are heard.
    """

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

    def start(self) -> None:
        """Start the threads, and tell the service manager when they run."""
        self._set_signal_handlers()  # Huey does so last, when a body may have begun
        super().start()
        notify.ready(f"{self.workers} threads serve {self._ctx.settings.database}")

    def _set_signal_handlers(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._told_to_stop)

    def _told_to_stop(self, number: int, _frame: Any) -> None:
        if self._ctx.stopping.is_set():
            self._ctx.giving_up.set()
        self._ctx.stopping.set()
        notify.stopping()
        self._signum, self._restart, self._graceful = number, False, True

    def _join_workers(self) -> bool:
        """Wait for the threads, but not beyond the second signal, as `Thread.join` would."""
        threads = [thread for _, thread in self.worker_threads]
        return wait_until(lambda: not any(one.is_alive() for one in threads), self._ctx)


def main() -> int:
    """Run a worker until it is told to stop; exit code 1 when it cannot start."""
    keep_others_out()
    try:
        settings = Settings.load()
        logs.set_up(settings.log_level, "hal0-worker")
        points.arm(settings.point)
        db = open_database(settings)
        first_act(db, "worker")
        owner = Owner(settings.run, "worker")
        with db.write() as tx:
            owner.register(tx, settings.beat_s)
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
    wait_until(lambda: not ctx.bodies(), ctx)
    if not ctx.giving_up.is_set():
        supervisor.end()
    is_at_rest = not ctx.bodies() and not ctx.giving_up.is_set()
    ctx.giving_up.set()
    with contextlib.suppress(DatabaseError), ctx.db.write() as tx:
        note_seen(tx, ctx.owner.id, ctx.fenced_writes)
        leave(tx, ctx.owner.id)
    log.info("worker %s has ended", ctx.owner.id)
    if not is_at_rest:  # what goes on in threads must do no more: its claim has been given up
        forget_files(ctx.settings.run, ctx.owner.id)
        os._exit(0)
    ctx.close()
    return 0


def wait_until(is_so: Callable[[], bool], ctx: Context) -> bool:
    """Wait for something as long as a stop may take, or until the second signal; tell if it is."""
    until = monotonic_ms() + int(STOP_S * 1000)
    while not is_so() and monotonic_ms() < until and not ctx.giving_up.is_set():
        ctx.giving_up.wait(0.05)
    return is_so()
