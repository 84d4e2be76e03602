"""The rules of the protocol, as its own model names them, and which tests show that hal0 has them.

Switched off one by one, each of them but a few lets that model reach a state that must not be. The
trace that leads there is played on hal0 by the test that `shows` the rule.
"""

from collections.abc import Callable
from typing import Any, Final, TypeVar

Test = TypeVar("Test", bound=Callable[..., Any])

RULES: Final = {
    "fence": "every later write names owner and attempt",
    "claim_waits_for_lane": "a load is claimed only when the lane is free",
    "claim_waits_for_unloads": "a load is claimed only when no unload of that engine runs",
    "lane_key": "the sent commit fails when the lane is taken",
    "lane_outlives_job": "the lane is held beyond the job's own end",
    "unload_waits_for_lane": "unknown model = already unloaded, except while the lane names it",
    "watch": "a rescued sent load sends nothing, it watches",
    "bad_key": "the key of a failed load stays on the slot; machines refuse it",
    "machine_guard": "a machine's unload carries (generation, last use)",
    "machines_quiet": "machines enqueue nothing for a slot with an unfinished job",
    "reconcile_skips_unfinished": "no reconcile for a slot with an unfinished job",
    "reconcile_skips_lane": "no reconcile for a slot that an unsettled lane names",
    "reconcile_cas": "reconcile compares and sets on the generation",
    "supersede": "a newer intent cancels what is only queued (or pulling, validating)",
    "sent_is_waited_for": "a sent load that rescue put back is not cancelled by a newer intent",
    "cancel_moves_slot": "cancel moves the slot to offline in the same commit",
    "crash_limit": "after N attempts ended by a death the job fails",
    "watcher": "after the deadline a watcher keeps the request open",
    "evicted_marked": "after a failed load, slots that the engine lost go offline",
    "restore": "evicted slots with desired = loaded get a load again",
    "late_unload": "a late arrival is unloaded",
    "lru_not_restored": "a model dropped for a load that succeeded is not restored",
    "retry_409": "retry is refused while a newer chain is unfinished",
    "one_running": "one running job a slot",
    "unowned_recovered": "a transient state that no job owns is recovered",
    "lease_generation": "a lease belongs to one generation",
    "waits_for_sent_only": "only a sent load or a sent unload is waited for",
    "unload_unsettled": "a load waits until a sent unload of its slot is answered or settled",
    "reconcile_cas_transition": "reconcile compares the last transition, not only the generation",
    "reconcile_reads_lane": "a slot that the lane named at the read is left alone too",
    "late_under_lane": "a late arrival is unloaded while the lane is still held",
    "settle_marks_lost": "whoever lets the lane go without a success marks what is lost",
    "refused_has_a_state": "connect before the sent commit; refused after it: offline, queued",
    "stuck_owner_is_killed": "a silent job's owner is killed before the job is taken",
    "lease_checked_before_forward": "the dispatcher reads the slot right before it forwards",
    "dedup_takes_over": "an operator's request that meets a machine's chain takes it over",
    "lane_names_attempt": "the lane and its watcher name (job, attempt)",
    "restore_needs_room": "a machine's load never evicts",
}


def shows(rule: str) -> Callable[[Test], Test]:
    """Mark a test as the one that shows a rule."""
    assert rule in RULES

    def mark(test: Test) -> Test:
        test.rule = rule  # type: ignore[attr-defined]
        return test

    return mark
