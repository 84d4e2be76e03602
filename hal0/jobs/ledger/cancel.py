"""What a newer intent, or a cancel, takes out of the queue: never what the engine has already."""

from collections.abc import Sequence

from sqlalchemy import Connection, update

from hal0.clock import utc_now
from hal0.jobs.ledger.claims import cancel_queued, cancel_running
from hal0.jobs.ledger.rows import By, Claim, Job, chain_by_id, unfinished_jobs
from hal0.slots.queries import Slot, slot_by_id
from hal0.slots.transitions import Act, move
from hal0.states import Cause, JobKind, JobState, Outcome, SlotState
from hal0.tables import chains, jobs


def supersede(tx: Connection, slot: Slot, open_chains: Sequence[Sequence[Job]], by: By) -> None:
    """Cancel what older intents have not sent; let what they sent run to its end."""
    for chain_jobs in open_chains:
        sent = next((job for job in chain_jobs if job.was_sent), None)
        if sent is None:
            cancel_chain(tx, slot_by_id(tx, slot.id), chain_jobs, Outcome.SUPERSEDED, by)
        elif sent.kind is JobKind.UNLOAD:
            cancel_queued_behind(tx, sent)


def cancel_queued_behind(tx: Connection, sent: Job) -> None:
    """Make a sent unload the last job of its chain."""
    tx.execute(
        update(jobs)
        .where(jobs.c.chain_id == sent.chain_id, jobs.c.step > sent.step)
        .where(jobs.c.state == JobState.QUEUED)
        .values(state=JobState.CANCELLED, outcome=Outcome.SUPERSEDED, ended_at=utc_now())
    )
    tx.execute(update(chains).where(chains.c.id == sent.chain_id).values(goal=JobKind.UNLOAD))


def cancel_chain(
    tx: Connection, slot: Slot, chain_jobs: Sequence[Job], outcome: Outcome, by: By
) -> None:
    """Cancel a chain of which nothing was sent, and take its transient state back with it."""
    is_first = unfinished_jobs(tx, slot.id)[0].chain_id == chain_jobs[0].chain_id
    chain = chain_by_id(tx, chain_jobs[0].chain_id)
    for job in chain_jobs:
        if job.state is JobState.RUNNING:
            cancel_running(tx, Claim(job, chain), outcome)
    cancel_queued(tx, chain.id, outcome)
    if is_first and slot.state in (SlotState.PULLING, SlotState.STARTING):
        act = Act(by.actor, chain_jobs[0].id, request_id=by.request_id)
        move(tx, slot, SlotState.OFFLINE, Cause.CANCELLED, act)
