"""Whether an owner lives: its lock says it, and where that is gone, pid and start."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from hal0.db import Database
from hal0.jobs.owners import (
    Owner,
    OwnerRow,
    forget_files,
    is_alive,
    kill,
    living_rows,
    note_end,
    note_seen,
)
from hal0.processes import start_ticks
from hal0.settings import Settings
from tests.ledger import sleeping_owner


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The process of owner `other`, which may be killed."""
    process = sleeping_owner(tmp_path, "other")
    yield process
    process.kill()
    process.wait()


def row_of(process: "subprocess.Popen[bytes]", owner: Owner) -> OwnerRow:
    start = start_ticks(process.pid)
    assert start is not None
    return replace(owner.row, id="other", pid=process.pid, pid_start=start)


def test_an_owner_that_holds_its_lock_is_alive(tmp_path: Path) -> None:
    owner = Owner(tmp_path, "worker")
    assert is_alive(owner.row, tmp_path)
    assert is_alive(replace(owner.row, pid=1, pid_start=0), tmp_path), "the lock is enough"
    owner.close()


def test_no_two_owners_are_the_same_even_of_one_process(tmp_path: Path) -> None:
    first, second = Owner(tmp_path, "worker"), Owner(tmp_path, "worker")
    assert first.id != second.id
    assert first.row.pid == second.row.pid == os.getpid()
    first.close()
    second.close()


def test_an_owner_of_another_boot_is_dead(tmp_path: Path) -> None:
    owner = Owner(tmp_path, "worker")
    assert not is_alive(replace(owner.row, boot_id="another boot"), tmp_path)
    assert not kill(replace(owner.row, boot_id="another boot"), tmp_path), (
        "its pid is somebody else's"
    )
    owner.close()


def test_a_lock_that_nobody_holds_means_death_unless_the_process_has_it_open(
    tmp_path: Path,
) -> None:
    owner = Owner(tmp_path, "worker")
    lock = tmp_path / "owners" / owner.id
    lock.unlink()
    lock.touch()
    assert is_alive(owner.row, tmp_path), "an emptied run folder proves nothing"
    assert not is_alive(replace(owner.row, pid_start=owner.row.pid_start + 1), tmp_path)
    owner.close()
    lock.touch()
    assert not is_alive(owner.row, tmp_path)


@pytest.mark.parametrize("has_locks", [True, False], ids=["copied", "copied without run"])
def test_a_living_process_of_another_home_is_no_owner_here_and_is_not_killed(
    tmp_path: Path, sleeper: subprocess.Popen[bytes], has_locks: bool
) -> None:
    owner = Owner(tmp_path, "worker")
    row = row_of(sleeper, owner)
    here = tmp_path / "copied"
    (here / "owners").mkdir(parents=True)
    if has_locks:
        (here / "owners" / row.id).touch()
    assert not is_alive(row, here)
    assert not kill(row, here)
    assert sleeper.poll() is None
    assert is_alive(row, tmp_path), "its own home knows it"
    owner.close()


def test_an_owner_without_its_lock_file_is_killed_all_the_same(
    tmp_path: Path, sleeper: subprocess.Popen[bytes]
) -> None:
    """No job of it may be taken while it lives, though somebody emptied the run folder."""
    owner = Owner(tmp_path, "worker")
    (tmp_path / "owners" / "other").unlink()
    assert kill(row_of(sleeper, owner), tmp_path)
    assert sleeper.wait(10) == -signal.SIGKILL
    owner.close()


def test_a_pid_that_was_given_away_again_is_not_the_owner(
    tmp_path: Path, sleeper: subprocess.Popen[bytes]
) -> None:
    owner = Owner(tmp_path, "worker")
    owner.close()
    successor = replace(owner.row, pid=sleeper.pid, pid_start=1)
    assert not is_alive(successor, tmp_path)
    assert not kill(successor, tmp_path)
    assert sleeper.poll() is None, "nobody else is killed for it"


def test_an_emptied_run_folder_is_put_right(tmp_path: Path) -> None:
    owner = Owner(tmp_path, "worker")
    lock = tmp_path / "owners" / owner.id
    lock.unlink()
    assert is_alive(owner.row, tmp_path)
    owner.renew()
    assert is_alive(replace(owner.row, pid=1, pid_start=0), tmp_path), "it holds a lock again"
    owner.renew()
    assert lock.exists()
    owner.close()


LOOK = """
import logging, sys
from dataclasses import replace
from pathlib import Path
from hal0.db import Database
from hal0.jobs.bell import Bell
from hal0.jobs.context import Context
from hal0.jobs.owners import Owner, is_alive, living_rows
from hal0.settings import Settings
from tests.ledger import sleeping_owner
from workers.supervisor import Supervisor
logging.basicConfig()
settings = Settings(home=Path(sys.argv[1]))
db = Database(settings.database)
mine, other, dead = (Owner(settings.run, "worker") for _ in range(3))
dead.row = replace(dead.row, pid_start=1)
with db.write() as tx:
    for owner in (mine, other, dead):
        owner.register(tx)
context = Context(settings, db, mine, Bell(settings.run, mine.id))
(settings.run / "owners").chmod(0)
supervisor = Supervisor(context)
for _ in range(3):
    supervisor.look()
with db.read() as tx:
    assert {row.id for row in living_rows(tx)} == {mine.id, other.id}
"""


def test_a_run_folder_that_cannot_be_read_stops_no_supervisor(
    db: Database, settings: Settings
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.powerless", "-c", LOOK, str(settings.home)],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("give the run folder to this user (chown, chmod)") == 1


def test_a_stopped_owner_lives_until_it_is_killed(
    tmp_path: Path, sleeper: subprocess.Popen[bytes]
) -> None:
    owner = Owner(tmp_path, "worker")
    owner.close()
    row = row_of(sleeper, owner)
    sleeper.send_signal(signal.SIGSTOP)
    assert is_alive(row, tmp_path)
    assert kill(row, tmp_path)
    assert sleeper.wait(10) == -signal.SIGKILL
    assert not is_alive(row, tmp_path)
    assert not kill(row, tmp_path)


def test_rows_of_owners_say_who_lives(db: Database, tmp_path: Path) -> None:
    first, second = Owner(tmp_path, "worker"), Owner(tmp_path, "api")
    for owner in (first, second):
        with db.write() as tx:
            owner.register(tx)
            note_seen(tx, owner.id)
    with db.read() as tx:
        assert [row.id for row in living_rows(tx)] == [first.id, second.id]
        assert living_rows(tx)[1] == second.row
    with db.write() as tx:
        note_end(tx, first.id)
    with db.read() as tx:
        assert [row.id for row in living_rows(tx)] == [second.id]
    first.close()
    second.close()


def test_what_a_dead_owner_left_in_the_run_folder_is_taken_away(tmp_path: Path) -> None:
    owner = Owner(tmp_path, "worker")
    bell = tmp_path / "bells" / owner.id
    bell.parent.mkdir()
    bell.touch()
    forget_files(tmp_path, owner.id)
    assert not bell.exists()
    assert not (tmp_path / "owners" / owner.id).exists()
    forget_files(tmp_path, owner.id)
    owner.close()
