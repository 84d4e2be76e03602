"""How often things happened, counted from rows: only what is new is read, however long the past is.

The first look reads all rows that are kept, so a new process counts on where the one before it was;
it can be taken in pages. What is pruned later stays counted for as long as the process lives; a new
one begins without it.
"""

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import product
from typing import Final

from sqlalchemy import (
    Connection,
    bindparam,
    func,
    select,
)

from hal0.errors import PreloadError, WorkerCrashed, tree
from hal0.jobs.phases import Phase, Span, loads, pauses
from hal0.jobs.traces import ATTEMPT_ROW, newest
from hal0.states import Cause, IncidentKind, JobKind, JobState, Outcome
from hal0.tables import chains, incidents, job_attempts, jobs, model_files, owners, transitions

BUCKETS_S: Final = (1, 2, 5, 10, 20, 40, 60, 90, 120, 300, 600)
"""What loads take, and what their time limits are."""
AT_ONCE: Final = 2_000
"""So many attempts are in memory; a page of them takes some 30 ms."""
MOVES_AT_ONCE: Final = 100_000
"""So many transitions are counted by one query, in some 60 ms."""
DRIFT: Final = (
    Cause.ADOPTED,
    Cause.EVICTED_BY_ENGINE,
    Cause.UNLOADED_ELSEWHERE,
    Cause.ENGINE_RESTARTED,
    Cause.ENGINE_LOST,
)
"""What an engine did past hal0."""
REFUSALS: Final = frozenset(error.code for error in tree(PreloadError))
RESCUES: Final = ("put_back", "failed")
BROUGHT: Final = frozenset({"downloaded", "copied"})


