"""What a slot's card says: which model, since when and why, what happens next, what mends it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from hal0 import errors
from hal0.access.roles import MACHINES
from hal0.jobs.queries import JobDetail
from hal0.page.strip import Strip
from hal0.page.words import CAUSES
from hal0.slots.fading import Fading
from hal0.slots.history import Change
from hal0.slots.overview import SlotOverview
from hal0.states import JobKind, JobState, SlotState

BAD_FILES: Final = frozenset(
    error.code
    for error in (
        errors.FileNotFound,
        errors.SizeMismatch,
        errors.NotAGguf,
        errors.Truncated,
        errors.ChecksumMismatch,
        errors.FetchedMismatch,
    )
)
"""What a fresh copy of a model's files mends, if it is known where they come from."""


@dataclass(frozen=True, slots=True)
class Action:
    """A button of a card: what it says and where it leads; `is_main` = the one that mends."""

    label: str
    path: str
    is_main: bool = False
    is_asked: bool = False
    """Whether it leads to a question first."""
    choices: Sequence[str] = ()
    """Which models it may be done with; none = that is no question."""


@dataclass(frozen=True, slots=True)
class Work:
    """The job at work on a slot, or first in its line."""

    detail: JobDetail
    usual_s: float | None
    """How long such a job took before, of this model; None = nobody knows."""

    @property
    def is_running(self) -> bool:
        """Whether it runs, or waits its turn."""
        return self.detail.job.state is JobState.RUNNING

    def share(self, now: datetime) -> float | None:
        """Return how much is done, 0 to 1, by bytes, else by time; None = nobody knows."""
        if not self.is_running:
            return None
        at = self.detail.progress
        if at is not None and at.total_bytes:
            return min(1.0, at.done_bytes / at.total_bytes)
        started_at = self.detail.job.started_at
        if self.usual_s is None or started_at is None:
            return None
        return min(0.98, (now - started_at).total_seconds() / max(self.usual_s, 0.1))


@dataclass(frozen=True, slots=True)
class Files:
    """Where files that are bad come from, and with it what mends them."""

    can_be_fetched: bool = False
    """Whether to bring them again may bring other bytes."""
    are_linked: bool = False
    """Whether they are put right at their source: a new load sees what came there."""


@dataclass(frozen=True, slots=True)
class Card:
    """One slot as an operator sees it at a glance."""

    seen: SlotOverview
    change: Change | None
    warnings: Sequence[str]
    work: Work | None
    fading: Fading
    strip: Strip
    files: Files
    """Of a slot in error by its files: what there is to know of them."""
    failed_job_id: int | None
    """The job that a retry would take up, if its slot is in error."""
    since_then: JobDetail | None
    """What was tried last, and is done, since its slot came into error."""
    models: Sequence[str]
    """What is registered, so far as it is offered."""
    load_s: float | None
    """How long a load took before of the model that it could load; None = nobody knows."""
    now: datetime

    @property
    def name(self) -> str:
        """The slot's name."""
        return self.seen.slot.name

    @property
    def state(self) -> SlotState:
        """The slot's state."""
        return self.seen.slot.state

    @property
    def error(self) -> Mapping[str, Any] | None:
        """Why it is in error."""
        return self.seen.slot.error if self.state is SlotState.ERROR else None

    @property
    def model(self) -> str | None:
        """What it holds, else what it is set up for."""
        return self.seen.model or self.seen.wanted_model

    @property
    def why(self) -> str:
        """Why it came into its state, in plain words."""
        change = self.change
        if change is None:
            return ""
        words = CAUSES[change.cause]
        if change.asked_by in MACHINES:
            return f"{words}, by hal0 itself"
        if change.asked_by is not None:
            return f"{words}, asked for by {change.asked_by}"
        return words if change.actor in MACHINES else f"{words}, by {change.actor}"

    @property
    def share(self) -> float | None:
        """How much of the work is done, 0 to 1; None = nobody knows, or there is none."""
        return None if self.work is None else self.work.share(self.now)

    @property
    def actions(self) -> tuple[Action, ...]:
        """What a writer may do now, the likeliest first."""
        return tuple(self._actions())

    def _actions(self) -> Iterator[Action]:
        slot, at = self.seen.slot, f"/page/slots/{self.name}"
        if self.work is not None:
            job = self.work.detail.job
            if not job.was_sent:
                yield Action("Cancel", f"/page/jobs/{job.id}/cancel")
            return
        if slot.state is SlotState.ERROR:
            yield from self._mends(at)
        elif slot.state is SlotState.OFFLINE and self.models:
            yield Action("Load", f"{at}/load", is_main=True, choices=self.models)
        elif slot.is_dispatchable:
            yield Action("Unload…", f"{at}/ask/unload", is_asked=True)
            yield Action("Unpin" if slot.pinned else "Pin", f"{at}/{'un' * slot.pinned}pin")

    def _mends(self, at: str) -> Iterator[Action]:
        mends = self.files.can_be_fetched and not self._was_fetched
        if self.files.can_be_fetched:
            yield Action("Fetch the files again", f"{at}/pull", is_main=mends)
        if self.files.are_linked:
            yield Action("Load again", f"{at}/load", is_main=True)
        elif self.failed_job_id is not None:
            path = f"/page/jobs/{self.failed_job_id}/retry"
            yield Action("Retry", path, is_main=not mends)
        elif self.model is not None:
            yield Action("Load", f"{at}/load", is_main=not mends)
        yield Action("Clear", f"{at}/unload")

    @property
    def _was_fetched(self) -> bool:
        if self.since_then is None:
            return False
        last = self.since_then.job
        return (last.kind, last.state) == (JobKind.PULL, JobState.SUCCEEDED)
