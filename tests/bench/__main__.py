"""`make bench`: one table of ratios, every row measured in this run, paired and interleaved.

`python -m tests.bench [PART ...]` measures some parts alone; `BENCH_ROUNDS` shortens the enqueue
part. Exit 0 also when a figure falls short: a bench tells, it does not judge. 1 = a row could not
be measured though all of it is installed.
"""

import logging
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Final, NoReturn

from tests.bench import (
    at_rest,
    dispatch,
    enqueue,
    ledger_size,
    metrics,
    orchestration,
    scan,
    slots_page,
    validation,
)
from tests.bench.table import Row, Verdict, printed, write
from tests.bench.workshop import ROOT, NotHere, Workshop

log = logging.getLogger(__name__)

PARTS: Final[dict[str, Callable[[Workshop], list[Row]]]] = {
    "enqueue": enqueue.measure,
    "ledger_size": ledger_size.measure,
    "validation": validation.measure,
    "slots_page": slots_page.measure,
    "metrics": metrics.measure,
    "scan": scan.measure,
    "orchestration": orchestration.measure,
    "dispatch": dispatch.measure,
    "at_rest": at_rest.measure,
}
FILE: Final = ROOT / ".cache" / "bench.json"


def main(names: list[str]) -> int:
    """Measure the parts named, or all; print the table and keep it."""
    if unknown := set(names) - set(PARTS):
        sys.stderr.write(f"no such part: {', '.join(unknown)}; parts are {', '.join(PARTS)}\n")
        return 2
    logging.basicConfig(level=logging.ERROR)
    signal.signal(signal.SIGTERM, _told_to_stop)
    rows: list[Row] = []
    for name in names or PARTS:
        sys.stderr.write(f"{name}\n")
        rows += _measure(name)
    sys.stdout.write(f"{printed(rows)}\n")
    write(rows, FILE)
    return int(any(row.verdict is Verdict.FAILED for row in rows))


def _measure(name: str) -> list[Row]:
    try:
        with Workshop() as shop:
            return PARTS[name](shop)
    except NotHere as exc:
        return [Row(name, "-", verdict=Verdict.NOT_HERE, how=str(exc))]
    except Exception as exc:  # the other rows are worth having
        log.exception("%s was not measured", name)
        return [Row(name, "-", verdict=Verdict.FAILED, how=type(exc).__name__)]


def _told_to_stop(number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
