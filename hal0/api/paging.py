"""How a list is read in pages: by the key of the last item seen, never by an offset or a count.

A cursor is opaque to its user: base64 of the list's name and that key. Rows that are added or
deleted while somebody pages are neither shown twice nor skipped.
"""

import base64
import json
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from hal0.api.answers import Listed
from hal0.errors import InvalidRequest

MAX_KEY: Final = 2**63 - 1
T = TypeVar("T")
K = TypeVar("K", bound=int | str)


def cursor_of(listed: str, key: int | str) -> str:
    """Return the cursor that continues the list `listed` behind `key`."""
    return base64.urlsafe_b64encode(json.dumps([listed, key]).encode()).decode().rstrip("=")


def key_of(listed: str, kind: type[K], cursor: str | None) -> K | None:
    """Return the key in a cursor of this list, None without one. Raises InvalidRequest."""
    if cursor is None:
        return None
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        name, key = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
    except (ValueError, TypeError, RecursionError):
        name, key = None, None
    in_range = key.isascii() if isinstance(key, str) else type(key) is int and abs(key) <= MAX_KEY
    if name != listed or type(key) is not kind or not in_range:
        raise InvalidRequest(
            "cursor: not one that this list gave; begin again without it",
            evidence={"fields": [{"field": "cursor", "problem": "not a cursor of this list"}]},
        )
    return key


def page(rows: Sequence[T], limit: int, cursor: Callable[[T], str]) -> Listed[T]:
    """Return `{items, next_cursor}` of up to `limit` + 1 rows; null = that was the last page."""
    shown = list(rows[:limit])
    more = len(rows) > limit
    return {"items": shown, "next_cursor": cursor(shown[-1]) if more else None}
