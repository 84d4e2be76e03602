"""What a card says of a slot, and which button mends it."""

from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import insert, update

from hal0.api.page_reading import cards_of, loads_of
from hal0.clock import boot_id, monotonic_ms, utc_now
from hal0.db import Database
from hal0.errors import ChecksumMismatch, EngineRefused, Hal0Error
from hal0.jobs.expectations import usual_times_s
from hal0.jobs.ledger import intake
from hal0.jobs.ledger.intake import Wish
from hal0.page.cards import Card
from hal0.settings import Settings
from hal0.slots.fading import Fading
from hal0.slots.history import spans
from hal0.slots.idle import Limits, Window
from hal0.slots.queries import slot_named
from hal0.states import JobKind, Outcome, SlotState
from hal0.tables import idle_windows, job_progress, slots
from tests.ledger import RESTORE, begin_validate, end, fail
from tests.rows import OPERATOR, ask_load, claim_next, make_model, make_slot, run_load, slot_now

LIMITS = Limits(idle_after_s=300, unload_after_s=330, may_unload=True)


@pytest.fixture
def chat(db: Database) -> Database:
    make_model(db, "tiny", source="https://example.org/tiny.gguf")
    make_slot(db, "chat", "tiny")
    return db


def card_of(db: Database, settings: Settings) -> Card:
    with db.read() as tx:
        return cards_of(tx, settings, [slot_named(tx, "chat")])[0]


def offered(card: Card) -> list[str]:
    """Return the buttons, the one in colour with a star."""
    return [action.label + "*" * action.is_main for action in card.actions]


def break_validation(db: Database, error: Hal0Error) -> int:
    ask_load(db)
    end(db, claim_next(db), Outcome.SKIPPED)
    held = claim_next(db)
    begin_validate(db, held)
    fail(db, held, error)
    return held.job.id


def test_an_offline_slot_offers_its_load(chat: Database, settings: Settings) -> None:
    card = card_of(chat, settings)
    assert (card.why, offered(card)) == ("created, by local", ["Load*"])


def test_a_slot_without_a_model_offers_nothing(db: Database, settings: Settings) -> None:
    make_slot(db)
    assert offered(card_of(db, settings)) == []


def test_a_slot_that_is_ready_says_who_asked_and_can_be_unloaded_or_pinned(
    chat: Database, settings: Settings
) -> None:
    ask_load(chat)
    run_load(chat)
    card = card_of(chat, settings)
    assert card.why == "loaded, asked for by local"
    assert offered(card) == ["Unload…", "Pin"]


def test_what_a_machine_asked_for_says_so_in_plain_words(
    chat: Database, settings: Settings
) -> None:
    ask_load(chat, by=RESTORE)
    run_load(chat)
    assert card_of(chat, settings).why == "loaded, by hal0 itself"


def test_bad_files_are_mended_by_fetching_them_anything_else_by_a_retry(
    chat: Database, settings: Settings
) -> None:
    job_id = break_validation(chat, ChecksumMismatch("bad bytes"))
    card = card_of(chat, settings)
    assert offered(card) == ["Fetch the files again*", "Retry", "Clear"]
    assert card.failed_job_id == job_id
    break_validation(chat, EngineRefused("no"))
    assert offered(card_of(chat, settings)) == ["Retry*", "Clear"]


def test_bad_files_from_nowhere_are_mended_by_a_retry(db: Database, settings: Settings) -> None:
    make_model(db, "tiny")
    make_slot(db, "chat", "tiny")
    break_validation(db, ChecksumMismatch("bad bytes"))
    assert offered(card_of(db, settings)) == ["Retry*", "Clear"]


def test_a_bad_file_that_is_one_with_its_source_is_mended_there_and_loaded_again(
    db: Database, settings: Settings, tmp_path: Path
) -> None:
    origin, place = tmp_path / "tiny.gguf", db.path.parent / "models" / "tiny.gguf"
    origin.write_bytes(b"bad")
    make_model(db, "tiny", source=str(origin))
    make_slot(db, "chat", "tiny")
    break_validation(db, ChecksumMismatch("bad bytes"))
    place.parent.mkdir(exist_ok=True)
    place.hardlink_to(origin)
    card = card_of(db, settings)
    assert offered(card) == ["Load again*", "Clear"]
    assert card.actions[0].path == "/page/slots/chat/load"
    place.unlink()
    place.write_bytes(b"a copy")
    assert offered(card_of(db, settings)) == ["Fetch the files again*", "Retry", "Clear"]


