"""How long work took before: the median of what went well, by kind of job and model."""

from collections.abc import Collection
from statistics import median
from typing import Final

from sqlalchemy import Connection, select

from hal0.states import JobKind, Outcome
from hal0.tables import job_attempts, jobs

LOOKED_AT: Final = 20
"""So many of the newest are looked at: what a disk or an engine was a year ago tells nothing."""

Work = tuple[JobKind, int]
"""A kind of job, and the id of the model that it is about."""


def usual_times_s(tx: Connection, asked: Collection[Work]) -> dict[Work, float]:
    """Return seconds by work; what was never done, or never in full, is left out."""
    found: dict[Work, float] = {}
    for kind, model_id in asked:
        rows = tx.execute(
            select(job_attempts.c.started_at, job_attempts.c.ended_at)
            .join(jobs, jobs.c.id == job_attempts.c.job_id)
            .where(
                jobs.c.model_id == model_id,
                jobs.c.kind == kind,
                job_attempts.c.outcome == Outcome.DONE,
            )
            .order_by(jobs.c.id.desc())
            .limit(LOOKED_AT)
        )
        times = [max(0.0, (row.ended_at - row.started_at).total_seconds()) for row in rows]
        if times:
            found[kind, model_id] = median(times)
    return found
