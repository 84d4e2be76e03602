"""How things look as JSON: ids are integers, times RFC 3339 in UTC with `Z`."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final, Literal, cast, overload

from hal0.access.tokens import Token
from hal0.api import answers
from hal0.clock import boot_id, monotonic_ms, utc_now
from hal0.firstrun.fit import estimated_memory
from hal0.jobs.bulk import Cancelled, Retried
from hal0.jobs.ledger.intake import Accepted
from hal0.jobs.ledger.rows import Job
from hal0.jobs.queries import Attempt, ChainDetail, JobDetail, Progress
from hal0.registry.catalog import Model, RegisteredFile
from hal0.slots.audit import AuditRow
from hal0.states import JobKind, JobState
from hal0.tables import as_text

NOTABLE: Final[tuple[Literal["size_bytes"], Literal["sha256"]]] = ("size_bytes", "sha256")
"""What a pull finds out of a file when nobody has told it."""


@overload
def when(at: datetime) -> str: ...
@overload
def when(at: datetime | None) -> str | None: ...
def when(at: datetime | None) -> str | None:
    """Return the instant as text."""
    return None if at is None else as_text(at)


def problem_of(row: Mapping[str, Any] | None) -> answers.Fault | None:
    """Return an error as rows keep it: `{code, detail, evidence, job_id}`."""
    if row is None:
        return None
    return {
        "code": row["code"],
        "detail": row["detail"],
        "evidence": row.get("evidence"),
        "job_id": row.get("job_id"),
    }


def job_json(detail: JobDetail) -> answers.Job:
    """Show a job with its ended attempts."""
    job, progress = detail.job, detail.progress
    return {
        "id": job.id,
        "chain_id": job.chain_id,
        "kind": job.kind,
        "state": job.state,
        "outcome": job.outcome,
        "slot": detail.slot,
        "model": detail.model,
        "engine": detail.engine,
        "attempt": job.attempt,
        "created_at": when(job.created_at),
        "run_after": run_after(job),
        "started_at": when(job.started_at),
        "ended_at": when(job.ended_at),
        "deadline_at": when(job.deadline_at),
        "waiting_for": detail.waiting_for,
        "caused_by": detail.caused_by,
        "incident_id": detail.incident_id,
        "actor": detail.actor,
        "progress": None if progress is None else progress_json(progress),
        "files": _files_of(job),
        "error": problem_of(job.error),
        "attempts": [attempt_json(attempt) for attempt in detail.attempts],
    }


def _files_of(job: Job) -> Any:
    """Show how the files of a model came, or that they are good; None of other jobs."""
    files = (job.result or {}).get("files")
    if job.state is not JobState.SUCCEEDED or files is None:
        return None
    return files if job.kind is JobKind.PULL else {file["path"]: "good" for file in files}


def progress_json(progress: Progress) -> answers.Progress:
    """Show how far a job is; a total of 0 bytes, null rates and times = nobody knows."""
    rate, left_s = progress.rate_bytes_s, progress.left_s
    return {
        "phase": progress.phase,
        "done_bytes": progress.done_bytes,
        "total_bytes": progress.total_bytes,
        "rate_bytes_s": None if rate is None else round(rate),
        "left_s": None if left_s is None else round(left_s, 1),
    }


def run_after(job: Job) -> str | None:
    """Return when a job that was put back may run again, if that is still to come."""
    if not job.is_unfinished or job.run_after_ms is None or job.run_after_boot != boot_id():
        return None
    left_ms = job.run_after_ms - monotonic_ms()
    return when(utc_now() + timedelta(milliseconds=left_ms)) if left_ms > 0 else None


def attempt_json(attempt: Attempt) -> answers.Attempt:
    """Show an ended attempt."""
    return {
        "attempt": attempt.attempt,
        "owner": attempt.owner,
        "started_at": when(attempt.started_at),
        "ended_at": when(attempt.ended_at),
        "outcome": attempt.outcome,
        "error": problem_of(attempt.error),
    }


def chain_json(detail: ChainDetail) -> answers.Chain:
    """Show a chain with its jobs."""
    chain = detail.chain
    return {
        "id": chain.id,
        "slot": detail.slot,
        "goal": chain.goal,
        "state": detail.state,
        "origin": chain.origin,
        "actor": chain.actor,
        "request_id": chain.request_id,
        "model": detail.model,
        "options": cast(answers.Options | None, chain.options),
        "rehash": chain.rehash,
        "force": chain.force,
        "drain_timeout_s": chain.drain_timeout_s,
        "caused_by": chain.caused_by_job_id,
        "created_at": when(chain.created_at),
        "jobs": [job_json(job) for job in detail.jobs],
    }


def accepted_json(accepted: Accepted) -> answers.Accepted:
    """Show what a request became."""
    return {
        "already": accepted.already,
        "chain_id": accepted.chain_id,
        "jobs": list(accepted.job_ids),
        "deduplicated": accepted.deduplicated,
    }


def result_json(detail: ChainDetail) -> answers.Ending:
    """Show how a chain ended, to who waited for it."""
    return {
        "state": detail.state,
        "results": [
            {
                "id": job.job.id,
                "kind": job.job.kind,
                "state": job.job.state,
                "outcome": job.job.outcome,
                "error": problem_of(job.job.error),
            }
            for job in detail.jobs
        ],
    }


def retried_json(retried: Retried) -> answers.Retried:
    """Show what a bulk retry did, or would do, about one failed job."""
    refusal = None if retried.refusal is None else retried.refusal.as_row()
    return {
        "slot": retried.slot,
        "job_id": retried.failed.id,
        "chain_id": retried.failed.chain_id,
        "kind": retried.failed.kind,
        "failed_with": (retried.failed.error or {}).get("code"),
        "jobs": list(retried.job_ids),
        "refused": cast(answers.Refusal | None, refusal),
    }


def cancelled_json(cancelled: Cancelled) -> answers.CancelledJob:
    """Show what a bulk cancel did, or would do, about one unfinished job."""
    refusal = None if cancelled.refusal is None else cancelled.refusal.as_row()
    return {
        "slot": cancelled.slot,
        "job_id": cancelled.job.id,
        "chain_id": cancelled.job.chain_id,
        "kind": cancelled.job.kind,
        "was": cancelled.job.state,
        "jobs": list(cancelled.job_ids),
        "refused": cast(answers.Refusal | None, refusal),
    }


def model_json(model: Model, verified: Mapping[Path, datetime]) -> answers.Model:
    """Show a model; `verified` says when which of its files was last found good.

    `on_disk` comes from those rows: true, or null for unknown. No file is looked at here.
    """
    return {
        "name": model.name,
        "format": model.format,
        "allow_copy": model.allow_copy,
        "files": [_file_json(file, verified.get(file.path)) for file in model.files],
        "source": model.main.shown_source,
        "on_disk": True if all(file.path in verified for file in model.files) else None,
        "memory_bytes": _memory_of(model.files),
    }


def _memory_of(files: Sequence[RegisteredFile]) -> int | None:
    sizes = [file.size_bytes for file in files if file.size_bytes is not None]
    return estimated_memory(sum(sizes) if len(sizes) == len(files) else None)


def _file_json(file: RegisteredFile, verified_at: datetime | None) -> answers.ModelFile:
    told = file.told
    return {
        "role": file.role,
        "path": str(file.path),
        "source": file.shown_source,
        "has_query": file.shown_source != file.source,
        "size_bytes": file.size_bytes,
        "sha256": file.sha256,
        "noted": [name for name in NOTABLE if getattr(told, name) != getattr(file, name)],
        "verified_at": when(verified_at),
    }


def transition_json(row: AuditRow) -> answers.Transition:
    """Show a row of the audit."""
    return {
        "id": row.id,
        "at": when(row.at),
        "slot": row.slot,
        "from": row.from_state,
        "to": row.to_state,
        "cause": row.cause,
        "actor": row.actor,
        "job_id": row.job_id,
        "request_id": row.request_id,
        "incident_id": row.incident_id,
        "evidence": row.evidence,
    }


def token_json(token: Token) -> answers.Token:
    """Show a token, as far as its row knows it."""
    return {
        "name": token.name,
        "role": str(token.role),
        "state": token.state,
        "created_at": when(token.created_at),
        "created_by": token.created_by,
        "expires_at": when(token.expires_at),
        "revoked_at": when(token.revoked_at),
        "revoked_by": token.revoked_by,
        "last_used_at": when(token.last_used_at),
    }


def new_token_json(token: Token, text: str) -> answers.NewToken:
    """Show a token that was just made, with its text."""
    return {**token_json(token), "token": text}
