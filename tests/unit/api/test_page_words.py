"""What an operator reads on the page, word for word, of rows that are there."""

import re
from collections.abc import AsyncIterator
from datetime import timedelta

import httpx
import pytest
from freezegun import freeze_time
from sqlalchemy import insert
from starlette.applications import Starlette

from hal0.clock import boot_id, monotonic_ms, utc_now
from hal0.db import Database
from hal0.tables import idle_windows, job_progress
from tests.ledger import add_far_engine, end, serve, unfinished
from tests.pages import Tags, browser_of, failed_job, furnish, words_of
from tests.rows import arrive, ask_load, claim_next, make_model, make_slot, send_load, slot_now

pytestmark = pytest.mark.anyio
TIME = r"\d\d:\d\d:\d\d"


@pytest.fixture
async def browser(app: Starlette) -> AsyncIterator[httpx.AsyncClient]:
    async with browser_of(app) as client:
        yield client


@pytest.fixture
def furnished(db: Database) -> Database:
    furnish(db)
    return db


@pytest.fixture
def chat(db: Database) -> Database:
    """One slot, `chat`, whose load took twelve seconds, by the third to ask for one."""
    make_model(db, "tiny")
    make_slot(db, "chat", "tiny")
    with freeze_time(utc_now() - timedelta(minutes=5)) as clock:
        ask_load(db)
        held = send_load(db)
        clock.tick(12)
        arrive(db, held)
    return db


async def read(browser: httpx.AsyncClient, path: str, part: str | None = None) -> str:
    """Return what somebody reads there."""
    answer = await browser.get(path)
    assert answer.status_code == 200
    return words_of(answer.text, part)


async def test_a_card_says_its_state_its_model_and_since_when_and_why(
    browser: httpx.AsyncClient, furnished: Database
) -> None:
    said = await read(browser, "/page/cards/chat")
    begins = rf"\[chat\] ready of-chat · used .* ago since {TIME} UTC · loaded, asked for by local"
    assert re.match(begins, said), said


async def test_a_card_counts_the_requests_that_run(
    browser: httpx.AsyncClient, chat: Database
) -> None:
    assert "in flight" not in await read(browser, "/page/cards/chat")
    serve(chat, requests=3)
    assert "serving tiny · 3 in flight" in await read(browser, "/page/cards/chat")


async def test_a_card_says_when_nobody_using_it_has_which_end(
    browser: httpx.AsyncClient, chat: Database
) -> None:
    slot, ago_ms = slot_now(chat), 100_000
    window = {"slot_id": slot.id, "generation": slot.generation, "seen": "x"}
    since = {"since_boot": boot_id(), "since_ms": monotonic_ms() - ago_ms}
    with chat.soft() as tx:
        tx.execute(insert(idle_windows).values(**window, **since))
    said = await read(browser, "/page/cards/chat")
    assert re.search(r"demotes in \d+:\d\d, unloads in \d+:\d\d", said), said


async def test_a_download_is_told_by_bytes_rate_and_time_left_and_drawn_as_far_as_it_is(
    browser: httpx.AsyncClient, db: Database
) -> None:
    make_model(db, "tiny")
    make_slot(db, "chat", "tiny")
    ask_load(db)
    held = claim_next(db)
    row = {"job_id": held.job.id, "attempt": held.job.attempt, "phase": "download", "at": utc_now()}
    far = {"done_bytes": 2**30, "total_bytes": 4 * 2**30, "rate_bytes_s": 2**26}
    with db.soft() as tx:
        tx.execute(insert(job_progress).values(**row, **far))
    card = (await browser.get("/page/cards/chat")).text
    assert "download 1.0 GiB of 4.0 GiB · 64 MiB/s · 48 s left" in words_of(card)
    (bar,) = [one for one in Tags(card).of("svg") if one.get("role") == "progressbar"]
    assert bar["aria-valuenow"] == "25"
    done = [one["width"] for one in Tags(card).of("rect") if "done" in str(one["class"])]
    assert done == ["250"]


