"""The Huey tasks: `pull`, `validate`, `unload`, `load`, and the periodic ones.

A job's task gets nothing but its claim; retries, results and timeouts of Huey are off, for the
ledger decides those.
"""

import logging
from collections.abc import Callable
from threading import Lock
from typing import Any

from huey import Huey

from hal0.care.daily import prune_daily
from hal0.errors import Hal0Error
from hal0.jobs import runner, settle
from hal0.jobs.context import Context
from hal0.jobs.engine_room import Stopping
from hal0.jobs.ledger.rows import Claim
from hal0.jobs.rounds import Rounds
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
    rounds = Rounds(ctx)
    _periodic(huey, "scan", ctx, rounds.begin)
    _periodic(huey, "settle", ctx, lambda: settle.settle_all(ctx))
    _periodic(huey, "prune", ctx, lambda: prune_daily(ctx))
    huey.on_shutdown(name="scan")(rounds.wait)
    return huey


def _named(body: Callable[[int, int], None], kind: JobKind) -> Callable[[int, int], None]:
    def run(job_id: int, attempt: int) -> None:
        body(job_id, attempt)

    run.__name__ = run.__qualname__ = kind.value
    return run


def _periodic(huey: Huey, name: str, ctx: Context, work: Work) -> None:
    """Register work for each tick; a turn that fails is logged, one that finds the last one passes.

    Scans wait for engines in threads of their own. So one of Huey's at most, that of a settling, is
    ever held up by an engine that does not answer, and there are two at least.
    """
    in_turn = Lock()

    def turn() -> None:
        if ctx.stopping.is_set() or not in_turn.acquire(blocking=False):
            return
        try:
            work()
        except Hal0Error as error:
            log.warning("%s: %s", name, error.detail)
        except Stopping:
            return
        finally:
            in_turn.release()

    turn.__name__ = turn.__qualname__ = name
    huey.periodic_task(lambda _now: True, name=name)(turn)
