"""Whether nothing was lost: ten points, read off the database, the client's and the engine's log.

    1  every job that a client was told about is there and ended, or is visibly queued; what it was
       told of attempts, changes and slots is what the rows say (`promises.py`)
    2  each change of a slot begins where the one before ended; the slot is where the last one ends
    3  at most one attempt of a slot at a time, at most one load in flight at an engine
    4  no load without a preload validation in the same chain, of the very file that was opened
    5  no machine sends again a load that was sent; READY is written once for each that was
    6  a stale owner changes nothing: what an attempt wrote lies between its begin and its end
    7  a slot serves iff a living process holds a lease on what it holds; no lease is left over
    8  a file at its final path is whole: every file that a backend opened had its model's digest
    9  what an engine lost and is wanted comes back, or the rows say why not (`aftermath.py`)
    10 each loss belongs to an incident, which names the load that was to blame

Nothing of hal0 is asked or imported; a doctored history of each point is in `test_checker.py`.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

from tests.chaos.aftermath import Aftermath
from tests.chaos.evidence import Evidence, Row
from tests.chaos.promises import Promises
from tests.chaos.reading import Reading, Sent

LATE: Final = {"unload_confirmed"}
"""What the engine's late answer to an attempt that has ended brings about."""


@dataclass(frozen=True, slots=True)
class Violation:
    """One point that does not hold, and where."""

    point: int
    what: str

    def __str__(self) -> str:
        return f"point {self.point}: {self.what}"


def check(evidence: Evidence, *, is_quiet: bool = True) -> list[Violation]:
    """Return everything that does not hold; `is_quiet` = everything was given the time to end."""
    read = Reading(evidence)
    look, after = Checker(read, is_quiet=is_quiet), Aftermath(read, is_quiet=is_quiet)
    points = {
        1: Promises(read, is_quiet=is_quiet).broken,
        2: look.broken_chains,
        3: look.overlaps,
        4: look.unvalidated_loads,
        5: look.repeated_loads,
        6: look.stale_writes,
        7: look.untrue_serving,
        8: look.torn_files,
        9: after.unexplained_losses,
        10: after.nameless_losses,
    }
    return [Violation(point, what) for point, find in points.items() for what in find()]


