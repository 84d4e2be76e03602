"""Points 9 and 10: what an engine lost comes back or says why not, and each loss has its incident.

A machine's loss of a model is never a mystery: the change names an incident, which names the load
on whose account it was, if there is one. And nothing that is wanted loaded is left alone without a
reason that an operator can read.
"""

from collections.abc import Iterator
from typing import Final

from tests.chaos.evidence import Row
from tests.chaos.reading import Reading

LOADED: Final = {"ready", "serving", "idle"}
NAMED: Final = {"evicted_by_engine", "engine_lost"}
"""Causes that are always part of an incident."""
OF_A_LOAD: Final = {"load_failed", "late_arrival"}


class Aftermath:
    """The searches for what contradicts the two points."""

    def __init__(self, read: Reading, *, is_quiet: bool) -> None:
        self._read = read
        self._is_quiet = is_quiet
        self._last = {row["slot_id"]: row for row in read.moves}

    def unexplained_losses(self) -> Iterator[str]:
        """Yield slots that are wanted loaded, are not, and nothing says why."""
        for slot in self._read.slots.values() if self._is_quiet else ():
            is_meant = slot["deleted_at"] is None and slot["desired"] == "loaded"
            if is_meant and slot["state"] == "offline" and not self._is_explained(slot):
                cause = self._last[slot["id"]]["cause"]
                yield f"slot {slot['name']} is wanted and offline ({cause}), for no reason"

    def _is_explained(self, slot: Row) -> bool:
        mine = [row for row in self._read.jobs.values() if row["slot_id"] == slot["id"]]
        if any(row["state"] in {"queued", "running"} for row in mine):
            return True
        if slot["restore"] is not None:
            return slot["id"] in self._read.breakers
        last = self._last[slot["id"]]
        incident = self._read.incidents.get(last["incident_id"])
        made_room = incident is not None and incident["kind"] == "load_made_room"
        newest = max(mine, key=lambda row: int(row["id"]), default=None)
        came_to_nothing = newest is not None and (
            newest["state"] in {"failed", "cancelled"} or newest["outcome"] == "skipped"
        )
        is_unclear = (  # gone before a restart, or before another's took its place
            last["cause"] == "unloaded_elsewhere"
            and slot["engine_process"] != self._read.processes[slot["engine_id"]]
        )
        has_failed = slot["id"] in self._read.failed_keys
        return made_room or came_to_nothing or is_unclear or has_failed

    def nameless_losses(self) -> Iterator[str]:
        """Yield losses without an incident, and incidents that name nothing that happened."""
        for row in self._read.moves:
            is_scan = row["actor"] == "reconcile" and row["cause"] == "engine_restarted"
            if row["cause"] not in NAMED and not is_scan:
                continue
            if row["incident_id"] not in self._read.incidents:
                yield f"transition {row['id']} ({row['cause']}) belongs to no incident"
        sent = {one.mark["job_id"] for one in self._read.sent}
        for incident in self._read.incidents.values():
            if incident["kind"] in OF_A_LOAD and incident["job_id"] not in sent:
                yield f"incident {incident['id']} names job {incident['job_id']}, never sent"
