"""How long a scrape takes with a long past behind it, and how much of that is writing its text."""

import time
from collections.abc import Callable
from contextlib import closing
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from hal0.api.metrics import registry_of
from hal0.db import Database, open_database
from hal0.settings import Settings
from tests.bench.enqueue import NOWHERE
from tests.bench.slots_page import MANY, SLOTS, Api
from tests.bench.table import Row, Spread, judged, p95, ratios
from tests.bench.workshop import Workshop

SCRAPES: Final = 300
PATH: Final = "/metrics"
LIMIT_MS: Final = 20.0
FIRST_LIMIT_MS: Final = 1500.0
TARGET: Final = 3.0


class Kept(Collector):
    """Tells the numbers of one moment again and again."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._metrics = list(registry.collect())

    def collect(self) -> list[Metric]:
        """Return them."""
        return self._metrics


def measure(shop: Workshop) -> list[Row]:
    """Scrape one API again and again, then in this process beside writing the same text alone."""
    api = Api(shop.folder, MANY)
    with api.house:
        api.start()
        first = [api.one(PATH) for _ in range(20)]
        took = [api.one(PATH) for _ in range(SCRAPES)]
    with closing(open_database(Settings(home=api.house.home, engine_url=NOWHERE))) as db:
        whole, text = _of_the_processor(db)
    return [_scrapes(first[0], took), _beside_text(whole, text)]


def _scrapes(first_ms: float, took: list[float]) -> Row:
    within, middle = p95(took), Spread.of(took)
    return Row(
        what=f"GET {PATH}, {SLOTS} slots, {MANY:,} transitions: p95",
        figure=f"{within:.1f} ms",
        spread=f"{middle} ms",
        to_reach=f"< {LIMIT_MS:g} ms; the first < {FIRST_LIMIT_MS:g} ms",
        verdict=judged(within < LIMIT_MS and first_ms < FIRST_LIMIT_MS),
        how=f"p50 {middle.p50:.1f} ms; the first, while the past is counted, {first_ms:.0f} ms",
        samples={"scrape": took},
    )


def _of_the_processor(db: Database) -> tuple[list[float], list[float]]:
    """Return the milliseconds of processor that scrapes take, and the writing of their text."""
    registry, kept = registry_of(db, lambda: 0), CollectorRegistry()
    while b"hal0_load_seconds" not in generate_latest(registry):
        pass
    kept.register(Kept(registry))
    pairs = [
        (_cpu_ms(lambda: generate_latest(registry)), _cpu_ms(lambda: generate_latest(kept)))
        for _ in range(SCRAPES)
    ]
    return [whole for whole, _ in pairs], [text for _, text in pairs]


def _cpu_ms(work: Callable[[], object]) -> float:
    began_ns = time.process_time_ns()
    work()
    return (time.process_time_ns() - began_ns) / 1e6


def _beside_text(whole: list[float], text: list[float]) -> Row:
    ratio = ratios(whole, text)
    return Row(
        what="processor time of a scrape / of writing its text alone",
        figure=f"{ratio.p50:.2f} x",
        spread=str(ratio),
        to_reach=f"<= {TARGET:g} x",
        verdict=judged(ratio.p50 <= TARGET),
        how=f"{Spread.of(whole).p50:.1f} ms, {Spread.of(text).p50:.1f} ms; spread of pairs",
        samples={"whole": whole, "text": text},
    )
