"""One true history and many false ones: what a checker must reject, point by point.

Each doctor changes a copy of the history in the one place that it names. The database's triggers
would not let it, so the copy has none.
"""

import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from tests.chaos.evidence import Evidence, Json


class Copy:
    """A copy of the evidence whose rows and lines can be changed."""

    def __init__(self, true: Evidence, folder: Path) -> None:
        paths = (true.database, true.answers, true.calls)
        self.evidence = Evidence(*(folder / path.name for path in paths))
        for path in paths:
            shutil.copy(path, folder / path.name)
        for (name,) in self.sql("SELECT name FROM sqlite_schema WHERE type = 'trigger'"):
            self.sql(f"DROP TRIGGER {name}")

    def sql(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Read or change the rows; a change must change something."""
        with closing(sqlite3.connect(self.evidence.database)) as connection, connection:
            cursor = connection.execute(statement, values)
            assert cursor.rowcount != 0, f"nothing changed: {statement}"
            return cursor.fetchall()

    def one(self, query: str, *values: Any) -> Any:
        """Return the first value that a query finds."""
        return self.sql(query, *values)[0][0]

    def edit_answers(self, edit: Callable[[list[Json]], None]) -> None:
        """Change the client's log."""
        _edit(self.evidence.answers, edit)

    def edit_calls(self, edit: Callable[[list[Json]], None]) -> None:
        """Change the engine's log."""
        _edit(self.evidence.calls, edit)

    @property
    def load(self) -> tuple[int, int]:
        """Job and id of the row of the first load that was sent."""
        row = self.sql(
            "SELECT job_id, id FROM transitions WHERE cause = 'load_sent' ORDER BY id LIMIT 1"
        )[0]
        return int(row[0]), int(row[1])


def _edit(path: Path, edit: Callable[[list[Json]], None]) -> None:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    before = json.dumps(lines)
    edit(lines)
    assert json.dumps(lines) != before, "nothing changed"
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))


# -- 1: what a client was told -----------------------------------------------------------------


def a_job_is_gone(copy: Copy) -> None:
    job_id = copy.one(
        "SELECT jobs.id FROM jobs JOIN chains ON chains.id = chain_id "
        "WHERE kind = 'unload' AND origin = 'operator' ORDER BY jobs.id DESC LIMIT 1"
    )
    copy.sql("DELETE FROM jobs WHERE id = ?", job_id)
    copy.sql("DELETE FROM transitions WHERE job_id = ?", job_id)
    copy.sql("DELETE FROM job_attempts WHERE job_id = ?", job_id)


def a_job_runs_for_ever(copy: Copy) -> None:
    copy.sql(
        "UPDATE jobs SET state = 'running', owner_id = 'worker-1', attempt = attempt + 1 "
        "WHERE id = (SELECT max(id) FROM jobs)"
    )


def a_success_became_a_cancel(copy: Copy) -> None:
    job_id = copy.load[0]
    copy.sql("UPDATE jobs SET state = 'cancelled', outcome = 'cancelled' WHERE id = ?", job_id)


def an_attempt_ended_otherwise(copy: Copy) -> None:
    copy.sql("UPDATE job_attempts SET outcome = 'skipped' WHERE job_id = ?", copy.load[0])


def a_change_has_another_cause(copy: Copy) -> None:
    copy.sql("UPDATE transitions SET cause = 'adopted' WHERE cause = 'unloaded'")


def a_slot_was_shown_otherwise(copy: Copy) -> None:
    def edit(lines: list[Json]) -> None:
        shown = [x for x in lines if "since" in (x.get("body") or {}) and "version" in x["body"]]
        shown[-1]["body"]["state"] = "serving"

    copy.edit_answers(edit)


def a_model_is_gone(copy: Copy) -> None:
    copy.sql("DELETE FROM model_files WHERE model_id = (SELECT id FROM models WHERE name = 'idle')")


# -- 2: chains of changes ----------------------------------------------------------------------


def a_change_is_missing(copy: Copy) -> None:
    copy.edit_answers(_forget_rows)
    copy.sql("DELETE FROM transitions WHERE id = ?", copy.one(_A_CHECKED))


def a_change_begins_elsewhere(copy: Copy) -> None:
    copy.edit_answers(_forget_rows)
    copy.sql("UPDATE transitions SET from_state = 'ready' WHERE id = ?", copy.one(_A_CHECKED))


