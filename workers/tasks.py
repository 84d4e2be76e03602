"""The Huey tasks: `pull`, `validate`, `unload`, `load`, and the periodic ones.

A job's task gets nothing but its claim; retries, results and timeouts of Huey are off, for the
ledger decides those.
"""

import logging
from collections.abc import Callable
from threading import Lock
from typing import Any

from huey import Huey

from hal0.errors import Hal0Error
from hal0.jobs import runner, scan, settle
from hal0.jobs.context import Context
from hal0.jobs.engine_room import Stopping
from hal0.jobs.ledger.rows import Claim
from hal0.states import JobKind
from workers.storage import LedgerStorage

log = logging.getLogger(__name__)

Work = Callable[[], None]


def make_huey(ctx: Context) -> Huey:
    """Return the Huey of one worker process, its tasks registered."""
    huey = Huey("hal0", storage_class=LedgerStorage, results=False, utc=True)
    held_claims: dict[tuple[int, int], Claim] = {}

    def carry_through(job_id: int, attempt: int) -> None:
        held = held_claims.pop((job_id, attempt))
        try:
            runner.run(ctx, held)
        finally:
            huey.storage.job_is_over(held)

    tasks: dict[JobKind, Any] = {
        kind: huey.task(name=kind.value)(_named(carry_through, kind)) for kind in JobKind
    }

    def to_message(held: Claim) -> Any:
        key = (held.job.id, held.job.attempt)
        held_claims[key] = held
        return huey.serialize_task(tasks[held.job.kind].s(*key))

    huey.storage.attach(ctx, to_message)
    one_chore = Lock()
    # In this order: a scan that is not due passes at once, a settling may wait for health.
    _periodic(huey, "scan", ctx, one_chore, lambda: scan.scan_if_due(ctx))
    _periodic(huey, "settle", ctx, one_chore, lambda: settle.settle_all(ctx))
    return huey


def _named(body: Callable[[int, int], None], kind: JobKind) -> Callable[[int, int], None]:
    def run(job_id: int, attempt: int) -> None:
        body(job_id, attempt)

    run.__name__ = run.__qualname__ = kind.value
    return run


def _periodic(huey: Huey, name: str, ctx: Context, one_chore: Lock, work: Work) -> None:
    """Register work for each tick of one second; a turn that fails is logged.

    While one chore waits for an engine that does not answer, others pass: at most one thread of
    the process is ever held up by them.
    """

    def turn() -> None:
        if ctx.stopping.is_set() or not one_chore.acquire(blocking=False):
            return
        try:
            work()
        except Hal0Error as error:
            log.warning("%s: %s", name, error.detail)
        except Stopping:
            return
        finally:
            one_chore.release()

    turn.__name__ = turn.__qualname__ = name
    huey.periodic_task(lambda _now: True, name=name)(turn)
