"""How people say how long, `90m`, `2h`, `3d`, and a time of today, `14:00`."""

import re
from datetime import time, timedelta
from typing import Final

SPAN: Final = re.compile(r"(\d{1,9}) ?([smhdw])")
HOUR: Final = re.compile(r"\d\d:\d\d(:\d\d)?", re.ASCII)
UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def span_of(text: str) -> timedelta | None:
    """Return how long `90m`, `2h` or `3d` is, None for what is no span; raises OverflowError."""
    found = SPAN.fullmatch(text)
    return None if found is None else timedelta(**{UNITS[found[2]]: int(found[1])})


def hour_of_day(text: str) -> time | None:
    """Return the time of day that `14:00` or `14:00:30` is, None for any other text.

    Raises ValueError.
    """
    return time.fromisoformat(text) if HOUR.fullmatch(text) else None
