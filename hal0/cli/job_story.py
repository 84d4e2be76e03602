"""What `hal0 job show` says first: what the job is for, how each attempt went, its phases."""

from collections.abc import Iterator
from datetime import datetime

from hal0.cli.client import Json
from hal0.cli.outcome import with_names
from hal0.cli.times import clock_of
from hal0.page.words import lasted


def story(job: Json, chain: Json) -> Iterator[str]:
    """Yield the lines."""
    outcome = f" ({job['outcome']})" if job["outcome"] not in (None, job["state"]) else ""
    model = f", model {job['model']}" if job["model"] else ""
    yield f"job {job['id']} {job['kind']} of slot {job['slot']}{model}: {job['state']}{outcome}"
    caused = f", because of job {job['caused_by']}" if job["caused_by"] else ""
    yield f"asked for by {job['actor']}{caused}, {clock_of(job['created_at'])}"
    if job["incident_id"]:
        incident = job["incident_id"]
        yield f"it made incident {incident}: `hal0 incident show {incident}` says what that cost"
    if job["error"]:
        yield from _error(job["error"], job)
    if job["state"] == "failed":
        yield f"to mend it: remove the cause, then `hal0 job retry {job['id']} --wait`"
    for attempt in job["attempts"]:
        took = lasted(_seconds(attempt["started_at"], attempt["ended_at"]))
        began = clock_of(attempt["started_at"])
        yield f"attempt {attempt['attempt']}: {began}, {attempt['outcome']} after {took}"
        if attempt["error"] and attempt["error"] != job["error"]:
            yield from (f"  {line}" for line in _error(attempt["error"], job))
    yield f"chain {chain['id']}, to {chain['goal']}: {chain['state']}"
    for one in chain["jobs"]:
        yield f"  job {one['id']} {one['kind']}: {_how(one)}"


def _error(error: Json, job: Json) -> Iterator[str]:
    yield f"{error['code']}: {with_names(error['detail'], job)}"
    for name, value in (error["evidence"] or {}).items():
        yield f"  {name}: {value}"


def _how(job: Json) -> str:
    """Say how a job of the chain stands, and how long its attempts took together."""
    worked_s = sum(_seconds(one["started_at"], one["ended_at"]) for one in job["attempts"])
    state = "nothing to do" if job["outcome"] == "skipped" else str(job["state"])
    return f"{state}, {lasted(worked_s)}" if job["attempts"] else state


def _seconds(began_at: str, ended_at: str) -> float:
    began, ended = map(datetime.fromisoformat, (began_at, ended_at))
    return max(0.0, (ended - began).total_seconds())