class Checker:
    """The points from 2 on, each a search for what contradicts it."""

    def __init__(self, read: Reading, *, is_quiet: bool) -> None:
        self._read = read
        self._is_quiet = is_quiet

    # -- 2 ----------------------------------------------------------------------------------------

    def broken_chains(self) -> Iterator[str]:
        """Yield slots whose history has a hole, or does not end where the slot is."""
        for slot_id, slot in self._read.slots.items():
            mine = [row for row in self._read.moves if row["slot_id"] == slot_id]
            if not mine:
                yield f"slot {slot['name']} has no history"
                continue
            for before, after in pairwise([{"to_state": None, "id": 0}, *mine]):
                if after["from_state"] != before["to_state"]:
                    yield (
                        f"slot {slot['name']}: row {after['id']} begins at {after['from_state']}, "
                        f"row {before['id']} ended at {before['to_state']}"
                    )
            if slot["state"] != mine[-1]["to_state"]:
                yield (
                    f"slot {slot['name']} is {slot['state']}, its history ends at "
                    f"{mine[-1]['to_state']}"
                )

    # -- 3 ----------------------------------------------------------------------------------------

    def overlaps(self) -> Iterator[str]:
        """Yield attempts of one slot, and loads at one engine, that ran at the same time."""
        by_slot: dict[int, list[Row]] = defaultdict(list)
        for row in self._read.attempts.values():
            by_slot[self._read.jobs[row["job_id"]]["slot_id"]].append(row)
        for slot_id, mine in by_slot.items():
            for one, two in pairwise(sorted(mine, key=lambda row: str(row["started_at"]))):
                if two["started_at"] < one["ended_at"]:
                    name, ids = self._read.slots[slot_id]["name"], (two["job_id"], one["job_id"])
                    yield "slot {}: job {} began while job {} ran".format(name, *ids)
        running = Counter(
            row["slot_id"] for row in self._read.jobs.values() if row["state"] == "running"
        )
        yield from (f"{n} jobs of slot {slot_id} run" for slot_id, n in running.items() if n > 1)
        for one_load, two_load in pairwise(self._read.loads):
            if one_load.pid == two_load.pid and (
                one_load.ended_ms is None or two_load.began_ms < one_load.ended_ms
            ):
                yield f"the engine got a load of {two_load.model} while it loaded {one_load.model}"

    # -- 4 ----------------------------------------------------------------------------------------

    def unvalidated_loads(self) -> Iterator[str]:
        """Yield loads that the engine got without a passed validation of that file before."""
        for call in self._read.unmarked:
            yield f"the engine got a load of {call.model} at {call.at} that no row announces"
        for sent in self._read.sent:
            if not sent.calls:
                continue
            load = self._read.jobs[sent.mark["job_id"]]
            passed = self._validation(load["chain_id"], sent.mark["at"])
            if passed is None:
                yield f"load job {load['id']} was sent and its chain had passed no validation"
                continue
            was_last = passed["attempt"] == self._read.jobs[passed["job_id"]]["attempt"]
            result = self._read.jobs[passed["job_id"]]["result"]
            if not was_last or result is None:
                continue
            checked = {file["path"]: file["identity"] for file in json.loads(result)["files"]}
            for opened in (one for call in sent.calls for one in call.opened):
                if checked.get(opened["path"]) != opened["identity"]:
                    yield f"load job {load['id']}: {opened['path']} is not what was checked"

    def _validation(self, chain_id: int, before: str) -> Row | None:
        """Return the last good attempt of the chain's validation that ended before."""
        good = [
            row
            for (job_id, _), row in self._read.attempts.items()
            if self._read.jobs[job_id]["chain_id"] == chain_id
            and self._read.jobs[job_id]["kind"] == "validate"
            and row["outcome"] == "done"
            and row["ended_at"] <= before
        ]
        return max(good, key=lambda row: int(row["attempt"]), default=None)

    # -- 5 ----------------------------------------------------------------------------------------

    def repeated_loads(self) -> Iterator[str]:
        """Yield loads that were sent again without an operator's word, or were READY twice."""
        sends: Counter[int] = Counter()
        for sent in self._read.sent:
            job_id = sent.mark["job_id"]
            sends[job_id] += bool(sent.calls)
            if len(sent.calls) > 1:
                yield f"load job {job_id} was sent {len(sent.calls)} times under one mark"
            failed = self._failed_before(sent)
            if sent.calls and failed is not None:
                yield f"load job {job_id}, a machine's, repeats job {failed}, which failed"
        for job_id, count in sends.items():
            retries = self._read.retries(self._read.jobs[job_id]["chain_id"])
            if count > 1 + retries:
                yield f"load job {job_id} reached the engine {count} times, {retries} retries"
        marks = Counter(row["job_id"] for row in self._read.moves if row["cause"] == "load_sent")
        ready = Counter(row["job_id"] for row in self._read.moves if row["cause"] == "loaded")
        for job_id, count in ready.items():
            if count > marks[job_id]:
                yield f"load job {job_id} was READY {count} times and sent {marks[job_id]} times"

    def _failed_before(self, sent: Sent) -> int | None:
        """Return the failed load that a machine's one repeats, with no operator's act between."""
        chain = self._read.chain_of(sent)
        if chain["origin"] == "operator":
            return None
        earlier = [
            other
            for other in self._read.sent
            if other.mark["slot_id"] == sent.mark["slot_id"]
            and other.mark["id"] < sent.mark["id"]
            and other.calls
            and self._key(other) == self._key(sent)
        ]
        if not earlier:
            return None
        last = earlier[-1].mark
        job = self._read.jobs[last["job_id"]]
        between = [
            row
            for row in self._read.chains.values()
            if row["slot_id"] == chain["slot_id"]
            and row["origin"] == "operator"
            and last["at"] <= row["created_at"] <= sent.mark["at"]
        ]
        return None if job["state"] != "failed" or between else int(job["id"])

    def _key(self, sent: Sent) -> tuple[Any, Any]:
        chain = self._read.chain_of(sent)
        return chain["model_id"], chain["options"]

    # -- 6 ----------------------------------------------------------------------------------------

    def stale_writes(self) -> Iterator[str]:
        """Yield changes that an attempt made before it began or after it had ended."""
        for row in self._read.moves:
            if row["job_id"] is None or row["attempt"] is None or row["cause"] in LATE:
                continue
            attempt = self._read.attempts.get((row["job_id"], row["attempt"]))
            job = self._read.jobs.get(row["job_id"])
            if attempt is None:
                if job is None or (job["attempt"], job["state"]) != (row["attempt"], "running"):
                    yield f"transition {row['id']} is of an attempt that never was"
            elif not attempt["started_at"] <= row["at"] <= attempt["ended_at"]:
                yield f"transition {row['id']} was written by an attempt that had ended"
        for job in self._read.jobs.values():
            ended = sorted(n for job_id, n in self._read.attempts if job_id == job["id"])
            expected = job["attempt"] - (job["state"] == "running")
            if ended != list(range(1, expected + 1)):
                yield f"job {job['id']} has attempts {ended}, not 1 to {expected}"

    # -- 7 ----------------------------------------------------------------------------------------

    def untrue_serving(self) -> Iterator[str]:
        """Yield slots that serve for nobody, or for somebody and do not say so, and stale leases.

        That a process is dead is noticed a moment later: before it is quiet, its leases count.
        """
        for slot_id, slot in self._read.slots.items():
            mine = [row for row in self._read.leases if row["slot_id"] == slot_id]
            good = [row for row in mine if self._is_good(row, slot)]
            if slot["state"] == "serving" and not good:
                yield f"slot {slot['name']} serves, and no living process has a lease on it"
            elif slot["state"] != "serving" and good:
                owner = good[0]["owner_id"]
                yield f"slot {slot['name']} is {slot['state']}, and {owner} has a lease on it"
            for row in mine if self._is_quiet else ():
                if row not in good:
                    yield f"slot {slot['name']}: a lease of {row['owner_id']} is left over"

    def _is_good(self, lease: Row, slot: Row) -> bool:
        is_alive = not self._is_quiet or lease["owner_id"] in self._read.living
        return bool(is_alive and lease["generation"] == slot["generation"])

    # -- 8 ----------------------------------------------------------------------------------------

    def torn_files(self) -> Iterator[str]:
        """Yield files that a backend opened and that were not what is registered."""
        expected = {row["name"]: row["sha256"] for row in self._read.models.values()}
        for call in self._read.loads:
            for opened in call.opened:
                digest = expected.get(call.model)
                if digest is not None and opened["sha256"] != digest:
                    yield f"{opened['path']} had another digest when it was loaded at {call.at}"
