"""How a soak is told to people."""

from collections import Counter
from collections.abc import Iterator

from tests.soak.soak import Report


def lines_of(report: Report) -> Iterator[str]:
    """Yield a line for each figure, then for each violation."""
    before, after = report.before, report.after
    broken = Counter(violation.rule for violation in report.violations)
    held = {
        "tasks": (before.tasks.total(), after.tasks.total()),
        "descriptors": (before.files.total(), after.files.total()),
        "blocks": (before.blocks, after.blocks),
        "heap bytes": (before.heap_bytes, after.heap_bytes),
        "resident KiB": (before.resident_kib, after.resident_kib),
    }
    yield from (f"{name:28}{value:>12}" for name, value in report.figures.items())
    yield from (f"{name:28}{was:>12}{now:>12}" for name, (was, now) in held.items())
    for rule in ("unserved", "idle", "unloaded", "outcome", "torn", "left", "leak"):
        yield f"{rule:28}{broken[rule]:>12}"
    yield from (f"  {violation}" for violation in report.violations)
