"""What a writer does on the page, by forms: counted and asked first, and refused with reasons."""

import re
from collections.abc import AsyncIterator

import httpx
import pytest
from starlette.applications import Starlette

from hal0.api.page_forms import BulkForm
from hal0.db import Database
from hal0.errors import EngineRefused
from hal0.jobs.bulk import BulkFilter, newest_failures
from hal0.jobs.incident_queries import incident_detail
from hal0.page.render import render
from hal0.slots.overview import overviews
from hal0.slots.queries import slot_named
from hal0.states import JobState, SlotState
from hal0.tables import jobs
from tests.pages import (
    FRAGMENT,
    Tags,
    browser_of,
    failed_job,
    furnish,
)
from tests.rows import ask_load, fail_next, make_model, make_slot, slot_now

pytestmark = pytest.mark.anyio


@pytest.fixture
async def browser(app: Starlette) -> AsyncIterator[httpx.AsyncClient]:
    async with browser_of(app) as client:
        yield client


def filled_in(asked: str) -> dict[str, list[str]]:
    """Return what the form of a question carries."""
    fields: dict[str, list[str]] = {}
    for field in Tags(asked).of("input"):
        fields.setdefault(str(field["name"]), []).append(str(field["value"]))
    return fields


@pytest.fixture
def furnished(db: Database) -> Database:
    furnish(db)
    return db


async def test_a_load_is_asked_for_by_a_form_and_the_way_back_is_shown(
    browser: httpx.AsyncClient, furnished: Database
) -> None:
    make_model(furnished, "m")
    make_slot(furnished, "fresh", "m")
    done = await browser.post("/page/slots/fresh/load")
    assert (done.status_code, done.headers["location"]) == (303, "/#slot-fresh")
    again = await browser.post("/page/slots/fresh/load", headers=FRAGMENT)
    assert "fresh: load asked for, job" in again.text


async def test_an_order_for_what_is_so_already_says_how_it_is(
    browser: httpx.AsyncClient, furnished: Database
) -> None:
    make_slot(furnished, "bare")
    loaded = await browser.post("/page/slots/chat/load", headers=FRAGMENT)
    assert "chat: loaded already" in loaded.text
    empty = await browser.post("/page/slots/bare/unload", headers=FRAGMENT)
    assert "bare: unloaded already" in empty.text


async def test_a_card_of_an_offline_slot_offers_every_model_and_loads_the_chosen_one(
    browser: httpx.AsyncClient, furnished: Database
) -> None:
    make_model(furnished, "spare")
    make_slot(furnished, "bare")
    card = (await browser.get("/page/cards/bare")).text
    assert re.findall(r"<option[^>]*>([^<]+)", card) == [
        "of-broken",
        "of-chat",
        "of-waiting",
        "spare",
    ]
    done = await browser.post("/page/slots/bare/load", data={"model": "spare"})
    assert done.status_code == 303
    with furnished.read() as tx:
        assert overviews(tx, [slot_named(tx, "bare")])[0].wanted_model == "spare"
    refused = await browser.post("/page/slots/bare/load", data={"model": "of-nobody"})
    assert refused.status_code == 404
    evil = await browser.post("/page/slots/bare/load", data={"model": "../../tmp/pwn"})
    assert evil.status_code == 422


async def test_a_retry_that_cannot_be_names_the_job_in_the_way_with_a_link(
    browser: httpx.AsyncClient, furnished: Database
) -> None:
    failed = failed_job(furnished)
    assert (await browser.post(f"/page/jobs/{failed}/retry")).status_code == 303
    fail_next(furnished, EngineRefused("no"))  # of `waiting`: the first in line
    fail_next(furnished, EngineRefused("no"))
    ask_load(furnished, "broken", rehash=True)
    refused = await browser.post(f"/page/jobs/{failed}/retry", headers=FRAGMENT)
    assert refused.status_code == 409
    link = re.search(r'href="/page/jobs/(\d+)"', refused.text)
    assert link
    assert f"(job {link[1]})" in refused.text
    assert "<html" not in refused.text
    assert "<html" in (await browser.post(f"/page/jobs/{failed}/retry")).text


async def test_a_retry_of_many_counts_first_and_then_does_what_it_counted(
    browser: httpx.AsyncClient, furnished: Database
) -> None:
    asked = (await browser.get("/page/ask/retry?filter=state:failed")).text
    assert "Retry 1 job?" in asked
    assert "preload.checksum_mismatch" in asked
    assert slot_now(furnished, "broken").state is SlotState.ERROR
    done = await browser.post("/page/retry", data=filled_in(asked), headers=FRAGMENT)
    assert "1 queued again" in done.text
    none = (await browser.get("/page/ask/retry?filter=code:pull.disk_full")).text
    assert "Nothing to retry" in none


