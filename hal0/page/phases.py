"""How a chain's work becomes a bar: how long each of its kinds took, side by side.

Only attempts count: what a job waited for is no phase. A running attempt counts up to now.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from hal0.jobs.queries import JobDetail
from hal0.states import JobKind, JobState

SHOWN_S: Final = 0.05
"""What took less reads as 0.0 s, and is left out."""


@dataclass(frozen=True, slots=True)
class Phase:
    """One kind of work and its seconds; `x` and `width` in units of a drawing 1000 wide."""

    kind: JobKind
    seconds: float
    x: float
    width: float


def phases_of(chain: Iterable[JobDetail], now: datetime) -> tuple[Phase, ...]:
    """Return the phases of a chain's jobs in their order; what took no time is left out."""
    times = [(detail.job.kind, seconds_of(detail, now)) for detail in chain]
    return drawn([(kind, seconds) for kind, seconds in times if seconds >= SHOWN_S])


def whole_s(phases: Iterable[Phase]) -> float:
    """Return how long all phases took together."""
    return sum(phase.seconds for phase in phases)


def seconds_of(detail: JobDetail, now: datetime) -> float:
    """Return how long a job was at work, in all of its attempts."""
    done = sum(
        (attempt.ended_at - attempt.started_at).total_seconds() for attempt in detail.attempts
    )
    started_at = detail.job.started_at
    if detail.job.state is JobState.RUNNING and started_at is not None:
        done += (now - started_at).total_seconds()
    return max(0.0, done)


def drawn(times: Sequence[tuple[JobKind, float]]) -> tuple[Phase, ...]:
    """Return phases of these lengths side by side, the whole drawing wide."""
    whole = sum(seconds for _, seconds in times)
    phases, x = [], 0.0
    for kind, seconds in times:
        width = 1000 * seconds / whole if whole else 0.0
        phases.append(Phase(kind, seconds, round(x, 1), round(width, 1)))
        x += width
    return tuple(phases)
