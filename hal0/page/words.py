"""In which words an operator reads what happened: causes, sizes, durations.

Plain, for who looks once a week. The names of the audit stay beside them, for who looks further.
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Final

from hal0.states import Cause

CAUSES: Final[Mapping[Cause, str]] = {
    Cause.CREATED: "created",
    Cause.FETCH_STARTED: "files are being fetched",
    Cause.CHECKED: "files are being checked",
    Cause.LOAD_SENT: "load was sent to the engine",
    Cause.LOADED: "loaded",
    Cause.ADOPTED: "the engine had it already",
    Cause.JOB_FAILED: "a job failed",
    Cause.WORKER_LOST: "the worker died too often",
    Cause.DEADLINE_PASSED: "took longer than its limit",
    Cause.CANCELLED: "cancelled",
    Cause.PULLED: "files were fetched",
    Cause.VALIDATED: "files were checked",
    Cause.HOST_REBOOTED: "the machine was restarted",
    Cause.ENGINE_RESTARTED: "the engine was restarted",
    Cause.REQUEST_STARTED: "a request came",
    Cause.REQUESTS_DONE: "the last request ended",
    Cause.LEASES_CLEARED: "who served its requests is gone",
    Cause.DEMOTED: "nobody used it",
    Cause.USED_ELSEWHERE: "used past hal0",
    Cause.TOUCHED: "asked for again",
    Cause.OPERATOR_UNLOAD: "unload was asked for",
    Cause.IDLE_UNLOAD: "nobody used it for long",
    Cause.REPLACED: "makes room for another model",
    Cause.FORCED: "unload was forced",
    Cause.UNLOADED: "unloaded",
    Cause.EVICTED_BY_ENGINE: "the engine dropped it",
    Cause.UNLOADED_ELSEWHERE: "unloaded past hal0",
    Cause.ENGINE_LOST: "the engine does not answer",
    Cause.CLEARED: "error was cleared",
    Cause.ENGINE_RETURNED: "the engine is back",
    Cause.UNLOAD_CONFIRMED: "the engine has let go of it",
}

GIB: Final = 2**30
MIB: Final = 2**20


def gib(size_bytes: float) -> str:
    """Return a size: GiB, or MiB of what would be 0.0 GiB."""
    if size_bytes < GIB / 10:
        return f"{size_bytes / MIB:.1f} MiB"
    return f"{size_bytes / GIB:.1f} GiB"


def rate(bytes_per_s: float) -> str:
    """Return how fast bytes come."""
    return f"{bytes_per_s / MIB:.0f} MiB/s" if bytes_per_s >= 10 * MIB else _slow(bytes_per_s)


def _slow(bytes_per_s: float) -> str:
    return f"{bytes_per_s / MIB:.1f} MiB/s"


def lasted(seconds: float) -> str:
    """Return a duration in its two largest units: `0.4 s`, `12 s`, `5 min 12 s`, `2 h 11 min`."""
    if seconds < 10:
        return f"{max(0.0, seconds):.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, left_s = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {left_s} s" if left_s else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{hours // 24} d {hours % 24} h"


def countdown(left: timedelta) -> str:
    """Return what is left as a clock: `0:18`, `2:10`, `1:02:10`; never less than nothing."""
    seconds = max(0, round(left.total_seconds()))
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
