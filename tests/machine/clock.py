"""Time that passes only when a test says so, and a wall clock that is set apart from it."""

import time
from datetime import timedelta
from types import TracebackType
from typing import Self

import freezegun
import pytest
from freezegun.api import FrozenDateTimeFactory

from hal0.clock import utc_now

A_DAY_LATER = timedelta(days=1)
"""Files made by a test look old enough for `validate` to read them at once."""


class Clock:
    """The monotonic clock in milliseconds, and the wall clock."""

    def __init__(self) -> None:
        self.ms = 1_000_000
        self._patch = pytest.MonkeyPatch()
        later = utc_now() + A_DAY_LATER
        self._freezer = freezegun.freeze_time(later, ignore=["hypothesis", "_pytest"])
        self._wall: FrozenDateTimeFactory | None = None

    def __enter__(self) -> Self:
        wall = self._freezer.start()
        assert isinstance(wall, FrozenDateTimeFactory)
        self._wall = wall
        self._patch.setattr(time, "monotonic_ns", lambda: self.ms * 1_000_000)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._patch.undo()
        self._freezer.stop()

    def tick(self, ms: int = 1) -> None:
        """Let time pass, on both clocks."""
        self.ms += ms
        self.step(ms / 1000)

    def step(self, seconds: float) -> None:
        """Set the wall clock, as a person or NTP does."""
        assert self._wall
        self._wall.tick(timedelta(seconds=seconds))

    def reboot(self) -> None:
        """The monotonic clock begins anew."""
        self.ms = 5_000
