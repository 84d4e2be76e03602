"""How a load frees its place of a model that the engine lists and that does not answer.

The request is marked on the slot like any unload, so that no load of the slot is claimed while the
engine may still carry it out, whatever becomes of this process.
"""

from typing import Final

from sqlalchemy import Connection

from hal0 import points
from hal0.clock import monotonic_ms
from hal0.errors import EngineBadAnswer, EngineTimeout, UnloadTimeout
from hal0.jobs.context import Body, Context
from hal0.jobs.engine_room import Stopping
from hal0.jobs.engine_wait import Ended, await_answer, waited_s_of
from hal0.jobs.give_way import give_way
from hal0.jobs.late_answers import watch_late_unload
from hal0.jobs.ledger.claims import keep, wait_on
from hal0.jobs.ledger.lane import clear_unload_mark, mark_place
from hal0.jobs.ledger.rows import Claim
from hal0.jobs.reading import Reading
from hal0.states import Outcome

IN_USE: Final = "the engine has the model, which is in use and does not answer"
DRAIN_POLL_S: Final = 0.5


def spare(tx: Connection, held: Claim, limit_s: float) -> bool:
    """Leave a model alone that is in use: a machine's load gives way, an operator's waits.

    Tell whether the attempt has ended so; False = it has waited for `limit_s`. Raises ClaimLost.
    """
    if give_way(tx, held, IN_USE):
        return True
    is_first = (held.job.result or {}).get("because") != IN_USE  # it waited for its engine before
    if (0.0 if is_first else waited_s_of(held.job)) >= limit_s:
        return False
    keep(tx, held, {"because": IN_USE})
    wait_on(tx, held, Outcome.DEFERRED, DRAIN_POLL_S, anew=is_first)
    return True


def make_place(ctx: Context, body: Body, reading: Reading, name: str) -> None:
    """Unload `name`, by which the reading lists it; returns when it is unloaded.

    Raises Stopping, UnloadTimeout, or what the engine answered: EngineError.
    """
    held, engine, limit_s = body.held, reading.engine, ctx.settings.unload_timeout_s
    process = reading.health.process  # the engine's row may name one from before a restart
    ctx.commit(lambda tx: mark_place(tx, held, process, engine.settle_s))
    points.reach("place.marked")
    until_ms = monotonic_ms() + int(limit_s * 1000)
    answer = ctx.engines.begin(engine, lambda e: e.unload(name, lambda: None))
    ended = await_answer(ctx, body, answer, until_ms)
    if ended is Ended.ANSWERED:
        points.reach("place.answered")
        error = answer.exception()
        if not isinstance(error, (EngineBadAnswer, EngineTimeout)):  # else it may be on its way
            slot_id, job = held.job.slot_id, held.job
            ctx.commit(lambda tx: clear_unload_mark(tx, slot_id, job.id, job.attempt))
        if error is not None:
            raise error
        return
    if ended is not Ended.DEADLINE:
        raise Stopping
    watch_late_unload(ctx, held, answer)
    raise UnloadTimeout(
        f"engine {engine.name} lists {name}, which does not answer, and did not unload it within "
        f"{limit_s:g} s: restart the engine, then retry job {held.job.id}",
        evidence={"limit_s": limit_s, "engine": engine.name},
    )
