"""Which named places a process can be made to die, stop or linger at.

`reach("load.sent")` does nothing, unless the process was armed with `HAL0_POINT=load.sent:kill`
(SIGKILL to itself), `:stop` (SIGSTOP) or `:sleep` (60 s, or `:sleep=SECONDS`). The acceptance tests
arm every point in turn and watch the ledger converge. A point that is not in `POINTS` is a
programming error, and so is a point in `POINTS` that no code reaches: a test looks for it.
"""

import logging
import os
import signal
import time
from typing import Final

from hal0.errors import SettingsError

log = logging.getLogger(__name__)

STEPS: Final = {
    "pull": ("begun", "pinned", "linked", "fetching", "whole", "noted", "fetched", "aside", "done"),
    "validate": ("begun", "hashed", "resolved", "done"),
    "unload": ("begun", "marked", "sent", "answered", "done"),
    "load": ("begun", "marked", "sent", "answered", "verified", "done"),
}
"""For each kind of job, in order: `begun` the body runs, nothing is written; `marked` the mark that
a request is on its way is committed; `sent` the engine's socket took the whole request; `answered`
its answer was read; `done` the end of this attempt is committed, whatever it was. Of a pull:
`pinned` the commit of a hub is in the row; `whole` all bytes are synced in `.part`; `noted` what
was found is committed; `fetched` the file has its final name; `aside` a file of a wrong digest has
its `.bad` name."""

OF_API: Final = (
    *("api.enqueued", "wake.enqueued"),
    *("serving.entered", "serving.counted", "serving.left"),
)
"""Reached by an API; what the name says is committed, and nobody has been told."""

ALONE: Final = (
    *("queue.claimed", "rescue.requeued", "leases.cleared"),
    *("settle.read", "settle.done", "scan.read", "scan.done", "place.marked", "place.answered"),
)
"""`requeued`, `cleared`, `settle.done`, `scan.done`: what the name says is committed.
`settle.read`: it is known that the engine owes nothing more to a load, and not yet written;
`scan.read`: an engine's list was read that changes something, and nothing is written.
`place`: a load unloads first what the engine lists and what does not answer."""

POINTS: Final = frozenset(
    [*OF_API, *ALONE, *(f"{kind}.{step}" for kind, steps in STEPS.items() for step in steps)]
)

_armed: dict[str, str] = {}


def arm(spec: str | None) -> None:
    """Arm one point from the text of HAL0_POINT; None disarms. Raises SettingsError."""
    _armed.clear()
    if spec is None:
        return
    name, _, act = spec.partition(":")
    verb, _, seconds = act.partition("=")
    if name not in POINTS or verb not in {"kill", "stop", "sleep"}:
        raise SettingsError(
            f"HAL0_POINT={spec!r} is not <point>:<kill|stop|sleep[=seconds]>; "
            f"points are {', '.join(sorted(POINTS))}"
        )
    if seconds and not seconds.replace(".", "", 1).isdigit():
        raise SettingsError(f"HAL0_POINT={spec!r}: {seconds!r} is not a number of seconds")
    _armed[name] = act


def reach(name: str) -> None:
    """Die, stop or linger here if this point is armed; the first process to come only once."""
    if name not in POINTS:
        raise AssertionError(f"{name} is not a declared point")
    act = _armed.pop(name, None)
    if act is None:
        return
    log.warning("point %s reached: %s", name, act)
    if act == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif act == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    else:
        time.sleep(float(act.partition("=")[2] or 60))
