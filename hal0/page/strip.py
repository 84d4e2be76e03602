"""How a stretch of a slot's time becomes bars: pure arithmetic, in units of a drawing 1000 wide.

What is narrower than a unit is not drawn by itself, for a busy slot changes thousands of times a
day: of all that falls into one unit the state is drawn that lasted longest, but an error always.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby
from typing import Final

from hal0.slots.history import Span
from hal0.states import SlotState

WIDTH: Final = 1000
DAY: Final = timedelta(hours=24)
SHORTEST: Final = timedelta(minutes=1)
"""What a stretch is zoomed to at most: the audit tells the rest in rows."""


@dataclass(frozen=True, slots=True)
class Bar:
    """One state for `width` units, from `x` on."""

    x: int
    width: int
    state: SlotState
    began_at: datetime
    ended_at: datetime


@dataclass(frozen=True, slots=True)
class Strip:
    """A slot's stretch of time, drawn."""

    since: datetime
    until: datetime
    bars: tuple[Bar, ...]

    @property
    def middle(self) -> datetime:
        """What stands under the middle of the drawing."""
        return self.since + (self.until - self.since) / 2


def draw(spans: Sequence[Span], since: datetime, until: datetime) -> Strip:
    """Return the strip of these spans, which follow each other; `until` lies behind `since`."""
    unit = (until - since) / WIDTH
    wins: dict[int, Span] = {}
    for span in spans:
        first = int((span.began_at - since) / unit)
        last = min(WIDTH - 1, int((span.ended_at - since) / unit))
        for place in range(max(0, first), last + 1):
            there = wins.get(place)
            if there is None or _is_shown_before(span, there):
                wins[place] = span
    bars = []
    for state, places in groupby(sorted(wins), key=lambda place: wins[place].state):
        run = list(places)
        began, ended = wins[run[0]].began_at, wins[run[-1]].ended_at
        bars.append(Bar(run[0], len(run), state, began, ended))
    return Strip(since, until, tuple(bars))


def _is_shown_before(span: Span, there: Span) -> bool:
    """Tell which of two spans in one unit is drawn."""
    is_error = (span.state is SlotState.ERROR, there.state is SlotState.ERROR)
    if is_error[0] != is_error[1]:
        return is_error[0]
    return span.ended_at - span.began_at > there.ended_at - there.began_at
