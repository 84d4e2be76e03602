"""A campaign: mixed traffic over eight slots while processes die, and what is left of it.

    report = Campaign(folder, Plan(seed=7, seconds=45)).run()
    assert not report.violations

The seed decides what is asked and what befalls whom; the machine decides when, so one seed is a
family of runs.
"""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from operator import ge
from pathlib import Path
from typing import Any, Final

from tests.acceptance.house import House
from tests.chaos.checker import Violation, check
from tests.chaos.client import LoggingClient
from tests.chaos.evidence import Evidence
from tests.chaos.faults import Death, Faults
from tests.chaos.sampler import Sampler
from tests.chaos.talk import Talk
from tests.chaos.traffic import Traffic
from tests.fakes.lemond import Lemond

SLOTS: Final = tuple(f"s{number}" for number in range(8))
BAD: Final = "bad"
SILENCE_S: Final = 3.0
QUICK: Final = {
    "HAL0_LOAD_TIMEOUT_S": "6",  # no load takes half a second: what lasts longer is lost
    "HAL0_ENGINE_SETTLE_S": "8",
    "HAL0_BUSY_TIMEOUT_S": "2",
    "HAL0_SILENCE_S": str(SILENCE_S),
    "HAL0_BEAT_S": "0.5",
    "HAL0_SCAN_S": "1",
    "HAL0_WAKE_TIMEOUT_S": "3",
}
TALKATIVE: Final = {"models": {"*": {"chat_token_delay_s": 0.03, "chat_tokens": 1000}}}
SERVES_NOBODY_S: Final = 5 * SILENCE_S
"""A slot that serves for a dead process is put right within a worker's tick; as long as one lives,
which no other of them has stopped, or holds the database up."""
SETTLES_WITHIN_S: Final = 90.0
SETTLED: Final = (
    "SELECT (SELECT count(*) FROM jobs WHERE state IN ('queued', 'running'))"
    " + (SELECT count(*) FROM engine_lane)"
    " + (SELECT count(*) FROM slots WHERE restore IS NOT NULL"
    "    AND id NOT IN (SELECT slot_id FROM breakers))"
    " + (SELECT count(*) FROM slots JOIN engines ON engines.id = engine_id"
    "    WHERE deleted_at IS NULL AND cause = 'unloaded_elsewhere' AND desired = 'loaded'"
    "    AND engine_process = process)"  # until a second look
    " + (SELECT count(*) FROM leases)"
)


@dataclass(frozen=True, slots=True)
class Plan:
    """How long, and with what; at least so much must come of it."""

    seed: int
    seconds: float
    jobs: int = 0
    kills: int = 0
    requests: int = 0
    """For inference, answered whole."""
    workers: int = 3
    clients: int = 3
    talkers: int = 4
    limit_s: float = 240.0
    """No longer, however little came of it."""


@dataclass(frozen=True, slots=True)
class Report:
    """What happened, and what does not hold."""

    seed: int
    jobs: int
    kills: int
    faults: int
    deaths_at: dict[str, int]
    requests: Counter[str]
    """How many requests for inference came to what: see `talk.Talk`."""
    longest_recovery_s: float
    served_nobody_s: float
    """For how long a slot served whose processes were all dead, at most."""
    settled_s: float
    violations: tuple[Violation, ...]

    def of(self, *points: int) -> int:
        """Count the violations of these points."""
        return sum(violation.point in points for violation in self.violations)


