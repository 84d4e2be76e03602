"""Killed at any moment, a copy, a restore and a prune leave nothing half done, and can be done
again."""

import json
import os
import shutil
import signal
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from freezegun import freeze_time
from sqlalchemy import Engine, event

from hal0.care.copies import back_up, restore, verified
from hal0.care.pruning import Retention, prune
from hal0.db import Database
from hal0.errors import InvalidRequest
from hal0.settings import Settings
from tests.killer import kill_at
from tests.ledger import make_slots
from tests.rows import ask_load, but_its_epoch, contents, run_load

TODAY = datetime(2026, 11, 22, tzinfo=UTC)
KILLED = -signal.SIGKILL


def end_of(work: Callable[[], Any], kill: Callable[[], None] = lambda: None) -> int:
    """Return how a child ended that did this; `kill` has it killed on its way."""
    pid = os.fork()
    if pid == 0:
        try:
            kill()
            work()
            os._exit(0)
        finally:  # it must not come back into the tests
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def kills(work: Callable[[], Any]) -> Iterator[int]:
    """Have it killed before its first change of the disk, its second, until it comes through."""
    number = 1
    while (code := end_of(work, partial(kill_at, number))) == KILLED:
        yield number
        number += 1
    assert code == 0
    assert number > 3, "nothing was killed"


@pytest.fixture
def closed(db: Database) -> Path:
    """A database that nobody uses."""
    make_slots(db, "chat")
    ask_load(db)
    run_load(db)
    db.close()
    return db.path


def test_a_backup_that_is_killed_is_whole_or_not_there_and_made_by_the_next_try(
    closed: Path, tmp_path: Path
) -> None:
    to = tmp_path / "copy.db"
    was = contents(closed)
    for _ in kills(lambda: back_up(closed, to)):
        if to.exists():
            assert contents(verified(to).path) == was
            to.unlink()
    assert contents(to) == was
    assert [path.name for path in tmp_path.glob("*copy.db*")] == ["copy.db"]


def test_a_backup_is_not_put_over_a_file_that_comes_while_it_is_made(
    closed: Path, tmp_path: Path
) -> None:
    to = tmp_path / "copy.db"

    def come(event: str, args: tuple[Any, ...]) -> None:
        if event in ("os.link", "os.rename") and str(args[1]) == str(to):
            to.write_text("mine")

    def work() -> None:
        with pytest.raises(InvalidRequest, match=str(to)):
            back_up(closed, to)

    assert end_of(work, lambda: sys.addaudithook(come)) == 0
    assert to.read_text() == "mine"
    assert [path.name for path in tmp_path.glob("*copy.db*")] == ["copy.db"]


def test_a_restore_that_is_killed_leaves_the_old_database_or_the_new_one(
    closed: Path, tmp_path: Path
) -> None:
    copy = back_up(closed, tmp_path / "copy.db").path
    new = but_its_epoch(copy)
    with closing(Database(closed)) as db:
        make_slots(db, "embed")
    old, pristine, aside = contents(closed), tmp_path / "pristine.db", tmp_path / "aside.db"
    shutil.copy(closed, pristine)

    def work() -> None:
        restore(copy, closed, aside)

    for number in kills(work):
        if verified(closed).rows["slots"] == 1:
            assert but_its_epoch(closed) == new
            assert contents(aside) == old
        else:
            assert contents(closed) == old
        aside.unlink(missing_ok=True)
        if number % 4 == 0:
            restore(copy, closed, aside)
            assert but_its_epoch(closed) == new
            aside.unlink()
        shutil.copy(pristine, closed)
    assert but_its_epoch(closed) == new
    assert contents(aside) == old
    assert not list(closed.parent.glob("*.part"))


def test_what_a_killed_restore_left_is_not_read_into_the_next_one(
    closed: Path, tmp_path: Path
) -> None:
    """Frames of a log are taken for those of whatever database has the name before `-wal`."""
    copy = back_up(closed, tmp_path / "copy.db").path
    folder = closed.with_name(f".{closed.name}.abcdefgh.part")
    folder.mkdir()
    left = folder / "copy"
    shutil.copy(copy, left)
    with closing(sqlite3.connect(left)) as killed:
        killed.execute("PRAGMA journal_mode = WAL")
        killed.execute("UPDATE slots SET name = 'of-another'")
        killed.commit()
        log = left.with_name(f"{left.name}-wal")
        frames = log.read_bytes()
        assert frames
    log.write_bytes(frames)
    restore(copy, closed, tmp_path / "aside.db")
    assert but_its_epoch(closed) == but_its_epoch(copy)
    assert not folder.exists()


def kill_at_commit(count: int) -> None:
    """Die right before the commit of this number."""
    left = count

    def look(_connection: object) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    event.listen(Engine, "commit", look)


def test_a_prune_that_is_killed_has_written_down_what_went(
    db: Database, settings: Settings
) -> None:
    with freeze_time(TODAY - timedelta(days=200)):
        make_slots(db, *(f"slot-{number}" for number in range(3)))
        for number in range(3):
            ask_load(db, f"slot-{number}")
            run_load(db)
    audit = contents(settings.database)["transitions"]
    db.close()
    keep = Retention(timedelta(days=90), timedelta(days=90))

    def work() -> None:
        with closing(Database(settings.database)) as own:
            prune(own, keep, "me")

    number, code = 1, KILLED
    while code == KILLED:
        code = end_of(work, partial(kill_at_commit, number))
        rows = contents(settings.database)
        told = [json.loads(row[-1])["transitions"] for row in rows["prunings"]]
        assert sum(told) == len(audit) - len(rows["transitions"])
        assert rows["prune_permits"] == [], "nobody else may delete"
        number += 1
    assert code == 0
    assert len(contents(settings.database)["transitions"]) < len(audit)
