"""Copies that can be relied on: whole, looked through, and never over anything that is there."""

import sqlite3
import stat
import threading
from contextlib import closing
from itertools import count
from pathlib import Path

import pytest
from sqlalchemy import select

from hal0.care import copies
from hal0.care.copies import back_up, restore, verified
from hal0.clock import utc_now
from hal0.db import Database, open_database, revision
from hal0.errors import DatabaseCorrupt, DatabaseLocked, DatabaseNewer, InvalidRequest
from hal0.jobs.boot import first_act
from hal0.jobs.owners import Owner, living_rows
from hal0.settings import Settings
from hal0.slots.queries import slot_named
from hal0.slots.transitions import Act, move
from hal0.states import Cause, SlotState
from hal0.tables import REVISION, boots, owners
from tests.ledger import make_slots
from tests.older import FIRST, columns_of, make_first_schema, make_schema, rows
from tests.rows import ask_load, but_its_epoch, contents, run_load, slot_now


@pytest.fixture
def furnished(db: Database) -> Database:
    make_slots(db, "chat")
    ask_load(db)
    run_load(db)
    return db


def test_a_copy_has_every_row_though_others_write_meanwhile(
    furnished: Database, tmp_path: Path
) -> None:
    with furnished.write():  # holds the one place to write
        copy = back_up(furnished.path, tmp_path / "copy.db")
    assert contents(copy.path) == contents(furnished.path)
    assert (copy.rows["slots"], copy.rows["jobs"]) == (1, 4)
    assert copy.size_bytes == copy.path.stat().st_size
    assert stat.S_IMODE(copy.path.stat().st_mode) == 0o600, "it tells who may come in"
    assert [path.name for path in tmp_path.glob("copy.db*")] == ["copy.db"]


def test_a_copy_that_is_made_under_writes_is_of_one_moment(
    furnished: Database, tmp_path: Path
) -> None:
    is_over, times = threading.Event(), count()

    def write() -> None:
        begins = (SlotState.SERVING, Cause.REQUEST_STARTED)
        ends = (SlotState.READY, Cause.REQUESTS_DONE)
        while not is_over.is_set():
            with furnished.soft() as tx:
                slot = slot_named(tx, "chat")
                move(tx, slot, *(begins if next(times) % 2 == 0 else ends), Act("test"))

    writer = threading.Thread(target=write)
    writer.start()
    try:
        copies = [back_up(furnished.path, tmp_path / f"{number}.db") for number in range(5)]
    finally:
        is_over.set()
        writer.join()
    audit = contents(furnished.path)["transitions"]
    for copy in copies:
        rows = contents(copy.path)["transitions"]
        assert rows == audit[: len(rows)]
        with closing(Database(copy.path)) as db:
            assert slot_now(db).last_transition_id == rows[-1][0]
    assert copies[-1].rows["transitions"] > copies[0].rows["transitions"], "somebody wrote"


def test_a_backup_overwrites_nothing(furnished: Database, tmp_path: Path) -> None:
    there = tmp_path / "mine.txt"
    there.write_text("mine")
    for name in (there, tmp_path / "no" / "folder.db"):
        with pytest.raises(InvalidRequest):
            back_up(furnished.path, name)
    assert there.read_text() == "mine"


def test_what_cannot_be_relied_on_gets_no_name(
    furnished: Database, tmp_path: Path, damage: None
) -> None:
    with pytest.raises(DatabaseCorrupt):
        back_up(furnished.path, tmp_path / "copy.db")
    assert not (tmp_path / "copy.db").exists()
    assert not list(tmp_path.glob("copy.db*"))


@pytest.fixture
def damage(furnished: Database) -> None:
    """A row that refers to none, as only one who switched the checks off can write it."""
    with closing(sqlite3.connect(furnished.path)) as connection:
        connection.execute("PRAGMA foreign_keys = OFF")
        connection.execute("UPDATE slots SET engine_id = 99")
        connection.commit()


def test_a_damaged_copy_is_refused_with_what_is_wrong(furnished: Database, tmp_path: Path) -> None:
    copy = back_up(furnished.path, tmp_path / "copy.db").path
    bytes_of = bytearray(copy.read_bytes())
    page = 4096
    for at in range(3 * page, len(bytes_of), 2 * page):
        bytes_of[at : at + 64] = b"\xff" * 64
    copy.write_bytes(bytes_of)
    with pytest.raises(DatabaseCorrupt) as caught:
        verified(copy)
    assert "copy.db" in caught.value.detail


