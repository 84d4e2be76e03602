"""How people read instants: in the time of this machine, with its zone; all else stays UTC.

The API, rows and `--json` say RFC 3339 in UTC. Who sits at a terminal compares with the clock on
the wall, so whatever is printed for people goes through here, sentences of the API too.
"""

import re
from datetime import datetime
from typing import Final

from hal0.clock import utc_now
from hal0.page.words import lasted

INSTANT: Final = re.compile(
    r"(?<![\w./-])\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z(?!\w|[./-]\w)", re.ASCII
)
"""An instant as the API says it, where it stands by itself: not in the middle of a file's name."""


def clock_of(at: str | None) -> str:
    """Return the local date and time of an instant, to the second: `2026-11-22 15:07:02 CET`."""
    return "-" if at is None else f"{_local(at):%Y-%m-%d %H:%M:%S %Z}"


def hour_of(at: str) -> str:
    """Return the local time of an instant that is of today, to the millisecond."""
    local = _local(at)
    return f"{local:%H:%M:%S}.{local.microsecond // 1000:03} {local:%Z}"


def in_local_time(text: str) -> str:
    """Return a text with each instant in it as `clock_of` says it; what is none stays."""
    return INSTANT.sub(_said, text)


def _said(found: re.Match[str]) -> str:
    try:
        return clock_of(found[0])
    except (ValueError, OverflowError):
        return found[0]


def since(at: str) -> str:
    """Return an instant and how long ago it was: `2026-11-22 15:07:02 CET (4 min 10 s)`."""
    return f"{clock_of(at)} ({lasted(seconds_since(at))})"


def seconds_since(at: str) -> float:
    """Return how long ago an instant was; 0 for one to come."""
    return max(0.0, (utc_now() - datetime.fromisoformat(at)).total_seconds())


def seconds_until(at: str) -> float:
    """Return how far away an instant is; 0 for one that has been."""
    return max(0.0, (datetime.fromisoformat(at) - utc_now()).total_seconds())


def _local(at: str) -> datetime:
    return datetime.fromisoformat(at).astimezone()
