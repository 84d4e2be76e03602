"""How `unload` empties a slot: marked, asked once by name, confirmed.

The mark is committed together with `unloading`, before the request, and stays on the slot until the
engine has settled it: a load of the slot is not claimed before. An engine that knows no such model
has unloaded it already. An engine that is gone holds nothing.

A forced unload of a slot that serves commits first and sends a second later: who forwards requests
sees the slot's state within that time and ends them with an error that they can tell.
"""

import concurrent.futures
from dataclasses import dataclass, replace
from typing import Final

from sqlalchemy import Connection

from hal0 import points
from hal0.clock import boot_id, monotonic_ms
from hal0.engines.base import EngineHealth
from hal0.errors import (
    DrainTimeout,
    EngineBadAnswer,
    EngineError,
    EngineTimeout,
    EngineUnreachable,
    Hal0Error,
    UnloadTimeout,
)
from hal0.jobs.context import Body, Context
from hal0.jobs.engine_room import Stopping
from hal0.jobs.engine_wait import Ended, await_answer
from hal0.jobs.idle_scan import use_now
from hal0.jobs.late_answers import watch_late_unload
from hal0.jobs.ledger import drains
from hal0.jobs.ledger.claims import check, fail, finish, renewed, wait_on
from hal0.jobs.ledger.lane import Sending, clear_unload_mark, mark_unload_sent
from hal0.jobs.ledger.rows import Claim, chain_by_id, job_by_id
from hal0.jobs.losses import forget_held
from hal0.jobs.reading import QUICK_S, known_by, read_health, try_health
from hal0.registry.roster import EngineRow, engine_by_id
from hal0.slots.idle import Use
from hal0.slots.leases import is_held
from hal0.slots.queries import Slot, slot_by_id
from hal0.slots.transitions import move
from hal0.slots.wishes import want
from hal0.states import Cause, Desired, DesiredBy, JobKind, Origin, Outcome, SlotState

DRAIN_POLL_S: Final = 0.5
"""How often an engine is asked again that is busy past hal0, or whose answer was lost."""


def run(ctx: Context, body: Body) -> None:
    """Empty the slot, or find that there is nothing to do."""
    points.reach("unload.begun")
    with ctx.db.read() as tx:
        engine = engine_by_id(tx, body.held.job.engine_id)
    seen = _look_for_use(ctx, body, engine)
    slot = ctx.commit(lambda tx: _begin(tx, ctx, body.held, seen))
    if slot is None:
        return
    points.reach("unload.marked")
    if slot.cause == Cause.FORCED and ctx.stopping.wait(ctx.cut_s):
        raise Stopping
    with ctx.db.read() as tx:
        body.held = renewed(tx, body.held)
    name = str(slot.engine_model)
    answer = ctx.engines.begin(
        engine, lambda e: e.unload(name, lambda: points.reach("unload.sent"))
    )
    _follow(ctx, body, engine, answer)


@dataclass(frozen=True, slots=True)
class _Seen:
    """What an engine said right before a model would be unloaded; None = nothing, or not asked."""

    engine: EngineRow
    health: EngineHealth | None

    @property
    def process(self) -> str | None:
        """Which process will be asked; None = unknown. The slot may know one from before."""
        return None if self.health is None else self.health.process

    def use(self, tx: Connection, slot: Slot) -> Use:
        """Tell whether somebody uses the slot's model, by the engine's word and by the rows."""
        if self.health is None or self.health.models is None:
            return Use.UNKNOWN
        entry = self.health.find(*known_by(tx, slot))
        return Use.NONE if entry is None else use_now(tx, slot, entry)

    def is_busy(self, tx: Connection, slot: Slot) -> bool:
        """Tell whether a request runs there, as far as the engine says."""
        entry = None if self.health is None else self.health.find(*known_by(tx, slot))
        return entry is not None and entry.busy is True


def _look_for_use(ctx: Context, body: Body, engine: EngineRow) -> _Seen:
    """Ask who uses what is to be unloaded, at which process; what is not said is unknown."""
    with ctx.db.read() as tx:
        slot = slot_by_id(tx, body.held.job.slot_id)
    is_to_be_asked = slot.state is SlotState.UNLOADING or _may_be_used(slot, body.held)
    reading = try_health(ctx, engine, QUICK_S) if is_to_be_asked else None
    return _Seen(engine, None if reading is None else reading.health)


