"""What a checker must reject of what an engine was sent: when, how often, and which files."""

from datetime import datetime, timedelta

from tests.chaos.evidence import Json
from tests.chaos.false_copy import Copy, forget_rows

# -- 3: one at a time ------------------------------------------------------------------------------


def two_attempts_overlap(copy: Copy) -> None:
    job_id = copy.load[0]
    copy.edit_answers(forget_rows)
    copy.sql(
        "UPDATE job_attempts SET started_at = (SELECT min(started_at) FROM job_attempts) "
        "WHERE job_id = ?",
        job_id,
    )


def two_jobs_of_a_slot_run(copy: Copy) -> None:
    copy.edit_answers(forget_rows)
    copy.sql("DROP INDEX ux_jobs_running_slot")
    copy.sql("DROP INDEX ux_jobs_running_pull")
    copy.sql("UPDATE jobs SET state = 'running', owner_id = 'worker-1' WHERE slot_id = 1")


def two_loads_overlap(copy: Copy) -> None:
    def edit(lines: list[Json]) -> None:
        ends = [x for x in lines if x["phase"] == "end" and x["path"].endswith("/load")]
        ends[0]["mono_ms"] = ends[1]["mono_ms"]

    copy.edit_calls(edit)


# -- 4: validated before it is sent ----------------------------------------------------------------


def a_load_nobody_marked(copy: Copy) -> None:
    def edit(lines: list[Json]) -> None:
        first = next(x for x in lines if x["phase"] == "begin" and x["path"].endswith("/load"))
        body = {**first["body"], "model_name": "idle"}
        lines.append({**first, "call": 10**6, "body": body, "mono_ms": 1})
        lines.append({**first, "call": 10**6, "phase": "end", "status": 200, "mono_ms": 2})

    copy.edit_calls(edit)


def a_load_without_validation(copy: Copy) -> None:
    copy.edit_answers(forget_rows)
    copy.sql("UPDATE job_attempts SET outcome = 'failed' WHERE job_id = ?", _validation(copy))


def a_validation_that_came_late(copy: Copy) -> None:
    copy.edit_answers(forget_rows)
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


# -- 5: sent once ----------------------------------------------------------------------------------


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
    copy.edit_answers(forget_rows)
    copy.sql(
        "UPDATE jobs SET state = 'failed' WHERE id = "
        "(SELECT job_id FROM transitions WHERE cause = 'load_sent' AND slot_id = 1 "
        "ORDER BY id LIMIT 1)"
    )
    copy.sql("UPDATE chains SET origin = 'restore', options = NULL WHERE slot_id = 1")


def a_load_was_ready_twice(copy: Copy) -> None:
    copy.edit_answers(forget_rows)
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

    later = datetime.fromisoformat(at) + timedelta(milliseconds=by_ms)
    return later.isoformat(timespec="milliseconds").replace("+00:00", "Z")


# -- 8: whole files --------------------------------------------------------------------------------


def half_a_file_was_loaded(copy: Copy) -> None:
    def edit(lines: list[Json]) -> None:
        next(x for x in lines if x["phase"] == "opened")["sha256"] = "0" * 64

    copy.edit_calls(edit)