def test_files_that_were_fetched_again_are_told_and_then_loaded(
    chat: Database, settings: Settings
) -> None:
    break_validation(chat, ChecksumMismatch("bad bytes"))
    assert card_of(chat, settings).since_then is None
    with chat.write() as tx:
        wish = Wish(JobKind.PULL, force=True)
        intake.request_check(tx, slot_named(tx, "chat"), wish, OPERATOR)
    end(chat, claim_next(chat))
    card = card_of(chat, settings)
    assert card.since_then is not None
    assert (card.since_then.job.kind, card.since_then.job.outcome) == (JobKind.PULL, Outcome.DONE)
    assert offered(card) == ["Fetch the files again", "Retry*", "Clear"]


def test_work_is_told_by_its_bytes_else_by_how_long_it_took_before(
    chat: Database, settings: Settings
) -> None:
    ask_load(chat)
    held = claim_next(chat)
    card = card_of(chat, settings)
    assert (card.share, offered(card)) == (None, ["Cancel"])
    row = {"job_id": held.job.id, "attempt": held.job.attempt, "phase": "download"}
    with chat.soft() as tx:
        tx.execute(insert(job_progress).values(**row, done_bytes=25, total_bytes=100, at=utc_now()))
    assert card_of(chat, settings).share == 0.25


def test_what_is_usual_is_the_median_of_what_went_well(chat: Database) -> None:
    ask_load(chat)
    run_load(chat)
    model_id = slot_now(chat).model_id
    assert model_id is not None
    with chat.read() as tx:
        usual = usual_times_s(tx, [(JobKind.LOAD, model_id), (JobKind.PULL, 999)])
    assert list(usual) == [(JobKind.LOAD, model_id)]
    assert usual[JobKind.LOAD, model_id] >= 0


def test_nobody_uses_it_so_it_fades_at_the_times_of_the_scan(
    chat: Database, settings: Settings
) -> None:
    ask_load(chat)
    run_load(chat)
    slot, now = slot_now(chat), utc_now()
    with chat.soft() as tx:
        tx.execute(
            insert(idle_windows).values(
                slot_id=slot.id,
                generation=slot.generation,
                seen="x",
                since_boot=boot_id(),
                since_ms=monotonic_ms() - 100_000,
            )
        )
    fading = card_of(chat, settings).fading
    assert fading.demotes_at is not None
    assert fading.unloads_at is not None
    assert abs(fading.demotes_at - now - timedelta(seconds=200)) < timedelta(seconds=30)
    assert fading.unloads_at - fading.demotes_at == timedelta(seconds=30)
    with chat.write() as tx:
        tx.execute(update(slots).where(slots.c.id == slot.id).values(pinned=1))
    assert card_of(chat, settings).fading.unloads_at is None


@pytest.mark.parametrize(
    ("state", "window", "limits"),
    [
        (SlotState.READY, None, LIMITS),
        (SlotState.READY, Window(1, "x", "another-boot", 5), LIMITS),
        (SlotState.READY, Window(1, "x", boot_id(), None), LIMITS),
        (SlotState.SERVING, Window(1, "x", boot_id(), 5), LIMITS),
        (SlotState.READY, Window(1, "x", boot_id(), 5), Limits(0, 0, may_unload=True)),
    ],
)
def test_what_is_used_or_never_unloaded_does_not_fade(
    state: SlotState, window: Window | None, limits: Limits
) -> None:
    assert Fading.of(state, window, limits, utc_now()) == Fading(None, None)


def test_the_phases_of_a_load_are_those_of_its_jobs(chat: Database) -> None:
    ask_load(chat)
    run_load(chat)
    with chat.read() as tx:
        loads = loads_of(tx, slot_named(tx, "chat"), 5)
    assert [load.detail.job.kind for load in loads] == [JobKind.LOAD]


def test_a_load_that_failed_names_the_job_that_did(chat: Database) -> None:
    failed = break_validation(chat, ChecksumMismatch("bad bytes"))
    with chat.read() as tx:
        (load,) = loads_of(tx, slot_named(tx, "chat"), 5)
    assert load.detail.job.id == failed


def test_a_slots_past_is_told_without_gaps_from_what_it_was_before(chat: Database) -> None:
    ask_load(chat)
    run_load(chat)
    slot, now = slot_now(chat), utc_now()
    with chat.read() as tx:
        day = spans(tx, slot.id, now - timedelta(days=1), now)
        rest = spans(tx, slot.id, now, now + timedelta(seconds=1))
        before = spans(tx, slot.id, now - timedelta(days=2), now - timedelta(days=1))
    assert [span.state for span in day][:1] == [SlotState.OFFLINE]
    assert [one.ended_at for one in day[:-1]] == [one.began_at for one in day[1:]]
    assert [(span.state, span.began_at) for span in rest] == [(SlotState.READY, now)]
    assert before == []
