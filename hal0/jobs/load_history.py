"""How the newest loads of a slot went: who asked, how long each phase took, how long is usual."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, select

from hal0.jobs.expectations import usual_times_s
from hal0.jobs.phases import Phase, Span, pauses
from hal0.jobs.queries import ChainDetail, chain_detail
from hal0.slots.queries import Slot
from hal0.states import FINISHED, JobKind, Outcome
from hal0.tables import chains

EXPECTED: Final = (JobKind.PULL, JobKind.VALIDATE, JobKind.LOAD)
"""Kinds of work whose length depends on the model alone."""


@dataclass(frozen=True, slots=True)
class PastLoad:
    """A chain that was to load a slot, and what its time went into, as far as attempts ended."""

    chain: ChainDetail
    phases: Mapping[Phase, float]

    @property
    def ended_at(self) -> datetime | None:
        """When nothing of it was left to happen; None = something is."""
        listed = [detail.job for detail in self.chain.jobs]
        if not FINISHED.issuperset(job.state for job in listed):
            return None
        return max((job.ended_at for job in listed if job.ended_at is not None), default=None)

    @property
    def seconds(self) -> float:
        """How long it took, waiting included; not how long it lay failed until it was retried."""
        return sum(self.phases.values()) - self.phases[Phase.FAILED]


def past_loads(tx: Connection, slot: Slot, limit: int) -> list[PastLoad]:
    """Return the newest loads of a slot, the one first that was asked for, or retried, last."""
    newest = (
        select(chains.c.id)
        .where(chains.c.slot_id == slot.id, chains.c.goal == JobKind.LOAD)
        .order_by(chains.c.position.desc())
        .limit(limit)
    )
    found = [chain_detail(tx, chain_id) for chain_id in tx.execute(newest).scalars()]
    return [PastLoad(chain, _spent(chain)) for chain in found]


def usual_s(tx: Connection, slot: Slot) -> dict[JobKind, float]:
    """Return how long each kind of work usually takes of the model that a slot has, else wants."""
    model_id = slot.model_id if slot.model_id is not None else slot.wanted_model_id
    if model_id is None:
        return {}
    asked = [(kind, model_id) for kind in EXPECTED]
    return {kind: seconds for (kind, _), seconds in usual_times_s(tx, asked).items()}


def _spent(chain: ChainDetail) -> dict[Phase, float]:
    """Return what the time of a chain went into, from its order to the end of its last attempt."""
    spans = [
        Span(
            0,
            detail.job.kind,
            Outcome(attempt.outcome),
            attempt.started_at,
            attempt.ended_at,
        )
        for detail in chain.jobs
        for attempt in detail.attempts
    ]
    spans.sort(key=lambda span: span.ended_at)
    told = dict.fromkeys(Phase, 0.0)
    for span, pause in zip(spans, pauses(chain.chain.created_at, spans), strict=True):
        told[Phase.FAILED if pause.is_failed else Phase.WAITED] += pause.seconds
        told[Phase(span.kind)] += span.seconds
    return told