async def test_a_load_is_told_beside_how_long_it_took_before(
    browser: httpx.AsyncClient, chat: Database
) -> None:
    add_far_engine(chat)
    make_slot(chat, "twin", "tiny", engine="far")
    assert "a load takes about 12 s" in await read(browser, "/page/cards/twin")
    with freeze_time() as clock:
        ask_load(chat, "twin")
        send_load(chat)
        clock.tick(3)
        card = (await browser.get("/page/cards/twin")).text
    assert re.search(r"load 3\.\d s of about 12 s", words_of(card))
    (bar,) = [one for one in Tags(card).of("svg") if one.get("role") == "progressbar"]
    assert bar["aria-valuenow"] == "25"
    assert bar["data-usual"] == "12.0"


async def test_each_load_of_a_slot_and_its_job_are_told_and_drawn_by_phases(
    browser: httpx.AsyncClient, chat: Database
) -> None:
    for path in ("/page/slots/chat", "/page/jobs/4"):
        page = (await browser.get(path)).text
        assert "load 12 s" in words_of(page), path
        bars = [one for one in Tags(page).of("svg") if one.get("class") == "phases"]
        assert [bar["aria-label"] for bar in bars] == ["load 12 s"], path


async def test_a_jobs_page_tells_what_each_attempt_failed_with_after_a_retry_too(
    browser: httpx.AsyncClient, furnished: Database
) -> None:
    failed = failed_job(furnished)
    await browser.post(f"/page/jobs/{failed}/retry")
    said = await read(browser, f"/page/jobs/{failed}")
    of_job, _, attempts = said.partition("Attempts")
    assert "preload.checksum_mismatch" not in of_job
    assert re.match(
        rf" {TIME} UTC · \d+\.\d s · failed preload\.checksum_mismatch bad bytes", attempts
    )
    assert "found 41ab" in attempts


async def test_jobs_are_retried_and_cancelled_all_as_filtered_or_as_chosen(
    browser: httpx.AsyncClient, furnished: Database
) -> None:
    page = (await browser.get("/?filter=slot:broken")).text
    said = words_of(page, "record")
    for label in ("Retry all…", "Cancel all…", "Retry chosen…", "Cancel chosen…"):
        assert f"[{label}]" in said
    led = {link["href"] for link in Tags(page).of("a")}
    assert {f"/page/ask/{what}?filter=slot%3Abroken" for what in ("retry", "cancel")} <= led


async def test_the_audit_is_exported_as_it_is_filtered(
    browser: httpx.AsyncClient, furnished: Database
) -> None:
    page = (await browser.get("/?tab=audit&filter=slot:broken")).text
    assert "Export [NDJSON] [CSV]" in words_of(page, "record")
    for form in ("ndjson", "csv"):
        (path,) = [
            str(link["href"]) for link in Tags(page).of("a") if f".{form}" in str(link["href"])
        ]
        export = await browser.get(path, headers={"Accept": "*/*"})
        assert export.status_code == 200
        assert "broken" in export.text
        assert "chat" not in export.text


async def test_a_row_of_the_audit_names_its_slot_change_cause_actor_job_and_request(
    browser: httpx.AsyncClient, chat: Database
) -> None:
    said = await read(browser, "/?tab=audit", "record")
    assert "Row When Slot Change Why Actor Job Request" in said
    assert re.search(
        rf"{TIME} UTC \[chat\] warming → ready loaded worker \[4\] request-of-a-test", said
    ), said


async def test_a_card_in_error_tells_all_of_the_remedy_and_what_was_done_since_then(
    browser: httpx.AsyncClient, furnished: Database
) -> None:
    await browser.post("/page/slots/broken/pull")
    while unfinished(furnished, "broken"):
        end(furnished, claim_next(furnished))
    said = await read(browser, "/page/cards/broken")
    assert "preload.checksum_mismatch bad bytes" in said
    assert re.search(rf"since then: pull succeeded, \[job \d+\], {TIME} UTC", said), said
    assert "[Fetch the files again] [Retry] [Clear]" in said


async def test_every_page_says_once_of_which_zone_its_times_are(
    browser: httpx.AsyncClient, furnished: Database
) -> None:
    for path in ("/", "/page/slots/chat", "/page/jobs/1"):
        assert "times are UTC" in await read(browser, path), path


async def test_a_step_names_the_command_that_registers_any_other_file(
    browser: httpx.AsyncClient,
) -> None:
    assert "hal0 model add SOURCE --name NAME" in await read(browser, "/page/setup")
