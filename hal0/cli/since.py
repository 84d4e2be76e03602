"""How a user says times: so long, so long ago, a time of this machine, or a row's id."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import click

from hal0.clock import utc_now

SPAN: Final = re.compile(r"(\d{1,9}) ?([smhdw])")
UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


class Since(click.ParamType[str, str]):
    """`2h`, `2026-11-01`, `2026-11-01 12:00`, an RFC 3339 time, or a whole number."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the id as it is, and every time in UTC, as the API wants it."""
        text = str(value).strip()
        if text.isascii() and text.isdigit():
            return text
        try:
            return _instant(text).astimezone(UTC).isoformat()
        except (ValueError, OverflowError):
            self.fail(
                f"{text!r} is no time: give 90m, 2h or 3d (so long ago), 2026-11-01 or "
                "'2026-11-01 12:00' (of this machine), 2026-11-01T12:00:00Z, or a row's id",
                param,
                ctx,
            )


def span_of(text: str) -> timedelta | None:
    """Return how long `90m`, `2h` or `3d` is, None for what is no span; raises OverflowError."""
    found = SPAN.fullmatch(text)
    return None if found is None else timedelta(**{UNITS[found[2]]: int(found[1])})


def _instant(text: str) -> datetime:
    """Return the instant; one without a zone is of this machine, as `astimezone` takes it."""
    ago = span_of(text)
    return datetime.fromisoformat(text) if ago is None else utc_now() - ago
