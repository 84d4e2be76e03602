"""Where copies come to lie: nothing is left of one that fails, nobody else's file is touched."""

import errno
import fcntl
import os
import shutil
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from hal0 import db as databases
from hal0.care.copies import Copy, aside_of, back_up, restore, verified
from hal0.clock import utc_now
from hal0.db import Database
from hal0.errors import DatabaseError, DatabaseFull, InvalidRequest
from tests.ledger import make_slots
from tests.rows import but_its_epoch, contents
from tests.small_disk import MIB, small_disk
from tests.unit.care.test_kills import end_of


@pytest.fixture
def closed(db: Database) -> Path:
    """A database of more than 3 MiB that nobody uses."""
    make_slots(db, "chat")
    with db.write() as tx:
        tx.exec_driver_sql("UPDATE engines SET last_error = json_quote(hex(zeroblob(1600000)))")
    db.close()
    return db.path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where copies are put."""
    made = tmp_path / "copies"
    made.mkdir()
    return made


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("copy", [back_up, databases.back_up], ids=["backup", "upgrade"])
def test_nothing_is_left_of_a_copy_that_finds_no_room_and_the_full_disk_is_named(
    closed: Path, tmp_path: Path, copy: Callable[[Path, Path], Copy | None]
) -> None:
    with small_disk(tmp_path / "stick", 2 * MIB) as stick:
        with pytest.raises(DatabaseFull) as caught:
            copy(closed, stick / "copy.db")
        assert names_in(stick) == []
    assert f"{stick}/copy.db:" in caught.value.detail
    assert str(closed) not in caught.value.detail


def test_a_restore_that_finds_no_room_leaves_the_home_as_it_was(
    closed: Path, tmp_path: Path
) -> None:
    with small_disk(tmp_path / "small", 2 * MIB) as home:
        there = home / "hal0.db"
        with closing(sqlite3.connect(there)) as connection:
            connection.execute("CREATE TABLE mine (id)")
        with pytest.raises(DatabaseFull) as caught:
            restore(closed, there, home / "aside.db")
        assert names_in(home) == ["hal0.db"]
        assert contents(there) == {"mine": []}
    assert f"{there}:" in caught.value.detail


def test_no_file_of_anybody_else_is_taken_away(closed: Path, folder: Path) -> None:
    mine = ("copy.db.unverified", "copy.db.part", ".copy.db.part", ".copy.db.short.part")
    for name in mine:
        (folder / name).write_text("mine")
    back_up(closed, folder / "copy.db")
    assert names_in(folder) == sorted([*mine, "copy.db"])


def test_what_a_killed_one_left_goes_and_what_is_under_way_stays(
    closed: Path, folder: Path
) -> None:
    killed, other = folder / ".copy.db.abcdefgh.part", folder / ".copy.dbx.abcdefgh.part"
    living = folder / ".copy.db.ijkl_nop.part"
    for left in (killed, living, other):
        left.mkdir()
        (left / "copy").write_text("half")
    with held(living):
        back_up(closed, folder / "copy.db")
    assert names_in(folder) == [living.name, other.name, "copy.db"]
    assert (living / "copy").read_text() == "half"


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Lock a folder as one who writes there."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def test_of_two_who_copy_to_one_name_at_once_one_has_it_and_the_other_is_told(
    closed: Path, folder: Path
) -> None:
    to, gate, told = folder / "copy.db", threading.Barrier(2), []

    def copy() -> None:
        gate.wait()
        try:
            back_up(closed, to)
        except InvalidRequest as error:
            told.append(error.detail)

    threads = [threading.Thread(target=copy) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert told == [f"{to} exists; a backup overwrites nothing: name another file"]
    assert contents(verified(to).path) == contents(closed)
    assert names_in(folder) == ["copy.db"]


def test_a_folder_is_no_copy(closed: Path, folder: Path) -> None:
    with pytest.raises(InvalidRequest, match="folder"):
        restore(folder, closed, closed.with_name("aside.db"))


@pytest.mark.parametrize("name", ["x" * 201, "\N{SNOWMAN}" * 67, "x" * 5000, "a\0b"], ids=range(4))
def test_a_name_that_no_file_can_have_is_refused_in_words(
    closed: Path, folder: Path, name: str
) -> None:
    with pytest.raises(InvalidRequest, match="name"):
        back_up(closed, folder / name)
    assert names_in(folder) == []
    with pytest.raises((InvalidRequest, DatabaseError)):
        restore(folder / name, closed, folder / "aside.db")


@pytest.mark.parametrize(
    "name", ["x" * 200, "a\nb", "100%41?mode=memory#", "-", "\N{SNOWMAN}"], ids=range(5)
)
def test_any_other_name_is_good(closed: Path, folder: Path, name: str) -> None:
    copy = back_up(closed, folder / name)
    assert names_in(folder) == [name]
    restore(copy.path, closed, folder / "aside.db")
    assert but_its_epoch(closed) == but_its_epoch(copy.path)


@pytest.mark.parametrize("end", ["-wal", "-shm", "-journal"])
def test_no_copy_comes_to_lie_where_sqlite_would_take_it_for_a_log_or_find_one(
    closed: Path, folder: Path, end: str
) -> None:
    with pytest.raises(InvalidRequest, match=end):
        back_up(closed, closed.with_name(f"{closed.name}{end}"))
    log = folder / f"copy.db{end}"
    log.write_text("of another copy.db")
    with pytest.raises(InvalidRequest, match=end):
        back_up(closed, folder / "copy.db")
    assert names_in(folder) == [log.name]


def without_links(event: str, args: tuple[Any, ...]) -> None:
    """Answer as a disk does that knows no hard links, a stick with FAT."""
    if event == "os.link":
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), str(args[1]))


def test_a_disk_without_hard_links_takes_copies_and_gives_them_back(
    closed: Path, folder: Path
) -> None:
    to, aside, was = folder / "copy.db", folder / "aside.db", contents(closed)

    def work() -> None:
        copy = back_up(closed, to)
        with closing(Database(closed)) as db:
            make_slots(db, "embed")
        restore(copy.path, closed, aside)

    assert end_of(work, lambda: sys.addaudithook(without_links)) == 0
    assert names_in(folder) == ["aside.db", "copy.db"]
    assert contents(to) == was
    assert len(contents(aside)["slots"]) == 2
    assert but_its_epoch(closed) == but_its_epoch(to)


def test_a_disk_without_hard_links_has_no_file_overwritten_either(
    closed: Path, folder: Path
) -> None:
    to = folder / "copy.db"

    def come(event: str, args: tuple[Any, ...]) -> None:
        if event == "os.link":
            to.write_text("mine")

    def hooks() -> None:
        sys.addaudithook(come)
        sys.addaudithook(without_links)

    def work() -> None:
        with pytest.raises(InvalidRequest, match=str(to)):
            back_up(closed, to)

    assert end_of(work, hooks) == 0
    assert to.read_text() == "mine"
    assert names_in(folder) == ["copy.db"]


def test_a_restore_that_fails_at_its_last_step_leaves_nothing_of_itself(
    closed: Path, folder: Path
) -> None:
    copy = back_up(closed, folder / "copy.db").path
    with closing(Database(closed)) as db:
        make_slots(db, "embed")
    was, names = contents(closed), names_in(closed.parent)

    def fail(event: str, args: tuple[Any, ...]) -> None:
        if event == "os.rename" and str(args[1]) == str(closed):
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    def work() -> None:
        with pytest.raises(DatabaseError, match=str(closed)):
            restore(copy, closed, folder / "aside.db")

    assert end_of(work, lambda: sys.addaudithook(fail)) == 0
    assert contents(closed) == was
    assert (names_in(closed.parent), names_in(folder)) == (names, ["copy.db"])


def test_a_restore_keeps_nothing_over_a_file_that_comes_while_it_is_made(
    closed: Path, folder: Path
) -> None:
    copy = back_up(closed, folder / "copy.db").path
    aside, was = folder / "aside.db", contents(closed)

    def come(event: str, args: tuple[Any, ...]) -> None:
        if event == "os.link" and str(args[1]) == str(aside):
            aside.write_text("mine")

    def work() -> None:
        with pytest.raises(DatabaseError):
            restore(copy, closed, aside)

    assert end_of(work, lambda: sys.addaudithook(come)) == 0
    assert aside.read_text() == "mine"
    assert contents(closed) == was


def test_the_second_name_of_the_database_that_a_killed_restore_left_goes_with_the_next(
    closed: Path, folder: Path
) -> None:
    """SQLite spoils a database that is opened by two names."""
    copy = back_up(closed, folder / "copy.db").path
    left = aside_of(closed, utc_now())
    os.link(closed, left)
    kept = closed.with_name("hal0.db.older.replaced")
    shutil.copy(copy, kept)
    restore(copy, closed, folder / "aside.db")
    assert not left.exists()
    assert kept.exists()