class Campaign:
    """One run in one folder."""

    def __init__(self, folder: Path, plan: Plan) -> None:
        self.plan = plan
        self.folder = folder
        self.answers = folder / "answers.ndjson"
        self.calls = folder / "calls.ndjson"
        self.evidence = Evidence(folder / "home" / "hal0.db", self.answers, self.calls)

    def run(self) -> Report:
        """Run it to its end and check what is left."""
        models = self.folder / "home" / "models"
        models.mkdir(parents=True)
        with (
            Lemond(models, call_log=self.calls, script=TALKATIVE) as lemond,
            House(self.folder, lemond.url, **QUICK) as house,
        ):
            return self._run(house, lemond)

    def _run(self, house: House, lemond: Lemond) -> Report:
        dice = random.Random(self.plan.seed)
        models = [f"m-{name}" for name in SLOTS]
        faults = Faults(house, lemond, dice, models, self.plan.workers, SILENCE_S)
        faults.start()
        self._furnish(house)
        sampler = Sampler(self.evidence.database, SERVES_NOBODY_S)
        reader = threading.Thread(target=sampler.run, daemon=True)
        reader.start()
        traffic = Traffic(
            url=lambda: house.url,
            log=self.answers,
            slots=SLOTS,
            bad_model=BAD,
            seed=self.plan.seed,
        )
        traffic.start(self.plan.clients)
        talk = Talk(url=lambda: house.url, slots=SLOTS, seed=self.plan.seed)
        talk.start(self.plan.talkers)
        began = time.monotonic()
        while (lasted_s := time.monotonic() - began) < self.plan.seconds or (
            not self._is_enough(house, faults, talk) and lasted_s < self.plan.limit_s
        ):
            threading.Event().wait(dice.uniform(0.1, 0.8))
            faults.next()
        traffic.stop()
        talk.stop()
        faults.calm()
        began = time.monotonic()
        left = self._let_it_settle(house, lemond, faults.loaded_there)
        settled_s = time.monotonic() - began
        self._ask_once_more(house)
        sampler.end()
        reader.join()
        return Report(
            seed=self.plan.seed,
            jobs=jobs_of(house),
            kills=faults.kills,
            faults=faults.count.total() - faults.kills,
            deaths_at=dict(faults.points),
            requests=talk.came_to,
            longest_recovery_s=longest_recovery_s(house, faults.deaths),
            served_nobody_s=sampler.longest_s,
            settled_s=settled_s,
            violations=(*check(self.evidence), *sampler.seen, *left),
        )

    def _furnish(self, house: House) -> None:
        for number, name in enumerate(SLOTS):
            house.add_model(f"m-{name}", seed=number)
            house.add_slot(name, f"m-{name}")
        good = house.add_model(BAD, seed=99)
        raw = bytearray(good.read_bytes())
        raw[-1] ^= 0xFF
        good.write_bytes(bytes(raw))

    def _let_it_settle(
        self, house: House, lemond: Lemond, loaded_there: set[str]
    ) -> list[Violation]:
        """Wait until nothing is under way and slots are as the engine; return what is not so."""

        def is_as_the_engine() -> bool:
            ours, loaded = held(house), set(lemond.state()["loaded"])
            return ours <= loaded <= ours | loaded_there

        ends: dict[str, Callable[[], bool]] = {
            "jobs, a lane or a wish are unfinished": lambda: house.sql(SETTLED) == [(0,)],
            "slots and engine differ": is_as_the_engine,
        }
        left = []
        for what, is_so in ends.items():
            try:
                house.wait_for(is_so, SETTLES_WITHIN_S)
            except AssertionError as error:
                left.append(Violation(1, f"{what} after {SETTLES_WITHIN_S:g} s; {error}"))
        return left

    def _is_enough(self, house: House, faults: Faults, talk: Talk) -> bool:
        plan = self.plan
        came = (jobs_of(house), faults.kills, talk.came_to["whole"])
        return all(map(ge, came, (plan.jobs, plan.kills, plan.requests)))

    def _ask_once_more(self, house: House) -> None:
        """Let a client be told how everything ended: it is held against the rows too."""
        client = LoggingClient("last", lambda: house.url, self.answers)
        for path in ("/api/v1/slots", "/api/v1/models"):
            client.ask("GET", path)
        for path in ("/api/v1/jobs", "/api/v1/transitions"):
            cursor = ""
            while cursor is not None:
                told = client.ask("GET", f"{path}?limit=1000{cursor and f'&cursor={cursor}'}")
                cursor = told.body["next_cursor"]
        client.close()


def jobs_of(house: House) -> int:
    """Count the jobs so far."""
    return int(house.sql("SELECT count(*) FROM jobs")[0][0])


def held(house: House) -> set[str]:
    """Return the models that slots hold, as the rows say."""
    rows = house.sql(
        "SELECT models.name FROM slots JOIN models ON models.id = slots.model_id "
        "WHERE slots.state IN ('ready', 'serving', 'idle')"
    )
    return {row[0] for row in rows}


def longest_recovery_s(house: House, deaths: list[Death]) -> float:
    """Return the longest time from a worker's death until its job was put back, in seconds."""
    rows = house.sql(
        "SELECT owner_id, ended_at FROM job_attempts WHERE outcome IN ('interrupted', 'failed')"
    )
    longest = 0.0
    for owner_id, ended_at in rows:
        killed = [death.at for death in deaths if owner_id.startswith(f"worker-{death.pid}-")]
        ended = datetime.fromisoformat(ended_at)
        longest = max([longest, *((ended - at).total_seconds() for at in killed)])
    return longest


def table_of(reports: list[Report]) -> list[tuple[str, Any]]:
    """Return the rows of the table that `make chaos` prints."""
    return [
        ("jobs", sum(report.jobs for report in reports)),
        ("kills", sum(report.kills for report in reports)),
        ("  at so many named points", len({p for r in reports for p in r.deaths_at})),
        ("other faults", sum(report.faults for report in reports)),
        ("requests answered whole", sum(report.requests["whole"] for report in reports)),
        ("  cut short, or left", sum(r.requests["cut"] + r.requests["left"] for r in reports)),
        ("  refused", sum(n for r in reports for how, n in r.requests.items() if how.isdigit())),
        ("  met nobody", sum(report.requests["unmet"] for report in reports)),
        ("lost", sum(report.of(1) for report in reports)),
        ("overlaps", sum(report.of(3) for report in reports)),
        ("loads without validation", sum(report.of(4) for report in reports)),
        ("repeated loads", sum(report.of(5) for report in reports)),
        ("broken chains", sum(report.of(2) for report in reports)),
        ("stale writes", sum(report.of(6) for report in reports)),
        ("untrue serving", sum(report.of(7) for report in reports)),
        ("torn files", sum(report.of(8) for report in reports)),
        ("losses without a reason", sum(report.of(9, 10) for report in reports)),
        ("longest recovery", f"{max(r.longest_recovery_s for r in reports):.1f} s"),
        ("longest serving for the dead", f"{max(r.served_nobody_s for r in reports):.1f} s"),
    ]