def a_slot_is_elsewhere(copy: Copy) -> None:
    copy.sql("UPDATE slots SET state = 'serving' WHERE name = 'chat'")


_A_CHECKED = "SELECT min(id) FROM transitions WHERE cause = 'checked'"


def _forget_rows(lines: list[Json]) -> None:
    """Leave the client's word out, so that only the rows tell."""
    lines[:] = [x for x in lines if x["phase"] == "asked" or x["status"] == 202]


# -- 3: one at a time --------------------------------------------------------------------------


def two_attempts_overlap(copy: Copy) -> None:
    job_id = copy.load[0]
    copy.edit_answers(_forget_rows)
    copy.sql(
        "UPDATE job_attempts SET started_at = (SELECT min(started_at) FROM job_attempts) "
        "WHERE job_id = ?",
        job_id,
    )


def two_jobs_of_a_slot_run(copy: Copy) -> None:
    copy.edit_answers(_forget_rows)
    copy.sql("DROP INDEX ux_jobs_running_slot")
    copy.sql("DROP INDEX ux_jobs_running_pull")
    copy.sql("UPDATE jobs SET state = 'running', owner_id = 'worker-1' WHERE slot_id = 1")


def two_loads_overlap(copy: Copy) -> None:
    def edit(lines: list[Json]) -> None:
        ends = [x for x in lines if x["phase"] == "end" and x["path"].endswith("/load")]
        ends[0]["mono_ms"] = ends[1]["mono_ms"]

    copy.edit_calls(edit)


# -- 4: validated before it is sent ------------------------------------------------------------


def a_load_nobody_marked(copy: Copy) -> None:
    def edit(lines: list[Json]) -> None:
        first = next(x for x in lines if x["phase"] == "begin" and x["path"].endswith("/load"))
        body = {**first["body"], "model_name": "idle"}
        lines.append({**first, "call": 10**6, "body": body, "mono_ms": 1})
        lines.append({**first, "call": 10**6, "phase": "end", "status": 200, "mono_ms": 2})

    copy.edit_calls(edit)


def a_load_without_validation(copy: Copy) -> None:
    copy.edit_answers(_forget_rows)
    copy.sql("UPDATE job_attempts SET outcome = 'failed' WHERE job_id = ?", _validation(copy))


def a_validation_that_came_late(copy: Copy) -> None:
    copy.edit_answers(_forget_rows)
    copy.sql(
        "UPDATE job_attempts SET ended_at = '2999-01-01T00:00:00.000000Z' WHERE job_id = ?",
        _validation(copy),
    )


def another_file_was_opened(copy: Copy) -> None:
    def edit(lines: list[Json]) -> None:
        next(x for x in lines if x["phase"] == "opened")["identity"]["inode"] += 1

    copy.edit_calls(edit)


def _validation(copy: Copy) -> int:
    return int(
        copy.one(
            "SELECT id FROM jobs WHERE kind = 'validate' AND chain_id = "
            "(SELECT chain_id FROM jobs WHERE id = ?)",
            copy.load[0],
        )
    )


# -- 5: sent once ------------------------------------------------------------------------------


def a_load_was_sent_twice(copy: Copy) -> None:
    copy.edit_calls(lambda lines: _repeat_a_load(lines, after_ms=1))


def a_job_was_marked_and_sent_twice(copy: Copy) -> None:
    job_id, mark_id = copy.load
    copy.edit_calls(lambda lines: _repeat_a_load(lines, after_ms=1000))
    at = copy.one("SELECT at FROM transitions WHERE id = ?", mark_id)
    later = copy.one("SELECT strftime('%Y-%m-%dT%H:%M:%f000Z', ?, '+0.9 seconds')", at)
    copy.sql(
        "INSERT INTO transitions (slot_id, from_state, to_state, cause, at, actor, job_id, attempt,"
        " generation) SELECT slot_id, from_state, to_state, cause, ?, actor, job_id, attempt, "
        "generation FROM transitions WHERE id = ?",
        later,
        mark_id,
    )
    assert job_id


def a_machine_repeats_what_failed(copy: Copy) -> None:
    copy.edit_answers(_forget_rows)
    copy.sql(
        "UPDATE jobs SET state = 'failed' WHERE id = "
        "(SELECT job_id FROM transitions WHERE cause = 'load_sent' AND slot_id = 1 "
        "ORDER BY id LIMIT 1)"
    )
    copy.sql("UPDATE chains SET origin = 'restore', options = NULL WHERE slot_id = 1")


