"""How everything is at one moment, as numbers: in a few queries, however many slots there are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import (
    Connection,
    Row,
    Select,
    exists,
    func,
    literal_column,
    select,
    tuple_,
    type_coerce,
    union_all,
)

from hal0.clock import utc_now
from hal0.jobs.ledger.breaker import PARKED_AFTER
from hal0.jobs.queries import Worker, living_workers
from hal0.registry.roster import EngineRow, all_engines
from hal0.slots.overview import IN_FLIGHT
from hal0.states import DISPATCHABLE, JobState, SlotState
from hal0.tables import UtcTime, breakers, incidents, jobs, slots, speeds

SHOWN: Final = (JobState.QUEUED, JobState.RUNNING, JobState.FAILED)
"""States whose jobs are few, and have an index: counting those that went well would be a scan."""


@dataclass(frozen=True, slots=True)
class SlotFigures:
    """One living slot; None = there is no such number of it."""

    id: int
    name: str
    state: SlotState
    in_flight: int
    last_used_at: datetime | None
    first_byte_ms: float | None
    tokens_per_s: float | None
    automatic_loads: int

    def idle_s(self, now: datetime) -> float | None:
        """Return how long its model is unused; None = it has none, or is in use."""
        if self.state not in DISPATCHABLE or self.in_flight or self.last_used_at is None:
            return None
        return max(0.0, (now - self.last_used_at).total_seconds())

    @property
    def is_parked(self) -> bool:
        """Whether only an operator may load it."""
        return self.automatic_loads >= PARKED_AFTER


@dataclass(frozen=True, slots=True)
class Figures:
    """All of it."""

    at: datetime
    slots: Sequence[SlotFigures]
    jobs: Mapping[tuple[str, str], int]
    """By kind and state."""
    oldest_queued_s: float
    engines: Sequence[EngineRow]
    workers: Sequence[Worker]
    unacknowledged: int


_SLOTS: Final[Select[Any]] = (
    select(
        slots.c.id,
        slots.c.name,
        slots.c.state,
        IN_FLIGHT.c.in_flight,
        slots.c.last_used_at,
        speeds.c.first_byte_ms,
        speeds.c.tokens_per_s,
        breakers.c.sent.label("automatic_loads"),
    )
    .join(IN_FLIGHT, IN_FLIGHT.c.slot_id == slots.c.id, isouter=True)
    .join(speeds, speeds.c.slot_id == slots.c.id, isouter=True)
    .join(breakers, breakers.c.slot_id == slots.c.id, isouter=True)
    .where(slots.c.deleted_at.is_(None))
    .order_by(slots.c.name)
)
# Literals, not parameters: SQLite uses a partial index only for a condition it can read.
_JOBS: Final = union_all(
    *(
        select(jobs.c.kind, jobs.c.state, func.count().label("jobs"))
        .where(jobs.c.state == literal_column(f"'{state}'"))
        .group_by(jobs.c.kind)
        for state in SHOWN
    )
)
_QUEUED, _RUNNING, _BEFORE, _ENDED = (
    jobs.alias(name) for name in ("queued", "running", "before", "ended")
)
_LAST_END: Final = (
    select(func.max(_ENDED.c.ended_at))
    .where(_ENDED.c.chain_id == _QUEUED.c.chain_id)
    .correlate(_QUEUED)
    .scalar_subquery()
)
_OLDEST: Final[Select[Any]] = select(
    type_coerce(
        func.min(func.max(_QUEUED.c.created_at, func.coalesce(_LAST_END, _QUEUED.c.created_at))),
        UtcTime,
    )
).where(
    _QUEUED.c.state == literal_column(f"'{JobState.QUEUED}'"),
    ~exists().where(
        _RUNNING.c.slot_id == _QUEUED.c.slot_id,
        _RUNNING.c.state == literal_column(f"'{JobState.RUNNING}'"),
    ),
    ~exists().where(
        _BEFORE.c.slot_id == _QUEUED.c.slot_id,
        _BEFORE.c.state == literal_column(f"'{JobState.QUEUED}'"),
        tuple_(_BEFORE.c.position, _BEFORE.c.step) < tuple_(_QUEUED.c.position, _QUEUED.c.step),
    ),
)
_UNACKNOWLEDGED: Final = (
    select(func.count()).select_from(incidents).where(incidents.c.acked_at.is_(None))
)


def read_figures(tx: Connection) -> Figures:
    """Read how everything is now."""
    now = utc_now()
    oldest = tx.execute(_OLDEST).scalar_one()
    return Figures(
        now,
        [_slot(row) for row in tx.execute(_SLOTS)],
        {(row.kind, row.state): row.jobs for row in tx.execute(_JOBS)},
        0.0 if oldest is None else max(0.0, (now - oldest).total_seconds()),
        all_engines(tx),
        living_workers(tx),
        tx.execute(_UNACKNOWLEDGED).scalar_one(),
    )


def _slot(row: Row[Any]) -> SlotFigures:
    known = {
        "state": SlotState(row.state),
        "in_flight": row.in_flight or 0,
        "automatic_loads": row.automatic_loads or 0,
    }
    return SlotFigures(**{**row._mapping, **known})
