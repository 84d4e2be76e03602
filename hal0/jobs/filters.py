"""What somebody types to choose rows: `slot:chat state:failed since:2h`, read into filters.

Terms are `key:value`, with spaces between; all must fit; a key stands once. The same text serves
the page, REST (`?filter=`) and the command line, so what one shows the other exports.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final, TypeVar

from sqlalchemy import Connection, select

from hal0.clock import utc_now
from hal0.errors import InvalidRequest, tree
from hal0.jobs.bulk import BulkFilter
from hal0.jobs.queries import MAX_ID, JobFilter
from hal0.slots.audit import AuditFilter
from hal0.slots.overview import ids_ever_named
from hal0.states import Cause, JobKind, JobState, SlotState
from hal0.tables import slots, tokens
from hal0.timespans import hour_of_day, span_of

MAX_LENGTH: Final = 500
SPANS: Final = ("15m", "2h", "24h", "7d")
"""What is offered for `since` and `until`."""

E = TypeVar("E", bound=StrEnum)
F = TypeVar("F", JobFilter, BulkFilter, AuditFilter)


def _text(key: str, value: str) -> str:
    return value


def _number(key: str, value: str) -> int:
    if value.isascii() and value.isdigit() and int(value) <= MAX_ID:
        return int(value)
    raise _refused(f"{key}:{value} is no number; give an id, as in {key}:12")


def _instant(key: str, value: str) -> datetime:
    try:
        ago, hour, now = span_of(value), hour_of_day(value), utc_now()
        if ago is not None:
            return now - ago
        at = datetime.fromisoformat(value) if hour is None else datetime.combine(now, hour)
        return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except (ValueError, OverflowError):
        raise _refused(
            f"{key}:{value} is no time; give how long ago ({key}:90m, {key}:2h, {key}:3d) or a "
            f"time of UTC ({key}:14:00, {key}:2026-11-01T12:00Z)"
        ) from None


def _instant_or_id(key: str, value: str) -> datetime | int:
    """Read an instant, or behind which row: digits alone, as everywhere else."""
    return _number(key, value) if value.isascii() and value.isdigit() else _instant(key, value)


def _one_of(kind: type[E]) -> Callable[[str, str], E]:
    def read(key: str, value: str) -> E:
        try:
            return kind(value)
        except ValueError:
            raise _refused(f"{key}:{value} is none there is; use {', '.join(kind)}") from None

    return read


Readers = Mapping[str, Callable[[str, str], Any]]
OF_JOBS: Final[Readers] = {
    "slot": _text,
    "state": _one_of(JobState),
    "kind": _one_of(JobKind),
    "code": _text,
    "actor": _text,
    "since": _instant,
    "until": _instant,
}
OF_AUDIT: Final[Readers] = {
    "slot": _text,
    "state": _one_of(SlotState),
    "cause": _one_of(Cause),
    "actor": _text,
    "job": _number,
    "incident": _number,
    "since": _instant_or_id,
    "until": _instant,
}


def job_filter(text: str) -> JobFilter:
    """Read which jobs; raises InvalidRequest."""
    return JobFilter(**_read(text, OF_JOBS))


def bulk_filter(text: str, state: JobState | None) -> BulkFilter:
    """Read which jobs a bulk takes; `state` is what it may say of it, None = queued or running.

    Raises InvalidRequest.
    """
    said = _read(text, OF_JOBS)
    given = said.pop("state", None)
    wrong = given not in (None, state) if state else given not in _OPEN
    if wrong:
        raise _refused(
            f"state:{given} cannot be meant: only failed jobs are retried, only unfinished ones "
            "cancelled; leave it out"
        )
    return BulkFilter(**said)


_OPEN: Final = (None, JobState.QUEUED, JobState.RUNNING)


def audit_filter(tx: Connection, text: str) -> AuditFilter:
    """Read which rows of the audit; raises InvalidRequest, SlotNotFound."""
    said = _read(text, OF_AUDIT)
    slot = said.get("slot")
    return AuditFilter(
        slot_ids=None if slot is None else ids_ever_named(tx, slot),
        cause=said.get("cause"),
        since=said.get("since"),
        to_state=said.get("state"),
        actor=said.get("actor"),
        job_id=said.get("job"),
        incident_id=said.get("incident"),
        until=said.get("until"),
    )


def narrowed(read: F, given: Mapping[str, Any]) -> F:
    """Return a filter with what is given beside its text; raises InvalidRequest for both of one."""
    said = {name: value for name, value in given.items() if value is not None}
    for name in said:
        if getattr(read, name) is not None:
            raise _refused(f"{name.removesuffix('_ids')} is given in the filter and beside it")
    return replace(read, **said)


def completions(tx: Connection, readers: Readers) -> list[str]:
    """Return every term worth offering, as it is typed."""
    living = select(slots.c.name).where(slots.c.deleted_at.is_(None)).order_by(slots.c.name)
    names = tx.execute(select(tokens.c.name).order_by(tokens.c.name)).scalars()
    states: Sequence[str] = [*SlotState] if readers is OF_AUDIT else [*JobState]
    known: Mapping[str, Sequence[str]] = {
        "slot": [*tx.execute(living).scalars()],
        "state": states,
        "kind": [*JobKind],
        "cause": [*Cause],
        "code": sorted(error.code for error in tree()),
        "actor": ["local", *names],
        "since": SPANS,
        "until": SPANS,
    }
    return [f"{key}:{value}" for key in readers for value in known.get(key, [""])]


def _read(text: str, readers: Readers) -> dict[str, Any]:
    if len(text) > MAX_LENGTH:
        raise _refused(f"takes {MAX_LENGTH} characters at most")
    said: dict[str, Any] = {}
    for term in text.split():
        key, colon, value = term.partition(":")
        if not colon or not value:
            raise _refused(f"{term!r} is no term; write {', '.join(f'{k}:…' for k in readers)}")
        if key not in readers:
            raise _refused(f"{key!r} is no key; use one of {', '.join(readers)}")
        if key in said:
            raise _refused(f"{key} is given twice; leave one out")
        said[key] = readers[key](key, value)
    return said


def _refused(problem: str) -> InvalidRequest:
    fields = [{"field": "filter", "problem": problem}]
    return InvalidRequest(f"filter: {problem}", evidence={"fields": fields})
