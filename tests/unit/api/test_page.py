"""The page as the server sends it: to readers and writers, without a script, whatever rows say."""

import re
from collections.abc import AsyncIterator
from urllib.parse import unquote

import httpx
import pytest
from freezegun import freeze_time
from starlette.applications import Starlette
from starlette.routing import Route

from hal0.access import tokens
from hal0.access.roles import Role
from hal0.api.auth import TABLE
from hal0.db import Database
from hal0.errors import EngineRefused
from hal0.jobs.incidents import record
from hal0.page.render import asset_path
from hal0.states import Cause, IncidentKind
from tests.ledger import make_slots
from tests.mishaps import evict_all, load_all
from tests.pages import (
    FRAGMENT,
    Tags,
    break_files,
    browser_of,
    failed_job,
    furnish,
)
from tests.rows import make_model, make_slot

pytestmark = pytest.mark.anyio
EVIL = "<img src=x onerror=alert(1)>\"'&"
FRAGMENTS = ("/page/head", "/page/alerts", "/page/cards", "/page/cards/chat", "/page/record")


@pytest.fixture
async def browser(app: Starlette) -> AsyncIterator[httpx.AsyncClient]:
    async with browser_of(app) as client:
        yield client


@pytest.fixture
def furnished(db: Database) -> Database:
    furnish(db)
    return db


async def test_the_page_shows_incidents_slots_and_the_record_without_a_script(
    browser: httpx.AsyncClient, furnished: Database
) -> None:
    page = (await browser.get("/")).text
    order = [page.index(f'id="{part}"') for part in ("alerts", "cards", "record")]
    assert order == sorted(order)
    for text in ("of-chat", "preload.checksum_mismatch", "bad bytes", "Incident 1"):
        assert text in page
    forms = {form["action"] for form in Tags(page).of("form")}
    assert {"/page/jobs/6/retry", "/page/slots/broken/unload", "/page/slots/broken/pull"} <= forms


async def test_nothing_in_a_page_is_a_script_or_a_style_but_a_file_of_ours(
    browser: httpx.AsyncClient, furnished: Database
) -> None:
    paths = ["/", "/?tab=audit", "/?tab=incidents", "/?tab=models", "/page/slots/chat"]
    for path in [*paths, "/page/jobs/1", "/page/ask/retry", "/page/slots/chat/ask/unload"]:
        tags = Tags((await browser.get(path)).text)
        assert [one["src"] for one in tags.of("script")] == [asset_path("page.js")]
        assert tags.of("style") == []
        for _, attributes in tags.found:
            assert not [name for name in attributes if name == "style" or name.startswith("on")]
            for name in ("href", "src", "action"):
                assert (attributes.get(name) or "/").startswith(("/", "#", "?")), attributes


async def test_a_browser_is_told_to_run_nothing_that_stands_in_a_page(
    browser: httpx.AsyncClient, furnished: Database
) -> None:
    for path in ("/", "/page/slots/chat", "/page/jobs/1", "/page/setup", "/page/slots/nobody"):
        told = (await browser.get(path)).headers["content-security-policy"].split("; ")
        assert {"default-src 'none'", "script-src 'self'", "style-src 'self'"} <= {*told}, path
        assert {"frame-ancestors 'none'", "base-uri 'none'", "form-action 'self'"} <= {*told}, path


async def test_an_asset_is_kept_for_ever_under_a_name_that_changes_with_it(
    browser: httpx.AsyncClient,
) -> None:
    for name in ("page.css", "page.js", "icon.svg"):
        kept = await browser.get(asset_path(name))
        assert kept.status_code == 200
        assert "immutable" in kept.headers["cache-control"]
        assert re.search(r"-[0-9a-f]{12}\.", asset_path(name))
    for name in ("page.css", "..%2Frender.py", "%2e%2e/x", "page-000000000000.css"):
        assert (await browser.get(f"/assets/{name}")).status_code == 404


async def test_what_a_script_imports_is_served_and_loaded_ahead(
    browser: httpx.AsyncClient,
) -> None:
    ahead = {
        link["href"]
        for link in Tags((await browser.get("/")).text).of("link")
        if link["rel"] == "modulepreload"
    }
    found, left = set[str](), {asset_path("page.js")}
    while left:
        path = left.pop()
        found.add(path)
        script = await browser.get(path)
        assert script.headers["content-type"] == "text/javascript; charset=utf-8", path
        left |= set(re.findall(r'(?:from|import) "([^"]+)";', script.text)) - found
    assert ahead == found
    assert len(found) > 5


