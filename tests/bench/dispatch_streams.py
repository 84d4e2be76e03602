"""Whether a chunk of a stream is ever held back, and what open streams weigh in memory."""

import statistics
from typing import Final

import psutil

from tests.bench.dispatch_systems import BARE, HAL0, Bench, System
from tests.bench.dispatch_wire import Order
from tests.bench.table import Row, Spread, judged, ratios

GATED: Final = Order(8, requests=8, chunks=200, is_gated=True)
OPEN: Final = 500
HELD: Final = Order(OPEN, requests=OPEN, chunks=2, is_gated=True, is_held=True, limit_ms=60_000)
ROUNDS: Final = 10
WARM_UP: Final = 5
"""Rounds until the pools of an allocator are filled."""
GROWTH_MB: Final = 1.0
"""Over seven rounds: what would be left of each stream is less than 300 bytes."""
MB: Final = 2**20


def measure(bench: Bench) -> list[Row]:
    """Measure hal0 and the bare pass-through in turn."""
    return [_held_back(bench), *_memory(bench)]


def _held_back(bench: Bench) -> Row:
    held, chunk_ms = {}, {}
    for name in (BARE, HAL0):
        bench.load.prepare(bench.systems[name].target, GATED)
        outcome = bench.load.run()
        held[name] = outcome.held
        chunk_ms[name] = outcome.p50_ms / GATED.chunks
    return Row(
        what="chunks held back, each sent when the one before it has arrived",
        figure=f"{held[HAL0]}",
        to_reach="0",
        verdict=judged(held[HAL0] == 0),
        how=f"of {GATED.requests * GATED.chunks:,}; {chunk_ms[HAL0]:.2f} ms from one to the next, "
        f"{BARE} {chunk_ms[BARE]:.2f} ms",
    )


def _memory(bench: Bench) -> list[Row]:
    systems = {name: bench.systems[name] for name in (BARE, HAL0)}
    at_rest = {name: _private_mb(system) for name, system in systems.items()}
    held: dict[str, list[float]] = {name: [] for name in systems}
    for number in range(-WARM_UP, ROUNDS):
        for name in reversed(systems) if number % 2 else systems:
            bench.load.prepare(systems[name].target, HELD)
            if number >= 0:
                held[name].append(_private_mb(systems[name]))
            bench.load.run()
    each = {name: [(mb - at_rest[name]) * 1024 / OPEN for mb in held[name]] for name in systems}
    ratio = ratios(each[HAL0], each[BARE])
    growth = growth_of(held[HAL0])
    return [
        Row(
            what=f"memory of an open stream, {OPEN} at once / {BARE}",
            figure=f"{ratio.p50:.2f} x",
            spread=str(ratio),
            how=f"{Spread.of(each[HAL0]).p50:.0f} KB, {Spread.of(each[BARE]).p50:.0f} KB; private",
            samples={"hal0_kb": each[HAL0], "bare_kb": each[BARE]},
        ),
        Row(
            what=f"growth of memory over {ROUNDS} rounds of {OPEN} streams",
            figure=f"{growth:.1f} MB",
            spread=f"{Spread.of(held[HAL0])} MB",
            to_reach=f"< {GROWTH_MB:g} MB",
            verdict=judged(growth < GROWTH_MB),
            how=f"the last three over the first three; {BARE} {growth_of(held[BARE]):.1f} MB",
            samples={"hal0_mb": held[HAL0], "bare_mb": held[BARE]},
        ),
    ]


def growth_of(rounds: list[float]) -> float:
    """Return by how much the last three rounds exceed the first three."""
    return statistics.median(rounds[-3:]) - statistics.median(rounds[:3])


def _private_mb(system: System) -> float:
    private: int = psutil.Process(system.pid).memory_full_info().uss
    return private / MB
