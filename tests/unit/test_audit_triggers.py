"""D13: what a person with plain `sqlite3` cannot do to the audit, to slots and to jobs.

Every connection here is the standard library's, as anyone's is: foreign keys are off, recursive
triggers too, and no code of hal0 runs. What is refused leaves the file as it was.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest

from hal0.db import Database
from hal0.errors import FileNotFound
from tests.rows import (
    ask_load,
    ask_unload,
    claim_next,
    fail_next,
    make_model,
    make_slot,
    run_load,
)

NOW = "2026-01-02T03:04:05.000000Z"


@pytest.fixture
def plain(db: Database) -> Iterator[sqlite3.Connection]:
    """A home with history, opened with nothing but sqlite3.

    Slot 1 `chat` was loaded by jobs 1-4 and is to be unloaded (13); slot 2 `code` failed at job 5
    and is to be loaded again (14-17); job 9 of slot 3 `spare` runs: a pull.
    """
    for name, model in (("chat", "tiny"), ("code", "other"), ("spare", "third")):
        make_model(db, model)
        make_slot(db, name, model)
    ask_load(db, "chat")
    run_load(db)
    ask_load(db, "code")
    fail_next(db, FileNotFound("gone"))
    ask_load(db, "spare")
    claim_next(db, "owner-2")
    ask_unload(db, "chat")
    ask_load(db, "code")
    with closing(sqlite3.connect(db.path)) as connection:
        yield connection


def _refused(plain: sqlite3.Connection, sql: str, message: str) -> None:
    """Whoever commits after the refusal, too, changes nothing."""
    before = list(plain.iterdump())
    with pytest.raises(sqlite3.IntegrityError, match=message):
        plain.execute(sql)
    plain.commit()
    assert list(plain.iterdump()) == before


def _transition(slot: int, source: str, to: str, cause: str, transition_id: str = "NULL") -> str:
    return (
        "INTO transitions (id, slot_id, from_state, to_state, cause, at, actor, generation) VALUES "
        f"({transition_id}, {slot}, {source}, '{to}', '{cause}', '{NOW}', 'me', 0)"
    )


def _job(job_id: str, slot: int, kind: str, state: str, owner: str = "NULL") -> str:
    return (
        "INTO jobs (id, chain_id, slot_id, engine_id, model_id, kind, position, step, state, "
        "attempt, crashes, owner_id, created_at) "
        f"VALUES ({job_id}, 1, {slot}, 1, 3, '{kind}', 99, 0, '{state}', 1, 0, {owner}, '{NOW}')"
    )


def _slot(slot_id: str, name: str, state: str) -> str:
    return (
        "INTO slots (id, name, state, engine_id, options, desired, pinned, priority, generation, "
        f"version, created_at) VALUES ({slot_id}, '{name}', {state}, 1, '{{}}', 'unloaded', 0, 0, "
        f"0, 0, '{NOW}')"
    )


def test_the_home_is_as_these_tests_think(plain: sqlite3.Connection) -> None:
    states = plain.execute("SELECT id, state FROM slots ORDER BY id").fetchall()
    assert states == [(1, "ready"), (2, "offline"), (3, "offline")]
    running = plain.execute("SELECT id, slot_id, kind FROM jobs WHERE state = 'running'").fetchall()
    assert running == [(9, 3, "pull")]
    assert plain.execute("PRAGMA foreign_keys").fetchone() == (0,)
    assert plain.execute("PRAGMA recursive_triggers").fetchone() == (0,)


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE transitions SET actor = 'nobody' WHERE id = 1",
        "UPDATE transitions SET to_state = 'error'",
        "UPDATE OR REPLACE transitions SET id = 1 WHERE id = 2",
        "DELETE FROM transitions WHERE id = (SELECT max(id) FROM transitions)",
        "DELETE FROM transitions",
        "INSERT OR REPLACE " + _transition(1, "'ready'", "idle", "demoted", "1"),
        "REPLACE " + _transition(1, "'ready'", "idle", "demoted", "1"),
        "UPDATE job_attempts SET outcome = 'done'",
        "UPDATE OR REPLACE job_attempts SET job_id = 1, attempt = 1",
        "DELETE FROM job_attempts WHERE job_id = 5",
        "DELETE FROM job_attempts",
        f"REPLACE INTO job_attempts VALUES (5, 1, 'me', '{NOW}', '{NOW}', 'done', NULL, NULL)",
    ],
)
def test_a_row_of_the_audit_is_final(plain: sqlite3.Connection, sql: str) -> None:
    _refused(plain, sql, r"rows are final")


def test_an_ignored_conflict_adds_nothing_to_the_audit(plain: sqlite3.Connection) -> None:
    _refused(
        plain,
        "INSERT OR IGNORE " + _transition(1, "'ready'", "idle", "demoted", "1"),
        "rows are final",
    )


@pytest.mark.parametrize(
    ("slot", "source", "to", "cause"),
    [
        (1, "'ready'", "ready", "touched"),
        (1, "'ready'", "warming", "load_sent"),
        (1, "'ready'", "idle", "unloaded"),
        (1, "'ready'", "nowhere", "demoted"),
        (2, "'offline'", "ready", "loaded"),
        (2, "'offline'", "offline", "created"),
    ],
)
def test_a_change_that_no_edge_allows_is_refused(
    plain: sqlite3.Connection, slot: int, source: str, to: str, cause: str
) -> None:
    _refused(plain, "INSERT " + _transition(slot, source, to, cause), "no such edge")


@pytest.mark.parametrize(
    ("slot", "source", "to", "cause"),
    [
        (1, "'idle'", "ready", "touched"),
        (2, "'error'", "starting", "checked"),
        (2, "NULL", "offline", "created"),
        (77, "'offline'", "starting", "checked"),
        (77, "NULL", "offline", "created"),
    ],
)
def test_a_change_that_does_not_begin_at_the_slots_state_is_refused(
    plain: sqlite3.Connection, slot: int, source: str, to: str, cause: str
) -> None:
    _refused(plain, "INSERT " + _transition(slot, source, to, cause), "not in this state")


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE slots SET state = 'offline' WHERE id = 1",
        "UPDATE slots SET state = NULL WHERE id = 1",
        "UPDATE slots SET state = 'idle', cause = 'demoted' WHERE id = 1",
        "UPDATE slots SET last_transition_id = 1 WHERE id = 1",
        "UPDATE slots SET last_transition_id = NULL WHERE id = 1",
        "UPDATE slots SET state = 'ready', model_id = 2, last_transition_id = 1 WHERE id = 2",
        "INSERT " + _slot("NULL", "new", "'offline'"),
        "INSERT " + _slot("NULL", "new", "'ready'"),
        "INSERT OR REPLACE " + _slot("1", "chat", "'offline'"),
    ],
)
def test_no_slot_gets_a_state_without_a_row_of_the_audit(
    plain: sqlite3.Connection, sql: str
) -> None:
    _refused(plain, sql, "a state comes from a row of transitions|a living slot has this name")


def test_a_legal_row_by_hand_moves_the_slot_and_says_who(plain: sqlite3.Connection) -> None:
    plain.execute("INSERT " + _transition(1, "'ready'", "idle", "demoted"))
    row = plain.execute(
        "SELECT s.state, s.cause, s.since, t.actor FROM slots s "
        "JOIN transitions t ON t.id = s.last_transition_id WHERE s.id = 1"
    ).fetchone()
    assert row == ("idle", "demoted", NOW, "me")


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT " + _job("NULL", 3, "validate", "running", "'me'"),
        "UPDATE jobs SET state = 'running', owner_id = 'me' WHERE id = 10",
        "UPDATE jobs SET slot_id = 1, state = 'running', owner_id = 'me' WHERE id IN (13, 14)",
    ],
)
def test_a_second_running_job_of_a_slot_is_refused(plain: sqlite3.Connection, sql: str) -> None:
    _refused(plain, sql, "one runs at a time|never claimed")


def test_a_second_running_pull_of_a_model_is_refused(plain: sqlite3.Connection) -> None:
    sql = "INSERT " + _job("NULL", 2, "pull", "running", "'me'")
    _refused(plain, sql, "never claimed")
    sql = "UPDATE jobs SET state = 'running', owner_id = 'me', model_id = 3 WHERE id = 14"
    _refused(plain, sql, "one runs at a time")


@pytest.mark.parametrize(
    ("trigger", "sql", "column"),
    [
        ("no_replace", "INSERT " + _job("NULL", 3, "validate", "running", "'me'"), "slot_id"),
        ("no_replace", "INSERT " + _job("NULL", 2, "pull", "running", "'me'"), "model_id"),
        (
            "no_replace_by_update",
            "UPDATE jobs SET state = 'running', owner_id = 'me' WHERE id = 10",
            "slot_id",
        ),
    ],
)
def test_one_at_a_time_holds_without_its_trigger_too(
    plain: sqlite3.Connection, trigger: str, sql: str, column: str
) -> None:
    """one_running: the index is the promise; the triggers only keep REPLACE off it."""
    plain.execute(f"DROP TRIGGER jobs_{trigger}")
    _refused(plain, sql, rf"UNIQUE constraint failed: jobs\.{column}")


def test_no_job_runs_without_an_owner(plain: sqlite3.Connection) -> None:
    check = "ck_jobs_running_has_an_owner"
    _refused(plain, "UPDATE jobs SET state = 'running' WHERE id = 14", check)
    _refused(plain, "UPDATE jobs SET owner_id = 'me' WHERE id = 14", check)
    _refused(plain, "UPDATE jobs SET owner_id = NULL WHERE id = 9", check)


def test_no_slot_is_dispatchable_without_a_model(plain: sqlite3.Connection) -> None:
    _refused(plain, "UPDATE slots SET model_id = NULL WHERE id = 1", "dispatchable_has_a_model")


def test_a_slot_is_never_deleted(plain: sqlite3.Connection) -> None:
    _refused(plain, "DELETE FROM slots WHERE id = 2", "set deleted_at instead")
    _refused(plain, "DELETE FROM slots", "set deleted_at instead")


def test_a_job_is_never_deleted_nor_replaced(plain: sqlite3.Connection) -> None:
    _refused(plain, "DELETE FROM jobs WHERE id = 1", "only prune may delete")
    _refused(plain, "DELETE FROM jobs", "only prune may delete")
    _refused(plain, "INSERT OR REPLACE " + _job("1", 1, "pull", "queued"), "this row exists")


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT OR REPLACE " + _job("NULL", 3, "validate", "running", "'me'"),
        "UPDATE OR REPLACE jobs SET state = 'running', owner_id = 'me' WHERE id = 10",
        "UPDATE OR REPLACE jobs SET id = 1 WHERE id = 2",
    ],
)
def test_replacing_does_not_delete_the_running_job_either(
    plain: sqlite3.Connection, sql: str
) -> None:
    _refused(plain, sql, "jobs")


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT OR REPLACE " + _slot("NULL", "chat", "NULL"),
        "UPDATE OR REPLACE slots SET name = 'chat' WHERE id = 2",
        "UPDATE OR REPLACE slots SET id = 1 WHERE id = 2",
    ],
)
def test_replacing_does_not_delete_a_slot_either(plain: sqlite3.Connection, sql: str) -> None:
    _refused(plain, sql, "slots")


def test_the_list_of_edges_is_closed(plain: sqlite3.Connection) -> None:
    closed = "the list is closed"
    _refused(plain, "UPDATE edges SET cause = 'loaded' WHERE to_state = 'offline'", closed)
    _refused(plain, "DELETE FROM edges", closed)


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO edges VALUES (NULL, 'offline', 'ready', 'loaded')",
        "INSERT OR REPLACE INTO edges VALUES (1, 'offline', 'ready', 'loaded')",
    ],
)
def test_nobody_adds_an_edge(plain: sqlite3.Connection, sql: str) -> None:
    _refused(plain, sql, "the list is closed")


def test_only_a_permit_in_the_same_transaction_lets_audit_rows_go(
    plain: sqlite3.Connection,
) -> None:
    permit = f"INSERT INTO prune_permits VALUES (1, 'prune', '{NOW}')"
    plain.execute("BEGIN IMMEDIATE")
    plain.execute(permit)
    assert plain.execute("DELETE FROM transitions WHERE id = 1").rowcount == 1
    assert plain.execute("DELETE FROM job_attempts WHERE job_id = 1").rowcount == 1
    assert plain.execute("DELETE FROM jobs WHERE id = 1").rowcount == 1
    with pytest.raises(sqlite3.IntegrityError, match="set deleted_at instead"):
        plain.execute("DELETE FROM slots WHERE id = 2")
    with pytest.raises(sqlite3.IntegrityError, match="rows are final"):
        plain.execute("UPDATE transitions SET actor = 'nobody'")
    plain.execute("DELETE FROM prune_permits")
    plain.commit()
    _refused(plain, "DELETE FROM transitions WHERE id = 2", "rows are final")
    _refused(plain, "DELETE FROM job_attempts WHERE job_id = 2", "rows are final")
    _refused(plain, "DELETE FROM jobs WHERE id = 2", "only prune may delete")


def test_there_is_one_permit_at_a_time(plain: sqlite3.Connection) -> None:
    plain.execute(f"INSERT INTO prune_permits VALUES (1, 'prune', '{NOW}')")
    _refused(plain, f"INSERT INTO prune_permits VALUES (2, 'me', '{NOW}')", "ck_prune_permits_one")


def test_a_chain_is_never_deleted_nor_replaced(plain: sqlite3.Connection) -> None:
    """Without it its jobs would belong to nothing."""
    _refused(plain, "DELETE FROM chains WHERE id = 1", "only prune may delete")
    _refused(plain, "UPDATE OR REPLACE chains SET position = 1 WHERE id = 2", "its place exists")
    _refused(plain, "UPDATE OR REPLACE chains SET id = 1 WHERE id = 2", "its place exists")
    columns = "slot_id, position, goal, origin, actor, rehash, force, created_at"
    values = f"1, 1, 'load', 'operator', 'me', 0, 0, '{NOW}'"
    _refused(plain, f"INSERT OR REPLACE INTO chains ({columns}) VALUES ({values})", "its place")


def test_an_incident_is_never_deleted_nor_replaced(plain: sqlite3.Connection) -> None:
    """Not by prune either: changes of state that are kept for ever name theirs."""
    columns = "(id, engine_id, kind, at, detail) VALUES"
    for number in (1, 2):
        plain.execute(
            f"INSERT INTO incidents {columns} ({number}, 1, 'engine_lost', '{NOW}', 'it was')"
        )
    plain.execute(f"INSERT INTO prune_permits VALUES (1, 'prune', '{NOW}')")
    plain.commit()
    _refused(plain, "DELETE FROM incidents WHERE id = 2", "is never deleted")
    _refused(plain, "DELETE FROM incidents", "is never deleted")
    row = f"(2, 1, 'engine_lost', '{NOW}', 'it was not')"
    _refused(plain, f"INSERT OR REPLACE INTO incidents {columns} {row}", "this row exists")
    _refused(plain, "UPDATE OR REPLACE incidents SET id = 2 WHERE id = 1", "an id is for ever")
    plain.execute(f"UPDATE incidents SET acked_at = '{NOW}', acked_by = 'me' WHERE id = 2")
