"""When a slot drains: no new request enters, and its unload waits until those that run have ended.

A slot drains while its oldest unfinished job is an operator's `unload`: a chain of its own, or the
step of a load that replaces what the slot holds. It is told from the rows each time, so nothing is
to be cleared after a crash. The wait counts from when the job became the first in line of a slot
that serves (`jobs.deferred_ms`), for as long as its chain says; `runnable` leaves the job alone
until then.
"""

from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, bindparam, func, select, union_all, update

from hal0.clock import boot_id, monotonic_ms
from hal0.jobs.ledger.rows import (
    IS_QUEUED,
    IS_RUNNING,
    JOB_COLUMNS,
    Chain,
    Job,
    chain_by_id,
    read_job,
)
from hal0.slots.queries import Slot, slot_by_id
from hal0.states import JobKind, JobState, Origin, SlotState
from hal0.tables import chains, jobs, leases, slots

_OF_SLOT: Final = jobs.c.slot_id == bindparam("slot_id")
_OLDEST: Final = (
    union_all(
        select(*JOB_COLUMNS).where(IS_QUEUED, _OF_SLOT),
        select(*JOB_COLUMNS).where(IS_RUNNING, _OF_SLOT),
    )
    .order_by("position", "step")
    .limit(1)
)
_REQUESTS: Final = (
    select(func.coalesce(func.sum(leases.c.in_flight), 0))
    .where(leases.c.slot_id == slots.c.id, leases.c.generation == slots.c.generation)
    .scalar_subquery()
)
_WAITING: Final = (
    select(
        jobs.c.id,
        jobs.c.deferred_ms,
        chains.c.drain_timeout_s,
        (slots.c.state == SlotState.SERVING).label("is_serving"),
        _REQUESTS.label("requests"),
    )
    .join(chains, chains.c.id == jobs.c.chain_id)
    .join(slots, slots.c.id == jobs.c.slot_id)
    .where(IS_QUEUED, jobs.c.kind == JobKind.UNLOAD)
    .where(jobs.c.deferred_boot == bindparam("boot"), chains.c.drain_timeout_s.is_not(None))
)


@dataclass(frozen=True, slots=True)
class Wait:
    """A queued unload that lets requests end; times are milliseconds of this boot's clock."""

    since_ms: int
    until_ms: int
    requests: int | None
    """How many run through hal0; None: the slot does not serve, its engine is busy past hal0."""


def draining(tx: Connection, slot_id: int) -> Job | None:
    """Return the unload that a slot drains for; None = new requests may enter."""
    row = tx.execute(_OLDEST, {"slot_id": slot_id}).one_or_none()
    if row is None or row.kind != JobKind.UNLOAD:
        return None
    job = read_job(row)
    is_emptied = _is_to_empty(slot_by_id(tx, slot_id), chain_by_id(tx, job.chain_id))
    return job if is_emptied else None


def _is_to_empty(slot: Slot, chain: Chain) -> bool:
    """Whether a chain takes away what requests may use now, because an operator wants it."""
    if chain.origin is not Origin.OPERATOR or not slot.is_dispatchable:
        return False
    return chain.goal is JobKind.UNLOAD or not slot.holds(chain.model_id, chain.options)


def left_s(tx: Connection, job: Job) -> float:
    """Return how many seconds the requests of a draining slot still get; 0 = it is unloaded now."""
    limit_s = chain_by_id(tx, job.chain_id).drain_timeout_s
    if limit_s is None or job.deferred_ms is None or job.deferred_boot != boot_id():
        return 0.0
    return max(0.0, limit_s - (monotonic_ms() - job.deferred_ms) / 1000)


def begin(tx: Connection, slot_id: int) -> None:
    """Let the wait begin if an unload has become the first in line of a slot that serves.

    A forced one waits for nobody. A chain that does not say how long, as an older hal0's or one
    that an operator took over from a machine, is left to the unload's body: it knows the setting.
    """
    job = draining(tx, slot_id)
    if job is None or job.state is not JobState.QUEUED or job.deferred_boot == boot_id():
        return
    chain = chain_by_id(tx, job.chain_id)
    is_serving = slot_by_id(tx, slot_id).state is SlotState.SERVING
    if is_serving and not chain.force and chain.drain_timeout_s is not None:
        tx.execute(
            update(jobs)
            .where(jobs.c.id == job.id)
            .values(deferred_boot=boot_id(), deferred_ms=monotonic_ms())
        )


def set_limit(tx: Connection, chain_id: int, limit_s: float) -> None:
    """Write how long a chain's unload lets requests end."""
    tx.execute(update(chains).where(chains.c.id == chain_id).values(drain_timeout_s=limit_s))


def waits(tx: Connection) -> dict[int, Wait]:
    """Return, by job id, what the queued unloads that let requests end wait for."""
    return {
        row.id: Wait(
            row.deferred_ms,
            row.deferred_ms + int(row.drain_timeout_s * 1000),
            int(row.requests) if row.is_serving else None,
        )
        for row in tx.execute(_WAITING, {"boot": boot_id()})
    }
