"""What an operator's request becomes, and what it does to older ones (D2, D4, D5, B14)."""

from collections.abc import Callable

import pytest

from hal0.db import Database
from hal0.errors import ClaimLost, ModelTaken, SlotHasNoModel, SlotPinned
from hal0.jobs.ledger.intake import ALREADY_SO, Wish, request_check, request_unload
from hal0.slots.transitions import Act, move
from hal0.states import Cause, JobKind, Outcome, SlotState
from tests.ledger import (
    begin_pull,
    begin_validate,
    die,
    end,
    fail,
    free_lane,
    has_failed_key,
    history,
    job_states,
    make_slots,
    mark_sent,
    outcomes,
    try_claim,
    unfinished,
)
from tests.rows import (
    OPERATOR,
    ask_load,
    ask_unload,
    claim_next,
    make_model,
    make_slot,
    options,
    run_load,
    send_load,
    skip_to_load,
    slot_now,
)


def test_a_load_becomes_four_jobs_of_one_chain_and_an_unload_one(db: Database) -> None:
    make_slots(db, "chat")
    load = ask_load(db)
    assert (len(load.job_ids), load.deduplicated, load.already) == (4, False, False)
    assert slot_now(db).desired == "loaded"
    unload = ask_unload(db)
    assert len(unload.job_ids) == 1
    assert slot_now(db).desired == "unloaded"


def test_a_load_asked_twice_is_one_chain(db: Database) -> None:
    """D4"""
    make_slots(db, "chat")
    first, second = ask_load(db), ask_load(db)
    assert (first.deduplicated, second.deduplicated) == (False, True)
    assert (second.chain_id, second.job_ids) == (first.chain_id, first.job_ids)
    end(db, claim_next(db))
    third = ask_load(db)
    assert third.job_ids == first.job_ids, "the same chain, however far it is"


def test_an_unload_asked_twice_is_one_job(db: Database) -> None:
    make_slots(db, "chat")
    ask_load(db)
    run_load(db)
    first = ask_unload(db)
    assert ask_unload(db).job_ids == first.job_ids
    mark_sent(db, claim_next(db))
    assert ask_unload(db).job_ids == first.job_ids


def test_a_load_with_other_options_is_another_chain(db: Database) -> None:
    make_slots(db, "chat")
    first = ask_load(db)
    other = ask_load(db, options=options({"ctx_size": 512}))
    assert not other.deduplicated
    assert outcomes(db, first.job_ids) == ["superseded"] * 4


def test_a_rehash_is_not_covered_by_a_load_without_one(db: Database) -> None:
    make_slots(db, "chat")
    plain = ask_load(db)
    thorough = ask_load(db, rehash=True)
    assert not thorough.deduplicated
    assert job_states(db, plain.job_ids) == ["cancelled"] * 4
    assert ask_load(db).job_ids == thorough.job_ids


def test_load_unload_load_ends_loaded(db: Database) -> None:
    """D4: the third request is a chain of its own, and only its jobs are left."""
    make_slots(db, "chat")
    first, second, third = ask_load(db), ask_unload(db), ask_load(db)
    assert len({first.chain_id, second.chain_id, third.chain_id}) == 3
    assert job_states(db, first.job_ids + second.job_ids) == ["cancelled"] * 5
    assert unfinished(db) == list(third.job_ids)
    assert slot_now(db).desired == "loaded"


def test_a_load_of_what_is_there_needs_no_job(db: Database) -> None:
    """B14"""
    make_slots(db, "chat")
    ask_load(db)
    run_load(db)
    assert ask_load(db) == ALREADY_SO
    assert slot_now(db).state is SlotState.READY
    reload = ask_load(db, options=options({"ctx_size": 512}))
    assert len(reload.job_ids) == 4


