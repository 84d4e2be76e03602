"""How a user says times: so long, so long ago, a time of this machine, or a row's id."""

from datetime import UTC, datetime
from typing import Any

import click

from hal0.clock import utc_now
from hal0.timespans import hour_of_day, span_of


class Until(click.ParamType[str, str]):
    """`2h`, `14:00`, `2026-11-01`, `2026-11-01 12:00`, or an RFC 3339 time."""

    name = "time"
    _else = ""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the time in UTC, as the API wants it."""
        text = str(value).strip()
        try:
            if text.isdigit():
                raise ValueError("a number is no time")
            return _instant(text).astimezone(UTC).isoformat()
        except (ValueError, OverflowError):
            self.fail(
                f"{text!r} is no time: give 90m, 2h or 3d (so long ago), 14:00 (of today), "
                "2026-11-01 or '2026-11-01 12:00' (of this machine), 2026-11-01T12:00:00Z"
                f"{self._else}",
                param,
                ctx,
            )


class Since(Until):
    """A time, or a whole number: behind the row of that id."""

    _else = ", or a row's id"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the id as it is, and every time in UTC."""
        text = str(value).strip()
        return text if text.isascii() and text.isdigit() else super().convert(text, param, ctx)


def _instant(text: str) -> datetime:
    """Return the instant; one without a zone is of this machine, as `astimezone` takes it."""
    ago, hour = span_of(text), hour_of_day(text)
    if ago is not None:
        return utc_now() - ago
    today = utc_now().astimezone()
    return datetime.fromisoformat(text) if hour is None else datetime.combine(today, hour)
