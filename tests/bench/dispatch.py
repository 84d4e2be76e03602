"""What a request for inference costs in hal0, beside proxies that do nothing but pass on.

One upstream, one load, and each proxy in a process of its own, all started once. A round measures
every proxy under each kind of load, in random order; ratios are within one round. hal0 has all of
it on: a token, routing by the model's name, the slot's state, the lease.

A load lasts as long for one proxy as for another, and long enough that what is paid once a serving
period or once a second (its edges, names and tokens read anew) weighs as in use, not as in a burst.
"""

import os
import random
import sys
from collections import defaultdict
from typing import Final

from tests.bench import dispatch_serving, dispatch_streams
from tests.bench.dispatch_systems import OTHER_CLIENTS, Bench, systems_at_work
from tests.bench.dispatch_table import Figures, rows_of
from tests.bench.dispatch_wire import Order
from tests.bench.table import Row
from tests.bench.workshop import Workshop

ROUNDS: Final = 9
ORDERS: Final = {
    "c=1": Order(1, for_s=0.4),
    "c=8": Order(8, for_s=0.6),
    "c=64": Order(64, for_s=0.6),
    "streams": Order(64, requests=64, chunks=200, pace_us=2_000),
}
"""Kinds of load; c is how many requests there are at once."""
OF_CLIENTS: Final = ("c=8", "streams")
"""Kinds under which the clients are compared: it is their CPU that counts."""

Seen = defaultdict[tuple[str, str], Figures]


def measure(shop: Workshop) -> list[Row]:
    """Measure the proxies in turn; then what only hal0 has: its leases."""
    rounds = int(os.environ.get("BENCH_ROUNDS", ROUNDS))
    took: Seen = defaultdict(Figures)
    with systems_at_work(shop) as bench:
        go_round(bench, defaultdict(Figures))  # the first one warms up
        for number in range(rounds):
            go_round(bench, took)
            if sys.stderr.isatty():
                sys.stderr.write(f"\r  round {number + 1} of {rounds}  ")
        if sys.stderr.isatty():
            sys.stderr.write("\n")
        return [
            *rows_of(took, bench.missing),
            *dispatch_streams.measure(bench),
            *dispatch_serving.measure(bench),
        ]


def go_round(bench: Bench, took: Seen) -> None:
    """Measure each proxy once under each kind of load."""
    for name in random.sample(list(bench.systems), len(bench.systems)):
        for kind in OF_CLIENTS if name in OTHER_CLIENTS else ORDERS:
            _measure(bench, name, kind, took[name, kind])


def _measure(bench: Bench, name: str, kind: str, figures: Figures) -> None:
    system = bench.systems[name]
    bench.load.prepare(system.target, ORDERS[kind])
    before_s = system.cpu_s
    outcome = bench.load.run()
    spent_us = (system.cpu_s - before_s) * 1e6
    figures.cpu_us.append(spent_us / (outcome.chunks or len(outcome.took_ms)))
    figures.p50_ms.append(outcome.p50_ms)
    figures.p99_ms.append(outcome.p99_ms)
    figures.chunks_s.append(outcome.chunks_s)
