"""The first steps on the page: what they show, what they leave behind, and what they refuse."""

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from sqlalchemy import func, select
from starlette.applications import Starlette

from hal0.access import tokens
from hal0.access.roles import Role
from hal0.api.app import create_app
from hal0.db import Database
from hal0.settings import Settings
from hal0.states import JobKind, SlotState
from hal0.tables import engines, jobs, models, probes, slots
from tests.fakes.source.hub import Hub
from tests.pages import Tags, browser_of
from tests.rows import make_model, make_slot, slot_now

pytestmark = pytest.mark.anyio
CONTENT = b"GGUF" + bytes(5000)
DIGEST = hashlib.sha256(CONTENT).hexdigest()
STARTERS = """
[[starter]]
name = "tiny"
about = "tests & nothing <else>"
parameters = "1M"
licence = "none"
source = "hf://org/repo/tiny.gguf"
"""
BEGIN = {"model": "tiny", "source": "/srv/tiny.gguf", "slot": "chat", "engine": "default"}
NAMES = ("../../tmp/pwn", "..", "/etc/passwd", "a/b", "%2e%2e", "A" * 65, "", "x\0y")
TOUCHED = (slots, models, engines, probes, jobs)


@pytest.fixture
async def browser(app: Starlette) -> AsyncIterator[httpx.AsyncClient]:
    async with browser_of(app) as client:
        yield client


def counts(db: Database) -> list[int]:
    with db.read() as tx:
        return [
            tx.execute(select(func.count()).select_from(table)).scalar_one() for table in TOUCHED
        ]


def files_around(home: Path) -> set[Path]:
    """Return what is in the home, beside it, and where a name could lead that climbs out of it."""
    inside = {path for path in home.parent.rglob("*") if not path.name.startswith("hal0.db")}
    return inside | {path for path in Path("/tmp").iterdir() if path.name == "pwn"}


async def test_the_first_steps_stand_where_the_cards_will_be_until_there_is_a_slot(
    browser: httpx.AsyncClient, db: Database
) -> None:
    for path in ("/", "/page/cards", "/page/setup"):
        page = (await browser.get(path)).text
        assert 'action="/page/setup/probe"' in page
        assert "smollm2-135m" in page
    make_slot(db)
    for path in ("/", "/page/cards"):
        assert "/page/setup/probe" not in (await browser.get(path)).text
    assert "/page/setup/probe" in (await browser.get("/page/setup")).text


async def test_what_was_found_of_the_machine_is_shown_and_kept(browser: httpx.AsyncClient) -> None:
    assert "Nobody has looked at it yet" in (await browser.get("/page/setup")).text
    looked = await browser.post("/page/setup/probe")
    assert (looked.status_code, looked.headers["location"]) == (303, "/page/setup")
    page = (await browser.get("/page/setup")).text
    for text in ("Processor", "threads", "GiB free", "Look again", "room for"):
        assert text in page


async def test_an_engine_is_added_by_its_url(browser: httpx.AsyncClient, db: Database) -> None:
    form = {"name": "big", "kind": "llamacpp", "url": "http://127.0.0.1:9"}
    assert (await browser.post("/page/setup/engine", data=form)).status_code == 303
    page = (await browser.get("/page/setup")).text
    assert "<b>big</b> llamacpp" in page
    assert "127.0.0.1:9" in page


async def test_size_and_digest_of_a_hubs_model_are_shown_before_anything_is_fetched(
    settings: Settings, db: Database, tmp_path: Path
) -> None:
    pytest.importorskip("huggingface_hub", reason="the extra `hub` is missing")
    listed = tmp_path / "starters.toml"
    listed.write_text(STARTERS)
    before = counts(db)
    with Hub() as hub:
        commit = hub.commit("org/repo", {"tiny.gguf": CONTENT})
        changes = {"hub_endpoint": hub.origin, "starters_file": listed}
        async with browser_of(create_app(settings.model_copy(update=changes), db)) as browser:
            assert "tests &amp; nothing &lt;else&gt;" in (await browser.get("/page/setup")).text
            page = (await browser.post("/page/setup/look", data={"starter": "tiny"})).text
            fields = {str(one["name"]): one["value"] for one in Tags(page).of("input")}
            assert counts(db) == before
            begun = await browser.post("/page/setup/begin", data={**fields, "engine": "default"})
    for text in (DIGEST, commit, "needed", "available", "0.0 MiB needed"):
        assert text in page
    assert (begun.status_code, begun.headers["location"]) == (303, "/page/setup?slot=chat")
    with db.read() as tx:
        kinds = [row.kind for row in tx.execute(select(jobs).order_by(jobs.c.id))]
    assert kinds == [JobKind.PULL, JobKind.VALIDATE, JobKind.UNLOAD, JobKind.LOAD]
    assert slot_now(db).state is SlotState.OFFLINE


