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
    forget_files,
    is_alive,
    kill,
    living_rows,
    note_end,
    note_seen,
)
from hal0.processes import start_ticks
from hal0.settings import Settings


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A process that may be killed."""
    code = "import sys; sys.stdin.read()"
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)
    yield process
    process.kill()
    process.communicate()


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
    assert not kill(replace(owner.row, boot_id="another boot")), "its pid is somebody else's"
    owner.close()


def test_a_lock_that_nobody_holds_means_death_unless_the_process_is_there(tmp_path: Path) -> None:
    owner = Owner(tmp_path, "worker")
    owner.close()
    (tmp_path / "owners" / owner.id).touch()
    assert is_alive(owner.row, tmp_path), "an emptied run folder proves nothing"
    assert not is_alive(replace(owner.row, pid_start=owner.row.pid_start + 1), tmp_path)


def test_a_pid_that_was_given_away_again_is_not_the_owner(
    tmp_path: Path, sleeper: subprocess.Popen[bytes]
) -> None:
    owner = Owner(tmp_path, "worker")
    owner.close()
    successor = replace(owner.row, pid=sleeper.pid, pid_start=1)
    assert not is_alive(successor, tmp_path)
    assert not kill(successor)
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
    start = start_ticks(sleeper.pid)
    assert start is not None
    row = replace(owner.row, pid=sleeper.pid, pid_start=start)
    sleeper.send_signal(signal.SIGSTOP)
    assert is_alive(row, tmp_path)
    assert kill(row)
    assert sleeper.wait(10) == -signal.SIGKILL
    assert not is_alive(row, tmp_path)
    assert not kill(row)


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
