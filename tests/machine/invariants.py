"""What must hold after each step, told from hal0's rows alone: the reference is not asked.

a slot is in the state that its last transition led to
no slot has two running jobs
no machine sends a load again that was sent and failed, until an operator asks for it or it serves
no machine unloads what is pinned, or what nobody wants loaded
no machine asks for a load that nobody wants; a request for none that a person wants unloaded
a machine's loads of one slot are not more than five in a row, nor sooner than their pauses end
"""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from hal0.clock import boot_id, monotonic_ms

Look = Callable[..., sqlite3.Cursor]
Rows = dict[int, sqlite3.Row]

PARKED_AFTER: Final = 5
_MOVED_PAST_AUDIT: Final = """
SELECT name FROM slots WHERE state IS NOT (
  SELECT to_state FROM transitions WHERE slot_id = slots.id ORDER BY id DESC LIMIT 1)
"""
_TWO_RUNNING: Final = """
SELECT name FROM slots WHERE 1 < (
  SELECT count(*) FROM jobs WHERE slot_id = slots.id AND jobs.state = 'running')
"""
_LOADS: Final = """
SELECT jobs.id, jobs.slot_id, jobs.state, outcome, sent_attempt, origin,
       chains.model_id || ' ' || options AS load
FROM jobs JOIN chains ON chains.id = chain_id WHERE kind = 'load'
"""
_SLOTS: Final = """
SELECT id, name, desired, desired_by, wake, pinned, model_id || ' ' || held_options AS load
FROM slots
"""
_CHAINS: Final = "SELECT id, slot_id, origin FROM chains WHERE goal = 'load'"
_IDLE_UNLOADS: Final = "SELECT id, slot_id FROM transitions WHERE cause = 'idle_unload'"
_BREAKERS: Final = "SELECT slot_id AS id, sent, sent_boot, opens_ms FROM breakers"


class Invariants:
    """Looks after each step at what it has changed."""

    def __init__(self, look: Look) -> None:
        self._look = look
        self._failed: set[tuple[int, str]] = set()
        """Slots and loads that were sent and failed since an operator asked, or they served."""
        self._see()

    def _see(self) -> None:
        self._slots, self._loads = self._rows(_SLOTS), self._rows(_LOADS)
        self._chains = self._rows(_CHAINS)
        self._unloads, self._breakers = self._rows(_IDLE_UNLOADS), self._rows(_BREAKERS)

    def _rows(self, query: str) -> Rows:
        return {row["id"]: row for row in self._look(query)}

    def violations(self, verb: str, asked_jobs: Sequence[int]) -> list[str]:
        """Tell what does not hold after an operation; `asked_jobs` are what an operator wants."""
        slots, loads, unloads, breakers = self._slots, self._loads, self._unloads, self._breakers
        chains = self._chains
        self._see()
        if verb in ("load", "retry", "retry_all"):
            self._failed -= {
                self._key(self._loads[id_]) for id_ in asked_jobs if id_ in self._loads
            }
        self._failed -= {(slot["id"], slot["load"]) for slot in self._slots.values()}
        found = [*self._of_rows(), *self._of_unloads(slots, unloads)]
        found += self._of_wishes(slots, chains)
        found += self._of_loads(loads, breakers)
        return found

    def _of_rows(self) -> Iterator[str]:
        for (name,) in self._look(_MOVED_PAST_AUDIT):
            yield f"slot {name} has moved past its audit"
        for (name,) in self._look(_TWO_RUNNING):
            yield f"two jobs of slot {name} run"

    def _of_unloads(self, slots: Rows, before: Rows) -> Iterator[str]:
        for row in (row for id_, row in self._unloads.items() if id_ not in before):
            slot = slots[row["slot_id"]]
            if slot["pinned"]:
                yield f"a machine unloads slot {slot['name']}, which is pinned"
            if slot["desired"] != "loaded":
                yield f"a machine unloads slot {slot['name']}, which somebody loaded past hal0"

    def _of_wishes(self, slots: Rows, before: Rows) -> Iterator[str]:
        for row in (row for id_, row in self._chains.items() if id_ not in before):
            slot = slots[row["slot_id"]]
            if row["origin"] == "restore" and slot["desired"] != "loaded":
                yield f"a machine restores slot {slot['name']}, which nobody wants loaded"
            is_a_persons = slot["desired_by"] in ("operator", "elsewhere")
            is_to_stay = slot["desired"] == "unloaded" and is_a_persons
            may_not = {"auto": is_to_stay, "always": False, "never": True}[slot["wake"]]
            if row["origin"] == "wake" and may_not:
                yield f"a request loads slot {slot['name']}, against a person's wish"

    def _of_loads(self, before: Rows, breakers: Rows) -> Iterator[str]:
        for id_, row in self._loads.items():
            old = before.get(id_)
            was_sent = None if old is None else old["sent_attempt"]
            if row["sent_attempt"] not in (None, was_sent) and row["origin"] != "operator":
                if self._key(row) in self._failed:
                    yield f"a machine sends load job {id_} again, which has failed"
                if not _may_send(breakers.get(row["slot_id"])):
                    yield f"a machine sends load job {id_} although its slot's breaker refuses"
            if old is not None and old["state"] != row["state"]:
                self._note_end(row)

    def _note_end(self, row: sqlite3.Row) -> None:
        if row["state"] == "failed" and row["sent_attempt"] is not None:
            self._failed.add(self._key(row))
        elif row["outcome"] == "done":
            self._failed.discard(self._key(row))

    def _key(self, row: sqlite3.Row) -> Any:
        return row["slot_id"], row["load"]


def _may_send(breaker: sqlite3.Row | None) -> bool:
    if breaker is None:
        return True
    has_waited = breaker["sent_boot"] != boot_id() or monotonic_ms() >= breaker["opens_ms"]
    return bool(breaker["sent"] < PARKED_AFTER and has_waited)