def a_load_was_ready_twice(copy: Copy) -> None:
    copy.edit_answers(_forget_rows)
    copy.sql(
        "UPDATE transitions SET cause = 'loaded', job_id = ? WHERE cause = 'checked'", copy.load[0]
    )


def _repeat_a_load(lines: list[Json], after_ms: int) -> None:
    begin = next(x for x in lines if x["phase"] == "begin" and x["path"].endswith("/load"))
    end = next(x for x in lines if x["phase"] == "end" and x["call"] == begin["call"])
    at = _later(begin["at"], end["mono_ms"] - begin["mono_ms"] + after_ms)
    began = end["mono_ms"] + after_ms
    place = lines.index(end) + 1
    again = {**begin, "call": 10**6, "at": at, "mono_ms": began}
    lines[place:place] = [again, {**end, "call": 10**6, "mono_ms": began}]


def _later(at: str, by_ms: int) -> str:
    from datetime import datetime, timedelta

    later = datetime.fromisoformat(at) + timedelta(milliseconds=by_ms)
    return later.isoformat(timespec="milliseconds").replace("+00:00", "Z")


# -- 6: the fence ------------------------------------------------------------------------------


def a_change_came_after_its_attempt(copy: Copy) -> None:
    copy.edit_answers(_forget_rows)
    copy.sql(
        "UPDATE job_attempts SET ended_at = started_at WHERE job_id = ? AND attempt = 1",
        copy.load[0],
    )


def an_attempt_is_missing(copy: Copy) -> None:
    copy.edit_answers(_forget_rows)
    copy.sql("DELETE FROM job_attempts WHERE outcome = 'interrupted'")


def a_change_of_no_attempt(copy: Copy) -> None:
    copy.edit_answers(_forget_rows)
    copy.sql("UPDATE transitions SET attempt = 77 WHERE id = ?", copy.load[1])


# -- 8: whole files ----------------------------------------------------------------------------


def half_a_file_was_loaded(copy: Copy) -> None:
    def edit(lines: list[Json]) -> None:
        next(x for x in lines if x["phase"] == "opened")["sha256"] = "0" * 64

    copy.edit_calls(edit)


# -- 9, 10: what an engine lost --------------------------------------------------------------------


def a_loss_is_forgotten(copy: Copy) -> None:
    copy.sql("UPDATE slots SET desired = 'loaded' WHERE name = 'idle'")


def a_wish_is_kept_by_nothing(copy: Copy) -> None:
    copy.sql("UPDATE slots SET desired = 'loaded', restore = '{}' WHERE name = 'idle'")


def a_loss_without_an_incident(copy: Copy) -> None:
    copy.sql("UPDATE transitions SET incident_id = NULL WHERE cause = 'engine_restarted'")


def an_incident_is_gone(copy: Copy) -> None:
    copy.sql("DELETE FROM incidents")


def an_incident_blames_a_load_that_never_was(copy: Copy) -> None:
    copy.sql("UPDATE incidents SET kind = 'load_failed', job_id = 99")


DOCTORS: dict[int, list[Callable[[Copy], None]]] = {
    1: [
        a_job_is_gone,
        a_job_runs_for_ever,
        a_success_became_a_cancel,
        an_attempt_ended_otherwise,
        a_change_has_another_cause,
        a_slot_was_shown_otherwise,
        a_model_is_gone,
    ],
    2: [a_change_is_missing, a_change_begins_elsewhere, a_slot_is_elsewhere],
    3: [two_attempts_overlap, two_jobs_of_a_slot_run, two_loads_overlap],
    4: [
        a_load_nobody_marked,
        a_load_without_validation,
        a_validation_that_came_late,
        another_file_was_opened,
    ],
    5: [
        a_load_was_sent_twice,
        a_job_was_marked_and_sent_twice,
        a_machine_repeats_what_failed,
        a_load_was_ready_twice,
    ],
    6: [a_change_came_after_its_attempt, an_attempt_is_missing, a_change_of_no_attempt],
    8: [half_a_file_was_loaded],
    9: [a_loss_is_forgotten, a_wish_is_kept_by_nothing],
    10: [
        a_loss_without_an_incident,
        an_incident_is_gone,
        an_incident_blames_a_load_that_never_was,
    ],
}
