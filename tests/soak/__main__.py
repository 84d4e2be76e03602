"""`make soak SEED=7 MINUTES=10`: one soak, its figures; 1 if a rule is broken."""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from tests.soak.soak import Plan, Soak
from tests.soak.table import lines_of


def main() -> int:
    """Run a soak and print what came of it."""
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--keep", type=Path, help="keep what a soak with violations left here")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        report = Soak(Path(folder), Plan(given.seed, given.minutes * 60)).run()
        sys.stdout.writelines(f"{line}\n" for line in lines_of(report))
        if report.violations and given.keep is not None:
            kept = given.keep / f"soak-{given.seed}"
            shutil.copytree(folder, kept, ignore=shutil.ignore_patterns("run"))
    return int(bool(report.violations))


if __name__ == "__main__":
    raise SystemExit(main())
