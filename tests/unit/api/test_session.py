"""How a browser signs in, and that its cookie lets nobody else's page do anything."""

from collections.abc import AsyncIterator

import httpx
import pytest
from starlette.applications import Starlette

from hal0.access import tokens
from hal0.access.roles import Role
from hal0.api.app import create_app
from hal0.db import Database
from hal0.settings import Settings
from tests.rows import make_slot, slot_now

pytestmark = pytest.mark.anyio
BASE = "http://127.0.0.1:13310"
OURS = {"Origin": BASE}
HTML = {"Accept": "text/html,application/xhtml+xml"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@pytest.fixture
def app(settings: Settings, db: Database) -> Starlette:
    return create_app(settings, db)


@pytest.fixture
async def browser(app: Starlette, anyio_backend: str) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url=BASE, headers=HTML) as client:
        yield client


@pytest.fixture
def writer(db: Database) -> str:
    return made(db, "alice", Role.WRITER)


def made(db: Database, name: str, role: Role) -> str:
    with db.write() as tx:
        return tokens.create(tx, name, role, "local")[1]


async def sign_in(browser: httpx.AsyncClient, token: str) -> httpx.Response:
    return await browser.post("/session", data={"token": token}, headers=OURS)


async def test_who_is_not_signed_in_gets_the_form_in_html_and_a_program_a_problem(
    browser: httpx.AsyncClient, writer: str
) -> None:
    for path in ("/", "/?tab=audit", "/page/slots/chat", "/page/none"):
        page = await browser.get(path)
        assert (page.status_code, page.headers["www-authenticate"]) == (401, "Bearer")
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert '<form method="post" action="/session">' in page.text
    problem = await browser.get("/", headers={"Accept": "*/*"})
    assert (problem.status_code, problem.json()["code"]) == (401, "auth.unauthorized")


async def test_a_valid_token_is_kept_in_a_cookie_that_no_script_and_no_other_site_gets(
    browser: httpx.AsyncClient, writer: str
) -> None:
    inside = await sign_in(browser, f" {writer}\n")
    assert (inside.status_code, inside.headers["location"]) == (303, "/")
    cookie = inside.headers["set-cookie"]
    assert cookie.startswith(f"hal0_session={writer};")
    for part in ("HttpOnly", "SameSite=strict", "Path=/"):
        assert part in cookie
    assert "Secure" not in cookie
    assert "Max-Age" not in cookie
    page = await browser.get("/")
    assert page.status_code == 200
    assert "alice · writer" in page.text


async def test_the_cookie_ends_with_its_token_and_goes_over_tls_alone_where_there_is_tls(
    browser: httpx.AsyncClient, db: Database
) -> None:
    with db.write() as tx:
        token = tokens.create(tx, "guest", Role.READER, "local", expires_in_s=3600)[1]
    headers = {"Origin": "https://127.0.0.1:13310"}
    inside = await browser.post("/session", data={"token": token}, headers=headers)
    cookie = inside.headers["set-cookie"]
    assert "Secure" in cookie
    left_s = int(cookie.partition("Max-Age=")[2].partition(";")[0])
    assert 3000 < left_s <= 3600


async def test_a_token_that_is_not_valid_is_told_so_and_counted(
    browser: httpx.AsyncClient, writer: str
) -> None:
    seen = [await sign_in(browser, "hal0_" + "a" * 43) for _ in range(12)]
    assert {one.status_code for one in seen} == {401, 429}
    assert "This token is not valid" in seen[0].text
    assert "set-cookie" not in seen[0].headers
    assert int(seen[-1].headers["retry-after"]) >= 1
    assert (await sign_in(browser, writer)).status_code == 303  # a valid one passes all the while


async def test_a_link_of_another_site_is_followed_once_more_from_our_own_page(
    browser: httpx.AsyncClient, writer: str
) -> None:
    again = '<meta http-equiv="refresh" content="0">'
    for site, is_again in (("cross-site", True), ("same-origin", False), ("none", False)):
        door = await browser.get("/?tab=audit", headers={"Sec-Fetch-Site": site})
        assert (door.status_code, again in door.text) == (401, is_again)


async def test_another_site_cannot_sign_anybody_in(browser: httpx.AsyncClient, writer: str) -> None:
    headers = {"Origin": "http://evil.example"}
    refused = await browser.post("/session", data={"token": writer}, headers=headers)
    assert refused.status_code == 403
    assert "set-cookie" not in refused.headers


@pytest.mark.parametrize("how", ["DELETE", "POST"])
async def test_who_signs_out_is_out(browser: httpx.AsyncClient, writer: str, how: str) -> None:
    await sign_in(browser, writer)
    path = "/session" if how == "DELETE" else "/session/end"
    assert (await browser.request(how, path, headers=OURS)).status_code == 303
    assert (await browser.get("/")).status_code == 401


