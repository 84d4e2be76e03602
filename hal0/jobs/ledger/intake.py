"""What a request becomes: nothing to do, jobs that are there already, or a new chain at the tail.

A newer intent supersedes: it cancels what is only queued of older chains of the slot, and a pull
or validation that runs. Only what was *sent* is waited for, because the engine has it: a load, or
an unload, whose chain then ends there. An operator's `desired` is written here, when the request is
accepted, and by no job later.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update

from hal0.clock import utc_now
from hal0.errors import SlotHasNoModel, SlotPinned
from hal0.jobs.ledger import breaker, drains
from hal0.jobs.ledger.cancel import supersede
from hal0.jobs.ledger.rows import (
    By,
    Chain,
    Job,
    by_chain,
    chain_by_id,
    jobs_of_chain,
    unfinished_jobs,
)
from hal0.jobs.ledger.taken import ensure_model_is_free
from hal0.slots.queries import Slot
from hal0.slots.spec import load_key
from hal0.slots.transitions import Act, move
from hal0.slots.wishes import want
from hal0.states import (
    Cause,
    Desired,
    DesiredBy,
    JobKind,
    JobState,
    Origin,
    SlotState,
)
from hal0.tables import chains, failed_keys, jobs


@dataclass(frozen=True, slots=True)
class Wish:
    """What a chain is to bring about."""

    goal: JobKind
    model_id: int | None = None
    options: Mapping[str, Any] | None = None
    rehash: bool = False
    force: bool = False
    drain_timeout_s: float | None = None
    guard: tuple[int, datetime | None] | None = None
    """A machine's unload: (generation, last use) that must still hold when it runs."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """The answer to a request. `already` = so it is, and no job was needed."""

    chain_id: int | None
    job_ids: tuple[int, ...] = ()
    deduplicated: bool = False
    already: bool = False


ALREADY_SO = Accepted(None, already=True)

# Built once: who waits for an idle machine to begin pays for each statement that is built anew.
_NEXT_POSITION = select(func.coalesce(func.max(chains.c.position), 0) + 1)
_INSERT_CHAIN = (
    insert(chains)
    .values(position=_NEXT_POSITION.scalar_subquery())
    .returning(chains.c.id, chains.c.position)
)
_INSERT_JOB = insert(jobs).returning(jobs.c.id)


def request_load(tx: Connection, slot: Slot, wish: Wish, by: By) -> Accepted:
    """Want a model loaded: `wish.model_id` and `.options`, or what the slot is set up for.

    Needs a write transaction. Raises SlotHasNoModel, ModelTaken.
    """
    wish = _complete(slot, wish)
    assert wish.model_id is not None
    ensure_model_is_free(tx, slot, wish.model_id)
    want_loaded(tx, slot.id, wish.model_id, wish.options or {})
    open_chains = by_chain(unfinished_jobs(tx, slot.id))
    if open_chains and (same := _same(tx, open_chains[-1], wish)):
        return _deduplicated(tx, same, by)
    if not open_chains and not wish.rehash and slot.holds(wish.model_id, wish.options):
        if slot.state is SlotState.IDLE:
            move(tx, slot, SlotState.READY, Cause.TOUCHED, Act(by.actor, request_id=by.request_id))
        return ALREADY_SO
    supersede(tx, slot, open_chains, by)
    return add_chain(tx, slot, wish, by)


def request_unload(
    tx: Connection, slot: Slot, wish: Wish, by: By, *, even_if_pinned: bool = False
) -> Accepted:
    """Want a slot empty. Needs a write transaction. Raises SlotPinned."""
    if slot.pinned and not even_if_pinned:
        raise SlotPinned(
            f"slot {slot.name} is pinned; unload it with even_if_pinned (--even-if-pinned)",
            evidence={"slot": slot.name},
        )
    want_unloaded(tx, slot.id)
    open_chains = by_chain(unfinished_jobs(tx, slot.id))
    if open_chains and (same := _same(tx, open_chains[-1], wish)):
        return _deduplicated(tx, same, by)
    if not open_chains and slot.state is SlotState.OFFLINE:
        return ALREADY_SO
    supersede(tx, slot, open_chains, by)
    return add_chain(tx, slot, wish, by)


def request_check(tx: Connection, slot: Slot, wish: Wish, by: By) -> Accepted:
    """Want a lone pull or validate of the slot's model; it waits its turn and cancels nothing."""
    wish = _complete(slot, wish)
    open_chains = by_chain(unfinished_jobs(tx, slot.id))
    if open_chains and (same := _same(tx, open_chains[-1], wish)):
        return _deduplicated(tx, same, by)
    return add_chain(tx, slot, wish, by)


def machine_load(tx: Connection, slot: Slot, wish: Wish, by: By) -> Accepted | None:
    """Load again what a slot lost, if a machine may: None = it may not.

    Refused for a slot with unfinished jobs, for one that nobody wants loaded, and for a load that
    was sent before and failed (ADR-0007). How often a machine may is `ledger.breaker`'s to say.
    """
    assert wish.model_id is not None
    known_bad = failed_before(tx, slot.id, wish.model_id, wish.options or {})
    if known_bad or slot.desired is not Desired.LOADED or unfinished_jobs(tx, slot.id):
        return None
    return add_chain(tx, slot, wish, by)