def _may_be_used(slot: Slot, held: Claim) -> bool:
    """Whether the engine may serve somebody what is to be unloaded: also behind an error."""
    is_left = slot.state is SlotState.ERROR and slot.engine_model is not None
    return slot.is_dispatchable or (is_left and held.chain.goal is JobKind.UNLOAD)


def _begin(tx: Connection, ctx: Context, held: Claim, seen: _Seen) -> Slot | None:
    """Decide by the slot's state; mark the request in the same commit if there is to be one.

    What requests have done since the engine was asked is in the rows, and read here. Return the
    slot, about to be unloaded; None = nothing is to be sent, and the attempt has ended.
    """
    slot = check(tx, held)
    held = replace(held, chain=chain_by_id(tx, held.chain.id))  # an operator may have taken it over
    chain = held.chain
    if _may_be_used(slot, held) and _leaves_alone(tx, slot, held, seen):
        finish(tx, held, Outcome.SKIPPED)
        return None
    is_in_use = slot.state is SlotState.SERVING or (
        _may_be_used(slot, held) and seen.is_busy(tx, slot)
    )
    if is_in_use and not chain.force:
        _let_end(tx, ctx, held, slot)
        return None
    if slot.is_dispatchable:
        slot = move(tx, slot, SlotState.UNLOADING, _cause(slot, held), held.act)
        if chain.origin is Origin.IDLE:
            want(tx, slot.id, Desired.UNLOADED, DesiredBy.IDLE)
    elif slot.state is SlotState.ERROR and chain.goal is JobKind.UNLOAD and not slot.engine_model:
        _clear_error(tx, held, slot)
        return None
    elif slot.state is not SlotState.UNLOADING and not (
        slot.state is SlotState.ERROR and chain.goal is JobKind.UNLOAD
    ):
        finish(tx, held, Outcome.SKIPPED)
        return None
    assert slot.engine_model, f"slot {slot.name} is {slot.state} without a name at its engine"
    limit_s = ctx.settings.unload_timeout_s + (ctx.cut_s if slot.cause == Cause.FORCED else 0)
    mark_unload_sent(
        tx, held, Sending(slot.engine_model, seen.process, limit_s, seen.engine.settle_s)
    )
    return slot


def _leaves_alone(tx: Connection, slot: Slot, held: Claim, seen: _Seen) -> bool:
    """Whether this unload has nothing to do with what the slot holds now.

    A machine's gives way to whoever has used the model since it was asked for, holds a lease on
    it, or may use it past hal0, and to whoever has pinned the slot.
    """
    chain = held.chain
    if chain.goal is JobKind.LOAD:
        return slot.holds(chain.model_id, chain.options)
    if chain.origin is Origin.OPERATOR:
        return False
    if slot.pinned:
        return True
    used_since = (slot.generation, slot.last_used_at) != (
        chain.guard_generation,
        chain.guard_last_used_at,
    )
    is_served = slot.state is SlotState.SERVING or is_held(tx, slot.id, slot.generation)
    return used_since or is_served or seen.use(tx, slot) is not Use.NONE


def _cause(slot: Slot, held: Claim) -> Cause:
    if slot.state is SlotState.SERVING:
        return Cause.FORCED
    if held.chain.goal is JobKind.LOAD:
        return Cause.REPLACED
    if held.chain.origin is Origin.IDLE:
        return Cause.IDLE_UNLOAD
    return Cause.OPERATOR_UNLOAD


def _let_end(tx: Connection, ctx: Context, held: Claim, slot: Slot) -> None:
    """Let running requests end, for as long as the request said; then fail, and the model stays.

    The claim waits for those through hal0; an engine that is busy past hal0 is asked again.
    """
    limit_s = held.chain.drain_timeout_s
    if limit_s is None:
        limit_s = ctx.settings.drain_timeout_s
        drains.set_limit(tx, held.chain.id, limit_s)
    since = held.job.deferred_ms if held.job.deferred_boot == boot_id() else None
    if since is not None and monotonic_ms() - since >= limit_s * 1000:
        error = DrainTimeout(
            f"slot {slot.name} still serves after {limit_s:g} s; unload it with force",
            evidence={"slot": slot.name, "limit_s": limit_s},
        )
        fail(tx, held, error)
        return
    is_serving = slot.state is SlotState.SERVING
    wait_on(tx, held, Outcome.DEFERRED, 0 if is_serving else DRAIN_POLL_S)


