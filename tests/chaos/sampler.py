"""What may not be there at any commit, and what may not last: the database is read all the time."""

import sqlite3
import threading
import time
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.chaos.checker import Violation

IMPOSSIBLE: Final = {
    "overlap": "SELECT slot_id FROM jobs WHERE state = 'running' GROUP BY 1 HAVING count(*) > 1",
    "state without a row": """
        SELECT id FROM slots WHERE state IS NOT (SELECT to_state FROM transitions
        WHERE slot_id = slots.id ORDER BY id DESC LIMIT 1)""",
    "serves without a lease": """
        SELECT id FROM slots WHERE state = 'serving' AND NOT EXISTS (SELECT 1 FROM leases
        WHERE slot_id = slots.id AND leases.generation = slots.generation)""",
    "a lease on what does not serve": """
        SELECT slots.id FROM slots JOIN leases ON slot_id = slots.id
        WHERE leases.generation = slots.generation AND state <> 'serving'""",
}
POINTS: Final = {
    "overlap": 3,
    "state without a row": 2,
    "serves without a lease": 7,
    "a lease on what does not serve": 7,
}
SERVING: Final = """
    SELECT slots.id, pid FROM slots JOIN leases ON slot_id = slots.id
    AND leases.generation = slots.generation JOIN owners ON owners.id = owner_id
    WHERE state = 'serving'"""


@dataclass
class Sampler:
    """Reads the database again and again; `nobody_s` is how long a slot may serve for the dead."""

    database: Path
    nobody_s: float
    seen: list[Violation] = field(default_factory=list)
    reads: int = 0
    longest_s: float = 0.0
    """For how long a slot served, at most, whose processes were all dead."""
    _since: dict[int, float] = field(default_factory=dict)
    _ended: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Read until the end."""
        with closing(sqlite3.connect(f"{self.database.as_uri()}?mode=ro", uri=True)) as connection:
            while not self._ended.wait(0.1):
                self.look(connection)

    def look(self, connection: sqlite3.Connection) -> None:
        """Read once."""
        self.reads += 1
        for what, query in IMPOSSIBLE.items():
            if rows := connection.execute(query).fetchall():
                self.seen.append(Violation(POINTS[what], f"{what}: {rows}"))
        self._look_for_the_dead(connection.execute(SERVING).fetchall())

    def _look_for_the_dead(self, rows: list[tuple[int, int]]) -> None:
        served = {slot_id for slot_id, pid in rows if Path(f"/proc/{pid}").exists()}
        now = time.monotonic()
        self._since = {
            slot_id: self._since.get(slot_id, now) for slot_id, _ in rows if slot_id not in served
        }
        for slot_id, since in self._since.items():
            self.longest_s = max(self.longest_s, now - since)
            if now - since > self.nobody_s:
                lasted = f"slot {slot_id} served for the dead for {now - since:.0f} s"
                self.seen.append(Violation(7, lasted))

    def end(self) -> None:
        """Stop reading."""
        self._ended.set()
