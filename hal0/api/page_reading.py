"""What the page shows, read on one consistent view: rows in, values for the templates out."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, func, select

from hal0.api.slots import shown_slots
from hal0.clock import utc_now
from hal0.jobs.expectations import Work as KindOfWork
from hal0.jobs.expectations import usual_times_s
from hal0.jobs.idle_scan import fadings
from hal0.jobs.incident_queries import Incident, incidents_with_ids, unacknowledged
from hal0.jobs.queries import (
    JobDetail,
    Worker,
    chains_with_ids,
    details,
    first_unfinished,
    living_workers,
)
from hal0.jobs.traces import jobs_with_ids
from hal0.page import cards, strip
from hal0.page.cards import BAD_FILES, Card, Files
from hal0.page.phases import Phase, phases_of, whole_s
from hal0.registry.catalog import model_names
from hal0.registry.repair import is_one_with_its_source
from hal0.registry.roster import EngineRow, all_engines
from hal0.settings import Settings
from hal0.slots.history import last_changes, spans
from hal0.slots.overview import SlotOverview, overviews
from hal0.slots.queries import Slot
from hal0.states import JobKind, JobState, SlotState
from hal0.tables import chains, jobs, model_files, slots

MOST_CHOICES: Final = 100
"""So many models a card offers at most; others are asked for by name, over REST or the CLI."""

MOST_ALERTS: Final = 3
"""So many incidents stand on top; the list has the others."""

SILENT_S: Final = 60.0
"""After so long without a beat people are told; a worker beats more often, however it is set."""

EARLIEST: Final = datetime(1970, 1, 2, tzinfo=UTC)
"""There was no hal0 before."""

LEAST: Final = timedelta(minutes=10)
"""What the strip of a slot that was just made shows at least."""

SHOWN_AS_NOW: Final = timedelta(seconds=5)
"""What ended so short a time ago ends now."""

ZOOMS: Final = (
    ("24 h", timedelta(hours=24)),
    ("6 h", timedelta(hours=6)),
    ("1 h", timedelta(hours=1)),
    ("10 min", timedelta(minutes=10)),
    ("1 min", timedelta(minutes=1)),
)
"""How near one may look at a strip."""


@dataclass(frozen=True, slots=True)
class Head:
    """How hal0 itself is: its engines, its workers."""

    engines: Sequence[EngineRow]
    workers: Sequence[Worker]
    now: datetime

    @property
    def silent_s(self) -> float:
        """How long ago the worker that was seen last was seen."""
        seen = [(self.now - worker.seen_at).total_seconds() for worker in self.workers]
        return max(0.0, min(seen, default=0.0))

    @property
    def is_worked(self) -> bool:
        """Whether somebody does what is asked for."""
        return bool(self.workers) and self.silent_s < SILENT_S


@dataclass(frozen=True, slots=True)
class Load:
    """One load of a slot: the job that failed, else its last one; and the phases of its chain."""

    detail: JobDetail
    phases: Sequence[Phase]
    height: float
    """How long it was at work, of the longest one beside it: 0 to 1."""


def head_of(tx: Connection) -> Head:
    """Return how hal0 is."""
    return Head(all_engines(tx), living_workers(tx), utc_now())


def alerts_of(tx: Connection) -> tuple[list[Incident], bool]:
    """Return the newest incidents that nobody acknowledged, and whether there are more."""
    ids = unacknowledged(tx, MOST_ALERTS + 1)
    return incidents_with_ids(tx, ids[:MOST_ALERTS]), len(ids) > MOST_ALERTS


def cards_of(
    tx: Connection,
    settings: Settings,
    listed: list[Slot],
    stretch: tuple[datetime, datetime] | None = None,
) -> list[Card]:
    """Return the cards of these slots, in their order; `stretch` = of what time their strips are.

    Without one: the last day, or less where there was no slot yet.
    """
    now = utc_now()
    since, until = stretch or _last_day(tx, now)
    changes = last_changes(tx, [slot.last_transition_id for slot in listed])
    warnings = {one["id"]: one["warnings"] for one in shown_slots(tx, settings, listed)}
    at_work, fading = _at_work(tx, listed), fadings(tx, listed, settings, now)
    doing = {work for job in at_work.values() if (work := _work(job))}
    usual = usual_times_s(tx, doing | _next_loads(listed))
    names = model_names(tx, MOST_CHOICES)
    return [
        Card(
            seen,
            changes.get(seen.slot.id),
            warnings[seen.slot.id],
            _work_of(at_work.get(seen.slot.id), usual),
            fading[seen.slot.id],
            strip.draw(spans(tx, seen.slot.id, since, until), since, until),
            _files_of(tx, seen.slot),
            _failed_job_id(tx, seen.slot),
            _since_then(tx, seen.slot),
            _choices(names, seen),
            _load_s(seen.slot, usual),
            now,
        )
        for seen in overviews(tx, listed)
    ]


def loads_of(tx: Connection, slot: Slot, limit: int) -> list[Load]:
    """Return the newest loads of a slot with the phases of their chains, newest first."""
    of_slot = select(chains.c.id).where(chains.c.slot_id == slot.id, chains.c.goal == JobKind.LOAD)
    ids = list(tx.execute(of_slot.order_by(chains.c.id.desc()).limit(limit)).scalars())
    found, now = chains_with_ids(tx, ids), utc_now()
    phases = {one: phases_of(found[one], now) for one in ids}
    longest = max(map(whole_s, phases.values()), default=0.0) or 1.0
    return [Load(_telling(found[one]), phases[one], whole_s(phases[one]) / longest) for one in ids]


def _telling(chain: Sequence[JobDetail]) -> JobDetail:
    """Return the job of a chain that says how it went."""
    return next((one for one in chain if one.job.state is JobState.FAILED), chain[-1])


def phases_by_chain(tx: Connection, listed: Sequence[JobDetail]) -> dict[int, tuple[Phase, ...]]:
    """Return the phases of the chains of these jobs, by chain id."""
    now, found = utc_now(), chains_with_ids(tx, {detail.job.chain_id for detail in listed})
    return {chain_id: phases_of(chain, now) for chain_id, chain in found.items()}


def _at_work(tx: Connection, listed: Sequence[Slot]) -> dict[int, JobDetail]:
    first = first_unfinished(tx)
    wanted = [first[slot.id] for slot in listed if slot.id in first]
    return {detail.job.slot_id: detail for detail in details(tx, jobs_with_ids(tx, wanted))}


def _work(detail: JobDetail) -> KindOfWork | None:
    job = detail.job
    return None if job.model_id is None else (job.kind, job.model_id)


def _work_of(detail: JobDetail | None, usual: dict[KindOfWork, float]) -> cards.Work | None:
    if detail is None:
        return None
    work = _work(detail)
    return cards.Work(detail, None if work is None else usual.get(work))


def _next_loads(listed: Sequence[Slot]) -> set[KindOfWork]:
    """Return the loads that slots without a model are likely to see."""
    return {
        (JobKind.LOAD, slot.wanted_model_id)
        for slot in listed
        if slot.state is SlotState.OFFLINE and slot.wanted_model_id is not None
    }


def _load_s(slot: Slot, usual: dict[KindOfWork, float]) -> float | None:
    if slot.state is not SlotState.OFFLINE or slot.wanted_model_id is None:
        return None
    return usual.get((JobKind.LOAD, slot.wanted_model_id))


def _choices(names: Sequence[str], seen: SlotOverview) -> list[str]:
    """Return the models to choose from, what the slot is set up for always among them."""
    own = seen.wanted_model
    return [*names] if own is None or own in names else [own, *names]


def _files_of(tx: Connection, slot: Slot) -> Files:
    """Return where the files of a slot come from, if it is in error by them."""
    if slot.state is not SlotState.ERROR or (slot.error or {}).get("code") not in BAD_FILES:
        return Files()
    found = tx.execute(
        select(model_files.c.source, model_files.c.path).where(
            model_files.c.model_id == slot.wanted_model_id
        )
    ).all()
    are_linked = any(is_one_with_its_source(row.source, Path(row.path)) for row in found)
    return Files(not are_linked and all(row.source is not None for row in found), are_linked)


def _since_then(tx: Connection, slot: Slot) -> JobDetail | None:
    """Return what was done last since a slot came into error, its failed job left out."""
    if slot.state is not SlotState.ERROR:
        return None
    failed_id = (slot.error or {}).get("job_id") or 0
    ended = select(func.max(jobs.c.id)).where(
        jobs.c.slot_id == slot.id, jobs.c.ended_at >= slot.since, jobs.c.id > failed_id
    )
    newest = tx.execute(ended.where(jobs.c.state != JobState.CANCELLED)).scalar_one()
    return None if newest is None else details(tx, jobs_with_ids(tx, [newest]))[0]


def _failed_job_id(tx: Connection, slot: Slot) -> int | None:
    """Return the job of a slot's error if it can be retried."""
    job_id = (slot.error or {}).get("job_id")
    if slot.state is not SlotState.ERROR or job_id is None:
        return None
    state = tx.execute(select(jobs.c.state).where(jobs.c.id == job_id)).scalar_one_or_none()
    return int(job_id) if state == JobState.FAILED else None