def test_damage_that_nobody_meets_who_counts_and_follows_rows_is_found(
    furnished: Database, tmp_path: Path
) -> None:
    copy = back_up(furnished.path, tmp_path / "copy.db").path
    furnished.close()
    before = contents(furnished.path)
    blank_an_index(copy)
    with pytest.raises(DatabaseCorrupt, match=r"(?s)copy\.db is damaged: .*ix_transitions_job_id"):
        restore(copy, furnished.path, tmp_path / "aside.db")
    assert contents(furnished.path) == before
    blank_an_index(furnished.path)
    with pytest.raises(DatabaseCorrupt, match=r"(?s)is damaged: .*ix_transitions_job_id"):
        back_up(furnished.path, tmp_path / "another.db")
    assert sorted(path.name for path in tmp_path.glob("*.db")) == ["copy.db"]


def blank_an_index(path: Path) -> None:
    """Take the entries out of a page in the middle; its rows and all that refers stay whole."""
    with closing(sqlite3.connect(path)) as connection:
        [[page]] = connection.execute(
            "SELECT rootpage FROM sqlite_schema WHERE name = 'ix_transitions_job_id'"
        )
        [[size]] = connection.execute("PRAGMA page_size")
    content = bytearray(path.read_bytes())
    at = (page - 1) * size
    content[at + 3 : at + 5] = b"\0\0"  # so many cells has a page
    path.write_bytes(content)


def test_a_copy_of_a_newer_hal0_is_refused(furnished: Database, tmp_path: Path) -> None:
    copy = back_up(furnished.path, tmp_path / "copy.db").path
    with closing(sqlite3.connect(copy)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.commit()
    with pytest.raises(DatabaseNewer):
        verified(copy)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE alembic_version SET version_num = ''",
        "UPDATE alembic_version SET version_num = '00005'",
        "UPDATE alembic_version SET version_num = '0000'",
        "UPDATE alembic_version SET version_num = 'newest'",
        "INSERT INTO alembic_version VALUES ('0005')",
        "DELETE FROM alembic_version",
        "DROP TABLE prunings",
        "DROP TABLE alembic_version",
        "DROP TRIGGER transitions_no_delete",
        "CREATE TRIGGER own AFTER UPDATE ON boots BEGIN DELETE FROM slots; END",
    ],
)
def test_what_no_hal0_can_have_written_is_no_copy(
    furnished: Database, tmp_path: Path, change: str
) -> None:
    copy, before = back_up(furnished.path, tmp_path / "copy.db").path, contents(furnished.path)
    furnished.close()
    with closing(sqlite3.connect(copy)) as connection:
        connection.execute(change)
        connection.commit()
    with pytest.raises(DatabaseCorrupt, match=r"copy\.db"):
        restore(copy, furnished.path, tmp_path / "aside.db")
    assert contents(furnished.path) == before
    assert not (tmp_path / "aside.db").exists()


def test_each_revision_is_known_with_its_tables(settings: Settings) -> None:
    for number in copies.REVISIONS:
        make_schema(settings, number)
        assert revision(settings.database) == number
        names = set(columns_of(settings.database))
        assert names == copies.tables_at(number)
    assert number == REVISION


@pytest.mark.parametrize("content", [None, b"", b"not a database at all" * 400])
def test_what_is_no_database_is_refused(
    furnished: Database, tmp_path: Path, content: bytes | None
) -> None:
    file, before = tmp_path / "no.db", contents(furnished.path)
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(DatabaseCorrupt):
        restore(file, furnished.path, tmp_path / "aside.db")
    assert contents(furnished.path) == before
    assert not (tmp_path / "aside.db").exists()


def test_what_is_put_back_is_the_copy_and_what_was_there_is_kept(
    furnished: Database, tmp_path: Path
) -> None:
    copy = back_up(furnished.path, tmp_path / "copy.db").path
    then, restorable = contents(copy), but_its_epoch(copy)
    make_slots(furnished, "embed")
    now = contents(furnished.path)
    furnished.close()
    restore(copy, furnished.path, tmp_path / "aside.db")
    assert but_its_epoch(furnished.path) == restorable
    assert contents(tmp_path / "aside.db") == now != then
    assert contents(copy) == then


def test_what_is_put_back_belongs_to_no_process(
    furnished: Database, settings: Settings, tmp_path: Path
) -> None:
    """Who was at work when the copy was made works elsewhere, if it lives."""
    owner = Owner(settings.run, "worker")
    with furnished.write() as tx:
        owner.register(tx)
    copy = back_up(furnished.path, tmp_path / "copy.db").path
    other = tmp_path / "other" / "hal0.db"
    other.parent.mkdir()
    restore(copy, other, tmp_path / "aside.db")
    with closing(Database(other)) as restored, restored.read() as tx:
        assert living_rows(tx) == []
        assert tx.execute(select(owners.c.ended_at >= owners.c.started_at)).all() == [(True,)]
    with furnished.read() as tx:
        assert living_rows(tx) == [owner.row]
    owner.close()