async def test_a_revoked_token_is_out_within_its_second_and_its_cookie_is_dropped(
    browser: httpx.AsyncClient, db: Database, writer: str
) -> None:
    other = made(db, "bob", Role.WRITER)
    await sign_in(browser, writer)
    headers = {"Authorization": f"Bearer {other}"}
    await browser.delete("/api/v1/tokens/alice", headers=headers)
    out = await browser.get("/")
    assert out.status_code == 401
    assert 'hal0_session=""' in out.headers["set-cookie"]
    assert "hal0_session" not in browser.cookies


FROM_ELSEWHERE = [
    {},
    {"Origin": "http://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://127.0.0.1:8080"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "none"},
]


@pytest.mark.parametrize("headers", FROM_ELSEWHERE)
async def test_a_cookie_changes_nothing_for_a_request_that_does_not_show_it_is_of_our_page(
    browser: httpx.AsyncClient, db: Database, writer: str, headers: dict[str, str]
) -> None:
    make_slot(db)
    await sign_in(browser, writer)
    for send in (
        browser.post("/page/slots/chat/pin", headers=headers),
        browser.patch("/api/v1/slots/chat", json={"pinned": True}, headers=headers),
        browser.delete("/api/v1/slots/chat", headers=headers),
    ):
        assert (await send).status_code == 403
    assert not slot_now(db).pinned


@pytest.mark.parametrize("headers", [OURS, {"Sec-Fetch-Site": "same-origin"}])
async def test_a_cookie_changes_what_its_user_asks_for_on_our_page(
    browser: httpx.AsyncClient, db: Database, writer: str, headers: dict[str, str]
) -> None:
    make_slot(db)
    await sign_in(browser, writer)
    done = await browser.post("/page/slots/chat/pin", headers=headers)
    assert (done.status_code, done.headers["location"]) == (303, "/#slot-chat")
    assert slot_now(db).pinned


async def test_a_header_speaks_for_a_request_whatever_cookie_comes_with_it(
    browser: httpx.AsyncClient, db: Database, writer: str
) -> None:
    make_slot(db)
    reader = made(db, "bob", Role.READER)
    await sign_in(browser, writer)
    for text, status in ((f"Bearer {reader}", 403), ("Bearer hal0_no", 401), ("", 401)):
        headers = {"Authorization": text, **OURS, "Accept": "*/*"}
        refused = await browser.post("/page/slots/chat/pin", headers=headers)
        assert refused.status_code == status, text
    assert not slot_now(db).pinned


async def test_a_program_with_a_header_needs_no_origin_though_it_keeps_a_cookie(
    browser: httpx.AsyncClient, db: Database, writer: str
) -> None:
    await sign_in(browser, writer)
    headers = {"Authorization": f"Bearer {writer}"}
    made_slot = await browser.post("/api/v1/slots", json={"name": "chat"}, headers=headers)
    assert made_slot.status_code == 201


async def test_a_readers_cookie_writes_nothing(browser: httpx.AsyncClient, db: Database) -> None:
    make_slot(db)
    await sign_in(browser, made(db, "bob", Role.READER))
    assert (await browser.get("/")).status_code == 200
    for path in ("/page/slots/chat/pin", "/page/retry", "/api/v1/slots/chat/load"):
        assert (await browser.post(path, headers=OURS)).status_code == 403
    assert not slot_now(db).pinned


async def test_a_clients_cookie_shows_nothing_of_the_page(
    browser: httpx.AsyncClient, db: Database
) -> None:
    await sign_in(browser, made(db, "app", Role.CLIENT))
    refused = await browser.get("/")
    assert refused.status_code == 403
    assert "needs the role reader" in refused.text


async def test_every_page_says_that_nothing_foreign_may_run_in_it_or_show_it(
    browser: httpx.AsyncClient, writer: str
) -> None:
    answers = [await browser.get("/"), await sign_in(browser, "no"), await sign_in(browser, writer)]
    answers += [await browser.get(path) for path in ("/", "/page/cards", "/page/slots/none")]
    for page in answers:
        if page.status_code == 303:
            continue
        policy = dict(
            rule.split(" ", 1) for rule in page.headers["content-security-policy"].split("; ")
        )
        nothing = dict.fromkeys(("default-src", "base-uri", "frame-ancestors"), "'none'")
        ours = ("script-src", "style-src", "img-src", "connect-src", "form-action")
        assert policy == {**nothing, **dict.fromkeys(ours, "'self'")}
        assert page.headers["x-content-type-options"] == "nosniff"
        assert page.headers["x-frame-options"] == "DENY"
        assert page.headers["cache-control"] == "no-store"
        assert page.headers["cross-origin-resource-policy"] == "same-origin"
        assert page.headers["referrer-policy"] == "same-origin"  # else a form's Origin is `null`


async def test_a_form_that_is_none_is_refused(browser: httpx.AsyncClient, writer: str) -> None:
    for content, kind, status in (
        (b"token=%ff", FORM, 422),
        (b"token=a&token=b", FORM, 422),
        (b"other=a", FORM, 422),
        (b'{"token": "x"}', {"Content-Type": "application/json"}, 422),
        (b"a" * (1 << 20) + b"b", FORM, 413),
    ):
        refused = await browser.post("/session", content=content, headers={**kind, **OURS})
        assert refused.status_code == status, content[:20]
        assert "set-cookie" not in refused.headers