def _last_day(tx: Connection, now: datetime) -> tuple[datetime, datetime]:
    """Return the same stretch for all slots, so that their strips can be compared."""
    living = select(func.min(slots.c.created_at)).where(slots.c.deleted_at.is_(None))
    oldest = tx.execute(living).scalar_one() or now
    return max(now - strip.DAY, min(oldest, now - LEAST)), now


def stretch_of(since: datetime | None, until: datetime | None) -> tuple[datetime, datetime]:
    """Return of what time a strip is asked for: a day up to now, and never less than its least."""
    now = utc_now()
    end = max(EARLIEST, min(until or now, now))
    begin = since or end - strip.DAY
    return max(EARLIEST - strip.DAY, min(begin, end - strip.SHORTEST)), end


def zooms(stretch: tuple[datetime, datetime]) -> list[tuple[str, datetime, datetime]]:
    """Return what else may be looked at, each with its name: beside a stretch, and around it.

    What ends now is looked at closer at its end, for that is what goes on; else in its middle.
    """
    since, until = stretch
    half, now = (until - since) / 2, utc_now()
    is_now = now - until <= SHOWN_AS_NOW
    found = [("Earlier", since - half, until - half)]
    if not is_now:
        found.append(("Later", *stretch_of(since + half, until + half)))
    for name, wide in ZOOMS:
        end = now if is_now else min(now, since + half + wide / 2)
        found.append((name, end - wide, end))
    return found


def chain_of(tx: Connection, detail: JobDetail) -> list[JobDetail]:
    """Return all jobs of a job's chain in order."""
    return chains_with_ids(tx, [detail.job.chain_id])[detail.job.chain_id]


def phases_of_chain(chain: Sequence[JobDetail]) -> tuple[Phase, ...]:
    """Return the phases of a chain up to now."""
    return phases_of(chain, utc_now())
