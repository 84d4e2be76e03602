"""What hal0 itself adds to a load: from just before the request to the committed `ready`.

Real API and worker, a Lemonade that loads at once, a file of a megabyte whose verdict is
remembered. The engine's own time, from the load's arrival there to its answer, is taken off.
Nothing is polled: the bench hangs a bell of its own beside the worker's, which is rung after each
commit that others should see.
"""

import sqlite3
import time
from typing import Final

from hal0.jobs.bell import Bell
from tests.acceptance.house import House
from tests.bench.table import Row, Spread, judged
from tests.bench.workshop import Workshop
from tests.fakes.lemond import Lemond

IDLE_S: Final = 1.0
LOADS: Final = 40
TARGET_MS: Final = 100.0


def measure(shop: Workshop) -> list[Row]:
    """Load one slot again and again, with a rest before each load."""
    models = shop.folder / "home" / "models"
    models.mkdir(parents=True)
    took: dict[str, list[float]] = {"total": [], "engine": []}
    with (
        Lemond(models, call_log=shop.folder / "calls.ndjson") as lemond,
        House(shop.folder, lemond.url) as house,
    ):
        house.start_api()
        house.start_worker()
        house.add_model()
        house.add_slot()
        loads = _Loads(house, lemond)
        for number in range(-1, LOADS):
            total_ms, engine_ms = loads.one()
            loads.empty()
            if number >= 0:  # the first one hashes
                took["total"].append(total_ms)
                took["engine"].append(engine_ms)
    ours = [total - engine for total, engine in zip(took["total"], took["engine"], strict=True)]
    spread = Spread.of(ours)
    return [
        Row(
            what="load asked to ready, without hash and the engine's own time",
            figure=f"{spread.p50:.0f} ms",
            spread=f"{spread} ms",
            to_reach=f"< {TARGET_MS:g} ms",
            verdict=judged(spread.p50 < TARGET_MS),
            how=f"{LOADS} loads; the engine {Spread.of(took['engine']).p50:.0f} ms",
            samples=took,
        )
    ]


class _Loads:
    """A running house with one slot, and how long each of its loads takes."""

    def __init__(self, house: House, lemond: Lemond) -> None:
        self._house, self._lemond = house, lemond
        self._bell = Bell(house.home / "run", "bench")
        self._db = sqlite3.connect(house.home / "hal0.db")

    def one(self) -> tuple[float, float]:
        """Load the empty slot after a rest; return milliseconds in all, and the engine's own."""
        time.sleep(IDLE_S)
        while self._bell.wait(0.001):
            pass
        began_ns = time.monotonic_ns()
        self._house.load()
        while self._state() != "ready":
            assert self._bell.wait(30), f"the slot is {self._state()} and nobody works"
        took_ms = (time.monotonic_ns() - began_ns) / 1e6
        self._house.wait_settled()
        return took_ms, self._engine_ms()

    def empty(self) -> None:
        """Unload the slot."""
        self._house.post("/api/v1/slots/chat/unload")
        self._house.wait_until("offline")
        self._house.wait_settled()

    def _state(self) -> str:
        return str(self._db.execute("SELECT state FROM slots").fetchone()[0])

    def _engine_ms(self) -> float:
        began, ended = (self._lemond.calls("/v1/load", phase)[-1] for phase in ("begin", "end"))
        return float(ended["mono_ms"] - began["mono_ms"])