def failed_before(
    tx: Connection, slot_id: int, model_id: int, options: Mapping[str, Any]
) -> int | None:
    """Return the job that sent this load and failed, for which no machine sends it again."""
    return tx.execute(
        select(failed_keys.c.job_id).where(
            failed_keys.c.slot_id == slot_id,
            failed_keys.c.load_key == load_key(model_id, options),
        )
    ).scalar_one_or_none()


def add_chain(tx: Connection, slot: Slot, wish: Wish, by: By) -> Accepted:
    """Insert a chain with its jobs at the tail of the slot's queue."""
    now = utc_now()
    generation, last_used_at = wish.guard or (None, None)
    chain = tx.execute(
        _INSERT_CHAIN,
        {
            "slot_id": slot.id,
            "goal": wish.goal,
            "origin": by.origin,
            "actor": by.actor,
            "request_id": by.request_id,
            "model_id": wish.model_id,
            "options": None if wish.options is None else dict(wish.options),
            "rehash": wish.rehash,
            "force": wish.force,
            "drain_timeout_s": wish.drain_timeout_s,
            "guard_generation": generation,
            "guard_last_used_at": last_used_at,
            "caused_by_job_id": by.caused_by_job_id,
            "created_at": now,
        },
    ).one()
    kinds = tuple(JobKind) if wish.goal is JobKind.LOAD else (wish.goal,)
    ids = [
        tx.execute(
            _INSERT_JOB,
            {
                "chain_id": chain.id,
                "slot_id": slot.id,
                "engine_id": slot.engine_id,
                "model_id": wish.model_id,
                "kind": kind,
                "position": chain.position,
                "step": kind.step,
                "state": JobState.QUEUED,
                "attempt": 0,
                "crashes": 0,
                "created_at": now,
            },
        ).scalar_one()
        for kind in kinds
    ]
    drains.begin(tx, slot.id)
    return Accepted(chain.id, tuple(ids))


def next_position(tx: Connection) -> int:
    """Return the place behind every chain there is."""
    return int(tx.execute(_NEXT_POSITION).scalar_one())


def machine_unload(tx: Connection, slot: Slot, by: By) -> Accepted | None:
    """Unload what nobody uses, or what should not be there; None = the slot has work.

    What it holds now is what is unloaded: the chain is void when it is used, or loaded anew.
    """
    if unfinished_jobs(tx, slot.id):
        return None
    guard = (slot.generation, slot.last_used_at)
    return add_chain(tx, slot, Wish(JobKind.UNLOAD, guard=guard), by)


def want_loaded(tx: Connection, slot_id: int, model_id: int, options: Mapping[str, Any]) -> None:
    """Write that an operator wants this loaded; lift whatever kept machines from it."""
    want(
        tx,
        slot_id,
        Desired.LOADED,
        DesiredBy.OPERATOR,
        wanted_model_id=model_id,
        options=dict(options),
        restore=None,
    )
    forget_failed_key(tx, slot_id, model_id, options)
    breaker.forget(tx, slot_id)


def want_unloaded(tx: Connection, slot_id: int) -> None:
    """Write that an operator wants a slot empty; what a machine was to load again stays away."""
    want(tx, slot_id, Desired.UNLOADED, DesiredBy.OPERATOR, restore=None)


def forget_failed_key(
    tx: Connection, slot_id: int, model_id: int, options: Mapping[str, Any]
) -> None:
    """Let this load be sent again."""
    tx.execute(
        delete(failed_keys).where(
            failed_keys.c.slot_id == slot_id,
            failed_keys.c.load_key == load_key(model_id, options),
        )
    )


def _complete(slot: Slot, wish: Wish) -> Wish:
    """Fill in what the request left to the slot's setting."""
    model_id = wish.model_id if wish.model_id is not None else slot.wanted_model_id
    if model_id is None:
        raise SlotHasNoModel(
            f"slot {slot.name} has no model; name one in the request, or "
            f"`hal0 slot set {slot.name} --model NAME`",
            evidence={"slot": slot.name},
        )
    options = slot.options if wish.options is None else wish.options
    return replace(wish, model_id=model_id, options=options)


def _same(tx: Connection, last: Sequence[Job], wish: Wish) -> Chain | None:
    """Return the slot's newest unfinished chain if it does what is wished."""
    chain = chain_by_id(tx, last[0].chain_id)
    if chain.goal is not wish.goal or (wish.force and not chain.force):
        return None
    if wish.goal is JobKind.UNLOAD:
        return chain
    same_load = (chain.model_id, chain.options) == (wish.model_id, wish.options)
    return chain if same_load and (chain.rehash or not wish.rehash) else None


def _deduplicated(tx: Connection, chain: Chain, by: By) -> Accepted:
    """Answer with the chain that is there; an operator takes a machine's over."""
    if by.origin is Origin.OPERATOR and chain.origin is not Origin.OPERATOR:
        tx.execute(
            update(chains)
            .where(chains.c.id == chain.id)
            .values(
                origin=Origin.OPERATOR,
                actor=by.actor,
                request_id=by.request_id,
                guard_generation=None,
                guard_last_used_at=None,
            )
        )
    job_ids = tuple(job.id for job in jobs_of_chain(tx, chain.id))
    return Accepted(chain.id, job_ids, deduplicated=True)
