"""One true history and many false ones: what a checker must reject, point by point.

Each doctor changes a copy of the history in the one place that it names.
"""

from collections.abc import Callable

from tests.chaos import false_calls as calls
from tests.chaos import false_rows as rows
from tests.chaos.false_copy import Copy

DOCTORS: dict[int, list[Callable[[Copy], None]]] = {
    1: [
        rows.a_job_is_gone,
        rows.a_job_runs_for_ever,
        rows.a_success_became_a_cancel,
        rows.an_attempt_ended_otherwise,
        rows.a_change_has_another_cause,
        rows.a_slot_was_shown_otherwise,
        rows.a_model_is_gone,
    ],
    2: [rows.a_change_is_missing, rows.a_change_begins_elsewhere, rows.a_slot_is_elsewhere],
    3: [calls.two_attempts_overlap, calls.two_jobs_of_a_slot_run, calls.two_loads_overlap],
    4: [
        calls.a_load_nobody_marked,
        calls.a_load_without_validation,
        calls.a_validation_that_came_late,
        calls.another_file_was_opened,
    ],
    5: [
        calls.a_load_was_sent_twice,
        calls.a_job_was_marked_and_sent_twice,
        calls.a_machine_repeats_what_failed,
        calls.a_load_was_ready_twice,
    ],
    6: [
        rows.a_change_came_after_its_attempt,
        rows.an_attempt_is_missing,
        rows.a_change_of_no_attempt,
    ],
    7: [
        rows.a_slot_serves_for_nobody,
        rows.a_slot_serves_for_a_dead_process,
        rows.a_slot_serves_by_the_lease_on_another_load,
        rows.a_request_runs_on_a_slot_that_does_not_serve,
        rows.a_lease_is_left_over,
    ],
    8: [calls.half_a_file_was_loaded],
    9: [rows.a_loss_is_forgotten, rows.a_wish_is_kept_by_nothing],
    10: [
        rows.a_loss_without_an_incident,
        rows.an_incident_is_gone,
        rows.an_incident_blames_a_load_that_never_was,
    ],
}
