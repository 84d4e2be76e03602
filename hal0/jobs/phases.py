"""In which phases a load spent its time: they have no gaps and no overlaps, so they add up to it.

A load begins when it is asked for, or when the attempt before it has failed, and ends with the
attempt that was sent. In between runs one attempt after another, and whatever is in none of them is
waiting: for a worker, for the engine's lane or, as `failed`, for who retries it. The view
`audit_loads` says the same of a chain.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from hal0.states import JobKind, Outcome


class Phase(StrEnum):
    """What a load does, or waits for."""

    PULL = "pull"
    VALIDATE = "validate"
    UNLOAD = "unload"
    LOAD = "load"
    WAITED = "waited"
    FAILED = "failed"
    """A failed attempt that nobody had retried yet."""


@dataclass(frozen=True, slots=True)
class Span:
    """One ended attempt of a chain."""

    row: int
    """Attempts are numbered in the order in which they ended."""
    kind: JobKind
    outcome: Outcome
    started_at: datetime
    ended_at: datetime
    code: str | None = None
    """What it failed with."""

    @property
    def seconds(self) -> float:
        """How long it ran; 0 where the clock was set back meanwhile."""
        return max(0.0, (self.ended_at - self.started_at).total_seconds())

    @property
    def is_whole_load(self) -> bool:
        """Whether a load was sent and came to an end with it."""
        return self.kind is JobKind.LOAD and self.outcome in (Outcome.DONE, Outcome.FAILED)


@dataclass(frozen=True, slots=True)
class Pause:
    """The time before an attempt in which nothing of its chain ran."""

    seconds: float
    is_failed: bool
    """Whether what ended before had failed, so that nothing was to run."""


_NOTHING: Final = dict.fromkeys(Phase, 0.0)
_BUSY: Final = {kind: Phase(kind.value) for kind in JobKind}


def pauses(asked_at: datetime, spans: Sequence[Span]) -> list[Pause]:
    """Return what lies before each of a chain's attempts, given in their order."""
    ends = [asked_at, *(span.ended_at for span in spans)]
    outcomes = [None, *(span.outcome for span in spans)]
    return [
        Pause(
            max(0.0, (span.started_at - ends[at]).total_seconds()), outcomes[at] is Outcome.FAILED
        )
        for at, span in enumerate(spans)
    ]


def loads(
    spans: Sequence[Span], before: Sequence[Pause]
) -> Iterator[tuple[Span, dict[Phase, float]]]:
    """Yield each ended load of a chain with the seconds of all of its phases.

    `before` are the pauses of the chain.
    """
    told = _NOTHING.copy()
    for span, pause in zip(spans, before, strict=True):
        told[Phase.FAILED if pause.is_failed else Phase.WAITED] += pause.seconds
        told[_BUSY[span.kind]] += span.seconds
        if span.is_whole_load:
            yield span, told
            told = _NOTHING.copy()
