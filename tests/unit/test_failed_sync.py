"""After a sync that failed nothing is told as durable that a power cut would take.

Linux reports what it could not write once, and takes it for written from then on: whatever was in
the log when its sync failed may never reach the disk, although the next sync goes well.
"""

import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from tests.faulty import Faulty, build

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
HEADER_BYTES = 32
PROGRAM = """
import sys
from pathlib import Path
from sqlalchemy import text
from hal0.db import Database
from hal0.errors import DatabaseUnwritable

home, faults = Path(sys.argv[1]), Path(sys.argv[2])
db = Database(home / "hal0.db")
note = text("INSERT INTO periodic VALUES (:name, 'boot', 0)")
with db.soft() as tx:
    tx.execute(note, {"name": "soft"})
log = home / "hal0.db-wal"
(home / "before").write_bytes(log.read_bytes())
(faults / "fault").write_text("1 sync 1 1 5 /hal0.db-wal")
try:
    with db.write() as tx:
        tx.execute(note, {"name": "acknowledged"})
    sys.exit("the sync did not fail")
except DatabaseUnwritable:
    pass
with db.write() as tx:
    tx.execute(note, {"name": "acknowledged"})
for suffix in ("", "-wal"):
    kept = Path(f"{home}/hal0.db{suffix}").read_bytes()
    Path(f"{home}/disk.db{suffix}").write_bytes(kept)
"""


def what_a_power_cut_leaves(home: Path) -> list[tuple[str]]:
    """Read the database without the frames that were in the log when its sync failed."""
    before = (home / "before").read_bytes()
    log = bytearray((home / "disk.db-wal").read_bytes())
    if log[:HEADER_BYTES] == before[:HEADER_BYTES]:  # the log was not begun anew
        log[HEADER_BYTES : len(before)] = bytes(len(before) - HEADER_BYTES)
    (home / "disk.db-wal").write_bytes(log)
    with closing(sqlite3.connect(home / "disk.db")) as disk:
        assert disk.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return disk.execute("SELECT name FROM periodic ORDER BY name").fetchall()


def test_a_commit_that_goes_well_after_a_failed_sync_survives_a_power_cut(
    tmp_path: Path, migrated_file: Path
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    shutil.copy(migrated_file, home / "hal0.db")
    faulty = Faulty(tmp_path / "faults", build(tmp_path))
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(home), faulty.env["FAULTY"]],
        cwd=ROOT,
        env={**faulty.env, "PATH": "/usr/bin:/bin"},
        timeout=60,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert len(faulty.hits()) == 1
    assert what_a_power_cut_leaves(home) == [("acknowledged",), ("soft",)]
