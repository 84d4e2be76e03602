"""How a stretch of time is drawn: nothing overlaps, nothing is lost, an error least of all."""

import itertools
from datetime import UTC, datetime, timedelta

from freezegun import freeze_time
from hypothesis import given
from hypothesis import strategies as st

from hal0.api.page_reading import stretch_of
from hal0.page.strip import WIDTH, draw
from hal0.slots.history import Span
from hal0.states import SlotState

BEGAN = datetime(2026, 11, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def spans_of(*parts: tuple[SlotState, float]) -> list[Span]:
    """Return spans of these hours, one behind the other, from the beginning of the day."""
    found, at = [], BEGAN
    for state, hours in parts:
        end = min(BEGAN + DAY, at + timedelta(hours=hours))
        found.append(Span(state, at, end))
        at = end
    return found


def test_bars_are_as_wide_as_their_time() -> None:
    spans = spans_of((SlotState.OFFLINE, 6), (SlotState.READY, 12), (SlotState.IDLE, 6))
    bars = draw(spans, BEGAN, BEGAN + DAY).bars
    seen = [(bar.state, bar.x, bar.x + bar.width) for bar in bars]
    for (state, x, end), (expected, begins, ends) in zip(
        seen, [("offline", 0, 250), ("ready", 250, 750), ("idle", 750, 1000)], strict=True
    ):
        assert state == expected
        assert abs(x - begins) <= 1
        assert abs(end - ends) <= 1


def test_a_second_of_error_is_seen_in_a_day() -> None:
    spans = spans_of((SlotState.READY, 12), (SlotState.ERROR, 1 / 3600), (SlotState.READY, 12))
    assert SlotState.ERROR in [bar.state for bar in draw(spans, BEGAN, BEGAN + DAY).bars]


def test_what_was_not_yet_is_not_drawn() -> None:
    spans = [Span(SlotState.READY, BEGAN + DAY / 2, BEGAN + DAY)]
    assert draw(spans, BEGAN, BEGAN + DAY).bars[0].x == WIDTH // 2
    assert draw([], BEGAN, BEGAN + DAY).bars == ()


def test_a_strip_is_of_the_last_day_unless_asked_and_of_a_minute_at_least() -> None:
    with freeze_time(BEGAN + DAY):
        assert stretch_of(None, None) == (BEGAN, BEGAN + DAY)
        noon = BEGAN + DAY / 2
        assert stretch_of(noon, noon + timedelta(seconds=1)) == (
            noon - timedelta(seconds=59),
            noon + timedelta(seconds=1),
        )
        assert stretch_of(noon, BEGAN + 2 * DAY) == (noon, BEGAN + DAY)


PARTS = st.lists(st.tuples(st.sampled_from(SlotState), st.floats(0, 9)), max_size=60)


@given(PARTS)
def test_bars_follow_each_other_without_overlap_inside_the_drawing(
    parts: list[tuple[SlotState, float]],
) -> None:
    bars = draw(spans_of(*parts), BEGAN, BEGAN + DAY).bars
    at = 0
    for bar in bars:
        assert bar.x >= at
        assert bar.width > 0
        at = bar.x + bar.width
    assert at <= WIDTH
    assert all(one.state is not other.state for one, other in itertools.pairwise(bars))
