"""`hal0 backup`, `hal0 restore` and `hal0 prune`, on a home that is used and on one that is not."""

import json
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from freezegun import freeze_time
from sqlalchemy import select

from hal0.db import Database
from hal0.jobs.ledger.intake import Wish, request_check
from hal0.jobs.owners import Owner
from hal0.settings import Settings
from hal0.states import JobKind
from hal0.tables import jobs, prunings
from tests.ledger import end, make_slots
from tests.rows import OPERATOR, ask_load, claim_next, contents, run_load, slot_now
from tests.unit.cli.conftest import Run

LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def home(settings: Settings, db: Database, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with two chains of one slot, both of long ago; nobody uses it."""
    monkeypatch.setenv("HAL0_HOME", str(settings.home))
    with freeze_time(LONG_AGO):
        make_slots(db, "chat")
        ask_load(db)
        run_load(db)
        with db.write() as tx:
            request_check(tx, slot_now(db), Wish(JobKind.VALIDATE), OPERATOR)
        end(db, claim_next(db))
    return settings.home


@pytest.fixture
def worker(settings: Settings, db: Database) -> Iterator[Owner]:
    """A process of this home that lives."""
    owner = Owner(settings.run, "worker")
    with db.write() as tx:
        owner.register(tx)
    yield owner
    owner.close()


def test_a_home_is_backed_up_while_it_is_used_and_restored_when_it_is_not(
    home: Path, db: Database, worker: Owner, run: Run, tmp_path: Path
) -> None:
    file = tmp_path / "copy.db"
    made = run("backup", file)
    assert made.code == 0, made.err
    assert made.out.startswith(f"{file}: verified, ")
    assert made.out.endswith("1 slots, 1 models, 5 jobs, 4 transitions, 0 incidents\n")
    refused = run("restore", file)
    assert (refused.code, str(worker.row.pid) in refused.err) == (5, True)
    make_slots(db, "embed")
    worker.close()
    with db.write() as tx:
        tx.exec_driver_sql("UPDATE owners SET ended_at = seen_at")
    db.close()
    back = run("restore", file, "--json")
    assert back.code == 0, back.err
    kept = Path(json.loads(back.out)["kept"])
    assert len(contents(home / "hal0.db")["slots"]) == 1
    assert len(contents(kept)["slots"]) == 2


def test_a_file_may_be_named_as_it_is_called_in_the_folder_where_one_is(
    home: Path, db: Database, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made = run("backup", "copy.db")
    assert made.code == 0, made.err
    assert made.out.startswith(f"{tmp_path}/copy.db: verified")
    db.close()
    back = run("restore", "copy.db")
    assert back.code == 0, back.err
    assert len(contents(home / "hal0.db")["slots"]) == 1


def test_a_name_that_is_too_long_is_refused_in_words(home: Path, run: Run) -> None:
    refused = run("backup", home / ("x" * 250))
    assert (refused.code, "at most 200 bytes" in refused.err) == (2, True)


@pytest.mark.parametrize("verb", ["backup", "prune"])
def test_a_home_without_a_database_is_told_and_none_is_made(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    monkeypatch.setenv("HAL0_HOME", str(tmp_path / "none"))
    words = [tmp_path / "copy.db"] if verb == "backup" else []
    refused = run(verb, *words)
    assert refused.code == 3
    assert "HAL0_HOME" in refused.err
    assert not (tmp_path / "none").exists()


def test_old_rows_are_told_and_then_deleted(home: Path, db: Database, run: Run) -> None:
    would = json.loads(run("prune", "--dry-run", "--json").out)
    assert would["rows"]["jobs"] == 4, "of the older chain; the newest stays"
    done = run("prune")
    assert done.code == 0, done.err
    assert [line.split() for line in done.out.splitlines()] == [
        ["TABLE", "DELETED"],
        ["chains", "1"],
        ["job_attempts", "4"],
        ["jobs", "4"],
    ]
    with db.read() as tx:
        assert len(tx.execute(select(jobs)).all()) == 1
        (row,) = tx.execute(select(prunings))
    assert (row.actor, row.deleted) == ("local", would["rows"])
    assert run("prune").out == "nothing is older than it may be\n"


def test_nothing_goes_where_everything_is_kept_for_ever(
    home: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HAL0_KEEP_JOBS_DAYS", "0")
    assert run("prune").out == "nothing is older than it may be\n"


def test_a_restore_takes_nothing_but_a_database(
    home: Path, db: Database, run: Run, tmp_path: Path
) -> None:
    db.close()
    before = contents(home / "hal0.db")
    file = tmp_path / "notes.txt"
    file.write_text("no database" * 100)
    refused = run("restore", file)
    assert refused.code == 1
    assert "notes.txt" in refused.err
    with closing(Database(home / "hal0.db")):
        assert contents(home / "hal0.db") == before
