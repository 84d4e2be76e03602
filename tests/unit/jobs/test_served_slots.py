"""What workers make of slots that serve: losses are believed, nobody is cut."""

from collections.abc import Callable

import pytest
from sqlalchemy import select, update

from hal0.db import Database
from hal0.jobs.idle_scan import looks, write
from hal0.jobs.incidents import Culprit
from hal0.jobs.leases import clear_leases
from hal0.jobs.losses import mark_lost
from hal0.jobs.restore import restore_due
from hal0.jobs.scan import act_upon
from hal0.jobs.survey import survey
from hal0.slots.idle import Verdict
from hal0.slots.transitions import Act, move
from hal0.states import Cause, IncidentKind, JobKind, SlotState
from hal0.tables import incidents, slots
from tests.apis import the_leases
from tests.ledger import history, job, serve, served, unfinished
from tests.rows import OPERATOR, ask_unload, claim_next, options, slot_now
from tests.unit.jobs.scanner import Scanner

Comes = Callable[[Database], None]
HOUR_S = 3600


def _stays(db: Database) -> None:
    """A request ran before the engine was read, and runs on."""


def _goes(db: Database) -> None:
    served(db)


def _goes_and_another_comes(db: Database) -> None:
    served(db)
    serve(db)


def _comes_and_goes(db: Database) -> None:
    serve(db)
    served(db)


def _comes_and_lingers(db: Database) -> None:
    serve(db, requests=0)


WHILE_IT_SERVES = [_stays, _goes, _goes_and_another_comes]


# -- what an engine lost -----------------------------------------------------------------------


@pytest.mark.parametrize("what", WHILE_IT_SERVES)
def test_a_slot_whose_engine_was_restarted_is_moved_with_its_leases_and_loaded_again(
    scanner: Scanner, what: Comes
) -> None:
    scanner.load("chat")
    serve(scanner.db)
    scanner.models.clear()
    scanner.process = "2-2"
    read = scanner.read()
    what(scanner.db)
    assert act_upon(scanner.ctx, read) == 1
    assert history(scanner.db)[-1].endswith(">offline engine_restarted")
    assert the_leases(scanner.db) == {}
    assert len(unfinished(scanner.db)) == 4


@pytest.mark.parametrize("what", [*WHILE_IT_SERVES, _comes_and_goes])
def test_a_slot_is_found_to_have_lost_its_model_however_often_requests_come_and_go(
    scanner: Scanner, what: Comes
) -> None:
    """A busy one never stands where it stood before its engine was read."""
    scanner.load("chat")
    if what is not _comes_and_goes:
        serve(scanner.db)
    scanner.models.clear()
    read = scanner.read()
    what(scanner.db)
    assert act_upon(scanner.ctx, read) == 1
    assert history(scanner.db)[-1].endswith(">offline unloaded_elsewhere")
    assert the_leases(scanner.db) == {}


def test_what_was_lost_is_not_believed_of_a_slot_that_somebody_else_has_moved_since(
    scanner: Scanner,
) -> None:
    """reconcile_cas_transition: requests are all that may have come between."""
    scanner.load("chat")
    scanner.models.clear()
    read = scanner.read()
    with scanner.db.write() as tx:
        move(tx, slot_now(scanner.db), SlotState.IDLE, Cause.DEMOTED, Act("scan"))
    serve(scanner.db)
    assert act_upon(scanner.ctx, read) == 0
    assert slot_now(scanner.db).state is SlotState.SERVING


def test_nothing_is_lost_while_the_engine_lists_it_or_cannot_say(scanner: Scanner) -> None:
    scanner.load("chat")
    serve(scanner.db)
    scanner.says("chat", busy=None, last_use=None)
    scanner.scan_for(HOUR_S)
    assert slot_now(scanner.db).state is SlotState.SERVING


def test_a_busy_slot_that_a_failed_load_cost_its_model_is_brought_back_as_others(
    scanner: Scanner,
) -> None:
    scanner.load("chat", "quiet", "culprit")
    scanner.models.clear()
    read = scanner.read()
    serve(scanner.db)
    with scanner.db.write() as tx:
        slot_id = slot_now(scanner.db, "culprit").id
        assert mark_lost(tx, read, Culprit(slot_id, 4, IncidentKind.LOAD_FAILED)) == 2
    for name in ("chat", "quiet"):
        assert history(scanner.db, name)[-1].endswith(">offline evicted_by_engine")
        assert len(unfinished(scanner.db, name)) == 4
    assert the_leases(scanner.db) == {}
    with scanner.db.read() as tx:
        assert tx.execute(select(incidents.c.evidence)).scalars().one()["slots"] == [
            "chat",
            "quiet",
        ]