def _clear_error(tx: Connection, held: Claim, slot: Slot) -> None:
    """An error that never reached the engine needs no asking."""
    move(tx, slot, SlotState.OFFLINE, Cause.CLEARED, held.act)
    finish(tx, held)


def _follow(
    ctx: Context, body: Body, engine: EngineRow, answer: "concurrent.futures.Future[bool]"
) -> None:
    assert body.held.job.deadline_ms is not None
    ended = await_answer(ctx, body, answer, body.held.job.deadline_ms)
    if ended is Ended.STOPPING:
        answer.cancel()
        raise Stopping
    if ended is not Ended.ANSWERED:
        watch_late_unload(ctx, body.held, answer)
        if ended is Ended.DEADLINE:
            _time_out(ctx, body.held)
        return
    points.reach("unload.answered")
    error = answer.exception()
    if error is None:
        was_loaded = answer.result()
        ctx.commit(lambda tx: _emptied(tx, body.held, {"was_loaded": was_loaded}))
    elif isinstance(error, EngineUnreachable) and error.is_gone:
        ctx.commit(lambda tx: _emptied(tx, body.held, {"engine": "gone"}, gone=True))
    elif isinstance(error, (EngineBadAnswer, EngineTimeout, EngineUnreachable)):
        _look(ctx, body, engine, error)
    elif isinstance(error, Hal0Error):
        refusal = error
        ctx.commit(lambda tx: _refused(tx, body.held, refusal))
    else:
        raise error


def _emptied(tx: Connection, held: Claim, result: dict[str, object], *, gone: bool = False) -> None:
    """The slot holds nothing any more; say how that is known."""
    slot = check(tx, held)
    if slot.state is SlotState.UNLOADING:
        cause = Cause.ENGINE_RESTARTED if gone else Cause.UNLOADED
        move(tx, slot, SlotState.OFFLINE, cause, held.act)
    elif slot.state is SlotState.ERROR and _ends_error(tx, held, slot):
        move(tx, slot, SlotState.OFFLINE, Cause.UNLOAD_CONFIRMED, held.act)
    forget_held(tx, slot.id)
    clear_unload_mark(tx, slot.id, held.job.id, held.job.attempt)
    finish(tx, held, result=result)


def _ends_error(tx: Connection, held: Claim, slot: Slot) -> bool:
    """Whether this unload undoes the error: one that an unload left, or whatever an operator sees.

    What a machine clears away behind a failed load leaves that load's error to be read.
    """
    if chain_by_id(tx, held.chain.id).origin is Origin.OPERATOR:
        return True
    failed_id = (slot.error or {}).get("job_id")
    return failed_id is not None and job_by_id(tx, failed_id).kind is JobKind.UNLOAD


def _refused(tx: Connection, held: Claim, error: Hal0Error) -> None:
    """The engine answered, with an error: nothing is on its way any more."""
    clear_unload_mark(tx, held.job.slot_id, held.job.id, held.job.attempt)
    fail(tx, held, error)


def _look(ctx: Context, body: Body, engine: EngineRow, error: Hal0Error) -> None:
    """The connection broke: the engine's list says what became of the request."""
    while (how := _what_became(ctx, body, engine)) is None:
        if body.lost.is_set() or ctx.stopping.wait(DRAIN_POLL_S):
            raise Stopping
    if how == "listed":
        raise error
    is_gone = how == "gone"
    ctx.commit(lambda tx: _emptied(tx, body.held, {"engine": how}, gone=is_gone))


def _what_became(ctx: Context, body: Body, engine: EngineRow) -> str | None:
    """Return `gone` (the engine), `unloaded`, `listed`, or None = not known yet."""
    try:
        reading = read_health(ctx, engine, QUICK_S)
    except EngineError as error:
        return "gone" if isinstance(error, EngineUnreachable) and error.is_gone else None
    if reading.health.models is None:
        return None
    with ctx.db.read() as tx:
        slot = check(tx, body.held)
        if reading.lists(tx, slot):
            return "listed"
    return "gone" if reading.is_of_another_process(slot.engine_process) else "unloaded"


def _time_out(ctx: Context, held: Claim) -> None:
    error = UnloadTimeout(
        f"the engine did not unload slot {held.job.slot_id} within "
        f"{ctx.settings.unload_timeout_s:g} s; its request stays marked until it is settled",
        evidence={"limit_s": ctx.settings.unload_timeout_s},
    )
    ctx.commit(lambda tx: fail(tx, held, error, Cause.DEADLINE_PASSED))
