"""The end of old rows: the one path that deletes history, and writes down that it did.

What goes is finished, old, and referred to by nothing that still matters: a slot's newest chain
stays, for it is what a retry takes up; so do a job that an error or a lane names, and a load that
failed and that no machine is to send again. A slot's last transition is its state and stays.

Rows go in batches, so that others write in between; each batch is one commit together with its
count in `prunings`, killed anywhere nothing is half-gone.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Self

from sqlalchemy import Connection, Select, Table, delete, exists, func, insert, select, update

from hal0.clock import monotonic_ms, utc_now
from hal0.db import Database
from hal0.settings import Settings
from hal0.states import JobState
from hal0.tables import (
    chains,
    engine_lane,
    failed_keys,
    job_attempts,
    job_beats,
    job_progress,
    jobs,
    leases,
    owners,
    probes,
    prune_permits,
    prunings,
    slots,
    transitions,
)

BATCH: Final = 500
"""Chains, or transitions, of one commit."""
LEAST_REST_S: Final = 0.15
"""Longer than the 0.1 s that SQLite's waiters sleep between two tries."""
_UNFINISHED: Final = (JobState.QUEUED, JobState.RUNNING)


@dataclass(frozen=True, slots=True)
class Retention:
    """How long rows are kept; None = for ever."""

    jobs: timedelta | None
    transitions: timedelta | None

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Return what the settings say; there 0 is for ever."""
        days = (settings.keep_jobs_days, settings.keep_transitions_days)
        return cls(*(timedelta(days=one) if one else None for one in days))


@dataclass(slots=True)
class Pruned:
    """How many rows went, by table; of a dry run: would go."""

    rows: dict[str, int] = field(default_factory=dict)

    def add(self, table: str, count: int) -> None:
        """Count some more."""
        if count:
            self.rows[table] = self.rows.get(table, 0) + count


def prune(
    db: Database, keep: Retention, actor: str, rest: Callable[[float], object] = time.sleep
) -> Pruned:
    """Delete what is older than `keep` says, and write down how much that was.

    `rest` is called behind each batch with the seconds for which others are to have the database;
    it may raise to end this. Raises DatabaseError. What went until then is written down.
    """
    pruned, row_id, now = Pruned(), None, utc_now()
    while True:
        begun_ms = monotonic_ms()
        with db.write() as tx:
            went = _batch(tx, keep, now, pruned)
            if not went:
                return pruned
            row_id = _note(tx, row_id, actor, pruned)
        rest(max(LEAST_REST_S, (monotonic_ms() - begun_ms) / 1000))


def would_prune(tx: Connection, keep: Retention) -> Pruned:
    """Return what `prune` would delete now; needs no more than a read."""
    pruned, now = Pruned(), utc_now()
    if keep.jobs is not None:
        old = _old_chains(now - keep.jobs).subquery()
        pruned.add("chains", _count(tx, select(old.c.id)))
        of_old = jobs.c.chain_id.in_(select(old.c.id))
        pruned.add("jobs", _count(tx, select(jobs.c.id).where(of_old)))
        tries = select(job_attempts.c.job_id).join(jobs, jobs.c.id == job_attempts.c.job_id)
        pruned.add("job_attempts", _count(tx, tries.where(of_old)))
        pruned.add("owners", _count(tx, _old_owners(now - keep.jobs)))
        pruned.add("probes", _count(tx, _old_probes(now - keep.jobs)))
    if keep.transitions is not None:
        pruned.add("transitions", _count(tx, _old_transitions(now - keep.transitions)))
    return pruned


def _count(tx: Connection, rows: Select[tuple[int]] | Select[tuple[str]]) -> int:
    return int(tx.execute(select(func.count()).select_from(rows.subquery())).scalar_one())


def _batch(tx: Connection, keep: Retention, now: datetime, pruned: Pruned) -> bool:
    """Delete some of what is old, in an order in which nothing refers to what is gone."""
    tx.execute(insert(prune_permits).values(id=1, actor="prune", at=now))
    went = False
    if keep.jobs is not None:
        went = _delete_chains(tx, now - keep.jobs, pruned)
        went = _delete_some(tx, owners, _old_owners(now - keep.jobs), pruned) or went
        went = _delete_some(tx, probes, _old_probes(now - keep.jobs), pruned) or went
    if keep.transitions is not None:
        went = _delete_transitions(tx, now - keep.transitions, pruned) or went
    tx.execute(delete(prune_permits))
    return went


def _note(tx: Connection, row_id: int | None, actor: str, pruned: Pruned) -> int:
    if row_id is None:
        made = insert(prunings).values(at=utc_now(), actor=actor, deleted=pruned.rows)
        return int(tx.execute(made.returning(prunings.c.id)).scalar_one())
    tx.execute(update(prunings).where(prunings.c.id == row_id).values(deleted=dict(pruned.rows)))
    return row_id


# -- chains with their jobs ----------------------------------------------------------------------


def _old_chains(before: datetime) -> Select[tuple[int]]:
    """Chains whose jobs have all ended before that, and that nothing needs any more."""
    of_chain = jobs.c.chain_id == chains.c.id
    newest = chains.alias("newest")
    later = exists().where(
        newest.c.slot_id == chains.c.slot_id, newest.c.position > chains.c.position
    )
    is_at_work = exists().where(
        of_chain, jobs.c.state.in_(_UNFINISHED) | (jobs.c.ended_at >= before)
    )
    is_named = exists().where(
        of_chain,
        exists().where(engine_lane.c.job_id == jobs.c.id)
        | exists().where(failed_keys.c.job_id == jobs.c.id)
        | exists().where(
            slots.c.deleted_at.is_(None),
            (slots.c.unload_job_id == jobs.c.id)
            | (slots.c.error["job_id"].as_integer() == jobs.c.id)
            | (slots.c.restore["job_id"].as_integer() == jobs.c.id),
        ),
    )
    return select(chains.c.id).where(chains.c.created_at < before, later, ~is_at_work, ~is_named)


def _delete_chains(tx: Connection, before: datetime, pruned: Pruned) -> bool:
    chain_ids = list(tx.execute(_old_chains(before).order_by(chains.c.id).limit(BATCH)).scalars())
    if not chain_ids:
        return False
    job_ids = select(jobs.c.id).where(jobs.c.chain_id.in_(chain_ids))
    for table in (job_progress, job_beats, job_attempts):
        gone = tx.execute(delete(table).where(table.c.job_id.in_(job_ids)))
        if table is job_attempts:
            pruned.add(table.name, gone.rowcount)
    pruned.add("jobs", tx.execute(delete(jobs).where(jobs.c.chain_id.in_(chain_ids))).rowcount)
    pruned.add("chains", tx.execute(delete(chains).where(chains.c.id.in_(chain_ids))).rowcount)
    return True


# -- processes that are gone, and what was found of the machine before its newest look ------------


def _old_owners(before: datetime) -> Select[tuple[str]]:
    holds = exists().where(leases.c.owner_id == owners.c.id) | exists().where(
        engine_lane.c.owner_id == owners.c.id
    )
    return select(owners.c.id).where(owners.c.ended_at < before, ~holds)


def _old_probes(before: datetime) -> Select[tuple[int]]:
    newest = select(func.max(probes.c.id)).scalar_subquery()
    return select(probes.c.id).where(probes.c.at < before, probes.c.id != newest)


def _delete_some(
    tx: Connection, table: Table, old: Select[tuple[int]] | Select[tuple[str]], pruned: Pruned
) -> bool:
    gone = tx.execute(delete(table).where(table.c.id.in_(old.limit(BATCH)))).rowcount
    pruned.add(table.name, gone)
    return gone > 0


# -- the audit -----------------------------------------------------------------------------------


def _old_transitions(before: datetime) -> Select[tuple[int]]:
    later = transitions.alias("later")
    is_past = exists().where(
        later.c.slot_id == transitions.c.slot_id, later.c.id > transitions.c.id
    )
    return select(transitions.c.id).where(transitions.c.at < before, is_past)


def _delete_transitions(tx: Connection, before: datetime, pruned: Pruned) -> bool:
    some = list(
        tx.execute(_old_transitions(before).order_by(transitions.c.id).limit(BATCH)).scalars()
    )
    if not some:
        return False
    gone = tx.execute(delete(transitions).where(transitions.c.id.in_(some)))
    pruned.add("transitions", gone.rowcount)
    return True