def test_a_load_of_what_is_idle_wakes_it_without_a_job(db: Database) -> None:
    make_slots(db, "chat")
    ask_load(db)
    run_load(db)
    with db.write() as tx:
        move(tx, slot_now(db), SlotState.IDLE, Cause.DEMOTED, Act("scan"))
    assert ask_load(db) == ALREADY_SO
    assert history(db)[-1] == "idle>ready touched"


def test_already_so_is_said_only_when_nothing_is_under_way(db: Database) -> None:
    make_slots(db, "chat")
    ask_load(db)
    run_load(db)
    ask_unload(db)
    again = ask_load(db)
    assert not again.already
    assert unfinished(db) == list(again.job_ids)


def test_an_unload_of_an_offline_slot_needs_no_job(db: Database) -> None:
    make_slots(db, "chat")
    assert ask_unload(db) == ALREADY_SO


def test_a_pinned_slot_is_unloaded_only_by_whoever_says_so(db: Database) -> None:
    make_slots(db, "one")
    make_slot(db, "pinned", None, pinned=True)
    with pytest.raises(SlotPinned):
        ask_unload(db, "pinned")
    assert slot_now(db, "pinned").desired == "unloaded"
    slot, wish = slot_now(db, "pinned"), Wish(JobKind.UNLOAD)
    with db.write() as tx:
        assert request_unload(tx, slot, wish, OPERATOR, even_if_pinned=True).already


def test_a_slot_without_a_model_cannot_be_loaded(db: Database) -> None:
    make_slot(db, "empty")
    with pytest.raises(SlotHasNoModel):
        ask_load(db, "empty")


def test_a_model_belongs_to_one_slot_of_an_engine(db: Database) -> None:
    """D2: an engine unloads by model name."""
    one, _ = make_slots(db, "one", "two")
    with pytest.raises(ModelTaken, match="slot one"):
        ask_load(db, "two", model_id=one.wanted_model_id)
    assert slot_now(db, "two").desired == "unloaded"
    assert unfinished(db, "two") == []


def test_a_model_that_another_slot_still_holds_is_taken(db: Database) -> None:
    """D2: it is wanted no more, and the engine has it all the same."""
    one, _ = make_slots(db, "one", "two")
    spare = make_model(db, "spare")
    ask_load(db, "one")
    run_load(db)
    ask_load(db, "one", model_id=spare.id)
    with pytest.raises(ModelTaken):
        ask_load(db, "two", model_id=one.wanted_model_id)


def test_a_model_that_a_sent_load_brings_for_another_slot_is_taken(db: Database) -> None:
    """D2: slot one wants another model by now, but the engine is loading this one for it."""
    one, _ = make_slots(db, "one", "two")
    spare = make_model(db, "spare")
    ask_load(db, "one")
    send_load(db)
    ask_load(db, "one", model_id=spare.id)
    with pytest.raises(ModelTaken):
        ask_load(db, "two", model_id=one.wanted_model_id)


def test_a_newer_intent_cancels_what_is_only_queued(db: Database) -> None:
    """supersede"""
    make_slots(db, "chat")
    load = ask_load(db)
    unload = ask_unload(db)
    assert outcomes(db, load.job_ids) == ["superseded"] * 4
    assert claim_next(db).job.id == unload.job_ids[0]


@pytest.mark.parametrize("begin", [begin_pull, begin_validate])
def test_a_newer_intent_stops_a_running_pull_or_validate(
    db: Database, begin: Callable[..., None]
) -> None:
    """supersede, D5: the slot goes offline in the same commit, the owner's next write fails."""
    make_slots(db, "chat")
    load = ask_load(db)
    if begin is begin_validate:
        end(db, claim_next(db), Outcome.SKIPPED)
    held = claim_next(db)
    begin(db, held)
    ask_unload(db)
    assert slot_now(db).state is SlotState.OFFLINE
    assert history(db)[-1].endswith(">offline cancelled")
    assert set(outcomes(db, load.job_ids)) <= {"superseded", "skipped"}
    with pytest.raises(ClaimLost):
        end(db, held)