async def test_what_rows_say_is_shown_and_never_done(
    browser: httpx.AsyncClient, db: Database
) -> None:
    make_model(db, "tiny")
    make_slot(db, "chat", "tiny")
    break_files(db, EngineRefused(EVIL, evidence={EVIL: EVIL, "list": [EVIL]}), "chat")
    with db.write() as tx:
        record(tx, 1, IncidentKind.ENGINE_LOST, EVIL)
    paths = ["/", "/?tab=audit", "/?tab=incidents", "/page/slots/chat", "/page/jobs/2"]
    for path in [
        *paths,
        f"/?filter={EVIL}",
        f"/?tab=audit&filter=actor:{EVIL}",
        f"/page/slots/{EVIL}",
    ]:
        page = await browser.get(path)
        tags = Tags(page.text)
        assert tags.of("img") == [], path
        assert not [one for _, one in tags.found if any(name.startswith("on") for name in one)]
        assert "onerror" in page.text, path


async def test_a_reader_sees_all_and_is_offered_nothing(
    browser: httpx.AsyncClient, furnished: Database
) -> None:
    with furnished.write() as tx:
        reader = tokens.create(tx, "bob", Role.READER, "local")[1]
        writer = tokens.create(tx, "alice", Role.WRITER, "local")[1]
    paths = ["/", "/?tab=incidents", "/page/slots/broken", "/page/jobs/6", *FRAGMENTS]
    offered = {}
    for token in (reader, writer):
        headers = {"Authorization": f"Bearer {token}"}
        pages = [await browser.get(path, headers=headers) for path in paths]
        assert [page.status_code for page in pages] == [200] * len(paths)
        forms = [form for page in pages for form in Tags(page.text).of("form")]
        offered[token] = [form for form in forms if form.get("method") == "post"]
    assert offered[reader] == []
    assert offered[writer] != []


async def test_every_route_of_the_page_wants_the_role_of_the_table(
    app: Starlette, browser: httpx.AsyncClient, furnished: Database
) -> None:
    with furnished.write() as tx:
        made = {role: tokens.create(tx, str(role), role, "local")[1] for role in list(Role)[1:]}
    walked = 0
    for route in app.routes:
        if not isinstance(route, Route) or route.include_in_schema:
            continue
        path = re.sub(r"{\w+}", "nope", re.sub(r"{\w+:int}", "999", route.path))
        for method in (route.methods or set()) - {"HEAD"}:
            needed = TABLE[method, route.path]
            for role, token in made.items() if needed is not Role.ANYONE else ():
                headers = {"Authorization": f"Bearer {token}"}
                seen = await browser.request(method, path, headers=headers)
                assert (seen.status_code == 403) == (role < needed), (method, path, role)
                walked += 1
    assert walked > 40


async def test_a_fragment_is_a_part_of_the_page_and_says_where_it_comes_from(
    browser: httpx.AsyncClient, furnished: Database
) -> None:
    whole = (await browser.get("/")).text
    for path in FRAGMENTS:
        part = (await browser.get(path, headers=FRAGMENT)).text
        assert "<html" not in part
        first = Tags(part).found[0][1]
        assert str(first["data-part"]).startswith(path)
        assert f'id="{first["id"]}"' in whole


async def test_a_filter_that_cannot_be_read_is_kept_and_told(
    browser: httpx.AsyncClient, furnished: Database
) -> None:
    page = await browser.get("/?filter=slot:chat+colour:red")
    assert page.status_code == 200
    assert 'value="slot:chat colour:red"' in page.text
    assert "&#39;colour&#39; is no key; use one of slot, state, kind" in page.text
    asked = await browser.get("/page/ask/retry?filter=state:running")
    assert asked.status_code == 422


async def test_a_filter_shows_what_fits_and_nothing_else(
    browser: httpx.AsyncClient, furnished: Database
) -> None:
    failed = failed_job(furnished)
    shown = Tags((await browser.get("/?filter=state:failed")).text).of("tr")
    assert [row["id"] for row in shown if "id" in row] == [f"job-{failed}"]
    audit = (await browser.get("/?tab=audit&filter=slot:broken+state:error")).text
    assert len(re.findall(r'<tr id="row-\d+"', audit)) == 1


