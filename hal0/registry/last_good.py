"""When the files of a model were last found good, as far as rows tell: no file is looked at.

What counts is the newest end of a pull or validation of this model, retries too. Where that was a
validation that went well, each file that it names was good, if it had the digest that is registered
now. A validation that failed takes an earlier one back, and so does a pull that brought something;
one that had nothing to do leaves all as it was.
"""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Integer, func, literal_column, select

from hal0.registry.catalog import Model
from hal0.states import JobKind, Outcome
from hal0.tables import job_attempts, jobs

# The order in which attempts were written, which a clock that is set does not change.
_WRITTEN: Final[ColumnElement[int]] = literal_column("job_attempts.rowid", Integer)


def last_found_good(tx: Connection, listed: Sequence[Model]) -> dict[int, dict[Path, datetime]]:
    """Return by model id, and path, when each file was last found good; nothing of all others."""
    ended = jobs.join(job_attempts, job_attempts.c.job_id == jobs.c.id)
    newest = (
        select(func.max(_WRITTEN))
        .select_from(ended)
        .where(
            jobs.c.model_id.in_([model.id for model in listed]),
            jobs.c.kind.in_([JobKind.PULL, JobKind.VALIDATE]),
            job_attempts.c.outcome.in_([Outcome.DONE, Outcome.FAILED]),
        )
        .group_by(jobs.c.model_id)
    )
    rows = tx.execute(
        select(jobs.c.model_id, jobs.c.result, job_attempts.c.ended_at)
        .select_from(ended)
        .where(
            _WRITTEN.in_(newest),
            jobs.c.kind == JobKind.VALIDATE,
            job_attempts.c.outcome == Outcome.DONE,
        )
    )
    found = {row.model_id: row for row in rows}
    return {model.id: _of(model, found[model.id]) for model in listed if model.id in found}


def _of(model: Model, row: Any) -> dict[Path, datetime]:
    """Return the files of a model that a validation found as they are registered."""
    facts = (row.result or {}).get("files", ())
    digests = {fact["path"]: fact["sha256"] for fact in facts}
    return {
        file.path: row.ended_at
        for file in model.files
        if str(file.path) in digests and file.sha256 in (None, digests[str(file.path)])
    }
