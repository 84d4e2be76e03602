"""What a slot was: told exactly where rows are few, and truly where there are a million."""

from datetime import datetime, timedelta

import pytest
from freezegun import freeze_time

from hal0.clock import utc_now
from hal0.db import Database
from hal0.slots.history import MOST_ROWS, OF_ERRORS, SAMPLES, last_changes, spans
from hal0.slots.queries import slot_named
from hal0.slots.transitions import Act, move
from hal0.states import EDGES, Cause, SlotState
from tests.rows import ask_load, make_model, make_slot, run_load, slot_now

ACT = Act("dispatcher")


@pytest.fixture
def chat(db: Database) -> Database:
    """A slot that has been ready since the tests began."""
    make_model(db, "tiny")
    make_slot(db, "chat", "tiny")
    ask_load(db)
    run_load(db)
    return db


def go(db: Database, at: datetime, *steps: tuple[SlotState, Cause]) -> None:
    """Move the slot at an instant, by each step a millisecond later."""
    with db.soft() as tx, freeze_time(at) as clock:  # to stop the time takes 30 ms
        for to, cause in steps:
            move(tx, slot_named(tx, "chat"), to, cause, ACT)
            clock.tick(timedelta(milliseconds=1))


def states_of(db: Database, since: datetime, until: datetime) -> list[tuple[SlotState, float]]:
    """Return each state with its seconds."""
    with db.read() as tx:
        found = spans(tx, slot_now(db).id, since, until)
    assert [one.ended_at for one in found[:-1]] == [one.began_at for one in found[1:]]
    return [(one.state, (one.ended_at - one.began_at).total_seconds()) for one in found]


SERVE = ((SlotState.SERVING, Cause.REQUEST_STARTED), (SlotState.READY, Cause.REQUESTS_DONE))


def test_a_quiet_stretch_is_told_to_the_millisecond(chat: Database) -> None:
    began = utc_now() + timedelta(hours=1)
    go(chat, began, SERVE[0])
    go(chat, began + timedelta(seconds=2), SERVE[1])
    told = states_of(chat, began - timedelta(seconds=1), began + timedelta(seconds=5))
    assert told == [(SlotState.READY, 1), (SlotState.SERVING, 2), (SlotState.READY, 3)]


def test_what_lies_before_the_newest_of_many_rows_is_looked_up_and_no_error_is_missed(
    chat: Database,
) -> None:
    began = utc_now() + timedelta(hours=1)
    go(chat, began, (SlotState.IDLE, Cause.DEMOTED))  # for an hour
    broken = began + timedelta(hours=1)
    go(
        chat,
        broken,
        (SlotState.ERROR, Cause.ENGINE_LOST),
        (SlotState.OFFLINE, Cause.ENGINE_RETURNED),
    )
    again = began + timedelta(hours=2)
    go(chat, again, (SlotState.STARTING, Cause.CHECKED), (SlotState.WARMING, Cause.LOAD_SENT))
    go(chat, again + timedelta(minutes=1), (SlotState.READY, Cause.ADOPTED))
    busy = began + timedelta(hours=3)
    go(chat, busy, *SERVE * MOST_ROWS)
    told = states_of(chat, began, busy + timedelta(hours=1))
    seconds: dict[SlotState, float] = {}
    for state, one in told:
        seconds[state] = seconds.get(state, 0) + one
    step_s = 3 * 3600 / SAMPLES
    assert seconds[SlotState.IDLE] == pytest.approx(3600, abs=2 * step_s)
    assert seconds[SlotState.OFFLINE] == pytest.approx(3600, abs=2 * step_s)
    assert SlotState.ERROR in seconds
    assert len(told) <= MOST_ROWS + SAMPLES + 1


def test_before_a_slot_was_there_is_nothing(chat: Database) -> None:
    long_ago = utc_now() - timedelta(days=9)
    assert states_of(chat, long_ago, long_ago + timedelta(days=1)) == []


def test_causes_of_errors_lead_into_errors_or_are_rare() -> None:
    assert {edge.to for edge in EDGES if edge.cause in OF_ERRORS} == {SlotState.ERROR}


def test_the_last_change_names_who_asked_for_its_job(chat: Database) -> None:
    slot = slot_now(chat)
    with chat.read() as tx:
        change = last_changes(tx, [slot.last_transition_id])[slot.id]
    assert (change.cause, change.actor, change.asked_by) == (Cause.LOADED, "worker", "local")