def test_a_newer_intent_cancels_a_load_that_waits_for_the_lane(db: Database) -> None:
    """supersede, D5: claimed or not, what is not sent is not waited for."""
    make_slots(db, "chat")
    ask_load(db)
    held = skip_to_load(db)
    unload = ask_unload(db)
    assert claim_next(db, "owner-2").job.id == unload.job_ids[0]
    with pytest.raises(ClaimLost):
        mark_sent(db, held)


def test_a_sent_load_is_waited_for(db: Database) -> None:
    """sent_is_waited_for, D5: the unload follows it, and the slot ends unloaded."""
    make_slots(db, "chat")
    ask_load(db)
    sent = send_load(db)
    unload = ask_unload(db)
    assert unfinished(db) == [sent.job.id, *unload.job_ids]
    fail(db, sent)
    free_lane(db, sent)
    assert claim_next(db).job.id == unload.job_ids[0]


def test_a_sent_load_that_rescue_put_back_is_waited_for_too(db: Database) -> None:
    """sent_is_waited_for: it is queued, but the engine has it."""
    make_slots(db, "chat")
    ask_load(db)
    sent = send_load(db)
    die(db, sent)
    unload = ask_unload(db)
    assert unfinished(db) == [sent.job.id, *unload.job_ids]
    assert slot_now(db).state is SlotState.WARMING
    assert claim_next(db).job.id == sent.job.id


def test_a_sent_unload_is_waited_for_and_the_load_behind_it_is_not(db: Database) -> None:
    """waits_for_sent_only: the replaced model goes, its successor does not come."""
    make_slots(db, "chat")
    ask_load(db)
    run_load(db)
    replaced = ask_load(db, options=options({"ctx_size": 512}))
    for _ in range(2):
        end(db, claim_next(db), Outcome.SKIPPED)
    sent = mark_sent(db, claim_next(db))
    newest = ask_load(db, options=options({"ctx_size": 1024}))
    assert outcomes(db, replaced.job_ids)[-1] == "superseded"
    assert unfinished(db) == [sent.job.id, *newest.job_ids]


def test_an_unload_that_is_claimed_and_not_sent_is_not_waited_for(db: Database) -> None:
    """waits_for_sent_only"""
    make_slots(db, "chat")
    ask_load(db)
    run_load(db)
    ask_unload(db)
    held = claim_next(db)
    newest = ask_load(db)
    assert unfinished(db) == list(newest.job_ids)
    with pytest.raises(ClaimLost):
        mark_sent(db, held)
    assert slot_now(db).state is SlotState.READY


def test_a_newer_intent_forgets_that_the_load_failed_once(db: Database) -> None:
    """bad_key: an operator may ask again for what machines may not repeat."""
    make_slots(db, "chat")
    ask_load(db)
    sent = send_load(db)
    fail(db, sent)
    free_lane(db, sent)
    assert has_failed_key(db)
    ask_load(db)
    assert not has_failed_key(db)


def test_a_lone_check_waits_its_turn_and_cancels_nothing(db: Database) -> None:
    make_slots(db, "chat")
    load = ask_load(db)
    with db.write() as tx:
        check = request_check(tx, slot_now(db), Wish(JobKind.VALIDATE), OPERATOR)
    with db.write() as tx:
        again = request_check(tx, slot_now(db), Wish(JobKind.VALIDATE), OPERATOR)
    assert unfinished(db) == [*load.job_ids, *check.job_ids]
    assert (again.deduplicated, again.job_ids) == (True, check.job_ids)


def test_superseding_frees_the_slot_for_the_next_claim(db: Database) -> None:
    make_slots(db, "chat")
    ask_load(db)
    claim_next(db, "owner-1")
    assert try_claim(db, "owner-2") is None
    newest = ask_load(db, options=options({"ctx_size": 512}))
    assert claim_next(db, "owner-2").job.id == newest.job_ids[0]