def test_what_somebody_reads_is_not_replaced(furnished: Database, tmp_path: Path) -> None:
    """Its log has rows that the file has not, and goes with the name."""
    copy = back_up(furnished.path, tmp_path / "copy.db").path
    with closing(sqlite3.connect(furnished.path, isolation_level=None)) as auditor:
        auditor.execute("BEGIN")
        auditor.execute("SELECT * FROM slots").fetchall()
        make_slots(furnished, "embed")
        furnished.close()
        with pytest.raises(DatabaseLocked):
            restore(copy, furnished.path, tmp_path / "aside.db")
    assert len(contents(furnished.path)["slots"]) == 2
    assert not (tmp_path / "aside.db").exists()


def test_a_home_whose_database_is_damaged_takes_a_copy_and_keeps_the_damage(
    furnished: Database, tmp_path: Path
) -> None:
    copy = back_up(furnished.path, tmp_path / "copy.db").path
    furnished.close()
    for end in ("-wal", "-shm"):
        furnished.path.with_name(furnished.path.name + end).unlink(missing_ok=True)
    furnished.path.write_bytes(b"x" * 8192)
    restore(copy, furnished.path, tmp_path / "aside.db")
    assert but_its_epoch(furnished.path) == but_its_epoch(copy)
    assert (tmp_path / "aside.db").read_bytes() == b"x" * 8192


def test_a_restore_that_dies_before_the_last_step_leaves_what_was_there(
    furnished: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = back_up(furnished.path, tmp_path / "copy.db").path
    make_slots(furnished, "embed")
    now = contents(furnished.path)
    furnished.close()

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", die)
    with pytest.raises(KeyboardInterrupt):
        restore(copy, furnished.path, tmp_path / "aside.db")
    assert contents(furnished.path) == now
    assert copies.verified(furnished.path).rows["slots"] == 2


def boot(db: Database, name: str) -> None:
    with db.write() as tx:
        tx.execute(boots.insert().values(boot_id=name, first_seen_at=utc_now()))


@pytest.mark.parametrize("is_booted", [True, False], ids=["copied later", "copied before a boot"])
@pytest.mark.parametrize("is_lost", [True, False], ids=["lost", "there"])
def test_what_is_written_after_a_restore_is_of_an_epoch_that_nobody_has_seen(
    furnished: Database, tmp_path: Path, is_booted: bool, is_lost: bool
) -> None:
    """Ids of the audit come again: whoever follows it must not take the new rows for the old."""
    if is_booted:
        first_act(furnished, "local")
    copy = back_up(furnished.path, tmp_path / "copy.db").path
    for number in range(3):
        boot(furnished, f"later boot {number}")
    seen = epochs(furnished)
    furnished.close()
    if is_lost:
        furnished.path.write_bytes(b"x" * 8192)
    restore(copy, furnished.path, tmp_path / "aside.db")
    with closing(Database(furnished.path)) as back:
        assert min(epochs(back)[-1:], default=99) > max(seen)
        boot(back, "one more")
        assert epochs(back)[-1] > max(seen)
        assert len(set(epochs(back))) == len(epochs(back)) == is_booted + 1


def test_each_restore_begins_an_epoch_above_that_of_the_one_before(
    furnished: Database, tmp_path: Path
) -> None:
    first_act(furnished, "local")
    copy = back_up(furnished.path, tmp_path / "copy.db").path
    furnished.close()
    seen = [0]
    for number in range(3):
        restore(copy, furnished.path, tmp_path / f"aside {number}.db")
        with closing(Database(furnished.path)) as back:
            assert max(epochs(back)) > seen[-1]
            seen.append(max(epochs(back)))


def epochs(db: Database) -> list[int]:
    with db.read() as tx:
        return sorted(tx.execute(select(boots.c.epoch)).scalars())


def test_a_copy_of_an_older_hal0_is_put_back_and_upgraded_at_the_next_start(
    settings: Settings, tmp_path: Path
) -> None:
    make_first_schema(settings)
    before = rows(settings.database)
    copy = back_up(settings.database, tmp_path / "copy.db")
    assert copy.schema_revision == FIRST
    restore(copy.path, settings.database, tmp_path / "aside.db")
    open_database(settings, upgrade=True).close()
    after = rows(settings.database, columns_of(copy.path))
    assert {**after, "boots": []} == {**before, "boots": []}
