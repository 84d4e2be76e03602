"""How values become what rows hold."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hal0.tables import TIME_FORMAT, as_text

INSTANTS = st.datetimes(timezones=st.just(UTC))


@given(INSTANTS, INSTANTS)
def test_instants_sort_as_text_the_way_they_do_as_time(one: datetime, other: datetime) -> None:
    assert (as_text(one) < as_text(other)) == (one < other)
    assert datetime.fromisoformat(as_text(one)) == one


def test_an_instant_is_written_in_utc_and_in_the_one_form() -> None:
    at = datetime(2026, 1, 31, 14, tzinfo=timezone(timedelta(hours=2)))
    assert as_text(at) == "2026-01-31T12:00:00.000000Z" == at.astimezone(UTC).strftime(TIME_FORMAT)
    with pytest.raises(ValueError, match="has no time zone"):
        as_text(datetime(2026, 1, 31))  # noqa: DTZ001 - that is what is refused