@dataclass(slots=True)
class Histogram:
    """How long something took: how often up to each of the buckets, and in all."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS_S) + 1))
    """By bucket, not added up; the last one is of what took longer."""
    sum_s: float = 0.0

    def observe(self, seconds: float) -> None:
        """Count one."""
        self.counts[bisect_left(BUCKETS_S, seconds)] += 1
        self.sum_s += seconds


_IS_NEW: Final = ATTEMPT_ROW.between(bindparam("first"), bindparam("last"))
_CHANGED: Final = (
    select(jobs.c.chain_id).join(job_attempts, job_attempts.c.job_id == jobs.c.id).where(_IS_NEW)
)
_ATTEMPTS: Final = (
    select(
        ATTEMPT_ROW.label("row"),
        jobs.c.chain_id,
        chains.c.created_at,
        jobs.c.kind,
        job_attempts.c.outcome,
        job_attempts.c.started_at,
        job_attempts.c.ended_at,
        func.json_extract(job_attempts.c.error, "$.code").label("code"),
    )
    .join(jobs, jobs.c.id == job_attempts.c.job_id)
    .join(chains, chains.c.id == jobs.c.chain_id)
    .where(jobs.c.chain_id.in_(_CHANGED), ATTEMPT_ROW.between(0, bindparam("last")))
    .order_by(ATTEMPT_ROW)
)
_PULLED: Final = (
    select(jobs.c.id, jobs.c.model_id, jobs.c.result)
    .join(job_attempts, job_attempts.c.job_id == jobs.c.id)
    .where(
        _IS_NEW,
        jobs.c.kind == JobKind.PULL,
        jobs.c.state == JobState.SUCCEEDED,
        job_attempts.c.outcome == Outcome.DONE,
    )
)
_SIZES: Final = select(model_files.c.model_id, model_files.c.path, model_files.c.size_bytes).where(
    model_files.c.model_id.in_(bindparam("models", expanding=True))
)
_MOVES: Final = (
    select(
        transitions.c.slot_id,
        transitions.c.to_state,
        transitions.c.cause,
        func.count().label("times"),
    )
    .where(transitions.c.id.between(bindparam("first"), bindparam("last")))
    .group_by(transitions.c.slot_id, transitions.c.to_state, transitions.c.cause)
)
_INCIDENTS: Final = (
    select(incidents.c.kind, func.count().label("times"))
    .where(incidents.c.id.between(bindparam("first"), bindparam("last")))
    .group_by(incidents.c.kind)
)
_FENCED: Final = select(owners.c.id, owners.c.fenced_writes).where(owners.c.fenced_writes > 0)
_LAST_INCIDENT: Final = select(incidents.c.id).order_by(incidents.c.id.desc()).limit(1)


class Tallies:
    """What was counted up to now; to be read by one thread at a time."""

    def __init__(self, at_once: int = AT_ONCE) -> None:
        """`at_once` attempts at most are of one page."""
        self._at_once = at_once
        self.moves: Counter[tuple[int, str, str]] = Counter()
        """By slot id, state and cause."""
        self.drift: Counter[Cause] = Counter(dict.fromkeys(DRIFT, 0))
        self.incidents: Counter[IncidentKind] = Counter(dict.fromkeys(IncidentKind, 0))
        # All that there can be is told from the beginning: a rate is of two numbers, not of one.
        self.attempts = Counter(dict.fromkeys(product(JobKind, Outcome), 0))
        self.rescues = Counter(dict.fromkeys(product(JobKind, RESCUES), 0))
        """By kind and what became of the job."""
        self.refusals: Counter[str] = Counter(dict.fromkeys(sorted(REFUSALS), 0))
        """By code: files that were not fit to load, and loads that took too long."""
        self.fenced: dict[str, int] = {}
        """By process: writes that the fence stopped."""
        self.pulled_bytes = 0
        self.durations = {kind: Histogram() for kind in JobKind}
        self.waits = {kind: Histogram() for kind in JobKind}
        self.phases = {phase: Histogram() for phase in Phase}
        self.loads = Histogram()
        self._transition = self._attempt = self._incident = 0

    def read(self, tx: Connection) -> None:
        """Count what came since the last time."""
        while not self.read_page(tx):
            pass

    def read_page(self, tx: Connection) -> bool:
        """Count a page of what came since the last time; tell whether that was all."""
        self.fenced.update((row.id, row.fenced_writes) for row in tx.execute(_FENCED))
        self._read_incidents(tx, tx.execute(_LAST_INCIDENT).scalar() or 0)
        transition, _, attempt = newest(tx)
        self._read_moves(tx, min(transition, self._transition + MOVES_AT_ONCE))
        if self._attempt < attempt:
            last = min(attempt, self._attempt + self._at_once)
            self._read_attempts(tx, {"first": self._attempt + 1, "last": last})
            self._attempt = last
        else:
            self._attempt = attempt  # a VACUUM may have numbered them anew
        return self._transition >= transition and self._attempt >= attempt

    def _read_moves(self, tx: Connection, last: int) -> None:
        if last <= self._transition:
            return
        for row in tx.execute(_MOVES, {"first": self._transition + 1, "last": last}).all():
            self.moves[row.slot_id, row.to_state, row.cause] += row.times
            if row.cause in DRIFT:
                self.drift[Cause(row.cause)] += row.times
        self._transition = last

    def _read_incidents(self, tx: Connection, last: int) -> None:
        if last <= self._incident:
            return
        for row in tx.execute(_INCIDENTS, {"first": self._incident + 1, "last": last}).all():
            self.incidents[IncidentKind(row.kind)] += row.times
        self._incident = last

    def _read_attempts(self, tx: Connection, rows: Mapping[str, int]) -> None:
        asked_at: dict[int, datetime] = {}
        spans: dict[int, list[Span]] = defaultdict(list)
        for row in tx.execute(_ATTEMPTS, rows):
            asked_at[row.chain_id] = row.created_at
            kind, outcome = JobKind(row.kind), Outcome(row.outcome)
            span = Span(row.row, kind, outcome, row.started_at, row.ended_at, row.code)
            spans[row.chain_id].append(span)
        self.pulled_bytes += _pulled_bytes(tx, rows)  # the last of what may fail: nothing is half
        for chain_id, of_chain in spans.items():
            self._count(asked_at[chain_id], of_chain, rows["first"])

    def _count(self, asked_at: datetime, spans: Sequence[Span], first: int) -> None:
        """Count what of a chain is new."""
        before = pauses(asked_at, spans)
        for span, pause in zip(spans, before, strict=True):
            if span.row >= first:
                self._count_attempt(span)
                if not pause.is_failed:
                    self.waits[span.kind].observe(pause.seconds)
        for span, phases in loads(spans, before):
            if span.row >= first:
                self.loads.observe(sum(phases.values()))
                for phase, seconds in phases.items():
                    self.phases[phase].observe(seconds)

    def _count_attempt(self, span: Span) -> None:
        self.attempts[span.kind, span.outcome] += 1
        if span.outcome in (Outcome.DONE, Outcome.FAILED):
            self.durations[span.kind].observe(span.seconds)
        if span.code in REFUSALS:
            self.refusals[str(span.code)] += 1
        if span.outcome is Outcome.INTERRUPTED:
            self.rescues[span.kind, "put_back"] += 1
        elif span.code == WorkerCrashed.code:
            self.rescues[span.kind, "failed"] += 1


def _pulled_bytes(tx: Connection, rows: Mapping[str, int]) -> int:
    """Return the size of the files that these attempts brought."""
    pulled = tx.execute(_PULLED, rows).all()
    if not pulled:
        return 0
    files = tx.execute(_SIZES, {"models": list({row.model_id for row in pulled})})
    sizes = {(row.model_id, row.path): row.size_bytes or 0 for row in files}
    return sum(
        sizes.get((row.model_id, path), 0)
        for row in pulled
        for path, how in ((row.result or {}).get("files") or {}).items()
        if how in BROUGHT
    )
