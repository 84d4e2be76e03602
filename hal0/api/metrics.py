"""What Prometheus is told: read from rows when it asks, so every API process tells the same.

What is counted goes on over a restart, for it is counted from rows; only what no row says is of
this process alone. Which metrics there are is in `families.py`.
"""

import logging
import threading
from collections.abc import Callable, Iterator
from typing import Final

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, ProcessCollector
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from hal0.api import exchange, families
from hal0.api.schemas import Query
from hal0.db import Database
from hal0.errors import DatabaseError
from hal0.jobs.figures import read_figures
from hal0.jobs.tallies import Tallies

log = logging.getLogger(__name__)

PATIENCE_S: Final = 1.0
"""So long a scrape waits for the past to be counted; later ones have it."""


class Rows(Collector):
    """Reads rows for each scrape; one scrape at a time.

    Until the past is counted, counters are not told: half of it would look like a rise.
    """

    def __init__(
        self,
        db: Database,
        streams: Callable[[], int],
        tallies: Tallies | None = None,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._db = db
        self._streams = streams
        self._tallies = tallies or Tallies()
        self._patience_s = patience_s
        self._lock = threading.Lock()
        self._counting: threading.Thread | None = None
        self._is_past_counted = False

    def describe(self) -> list[Metric]:
        """Tell nothing when it is registered: there is no need to read rows for it."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics, of one consistent view. Raises DatabaseError."""
        is_whole = self._is_counted()
        with self._lock:
            with self._db.read() as tx:
                figures = read_figures(tx)
                if is_whole:
                    self._tallies.read(tx)
            yield from families.of_process(self._db, self._streams())
            yield from families.of_slots(figures)
            yield from families.of_jobs(figures)
            yield from families.of_engines(figures)
            if is_whole:
                yield from families.of_the_past(figures, self._tallies)

    def _is_counted(self) -> bool:
        """Whether the past is counted; waits a moment for who counts it, and lets it go on then."""
        if self._is_past_counted:
            return True
        with self._lock:
            counting = self._counting
            if counting is None or not counting.is_alive():
                counting = threading.Thread(target=self._count, name="tallies", daemon=True)
                counting.start()
                self._counting = counting
        counting.join(self._patience_s)
        return self._is_past_counted

    def _count(self) -> None:
        """Count the past in short reads, so that neither SQLite's log nor a scrape waits for it."""
        try:
            is_whole = False
            while not is_whole:
                with self._db.read() as tx:
                    is_whole = self._tallies.read_page(tx)
        except DatabaseError as error:
            log.warning("the past is not counted yet: %s", error.detail)
        else:
            self._is_past_counted = True


def registry_of(
    db: Database, streams: Callable[[], int], patience_s: float = PATIENCE_S
) -> CollectorRegistry:
    """Return what `/metrics` shows; `streams` tells how many listen to events."""
    registry = CollectorRegistry()
    registry.register(Rows(db, streams, patience_s=patience_s))
    ProcessCollector(registry=registry)
    return registry


async def show_metrics(request: Request) -> Response:
    """Tell Prometheus how everything is, and how often things happened."""
    exchange.query_of(request, Query)
    text = await run_in_threadpool(generate_latest, request.app.state.registry)
    return Response(
        text, headers={"Content-Type": CONTENT_TYPE_LATEST, "Cache-Control": "no-store"}
    )


ROUTES = [Route("/metrics", show_metrics, methods=["GET"])]