async def test_an_older_page_of_the_record_is_asked_for_again_as_it_is(
    browser: httpx.AsyncClient, furnished: Database
) -> None:
    older = (await browser.get("/page/record?tab=audit&filter=since:1h&before=4")).text
    (record,) = Tags(older).of("section")
    again = (await browser.get(str(record["data-part"]))).text
    rows = [row["id"] for row in Tags(older).of("tr") if "id" in row]
    assert rows
    assert [row["id"] for row in Tags(again).of("tr") if "id" in row] == rows


async def test_a_slots_page_tells_its_day_its_loads_and_why_each_change(
    browser: httpx.AsyncClient, furnished: Database
) -> None:
    page = (await browser.get("/page/slots/chat")).text
    assert re.search(r'<rect class="\w+" x="999" width="1"', page)
    for text in ("loaded", "load was sent to the engine", ">created", "24 h", "1 min"):
        assert text in page
    long_ago = await browser.get("/page/slots/chat?from=2020-01-01T00:00Z&to=2020-01-02T00:00Z")
    assert "It did not change in this time" in long_ago.text
    assert "Later" in long_ago.text
    first = await browser.get("/page/slots/chat?from=0001-01-01T00:00Z&to=0001-01-02T00:00Z")
    assert first.status_code == 200
    assert (await browser.get("/page/slots/chat?from=soon")).status_code == 422
    assert "known are from, to" in (await browser.get("/page/slots/chat?since=1h")).text


async def test_a_change_by_the_job_of_another_slot_names_that_slot_and_the_job_its_incident(
    browser: httpx.AsyncClient, db: Database
) -> None:
    make_slots(db, "one", "evil")
    load_all(db, "one")
    job_id = evict_all(db)

    async def read(path: str) -> str:
        text = (await browser.get(path, headers=FRAGMENT)).text
        return " ".join(re.sub(r"<[^>]+>", "", text).split())

    changes = await read("/page/slots/one")
    assert f"the engine dropped it, job {job_id} of evil, incident 1, by worker" in changes
    assert "job 4, by worker" in changes, "its own"
    assert "made incident 1" in await read(f"/page/jobs/{job_id}")
    assert "incident" not in await read("/page/jobs/1")


async def test_a_stretch_that_ends_now_is_zoomed_to_its_end_another_one_to_its_middle(
    browser: httpx.AsyncClient, furnished: Database
) -> None:
    with freeze_time("2026-11-22T12:00:00Z"):
        now = await _zooms(browser, "")
        noon = await _zooms(browser, "?from=2026-11-21T11:00Z&to=2026-11-21T13:00Z")
    assert now["10 min"] == ("2026-11-22T11:50", "2026-11-22T12:00")
    assert now["6 h"] == ("2026-11-22T06:00", "2026-11-22T12:00")
    assert noon["10 min"] == ("2026-11-21T11:55", "2026-11-21T12:05")
    assert noon["6 h"] == ("2026-11-21T09:00", "2026-11-21T15:00")


async def _zooms(browser: httpx.AsyncClient, query: str) -> dict[str, tuple[str, str]]:
    page = (await browser.get(f"/page/slots/chat{query}")).text
    led = re.findall(r'href="\?from=([^"&]{18})[^"&]*&to=([^"&]{18})[^"]*">([^<]+)<', page)
    return {name: (unquote(since), unquote(until)) for since, until, name in led}


async def test_a_strip_is_of_a_day_and_of_a_minute_at_least(
    browser: httpx.AsyncClient, furnished: Database
) -> None:
    with freeze_time("2026-11-22T12:00:00Z"):
        day = await _strip(browser, "")
        minute = await _strip(browser, "?from=2026-11-22T10:59Z&to=2026-11-22T11:00Z")
        second = await _strip(browser, "?from=2026-11-22T10:59:59Z&to=2026-11-22T11:00Z")
    assert day == ("2026-11-21T12:00:00", "2026-11-22T12:00:00")
    assert minute == second == ("2026-11-22T10:59:00", "2026-11-22T11:00:00")


async def _strip(browser: httpx.AsyncClient, query: str) -> tuple[str, str]:
    page = (await browser.get(f"/page/slots/chat{query}")).text
    (strip,) = [one for one in Tags(page).of("a") if one.get("class") == "strip"]
    return str(strip["data-from"])[:19], str(strip["data-to"])[:19]


async def test_words_of_an_operator_stand_beside_each_cause(browser: httpx.AsyncClient) -> None:
    with_name = (await browser.get("/?tab=audit")).text
    assert f'value="cause:{Cause.LOAD_SENT}"' in with_name  # what the filter is completed to
