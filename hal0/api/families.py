"""Which metrics there are: names, sentences, labels, and from which number each is.

Labels are closed lists, and slots, engines and workers that there are now: a name that was given
up has no series. A counter is of the rows that are kept, so it falls where a new process counts
what was pruned since; Prometheus takes that for a restart.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any, Final

from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from hal0 import __version__
from hal0.clock import monotonic_ms
from hal0.db import Database
from hal0.jobs.figures import SHOWN, Figures, SlotFigures
from hal0.jobs.tallies import BUCKETS_S, Histogram, Tallies
from hal0.states import JobKind, SlotState
from hal0.tables import REVISION

KEPT: Final = "; of the rows that are kept"

Samples = Iterable[tuple[Sequence[str], float | None]]
"""Label values, and the number; None = there is none to tell."""


def of_process(db: Database, streams: int) -> Iterator[Metric]:
    """Yield what there is of the process itself."""
    build = {"version": __version__, "schema": REVISION}
    yield _gauge("hal0_build_info", "Which hal0 this is", [*build], [([*build.values()], 1)])
    yield _gauge(
        "hal0_event_streams", "Clients that listen to events of this API", [], [([], streams)]
    )
    yield _counter(
        "hal0_db_busy",
        "Transactions of this API that the database was locked for",
        [],
        [([], db.times_busy)],
    )


def of_slots(figures: Figures) -> Iterator[Metric]:
    """Yield how slots are."""
    yield _gauge(
        "hal0_slot_state",
        "1 for the state that a slot is in, 0 for all others",
        ["slot", "state"],
        [
            ([slot.name, state], float(slot.state is state))
            for slot in figures.slots
            for state in SlotState
        ],
    )
    for name, told, number in _SLOT_GAUGES:
        samples = [([slot.name], number(slot, figures)) for slot in figures.slots]
        yield _gauge(name, told, ["slot"], samples)


def _at(slot: SlotFigures, _now: Figures) -> float | None:
    return None if slot.last_used_at is None else slot.last_used_at.timestamp()


def _first_byte_s(slot: SlotFigures, _now: Figures) -> float | None:
    return None if slot.first_byte_ms is None else slot.first_byte_ms / 1000


_SLOT_GAUGES: Final[Sequence[tuple[str, str, Callable[[SlotFigures, Figures], float | None]]]] = (
    (
        "hal0_slot_in_flight",
        "Requests that a slot is serving, through any API",
        lambda slot, _: slot.in_flight,
    ),
    (
        "hal0_slot_idle_seconds",
        "How long what a slot holds is unused; none where it is in use, or holds nothing",
        lambda slot, now: slot.idle_s(now.at),
    ),
    (
        "hal0_slot_last_use_timestamp_seconds",
        "When a slot was last used",
        _at,
    ),
    (
        "hal0_slot_first_byte_seconds",
        "Until the first byte of an answer: median of a slot's last 16 requests",
        _first_byte_s,
    ),
    (
        "hal0_slot_tokens_per_second",
        "Tokens a second: median of a slot's last 16 requests; none where the engine tells none",
        lambda slot, _: slot.tokens_per_s,
    ),
    (
        "hal0_slot_automatic_loads",
        "Loads in a row that nobody but a machine asked for",
        lambda slot, _: slot.automatic_loads,
    ),
    (
        "hal0_slot_parked",
        "1 = no machine loads this slot any more, an operator may",
        lambda slot, _: float(slot.is_parked),
    ),
)


def of_jobs(figures: Figures) -> Iterator[Metric]:
    """Yield how jobs and workers are."""
    yield _gauge(
        "hal0_jobs",
        "Jobs that are queued, that run, and that failed and were not retried" + KEPT,
        ["kind", "state"],
        [
            ([kind, state], figures.jobs.get((kind, state), 0))
            for kind in JobKind
            for state in SHOWN
        ],
    )
    yield _gauge(
        "hal0_oldest_queued_job_age_seconds",
        "How long the job waits that has waited longest for its turn, of those first in line",
        [],
        [([], figures.oldest_queued_s)],
    )
    yield _gauge(
        "hal0_worker_heartbeat_timestamp_seconds",
        "Last sign of life of the workers that have not ended",
        ["worker"],
        [([worker.id], worker.seen_at.timestamp()) for worker in figures.workers],
    )


def of_engines(figures: Figures) -> Iterator[Metric]:
    """Yield how engines are."""
    now_ms = monotonic_ms()
    yield _gauge(
        "hal0_backend_up",
        "1 = the engine answered since the host started, and when last asked",
        ["engine"],
        [([engine.name], float(engine.is_well)) for engine in figures.engines],
    )
    yield _gauge(
        "hal0_engine_scan_age_seconds",
        "How long ago a scan got the engine's list; none on this boot = none is told",
        ["engine"],
        [
            ([engine.name], (now_ms - engine.list_ms) / 1000)
            for engine in figures.engines
            if engine.list_ms is not None
        ],
    )
    yield _gauge(
        "hal0_idle_scan_duration_seconds",
        "How long the newest scan took that got the engine's list: to ask, and to act upon it",
        ["engine"],
        [
            ([engine.name], engine.scan_took_ms / 1000)
            for engine in figures.engines
            if engine.list_ms is not None and engine.scan_took_ms is not None
        ],
    )
    yield _gauge(
        "hal0_incidents_unacknowledged",
        "Incidents that nobody has acknowledged",
        [],
        [([], figures.unacknowledged)],
    )


def of_the_past(figures: Figures, tallies: Tallies) -> Iterator[Metric]:
    """Yield how often things happened, and how long they took."""
    yield from _moves({slot.id: slot.name for slot in figures.slots}, tallies)
    yield from _attempts(tallies)
    yield from _loads(tallies)
    yield from _events_at_engines(tallies)


def _moves(names: Mapping[int, str], tallies: Tallies) -> Iterator[Metric]:
    yield _counter(
        "hal0_slot_state_changes",
        "Changes of a slot's state, by the state that it came to and why" + KEPT,
        ["slot", "to", "cause"],
        [
            ([names[slot_id], to, cause], times)
            for (slot_id, to, cause), times in tallies.moves.items()
            if slot_id in names
        ],
    )


def _attempts(tallies: Tallies) -> Iterator[Metric]:
    yield _counter(
        "hal0_job_attempts",
        "Attempts that ended" + KEPT,
        ["kind", "outcome"],
        _by(tallies.attempts),
    )
    yield _counter(
        "hal0_job_rescues",
        "Attempts that their worker did not end, put back or, after too many, failed" + KEPT,
        ["kind", "action"],
        _by(tallies.rescues),
    )
    yield _counter(
        "hal0_fenced_writes",
        "Writes of workers that were refused, for the job was another's meanwhile" + KEPT,
        [],
        [([], sum(tallies.fenced.values()))],
    )
    yield _histogram(
        "hal0_job_duration_seconds",
        "How long attempts took that were done, or failed" + KEPT,
        "kind",
        tallies.durations,
    )
    yield _histogram(
        "hal0_job_wait_seconds",
        "From the request, or the attempt before it in its chain, to the start of an attempt"
        + KEPT,
        "kind",
        tallies.waits,
    )


def _loads(tallies: Tallies) -> Iterator[Metric]:
    yield _histogram(
        "hal0_load_seconds",
        "From the request for a load, or from its last failure, to its end" + KEPT,
        None,
        {"": tallies.loads},
    )
    yield _histogram(
        "hal0_load_phase_seconds",
        "What hal0_load_seconds was spent in; the sums add up to that of the whole" + KEPT,
        "phase",
        tallies.phases,
    )
    yield _counter(
        "hal0_validation_failures",
        "Models that were not fit to load, and loads that took too long" + KEPT,
        ["code"],
        [([code], times) for code, times in tallies.refusals.items()],
    )
    yield _counter(
        "hal0_pull_bytes",
        "Bytes of the files that pulls brought whole" + KEPT,
        [],
        [([], tallies.pulled_bytes)],
    )


def _events_at_engines(tallies: Tallies) -> Iterator[Metric]:
    yield _counter(
        "hal0_backend_drift",
        "Slots that came to another state by what an engine did past hal0" + KEPT,
        ["kind"],
        [([kind], times) for kind, times in tallies.drift.items()],
    )
    yield _counter(
        "hal0_incidents",
        "What happened at engines" + KEPT,
        ["kind"],
        [([kind], times) for kind, times in tallies.incidents.items()],
    )


def _by(counts: Mapping[Any, int]) -> Samples:
    return [([*map(str, key)], times) for key, times in sorted(counts.items())]


def _gauge(name: str, told: str, labels: Sequence[str], samples: Samples) -> Metric:
    return _filled(GaugeMetricFamily(name, told, labels=labels), samples)


def _counter(name: str, told: str, labels: Sequence[str], samples: Samples) -> Metric:
    """Return a counter; `_total` is added to its name."""
    return _filled(CounterMetricFamily(name, told, labels=labels), samples)


def _filled(family: Any, samples: Samples) -> Metric:
    for labels, value in samples:
        if value is not None:
            family.add_metric(labels, value)
    filled: Metric = family
    return filled


def _histogram(
    name: str, told: str, label: str | None, by_value: Mapping[Any, Histogram]
) -> Metric:
    family = HistogramMetricFamily(name, told, labels=[] if label is None else [label])
    for value, histogram in by_value.items():
        bounds = [*map(str, BUCKETS_S), "+Inf"]
        buckets = list(zip(bounds, accumulate(histogram.counts), strict=True))
        labels = [] if label is None else [str(value)]
        family.add_metric(labels, buckets=buckets, sum_value=histogram.sum_s)
    return family
