"""What a row of the table says, and how the table is printed."""

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Self

HEADINGS = ("what", "figure", "middle half", "to reach", "", "how")


class Verdict(StrEnum):
    """What became of a row."""

    OK = "ok"
    SHORT = "SHORT"
    SHOWN = "shown"
    """For comparison; nothing is to be reached."""
    NOT_HERE = "not here"
    """A rival that is not installed."""
    FAILED = "FAILED"
    """It could not be measured though all of it is installed."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row: a figure with its spread, what it is to reach, whether it does."""

    what: str
    figure: str
    spread: str = ""
    to_reach: str = ""
    verdict: Verdict = Verdict.SHOWN
    how: str = ""
    samples: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """Every measurement by system, for the file: milliseconds, or what `how` says."""


@dataclass(frozen=True, slots=True)
class Spread:
    """A median and the middle half around it."""

    p25: float
    p50: float
    p75: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        """Sum up some measurements."""
        if len(values) < 2:
            return cls(values[0], values[0], values[0])
        return cls(*statistics.quantiles(values, n=4, method="inclusive"))

    def __str__(self) -> str:
        return f"{digits(self.p25)} .. {digits(self.p75)}"


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """Sum up paired ratios: each of ours over what was measured beside it."""
    return Spread.of([one / other for one, other in zip(ours, theirs, strict=True)])


def p95(values: Sequence[float]) -> float:
    """Return the value that one in twenty exceeds."""
    return statistics.quantiles(values, n=20, method="inclusive")[-1]


def judged(is_met: bool) -> Verdict:
    """Return the verdict on a figure with a target."""
    return Verdict.OK if is_met else Verdict.SHORT


def digits(value: float) -> str:
    """Return a figure with no more digits than it is worth."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2g}"


def printed(rows: Sequence[Row]) -> str:
    """Return the table as Markdown whose columns stand under each other."""
    cells = [HEADINGS, *((r.what, r.figure, r.spread, r.to_reach, r.verdict, r.how) for r in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [[cell.ljust(widths[at]) for at, cell in enumerate(line)] for line in cells]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def write(rows: Sequence[Row], path: Path) -> None:
    """Keep the rows with every measurement."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
