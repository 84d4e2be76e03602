"""What machines may enqueue, and how an operator takes it over (ADR-0007)."""

from typing import Any

import pytest

from hal0.db import Database
from hal0.jobs.ledger.intake import Accepted, Wish, add_chain, machine_load
from hal0.jobs.ledger.rows import By, Chain, chain_by_id
from hal0.states import JobKind, Origin, Outcome, SlotState
from tests.ledger import (
    IDLE,
    RESTORE,
    die,
    end,
    fail,
    free_lane,
    has_failed_key,
    job,
    make_slots,
    unfinished,
)
from tests.rows import (
    ask_load,
    ask_unload,
    claim_next,
    options,
    run_load,
    send_load,
    skip_to_load,
    slot_now,
)


def _restore(db: Database, slot: str = "chat", given: dict[str, Any] | None = None) -> Any:
    now = slot_now(db, slot)
    wish = Wish(JobKind.LOAD, now.wanted_model_id, options(given))
    with db.write() as tx:
        return machine_load(tx, now, wish, RESTORE)


def _idle_unload(db: Database) -> Accepted:
    now = slot_now(db)
    wish = Wish(JobKind.UNLOAD, guard=(now.generation, now.last_used_at))
    with db.write() as tx:
        return add_chain(tx, now, wish, IDLE)


def _chain(db: Database, accepted: Accepted) -> Chain:
    assert accepted.chain_id is not None
    with db.read() as tx:
        return chain_by_id(tx, accepted.chain_id)


def _failed_load(db: Database) -> None:
    ask_load(db)
    sent = send_load(db)
    fail(db, sent)
    free_lane(db, sent)


def test_a_machine_loads_what_an_operator_wants_loaded(db: Database) -> None:
    make_slots(db, "chat")
    ask_load(db)
    fail(db, claim_next(db))  # not sent: nothing speaks against it
    accepted = _restore(db)
    assert len(accepted.job_ids) == 4
    assert (_chain(db, accepted).origin, _chain(db, accepted).actor) == ("restore", "reconcile")


def test_a_machine_never_repeats_a_load_that_was_sent_and_failed(db: Database) -> None:
    """bad_key"""
    make_slots(db, "chat")
    _failed_load(db)
    assert slot_now(db).desired == "loaded"
    assert _restore(db) is None
    assert _restore(db, given={"ctx_size": 512}) is not None, "that one was never tried"


def test_a_load_whose_worker_died_too_often_is_not_repeated_either(db: Database) -> None:
    """bad_key, crash_limit: it was sent, so it counts as a failed one."""
    make_slots(db, "chat")
    ask_load(db)
    sent = send_load(db)
    die(db, sent, crash_limit=1)
    free_lane(db, sent)
    assert has_failed_key(db)
    assert _restore(db) is None


def test_a_load_that_failed_before_it_was_sent_is_no_failed_key(db: Database) -> None:
    make_slots(db, "chat")
    ask_load(db)
    fail(db, skip_to_load(db))
    assert not has_failed_key(db)


def test_a_load_that_succeeds_clears_what_was_held_against_it(db: Database) -> None:
    make_slots(db, "chat")
    _failed_load(db)
    ask_load(db)
    run_load(db)
    assert not has_failed_key(db)


def test_machines_enqueue_nothing_for_a_slot_with_an_unfinished_job(db: Database) -> None:
    """machines_quiet"""
    make_slots(db, "chat")
    load = ask_load(db)
    assert _restore(db, given={"ctx_size": 512}) is None
    assert unfinished(db) == list(load.job_ids)


def test_a_machine_loads_nothing_that_nobody_wants(db: Database) -> None:
    make_slots(db, "chat")
    ask_load(db)
    run_load(db)
    ask_unload(db)
    end(db, claim_next(db), Outcome.SKIPPED)
    assert _restore(db) is None


def test_an_operator_takes_over_a_machines_unload(db: Database) -> None:
    """dedup_takes_over: the guard goes, or a use meanwhile would skip what was promised."""
    make_slots(db, "chat")
    ask_load(db)
    run_load(db)
    idle = _idle_unload(db)
    assert _chain(db, idle).guard_generation == slot_now(db).generation
    accepted = ask_unload(db, by=By("alice", "request-2"))
    assert (accepted.deduplicated, accepted.job_ids) == (True, idle.job_ids)
    chain = _chain(db, idle)
    assert (chain.origin, chain.actor, chain.request_id) == ("operator", "alice", "request-2")
    assert (chain.guard_generation, chain.guard_last_used_at) == (None, None)


def test_an_operator_takes_over_a_machines_load(db: Database) -> None:
    """dedup_takes_over: somebody waits for it now, so it ends ready and may evict."""
    make_slots(db, "chat")
    ask_load(db)
    fail(db, claim_next(db))
    restore = _restore(db)
    assert ask_load(db).job_ids == restore.job_ids
    assert _chain(db, restore).origin is Origin.OPERATOR


def test_an_operators_other_load_supersedes_a_machines(db: Database) -> None:
    make_slots(db, "chat")
    ask_load(db)
    fail(db, claim_next(db))
    restore = _restore(db)
    newest = ask_load(db, options=options({"ctx_size": 512}))
    assert unfinished(db) == list(newest.job_ids)
    assert job(db, restore.job_ids[0]).outcome == "superseded"


@pytest.mark.parametrize("origin", [RESTORE, IDLE])
def test_a_machine_does_not_take_over_an_operators_chain(db: Database, origin: By) -> None:
    make_slots(db, "chat")
    ask_load(db)
    run_load(db)
    unload = ask_unload(db)
    ask_unload(db, by=origin)
    assert _chain(db, unload).origin is Origin.OPERATOR
    assert slot_now(db).state is SlotState.READY