# -- what nobody uses --------------------------------------------------------------------------


def test_what_is_in_use_is_neither_demoted_nor_unloaded_by_a_machine(scanner: Scanner) -> None:
    """Also where its engine says nothing of it, as for a request that waits there."""
    scanner.load("chat", idle_after_s=60, unload_after_s=120)
    serve(scanner.db)
    scanner.scan_for(HOUR_S)
    assert slot_now(scanner.db).state is SlotState.SERVING
    assert unfinished(scanner.db) == []


@pytest.mark.parametrize("idle_after_s", [60, 0])
def test_who_lingers_keeps_a_slot_as_who_asks_does(scanner: Scanner, idle_after_s: int) -> None:
    """A lease of no request: nothing runs, and the period is not over."""
    scanner.load("chat", idle_after_s=idle_after_s, unload_after_s=120)
    serve(scanner.db, requests=0)
    scanner.scan_for(HOUR_S)
    assert slot_now(scanner.db).state is SlotState.SERVING
    assert unfinished(scanner.db) == []


def test_a_use_counts_from_its_end(scanner: Scanner) -> None:
    scanner.load("chat", idle_after_s=60)
    serve(scanner.db)
    scanner.scan_for(HOUR_S)
    served(scanner.db)
    scanner.scan_for(60)
    assert slot_now(scanner.db).state is SlotState.READY
    scanner.scan_for(30)
    assert history(scanner.db)[-1] == "ready>idle demoted"


@pytest.mark.parametrize("what", [serve, _comes_and_lingers, _comes_and_goes])
def test_a_request_between_a_look_and_what_follows_from_it_keeps_the_slot(
    scanner: Scanner, what: Comes
) -> None:
    scanner.load("chat", idle_after_s=60)
    scanner.scan_for(60)
    scanner.clock.tick(30_000)
    with scanner.db.read() as tx:
        looked = looks(tx, survey(tx, scanner.read()), scanner.ctx.settings)
    assert [one.verdict for one in looked] == [Verdict.DEMOTE]
    what(scanner.db)
    with scanner.db.write() as tx:
        assert write(tx, looked) == 0
    assert slot_now(scanner.db).state is not SlotState.IDLE


@pytest.mark.parametrize(("unused_s", "to"), [(30, "ready"), (90, "idle")])
def test_what_only_a_dead_process_used_goes_its_way(
    scanner: Scanner, unused_s: float, to: str
) -> None:
    scanner.load("chat", idle_after_s=60, unload_after_s=120)
    serve(scanner.db, api="a-dead-one")
    scanner.scan_for(unused_s)
    assert clear_leases(scanner.ctx) == 1
    assert history(scanner.db)[-1] == f"serving>{to} leases_cleared"
    scanner.scan_for(240)
    (unload,) = unfinished(scanner.db)
    assert job(scanner.db, unload).kind is JobKind.UNLOAD


# -- what is to be loaded again, or unloaded ----------------------------------------------------


def test_what_is_to_be_loaded_again_gives_way_to_what_serves(scanner: Scanner) -> None:
    scanner.load("chat")
    serve(scanner.db)
    slot = slot_now(scanner.db)
    wish = {"cause": "engine_restarted", "model_id": slot.model_id, "options": options()}
    with scanner.db.write() as tx:
        tx.execute(update(slots).values(restore=wish | {"job_id": None}))
        assert restore_due(tx, slot.engine_id) == 0
    assert (slot_now(scanner.db).state, slot_now(scanner.db).restore) == ("serving", None)
    assert unfinished(scanner.db) == []


def test_a_slot_that_drains_for_a_dead_process_is_unloaded_when_its_lease_is_cleared(
    scanner: Scanner,
) -> None:
    scanner.load("chat")
    serve(scanner.db, api="a-dead-one")
    (unload,) = ask_unload(scanner.db, by=OPERATOR, drain_timeout_s=600.0).job_ids
    assert clear_leases(scanner.ctx) == 1
    assert scanner.ctx.bell.wait(0), "whoever sleeps is told"
    assert claim_next(scanner.db).job.id == unload
