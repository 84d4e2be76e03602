"""Whether the page of slots grows slower with the audit behind it."""

import http.client
import json
import time
from pathlib import Path
from typing import Final

from hal0.db import open_database
from hal0.jobs.boot import first_act
from hal0.settings import Settings
from tests.acceptance.house import House
from tests.bench.enqueue import NOWHERE
from tests.bench.history import go_round
from tests.bench.table import Row, Spread, judged, p95, ratios
from tests.bench.workshop import Workshop
from tests.rows import make_slot

SLOTS: Final = 100
MANY: Final = 1_000_000
FEW: Final = 1_000
REQUESTS: Final = 1_000
PATH: Final = f"/api/v1/slots?limit={SLOTS}"
LIMIT_MS: Final = 20.0
TARGET: Final = 1.3


class Api:
    """A real API over a home of that many transitions, and one connection to it that is kept."""

    def __init__(self, folder: Path, transitions: int) -> None:
        self.house = House(folder, NOWHERE)
        db = open_database(Settings(home=self.house.home, engine_url=NOWHERE))
        first_act(db, "bench")
        names = [f"slot-{number:03}" for number in range(SLOTS)]
        for name in names:
            make_slot(db, name)
        go_round(db, names, transitions)
        db.close()

    def start(self) -> None:
        """Start it and see that it shows every slot."""
        self.house.start_api()
        self._connection = http.client.HTTPConnection("127.0.0.1", self.house.port, timeout=30)
        assert len(json.loads(self._get(PATH))["items"]) == SLOTS

    def one(self, path: str = PATH) -> float:
        """Read a page; return milliseconds until its last byte."""
        began_ns = time.monotonic_ns()
        self._get(path)
        return (time.monotonic_ns() - began_ns) / 1e6

    def _get(self, path: str) -> bytes:
        self._connection.request("GET", path)
        answer = self._connection.getresponse()
        body = answer.read()
        assert answer.status == 200, body
        return body


def measure(shop: Workshop) -> list[Row]:
    """Read the page in turn from a house with a long past and from one with a short one."""
    apis = {}
    for name, count in (("many", MANY), ("few", FEW)):
        (shop.folder / name).mkdir()
        apis[name] = Api(shop.folder / name, count)
    with apis["many"].house, apis["few"].house:
        for api in apis.values():
            api.start()
            for _ in range(50):
                api.one()
        took: dict[str, list[float]] = {name: [] for name in apis}
        for number in range(REQUESTS):
            for name in reversed(apis) if number % 2 else apis:
                took[name].append(apis[name].one())
    many, few = p95(took["many"]), p95(took["few"])
    middle = Spread.of(took["many"])
    return [
        Row(
            what=f"GET /api/v1/slots, {SLOTS} slots, {MANY:,} transitions: p95",
            figure=f"{many:.1f} ms",
            spread=f"{middle} ms",
            to_reach=f"< {LIMIT_MS:g} ms",
            verdict=judged(many < LIMIT_MS),
            how=f"p50 {middle.p50:.1f} ms; {REQUESTS:,} requests on one connection",
            samples=took,
        ),
        Row(
            what=f"the same / with {FEW:,} transitions: p95",
            figure=f"{many / few:.2f} x",
            spread=str(ratios(took["many"], took["few"])),
            to_reach=f"<= {TARGET} x",
            verdict=judged(many / few <= TARGET),
            how=f"{few:.1f} ms; spread of paired requests",
        ),
    ]
