"""What becomes of an answer that comes when its job is over: a load's lane, an unload's mark.

The process that sent the request keeps it open, and settles by its answer, in a thread of its own.
Where there is none, or the process has died, the engine's list decides later (`jobs.settle`).
"""

import concurrent.futures
import logging
import threading
from collections.abc import Callable
from contextvars import copy_context
from typing import Any

from sqlalchemy import Connection

from hal0.errors import EngineBadAnswer, EngineTimeout
from hal0.jobs.context import Context
from hal0.jobs.engine_room import Stopping
from hal0.jobs.ledger.lane import clear_unload_mark, note_answered
from hal0.jobs.ledger.rows import Claim, unfinished_jobs
from hal0.jobs.losses import forget_held
from hal0.jobs.settle import settle_lane
from hal0.registry.roster import EngineRow
from hal0.slots.queries import slot_by_id
from hal0.slots.transitions import move
from hal0.states import Cause, SlotState

log = logging.getLogger(__name__)


def watch_late_answer(
    ctx: Context, held: Claim, engine: EngineRow, answer: "concurrent.futures.Future[None]"
) -> None:
    """Keep the request of a load open whose job is over, and settle its lane when it answers."""
    of = (held.job.id, held.job.sent_attempt or held.job.attempt)

    def settle() -> None:
        if ctx.stopping.is_set():
            return  # the next owner settles it
        error = None if answer.cancelled() else answer.exception()
        log.info("late answer to the load of job %s: %s", held.job.id, error or "loaded")
        try:
            if not isinstance(error, (EngineBadAnswer, EngineTimeout)):
                ctx.commit(lambda tx: note_answered(tx, engine.id, *of))
            settle_lane(ctx, engine, of)
        except Stopping:
            return
        except Exception:  # what the row says is enough for the periodic settling
            log.exception("the lane of job %s is not settled yet", held.job.id)

    _when_answered(answer, settle)


def watch_late_unload(ctx: Context, held: Claim, answer: "concurrent.futures.Future[bool]") -> None:
    """Keep the request of an unload open whose job is over, and take its mark off when it answers.

    A slot that is in error on its account is empty then.
    """

    def write(tx: Connection) -> None:
        slot = slot_by_id(tx, held.job.slot_id)
        if not clear_unload_mark(tx, slot.id, held.job.id, held.job.attempt):
            return
        if slot.state is not SlotState.ERROR or unfinished_jobs(tx, slot.id):
            return
        forget_held(tx, slot.id)
        if (slot.error or {}).get("job_id") == held.job.id:  # a newer error stays
            move(tx, slot, SlotState.OFFLINE, Cause.UNLOAD_CONFIRMED, held.act)

    def settle() -> None:
        if ctx.stopping.is_set() or answer.cancelled() or answer.exception() is not None:
            return  # not known: the engine's list or its settle time decides
        log.info("late answer to the unload of job %s", held.job.id)
        try:
            ctx.commit(write)
        except Exception:  # the mark stays until its settle time
            log.exception("the mark of job %s stays", held.job.id)
        ctx.ring()

    _when_answered(answer, settle)


def _when_answered(answer: "concurrent.futures.Future[Any]", settle: Callable[[], None]) -> None:
    """Settle in a thread of its own, whose records say what those of this body say."""
    carry_on = copy_context().run
    answer.add_done_callback(
        lambda _: threading.Thread(target=carry_on, args=(settle,), daemon=True).start()
    )
