"""A soak: real processes, real inference by tiny models, a crowd of clients, and what is left.

    report = Soak(folder, Plan(seed=7, seconds=120)).run()
    assert not report.violations

The first third warms the processes up. Then, and at the end, everything is let to fall silent and
the API is asked what it holds.
"""

import asyncio
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from tests.acceptance.house import ROOT, House
from tests.engine_process import EngineProcess
from tests.soak import vitals
from tests.soak.checker import check
from tests.soak.clients import Crowd
from tests.soak.evidence import Evidence, Violation
from tests.soak.orders import ARGUMENTS, SIZES, Orders
from tests.soak.vitals import Vitals

MODELS: Final = {"s0": ("m0",), "s1": ("m1",), "s2": ("m2", "m4"), "s3": ("m3", "m5")}
"""What each slot may hold; no model belongs to two."""
SHORT: Final = {"idle_after_s": 0.5, "unload_after_s": 1.5}
"""Of one slot: machines unload it whenever it is not in demand for a while."""
LINGER_S: Final = 0.5
QUICK: Final = {
    "HAL0_ENGINE_KIND": "embedded",
    "HAL0_SERVING_LINGER_S": str(LINGER_S),
    "HAL0_SCAN_S": "1",
    "HAL0_WAKE_TIMEOUT_S": "20",
    "HAL0_LOAD_TIMEOUT_S": "60",  # of a machine that is busy with other tests
    "HAL0_UNLOAD_TIMEOUT_S": "60",
}
SILENT_WITHIN_S: Final = 40.0
SILENT: Final = (
    "SELECT (SELECT count(*) FROM jobs WHERE state IN ('queued', 'running'))"
    " + (SELECT count(*) FROM engine_lane) + (SELECT count(*) FROM leases)"
    " + (SELECT count(*) FROM slots WHERE state = 'serving')"
)


@dataclass(frozen=True, slots=True)
class Plan:
    """How long clients ask, in seconds, and which dice they throw."""

    seed: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Report:
    """What happened, and what does not hold."""

    seed: int
    figures: dict[str, int]
    before: Vitals
    after: Vitals
    violations: tuple[Violation, ...]


class Soak:
    """One run in one folder."""

    def __init__(self, folder: Path, plan: Plan) -> None:
        self.plan = plan
        self._folder = folder
        self._clients = folder / "clients.ndjson"
        self._recorded = folder / "recorded.ndjson"
        self._told = folder / "vitals.json"

    def run(self) -> Report:
        """Run it to its end and check what is left."""
        models = self._folder / "home" / "models"
        models.mkdir(parents=True)
        engine = EngineProcess(models, home=self._folder)
        engine.call_log = self._folder / "calls.ndjson"  # where the house looks for it
        with engine, self._recorder(engine.url) as url, House(self._folder, url, **QUICK) as house:
            return self._run(house)

    @contextmanager
    def _recorder(self, engine: str) -> Iterator[str]:
        database = self._folder / "home" / "hal0.db"
        command = ["-m", "tests.soak.recorder", engine, str(database), str(self._recorded)]
        with subprocess.Popen(
            [sys.executable, *command], cwd=ROOT, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            try:
                yield process.stdout.readline().strip()
            finally:
                process.terminate()

    def _run(self, house: House) -> Report:
        api = house.start("-m", "tests.soak.watched_api", str(self._told))
        house.wait_for(house.is_up)
        house.start_worker()
        self._furnish(house)
        orders = Orders(lambda: house.url, self._folder / "answers.ndjson", MODELS, self.plan.seed)
        left = self._traffic(house, orders, 0, self.plan.seconds / 3)
        before = vitals.read_when_still(api.pid, self._told)
        warm = self._asked()
        left += self._traffic(house, orders, 1, self.plan.seconds * 2 / 3)
        after = vitals.read_when_still(api.pid, self._told)
        orders.close()
        evidence = Evidence.read(house.home / "hal0.db", self._clients, self._recorded)
        leaks = vitals.leaks(before, after, self._asked() - warm)
        return Report(
            seed=self.plan.seed,
            figures=figures(house, evidence, orders.count),
            before=before,
            after=after,
            violations=(*check(evidence, timedelta(seconds=LINGER_S)), *left, *leaks),
        )

    def _furnish(self, house: House) -> None:
        for number, model in enumerate(sorted(m for models in MODELS.values() for m in models)):
            house.add_model(model, seed=number)
        options = {"ctx_size": SIZES[0], "llamacpp_args": ARGUMENTS}
        for slot, (model, *_) in MODELS.items():
            times: dict[str, Any] = SHORT if slot == "s1" else {}
            house.add_slot(slot, model, options=options, **times)
            house.load(slot)
        house.wait_settled(60)

    def _traffic(
        self, house: House, orders: Orders, round_: int, seconds: float
    ) -> list[Violation]:
        """Let clients and operator at it for so long; return what is left when all is silent."""
        crowd = Crowd(
            house.url,
            {slot: (slot, *models) for slot, models in MODELS.items()},
            self._clients,
            self.plan.seed,
        )
        orders.start()
        asyncio.run(_ask_for(crowd, round_, seconds))
        orders.stop()
        try:
            house.wait_for(lambda: house.sql(SILENT) == [(0,)], SILENT_WITHIN_S)
        except AssertionError as error:
            return [Violation("left", f"jobs, lanes, leases or serving slots; {error}")]
        slots = house.get("/api/v1/slots")["items"]
        return [
            Violation("left", f"slot {slot['name']} shows in_flight {slot['in_flight']}")
            for slot in slots
            if slot["in_flight"]
        ]

    def _asked(self) -> int:
        return len(self._clients.read_text(encoding="utf-8").splitlines())


async def _ask_for(crowd: Crowd, round_: int, seconds: float) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().call_later(seconds, stop.set)
    await crowd.ask_until(stop, round_)


def figures(house: House, evidence: Evidence, orders: Counter[str]) -> dict[str, int]:
    """Return how much of what came of it, in the order in which it is shown."""
    ended = Counter(asked.how for asked in evidence.asked)
    refused = Counter(asked.code for asked in evidence.asked if asked.code and asked.how == "whole")
    causes = Counter(dict(house.sql("SELECT cause, count(*) FROM transitions GROUP BY cause")))
    origins = Counter(dict(house.sql("SELECT origin, count(*) FROM chains GROUP BY origin")))
    return {
        "requests": len(evidence.asked),
        "  forwarded": len(evidence.forwarded),
        "  left by their clients": ended["left"],
        "  cut off by force": ended["error_event"] + ended["cut"],
        **{f"  {code}": count for code, count in sorted(refused.items())},
        "orders": orders.total(),
        "loads": causes["loaded"],
        "  woken by requests": origins["wake"],
        "unloads": causes["unloaded"],
        "  by force": causes["forced"],
        "  by machines": causes["idle_unload"],
        "times of serving": len(evidence.periods),
    }
