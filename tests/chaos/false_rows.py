"""What a checker must reject of rows alone: jobs, changes, attempts, leases and losses."""

from tests.chaos.evidence import Json
from tests.chaos.false_copy import Copy, forget_rows

# -- 1: what a client was told ---------------------------------------------------------------------


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


# -- 2: chains of changes --------------------------------------------------------------------------


def a_change_is_missing(copy: Copy) -> None:
    copy.edit_answers(forget_rows)
    copy.sql("DELETE FROM transitions WHERE id = ?", copy.one(_A_CHECKED))


def a_change_begins_elsewhere(copy: Copy) -> None:
    copy.edit_answers(forget_rows)
    copy.sql("UPDATE transitions SET from_state = 'ready' WHERE id = ?", copy.one(_A_CHECKED))


def a_slot_is_elsewhere(copy: Copy) -> None:
    copy.sql("UPDATE slots SET state = 'serving' WHERE name = 'chat'")


_A_CHECKED = "SELECT min(id) FROM transitions WHERE cause = 'checked'"


# -- 6: the fence ----------------------------------------------------------------------------------


def a_change_came_after_its_attempt(copy: Copy) -> None:
    copy.edit_answers(forget_rows)
    copy.sql(
        "UPDATE job_attempts SET ended_at = started_at WHERE job_id = ? AND attempt = 1",
        copy.load[0],
    )


def an_attempt_is_missing(copy: Copy) -> None:
    copy.edit_answers(forget_rows)
    copy.sql("DELETE FROM job_attempts WHERE outcome = 'interrupted'")


def a_change_of_no_attempt(copy: Copy) -> None:
    copy.edit_answers(forget_rows)
    copy.sql("UPDATE transitions SET attempt = 77 WHERE id = ?", copy.load[1])


# -- 7: serving and leases -------------------------------------------------------------------------


def a_slot_serves_for_nobody(copy: Copy) -> None:
    copy.sql("UPDATE slots SET state = 'serving' WHERE name = 'chat'")


def a_slot_serves_for_a_dead_process(copy: Copy) -> None:
    a_slot_serves_for_nobody(copy)
    _lease(copy, "worker", "IS NOT NULL")


def a_slot_serves_by_the_lease_on_another_load(copy: Copy) -> None:
    a_slot_serves_for_nobody(copy)
    _lease(copy, "api", "IS NULL")
    copy.sql("UPDATE leases SET generation = generation - 1")


def a_request_runs_on_a_slot_that_does_not_serve(copy: Copy) -> None:
    _lease(copy, "api", "IS NULL")


def a_lease_is_left_over(copy: Copy) -> None:
    _lease(copy, "worker", "IS NOT NULL")


def _lease(copy: Copy, kind: str, ended: str) -> None:
    copy.sql(
        "INSERT INTO leases (slot_id, generation, owner_id, in_flight, at) "
        "SELECT slots.id, generation, owners.id, 1, since FROM slots, owners "
        f"WHERE name = 'chat' AND kind = ? AND ended_at {ended} LIMIT 1",
        kind,
    )


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