@pytest.mark.parametrize(("what", "done"), [("retry", "queued again"), ("cancel", "cancelled")])
async def test_what_came_while_the_question_stood_is_not_taken_with_what_was_counted(
    browser: httpx.AsyncClient, furnished: Database, what: str, done: str
) -> None:
    asked = (await browser.get(f"/page/ask/{what}?filter=")).text
    assert f"{what.capitalize()} 1 job?" in asked
    ask_load(furnished, "chat", rehash=True)
    if what == "retry":
        fail_next(furnished, EngineRefused("no"))  # of `waiting`: the first in line
        fail_next(furnished, EngineRefused("no"))
    told = await browser.post(f"/page/{what}", data=filled_in(asked), headers=FRAGMENT)
    assert f"1 {done}" in told.text


async def test_more_jobs_than_a_form_carries_are_counted_again_and_refused_if_not_as_many(
    browser: httpx.AsyncClient, furnished: Database
) -> None:
    with furnished.read() as tx:
        [(_, failed)] = newest_failures(tx, BulkFilter())
    form, fields = BulkForm(filter="kind:validate"), dict[str, list[str]]()
    for count in (BulkForm.MOST, BulkForm.MOST + 1):
        found = [("broken", failed)] * count
        asked = render(
            "ask_many", what="retry", form=form, found=found, is_fragment=True, can_write=True
        )
        fields = filled_in(asked)
        assert len(fields.get("job", [])) == (count if count == BulkForm.MOST else 0)
        assert fields["counted"] == [str(count)]
    refused = await browser.post("/page/retry", data=fields, headers=FRAGMENT)
    assert (refused.status_code, "job.not_as_counted" in refused.text) == (409, True)
    assert "1001 were counted, it would be 1 now" in refused.text
    assert failed_job(furnished) == failed.id
    done = await browser.post("/page/retry", data={**fields, "counted": "1"}, headers=FRAGMENT)
    assert "1 queued again" in done.text


async def test_chosen_jobs_are_cancelled_and_no_others(
    browser: httpx.AsyncClient, furnished: Database
) -> None:
    with furnished.read() as tx:
        queued = jobs.select().where(jobs.c.state == JobState.QUEUED)
        ids = [row.id for row in tx.execute(queued)]
    asked = (await browser.get(f"/page/ask/cancel?job={ids[0]}&job=4")).text
    assert "Cancel 1 job?" in asked
    done = await browser.post("/page/cancel", data={"job": ["4"]}, headers=FRAGMENT)
    assert "0 cancelled" in done.text
    done = await browser.post("/page/cancel", data={"job": [str(ids[0])]}, headers=FRAGMENT)
    assert "1 cancelled" in done.text


async def test_an_incident_that_somebody_acknowledged_leaves_the_top_and_stays_in_the_list(
    browser: httpx.AsyncClient, furnished: Database
) -> None:
    done = await browser.post("/page/incidents/1/ack", headers=FRAGMENT)
    assert "incident 1 acknowledged" in done.text
    assert "Incident 1" not in (await browser.get("/page/alerts")).text
    listed = (await browser.get("/?tab=incidents")).text
    assert "the engine is another process" in listed
    assert "local, <time" in listed
    with furnished.read() as tx:
        first = incident_detail(tx, 1).acked_at
    await browser.post("/api/v1/incidents/1/ack", headers={"Accept": "*/*"})
    with furnished.read() as tx:
        assert incident_detail(tx, 1).acked_at == first
    assert (await browser.post("/page/incidents/2/ack")).status_code == 404


async def test_an_unload_is_asked_about_first_and_a_pinned_slot_says_that_it_is(
    browser: httpx.AsyncClient, furnished: Database
) -> None:
    await browser.post("/page/slots/chat/pin")
    asked = (await browser.get("/page/slots/chat/ask/unload")).text
    assert "although it is pinned" in asked
    refused = await browser.post("/page/slots/chat/unload", headers=FRAGMENT)
    assert (refused.status_code, "slot.pinned" in refused.text) == (409, True)
    form = {"even_if_pinned": "true", "force": "true"}
    assert (await browser.post("/page/slots/chat/unload", data=form)).status_code == 303
    for action in ("delete", "load", "x%2F.."):
        assert (await browser.get(f"/page/slots/chat/ask/{action}")).status_code == 404
    assert (await browser.post("/page/slots/chat/explode")).status_code == 404
