"""The rows of what a request costs: hal0 beside each proxy, by ratios within one round."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Final

from tests.bench.dispatch_systems import BARE, DIRECT, GO, HAL0, NGINX, OTHER_CLIENTS, STARLETTE
from tests.bench.table import Row, Spread, Verdict, digits, judged, ratios

LEAST_MS: Final = 0.01
"""What a proxy adds at least: less is not resolved, and nothing cannot be divided by."""


@dataclass(slots=True)
class Figures:
    """What one proxy showed under one kind of load, one figure a round."""

    cpu_us: list[float] = field(default_factory=list)
    """Of a request; of a chunk where there are chunks."""
    p50_ms: list[float] = field(default_factory=list)
    p99_ms: list[float] = field(default_factory=list)
    chunks_s: list[float] = field(default_factory=list)


Took = Mapping[tuple[str, str], Figures]
"""By proxy and kind of load."""


@dataclass(frozen=True, slots=True)
class Reach:
    """What a median of ratios is to reach."""

    text: str = ""
    is_met: Callable[[float], bool] | None = None

    def verdict(self, ratio: float) -> Verdict:
        """Judge, or only show where nothing is to be reached."""
        return Verdict.SHOWN if self.is_met is None else judged(self.is_met(ratio))


SHOWN: Final = Reach()
CPU: Final = {
    BARE: Reach("<= 1.5 x", lambda ratio: ratio <= 1.5),
    STARLETTE: Reach("<= 0.2 x", lambda ratio: ratio <= 0.2),
    GO: SHOWN,
    NGINX: SHOWN,
}
LATENCY: Final = Reach("<= 1.5 x", lambda ratio: ratio <= 1.5)
STREAMS: Final = Reach(">= 0.8 x", lambda ratio: ratio >= 0.8)


def rows_of(took: Took, missing: Mapping[str, str]) -> list[Row]:
    """Lay hal0 beside each proxy, then the client that it uses beside those that it does not."""

    def cpu(name: str, kind: str) -> Row:
        ours, theirs = took[HAL0, kind].cpu_us, took[name, kind].cpu_us
        return compared(f"CPU of a request, {kind} / {name}", ours, theirs, "us", CPU[name])

    def added(kind: str, part: str) -> Row:
        direct = took[DIRECT, kind].p50_ms
        ours, theirs = (_added_ms(took[name, kind], part, direct) for name in (HAL0, BARE))
        return compared(f"{part} added, {kind} / {BARE}", ours, theirs, "ms", LATENCY)

    def streams(name: str) -> Row:
        ours, theirs = took[HAL0, "streams"], took[name, "streams"]
        what, reach = f"chunks a second, 64 streams / {name}", STREAMS if name == BARE else SHOWN
        row = compared(what, ours.chunks_s, theirs.chunks_s, "", reach)
        chunk = ratios(ours.cpu_us, theirs.cpu_us)
        return replace(row, how=f"{row.how}; CPU of a chunk {chunk.p50:.2f} x")

    def client(name: str, kind: str) -> Row:
        ours, theirs = took[BARE, kind].cpu_us, took[name, kind].cpu_us
        thing = "chunk" if kind == "streams" else "request"
        return compared(f"CPU of a {thing}, {kind}, {BARE} / {name}", ours, theirs, "us")

    here = [name for name in CPU if name not in missing]
    clients = [name for name in OTHER_CLIENTS if name not in missing]
    return [
        *(cpu(*at) for at in product(here, ("c=8", "c=64"))),
        *(added(*at) for at in product(("c=1", "c=8"), ("p50", "p99"))),
        *(streams(name) for name in here),
        *(client(*at) for at in product(clients, ("c=8", "streams"))),
        *(Row(name, "-", verdict=Verdict.NOT_HERE, how=why) for name, why in missing.items()),
    ]


def compared(
    what: str, ours: Sequence[float], theirs: Sequence[float], unit: str, reach: Reach = SHOWN
) -> Row:
    """Compare two proxies by what was measured in the same rounds."""
    ratio = ratios(ours, theirs)
    medians = (f"{digits(Spread.of(one).p50)} {unit}".strip() for one in (ours, theirs))
    return Row(
        what=what,
        figure=f"{ratio.p50:.2f} x",
        spread=str(ratio),
        to_reach=reach.text,
        verdict=reach.verdict(ratio.p50),
        how=f"{', '.join(medians)}; {len(ours)} rounds",
        samples={"first": ours, "second": theirs},
    )


def _added_ms(figures: Figures, part: str, direct_p50_ms: Sequence[float]) -> list[float]:
    """Return what a proxy adds to the median without any proxy, round by round."""
    values = figures.p50_ms if part == "p50" else figures.p99_ms
    pairs = zip(values, direct_p50_ms, strict=True)
    return [max(value - direct, LEAST_MS) for value, direct in pairs]
