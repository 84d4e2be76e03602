"""Why a queued job does not run yet, told from the same rows that the claim looks at."""

from dataclasses import dataclass, fields
from datetime import timedelta
from itertools import chain
from typing import Final, Self

from sqlalchemy import Connection, select, union_all

from hal0.clock import boot_id, monotonic_ms, utc_now
from hal0.jobs.ledger import drains
from hal0.jobs.ledger.drains import Wait
from hal0.jobs.ledger.lane import Lane, lanes
from hal0.jobs.ledger.rows import IS_QUEUED, IS_RUNNING, Job
from hal0.jobs.outlook import TO_THE_SECOND
from hal0.states import JobKind, JobState, Origin, Outcome, SlotState
from hal0.tables import chains, engines, jobs, slots

NEXT_TRY: Final = "its next try"


@dataclass(frozen=True, slots=True)
class InLine:
    """A queued or running job, as far as others wait for it."""

    id: int
    slot_id: int
    engine_id: int
    model_id: int | None
    kind: str
    state: str
    position: int
    fetches: int
    origin: str
    """Its chain's."""


_NAMES = [field.name for field in fields(InLine)]
_OF_JOBS = select(
    *(jobs.c[name].label(name) for name in _NAMES[:-1]),
    chains.c.origin.label("origin"),
    jobs.c.step.label("step"),
).join(chains, chains.c.id == jobs.c.chain_id)
_UNFINISHED = union_all(_OF_JOBS.where(IS_RUNNING), _OF_JOBS.where(IS_QUEUED)).order_by(
    "position", "step"
)


@dataclass(frozen=True, slots=True)
class Waits:
    """All that a job may have to wait for, at one moment."""

    lines: dict[int, list[InLine]]
    """Unfinished jobs by slot id: the running one, then the queued ones in their order."""

    lanes: dict[int, Lane]
    unload_marks: dict[int, int]
    """By slot id, the job whose unload the engine has not settled."""

    unloads: dict[int, Wait]
    """By job id, the queued unloads that let requests end."""

    pulling: frozenset[int]
    """Slots whose models are being fetched."""

    slot_names: dict[int, str]
    engine_names: dict[int, str]

    @classmethod
    def read(cls, tx: Connection) -> Self:
        """Take the picture; needs no more than a read."""
        lines: dict[int, list[InLine]] = {}
        for row in tx.execute(_UNFINISHED):
            job = InLine(*row[: len(_NAMES)])
            line = lines.setdefault(job.slot_id, [])
            line.insert(0 if job.state == JobState.RUNNING else len(line), job)
        marked = tx.execute(
            select(slots.c.id, slots.c.unload_job_id).where(slots.c.unload_job_id.is_not(None))
        )
        named = tx.execute(select(slots.c.id, slots.c.name, slots.c.state)).all()
        return cls(
            lines,
            {lane.engine_id: lane for lane in lanes(tx)},
            {row.id: row.unload_job_id for row in marked},
            drains.waits(tx),
            frozenset(row.id for row in named if row.state == SlotState.PULLING),
            {row.id: row.name for row in named},
            {row.id: row.name for row in tx.execute(select(engines.c.id, engines.c.name))},
        )

    def reason(self, job: Job) -> str | None:
        """Return what a queued job waits for; None = for a free thread alone, or it is not queued.

        The order is that of `runnable.RUNNABLE`.
        """
        if job.state is not JobState.QUEUED:
            return None
        first = self.lines[job.slot_id][0]
        if first.id != job.id:
            return f"job {first.id} ({first.kind}) of this slot"
        if job.kind is JobKind.LOAD and not job.was_sent:
            reason = self._lane(job) or self._at_the_engine(job) or self._restores(first)
        elif job.kind is JobKind.UNLOAD:
            lane = self.lanes.get(job.engine_id)
            reason = self._lane(job) if lane and lane.slot_id == job.slot_id else None
            reason = reason or self._requests(job)
        elif job.kind is JobKind.PULL:
            reason = self._pull(job)
        else:
            reason = None
        return reason or self._later(job)

    def _lane(self, job: Job) -> str | None:
        lane = self.lanes.get(job.engine_id)
        if lane is None:
            return None
        return (
            f"lane of engine {self.engine_names[lane.engine_id]}: "
            f"load of slot {self.slot_names[lane.slot_id]} (job {lane.job_id})"
        )

    def _at_the_engine(self, job: Job) -> str | None:
        for other in self._running(JobKind.UNLOAD, JobKind.LOAD):
            if other.engine_id == job.engine_id:
                return f"{other.kind} of slot {self.slot_names[other.slot_id]} (job {other.id})"
        mark = self.unload_marks.get(job.slot_id)
        return (
            None if mark is None else f"the engine to settle the unload of this slot (job {mark})"
        )

    def _restores(self, first: InLine) -> str | None:
        """What is loaded again is loaded in the order in which it was asked for, if it is there."""
        if first.origin != Origin.RESTORE:
            return None
        for other in chain.from_iterable(self.lines.values()):
            is_before = (other.engine_id, other.origin) == (first.engine_id, Origin.RESTORE)
            is_before = is_before and other.position < first.position
            if is_before and other.kind == JobKind.LOAD and not self._is_fetched(other):
                return f"load of slot {self.slot_names[other.slot_id]} (job {other.id})"
        return None

    def _is_fetched(self, load: InLine) -> bool:
        """Whether the model of a load is being downloaded, or waits for another download to end."""
        queued = [job for job in self.lines[load.slot_id] if job.state == JobState.QUEUED]
        waits = any(job.fetches and job.position == load.position for job in queued)
        return waits or load.slot_id in self.pulling

    def _pull(self, job: Job) -> str | None:
        for other in self._running(JobKind.PULL):
            if other.model_id == job.model_id:
                slot = self.slot_names[other.slot_id]
                return f"pull of the same model for slot {slot} (job {other.id})"
        return None

    def _requests(self, job: Job) -> str | None:
        wait = self.unloads.get(job.id)
        if wait is None or wait.requests is None or monotonic_ms() >= wait.until_ms:
            return None
        count = "" if not wait.requests else f"{wait.requests} "
        what = "request" if wait.requests == 1 else "requests"
        return f"{count}running {what} of this slot to end, {_span(wait)}"

    def _later(self, job: Job) -> str | None:
        if job.fetches and job.outcome is Outcome.DEFERRED and job.run_after_ms is None:
            return "another download of its worker to end"
        if job.run_after_ms is None or job.run_after_boot != boot_id():
            return None
        if job.run_after_ms <= monotonic_ms():
            return None
        if (wait := self.unloads.get(job.id)) is not None:
            return f"requests past hal0 to end, {_span(wait)}"
        if job.outcome is Outcome.DEFERRED and job.kind not in (JobKind.PULL, JobKind.UNLOAD):
            return f"engine {self.engine_names[job.engine_id]}"
        return NEXT_TRY

    def _running(self, *kinds: JobKind) -> list[InLine]:
        heads = (line[0] for line in self.lines.values())
        return [job for job in heads if job.state == JobState.RUNNING and job.kind in kinds]


def _span(wait: Wait) -> str:
    """Say since when, and until when, on the clock of people."""
    now, now_ms = utc_now(), monotonic_ms()
    since, until = (
        (now + timedelta(milliseconds=ms - now_ms)).strftime(TO_THE_SECOND)
        for ms in (wait.since_ms, wait.until_ms)
    )
    return f"since {since}, no longer than until {until}"