async def test_a_model_that_is_registered_is_used_as_it_is(
    browser: httpx.AsyncClient, db: Database
) -> None:
    make_model(db, "smollm2-135m")
    page = (await browser.post("/page/setup/look", data={"starter": "smollm2-135m"})).text
    assert "registered already" in page
    assert 'name="slot" value="chat"' in page
    make_slot(db, "chat")
    page = (await browser.post("/page/setup/look", data={"starter": "smollm2-135m"})).text
    assert 'name="slot" value="chat-2"' in page
    begun = await browser.post("/page/setup/begin", data={**BEGIN, "model": "smollm2-135m"})
    assert begun.status_code == 409
    form = {**BEGIN, "model": "smollm2-135m", "slot": "chat-2"}
    assert (await browser.post("/page/setup/begin", data=form)).status_code == 303


@pytest.mark.parametrize("field", ["slot", "model", "engine"])
@pytest.mark.parametrize("name", NAMES)
async def test_a_name_that_is_none_writes_nothing(
    browser: httpx.AsyncClient, db: Database, settings: Settings, field: str, name: str
) -> None:
    before, files = counts(db), files_around(settings.home)
    refused = await browser.post("/page/setup/begin", data={**BEGIN, field: name})
    assert refused.status_code == 422, refused.text
    if field == "slot":
        assert (await browser.get("/page/setup", params={"slot": name})).status_code == 422
    if field == "engine":
        form = {"name": name, "kind": "lemonade", "url": "http://127.0.0.1:9"}
        assert (await browser.post("/page/setup/engine", data=form)).status_code == 422
    if field == "model":
        looked = await browser.post("/page/setup/look", data={"starter": name})
        assert looked.status_code == 422
    assert counts(db) == before
    assert files_around(settings.home) == files


async def test_a_source_or_a_url_that_is_none_is_refused(
    browser: httpx.AsyncClient, db: Database
) -> None:
    before = counts(db)
    for source in ("../../etc/passwd", "ftp://x/y.gguf"):
        refused = await browser.post("/page/setup/begin", data={**BEGIN, "source": source})
        assert refused.status_code == 422, source
    for url in ("file:///etc", "http://a:b@127.0.0.1", "127.0.0.1"):
        form = {"name": "x", "kind": "lemonade", "url": url}
        assert (await browser.post("/page/setup/engine", data=form)).status_code == 422, url
    assert counts(db) == before


async def test_a_slot_that_is_there_already_leaves_no_half_of_a_beginning(
    browser: httpx.AsyncClient, db: Database
) -> None:
    make_slot(db, "chat")
    before = counts(db)
    refused = await browser.post("/page/setup/begin", data=BEGIN)
    assert refused.status_code == 409
    assert "there is a slot" in refused.text
    assert counts(db) == before


async def test_another_sites_form_begins_nothing(browser: httpx.AsyncClient, db: Database) -> None:
    before = counts(db)
    for step, data in {"probe": {}, "begin": BEGIN, "token": {"name": "x"}}.items():
        headers = {"Origin": "http://evil.example"}
        refused = await browser.post(f"/page/setup/{step}", data=data, headers=headers)
        assert refused.status_code == 403, step
    assert counts(db) == before


async def test_the_first_token_is_shown_once_and_this_browser_goes_on_with_it(
    browser: httpx.AsyncClient, app: Starlette, db: Database
) -> None:
    made = await browser.post("/page/setup/token", data={"name": "me"})
    text = browser.cookies["hal0_session"]
    assert text in made.text
    assert made.headers["cache-control"] == "no-store"
    assert text not in (await browser.get("/")).text
    assert "me · writer" in (await browser.get("/")).text
    async with browser_of(app) as another:
        assert (await another.get("/page/setup")).status_code == 401
    second = await browser.post("/page/setup/token", data={"name": "other"})
    assert "hal0_session" not in second.headers.get("set-cookie", "")
    key = {"Idempotency-Key": "once"}
    kept = await browser.post("/page/setup/token", data={"name": "third"}, headers=key)
    assert kept.status_code == 422


async def test_a_reader_sees_the_steps_and_is_offered_none(
    browser: httpx.AsyncClient, db: Database
) -> None:
    with db.write() as tx:
        reader = tokens.create(tx, "bob", Role.READER, "local")[1]
    headers = {"Authorization": f"Bearer {reader}"}
    for path in ("/", "/page/setup"):
        page = (await browser.get(path, headers=headers)).text
        assert "smollm2-135m" in page
        assert "/page/setup/" not in page
    for step in ("probe", "engine", "look", "begin", "token"):
        refused = await browser.post(f"/page/setup/{step}", data=BEGIN, headers=headers)
        assert refused.status_code == 403, step


async def test_a_broken_list_of_starters_is_told_and_the_page_is_shown(
    settings: Settings, db: Database, tmp_path: Path
) -> None:
    listed = tmp_path / "starters.toml"
    listed.write_text("[[starter]]\nname = 5\n")
    async with browser_of(
        create_app(settings.model_copy(update={"starters_file": listed}), db)
    ) as browser:
        page = await browser.get("/")
    assert page.status_code == 200
    assert "is no list of starters" in page.text
