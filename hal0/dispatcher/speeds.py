"""How fast slots answer: time to the first byte, and tokens a second, of their last requests.

What an engine says of an answer stands at its end: `usage` as OpenAI's API has it, beside it
`timings` of llama.cpp. Only the end of an answer is kept, in memory, until it is over; of what was
asked and said nothing is stored.
"""

import json
import math
import re
from collections import defaultdict, deque
from collections.abc import Mapping
from statistics import median
from typing import Any, Final

from hal0.clock import monotonic_ms, utc_now

LAST: Final = 16
"""Of so many requests the medians are told."""
KEPT_BYTES: Final = 8192
"""So much of an answer's end is kept at least, and no more than twice as much."""

_VALUE = re.compile(rb"\s*:\s*(?=\{)")
_DECODER = json.JSONDecoder()
_COUNTS = ("completion_tokens", "output_tokens")
_MOST = 1e9


class Meter:
    """Is fed with one answer, JSON or server-sent events, and finds what it says of its speed.

    Make it when the request is about to be sent. What it tells of time is the engine's part: what
    the client takes to read is between two chunks, or behind the last.
    """

    __slots__ = ("_began_ms", "_end", "_first_byte_ms", "_last_byte_ms")

    def __init__(self) -> None:
        self._end = bytearray()
        self._began_ms = monotonic_ms()
        self._first_byte_ms: int | None = None
        self._last_byte_ms = 0

    @property
    def first_byte_ms(self) -> float | None:
        """Milliseconds until the first byte; None = none has come."""
        return self._first_byte_ms

    @property
    def lasted_s(self) -> float:
        """Seconds until the last byte so far."""
        return self._last_byte_ms / 1000

    def feed(self, chunk: bytes) -> None:
        """Keep the end of what has come so far."""
        self._last_byte_ms = monotonic_ms() - self._began_ms
        if self._first_byte_ms is None:
            self._first_byte_ms = self._last_byte_ms
        end = self._end
        end += chunk if len(chunk) <= KEPT_BYTES else chunk[-KEPT_BYTES:]
        if len(end) > 2 * KEPT_BYTES:
            del end[:-KEPT_BYTES]

    def tokens_per_s(self, lasted_s: float) -> float | None:
        """Return the rate of the engine's own clock, else over `lasted_s`; None = it tells none."""
        own = _number(_last(self._end, b'"timings"'), "predicted_per_second")
        if own is not None:
            return own
        usage = _last(self._end, b'"usage"')
        counts = (_number(usage, name) for name in _COUNTS)
        tokens = next((count for count in counts if count is not None), None)
        return tokens / lasted_s if tokens is not None and lasted_s > 0 else None


def _last(end: bytearray, key: bytes) -> Mapping[str, Any]:
    """Return the last object of this name; {} = there is none that can be read.

    The name with its quotation marks is never part of a text of the answer: there they are escaped.
    """
    at = end.rfind(key)
    while at >= 0:
        if (value := _VALUE.match(end, at + len(key))) is not None:
            try:
                return dict(_DECODER.raw_decode(end[value.end() :].decode(errors="replace"))[0])
            except (ValueError, RecursionError):
                return {}
        at = end.rfind(key, 0, at)
    return {}


def _number(row: Mapping[str, Any], name: str) -> float | None:
    """Return a number that can be one of tokens."""
    value = row.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if 0 < value < _MOST and math.isfinite(value) else None


class Speeds:
    """The last requests of each slot, in memory; their medians are written now and then."""

    def __init__(self) -> None:
        self._last: dict[int, deque[tuple[float, float | None]]] = defaultdict(_some)
        self._unread: dict[int, deque[Meter]] = defaultdict(_some)
        """What was not looked through yet: of hundreds of answers a second, rows need the last."""
        self._changed: set[int] = set()

    def note_answer(self, slot_id: int, meter: Meter) -> None:
        """Take note of an answer that is over; of one without a byte there is nothing to say."""
        if meter.first_byte_ms is not None:
            self._unread[slot_id].append(meter)

    def note(self, slot_id: int, first_byte_ms: float, tokens_per_s: float | None) -> None:
        """Take note of what one answer told."""
        self._last[slot_id].append((first_byte_ms, tokens_per_s))
        self._changed.add(slot_id)

    def rows(self) -> list[dict[str, Any]]:
        """Return rows of the table `speeds`, of slots that answered since the last call."""
        unread, self._unread = self._unread, defaultdict(_some)
        for slot_id, meters in unread.items():
            for meter in meters:
                assert meter.first_byte_ms is not None, "only such are noted"
                self.note(slot_id, meter.first_byte_ms, meter.tokens_per_s(meter.lasted_s))
        changed, self._changed = self._changed, set()
        return [_row(slot_id, self._last[slot_id]) for slot_id in sorted(changed)]


def _some() -> deque[Any]:
    return deque(maxlen=LAST)


def _row(slot_id: int, last: deque[tuple[float, float | None]]) -> dict[str, Any]:
    rates = [rate for _, rate in last if rate is not None]
    return {
        "slot_id": slot_id,
        "requests": len(last),
        "first_byte_ms": round(median(first for first, _ in last), 3),
        "tokens_per_s": round(median(rates), 3) if rates else None,
        "at": utc_now(),
    }
