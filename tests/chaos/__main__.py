"""`make chaos SEED=7 MINUTES=10`: campaigns one after another, one table; 1 if anything is lost."""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.chaos.campaign import Campaign, Plan, Report, table_of

ONE_S = 60.0
"""How long one campaign lasts; each begins with an empty home and the next seed."""


def main() -> int:
    """Run campaigns for so many minutes and print what came of them."""
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--keep", type=Path, help="keep what a campaign with violations left here")
    given = parser.parse_args()
    until = time.monotonic() + given.minutes * 60
    reports: list[Report] = []
    while not reports or time.monotonic() < until:
        seconds = min(ONE_S, max(20.0, until - time.monotonic()))
        reports.append(_one(given.seed + len(reports), seconds, given.keep))
    for name, value in table_of(reports):
        say(f"{name:28}{value:>12}")
    return int(any(report.violations for report in reports))


def _one(seed: int, seconds: float, keep: Path | None) -> Report:
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        report = Campaign(Path(folder), Plan(seed, seconds)).run()
        done = f"{report.jobs} jobs, {report.kills} kills, settled in {report.settled_s:.1f} s"
        say(f"seed {seed}: {done}")
        for violation in report.violations:
            say(f"  {violation}")
        if report.violations and keep is not None:
            Path(folder).rename(keep / f"chaos-{seed}")
            Path(folder).mkdir()
    return report


def say(line: str) -> None:
    """Print a line at once, for whoever watches."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(main())
