"""The page as it goes on by itself: what it draws anew, what it leaves alone, and what it says."""

import re
from collections.abc import Iterator
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from playwright.sync_api import Browser, Page, Route

from tests.acceptance.house import House
from tests.acceptance.page_house import close, page_house
from tests.browser import Visitor, chromium

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
ZONE = "Asia/Kathmandu"
EVENTS = "**/api/v1/events*"
ROWS = "[...document.querySelectorAll('#record tbody tr[id]')].map(row => row.id)"
GOES_ON = """where => {
    if (!window.one?.isConnected || !window.one.matches(where)) {
        window.one = document.querySelector(where);
        window.told = window.one?.textContent;
    }
    return window.one && window.one.textContent !== window.told;
}"""
"""Whether what stands there says something else by itself, not by being drawn anew."""
HIDE = """isHidden => {
    Object.defineProperty(document, 'hidden', {get: () => isHidden, configurable: true});
    document.dispatchEvent(new Event('visibilitychange'));
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with page_house(tmp_path_factory.mktemp("house")) as house:
        yield house


@pytest.fixture(scope="module")
def token(house: House) -> str:
    return close(house)


@pytest.fixture
def visitor(house: House, token: str, browser: Browser) -> Iterator[Visitor]:
    """Somebody in Kathmandu, who is signed in and sees that the page is live."""
    visitor = Visitor(browser, house.url, zone=ZONE)
    visitor.sign_in(token)
    visitor.see("#live", "live")
    yield visitor
    visitor.leave()
    assert visitor.complaints == []


def card(slot: str, state: str) -> str:
    return f"#slot-{slot}.{state}"


def pin(house: House, slot: str, *, is_pinned: bool = True) -> None:
    """Change a slot in a way that is no transition."""
    house.client.patch(f"/api/v1/slots/{slot}", json={"pinned": is_pinned}).raise_for_status()


def see_pinned(page: Page, slot: str, *, is_pinned: bool = True) -> None:
    page.wait_for_selector(f"#slot-{slot} .pinned", state="attached" if is_pinned else "detached")


def hold_back(page: Page, asked: str) -> list[Route]:
    """Let what is asked for there wait, in order, until it is let go."""
    held = list[Route]()

    def hold(route: Route) -> None:
        held.append(route)

    page.route(asked, hold)
    return held


def go_and_see_drawn_anew(visitor: Visitor, path: str, part: str) -> None:
    """Go there, and wait until the snapshot that comes first had this part drawn anew."""
    page = visitor.page
    held = hold_back(page, EVENTS)
    with page.expect_request(EVENTS):
        page.goto(visitor.url + path)
    page.evaluate("id => { window.old = document.getElementById(id); }", part)
    held[0].continue_()
    page.wait_for_function("() => !window.old.isConnected")
    page.unroute(EVENTS)


def rows_of(page: Page) -> list[str]:
    """Return the ids of the record's rows, newest first."""
    rows: list[str] = page.evaluate(ROWS)
    return rows


def see_newest(house: House, page: Page, table: str, prefix: str) -> None:
    """Wait until the record begins with the newest row of a table."""
    ((newest,),) = house.sql(f"SELECT max(id) FROM {table}")
    page.wait_for_function(f"id => {ROWS}[0] === id", arg=f"{prefix}-{newest}")


def test_whoever_pauses_it_sees_that_changes_wait_until_they_go_on(
    house: House, visitor: Visitor
) -> None:
    visitor.page.keyboard.press("p")
    visitor.see("#live", "paused")
    house.load("vision")
    house.wait_until("ready", "vision")
    visitor.see("#live", "paused, changes wait")
    assert visitor.page.locator(card("vision", "offline")).count() == 1
    visitor.page.keyboard.press("p")
    visitor.page.wait_for_selector(card("vision", "ready"))


def test_what_changed_before_events_came_is_shown_and_what_is_no_transition_too(
    house: House, token: str, browser: Browser
) -> None:
    visitor = Visitor(browser, house.url)
    page = visitor.page
    held = hold_back(page, EVENTS)
    visitor.sign_in(token)
    visitor.see("#live", "not live yet")
    assert page.locator("#slot-other .pinned").count() == 0
    pin(house, "other")
    held[0].continue_()
    see_pinned(page, "other")  # by the snapshot
    visitor.see("#live", "live")
    pin(house, "embed")
    see_pinned(page, "embed")  # by the event `slot`
    visitor.leave()
    assert visitor.complaints == []


def test_a_slots_own_page_is_live_too(house: House, visitor: Visitor) -> None:
    visitor.page.goto(f"{house.url}/page/slots/alone")
    pin(house, "alone")
    visitor.page.wait_for_selector("#main .pinned")  # by the snapshot, it may be
    pin(house, "alone", is_pinned=False)
    visitor.page.wait_for_selector("#main .pinned", state="detached")


def test_an_older_page_of_the_record_stays_what_it_is(house: House, visitor: Visitor) -> None:
    page = visitor.page
    go_and_see_drawn_anew(visitor, "/?tab=audit&before=4", "record")
    assert rows_of(page) == ["row-3", "row-2", "row-1"]


def test_what_is_typed_chosen_or_in_focus_stays_when_it_is_drawn_anew(
    house: House, visitor: Visitor
) -> None:
    page = visitor.page
    page.select_option("#model-of-loose", "spare")
    page.locator("#model-of-loose").blur()
    pin(house, "loose")
    see_pinned(page, "loose")
    assert page.input_value("#model-of-loose") == "spare"

    page.focus("#slot-spare >> text=Unload…")
    pin(house, "spare")
    see_pinned(page, "spare")
    assert page.evaluate("document.activeElement.pathname") == "/page/slots/spare/ask/unload"

    held = hold_back(page, "**/page/record*")
    page.fill("#filter", "slot:chat")
    page.wait_for_event("request", lambda request: "/page/record" in request.url)
    page.keyboard.type(" sta")
    held[0].continue_()
    page.wait_for_url("**filter=slot%3Achat*")
    assert page.input_value("#filter") == "slot:chat sta"
    assert page.evaluate("document.activeElement.id") == "filter"


def test_what_is_selected_opened_or_at_the_mark_is_left_alone_until_it_is_not(
    house: House, visitor: Visitor
) -> None:
    page = visitor.page
    page.evaluate("getSelection().selectAllChildren(document.querySelector('#slot-chat .what'))")
    pin(house, "chat")
    visitor.see("#live", "paused while you read")
    see_pinned(page, "chat", is_pinned=False)
    page.evaluate("getSelection().removeAllRanges()")
    see_pinned(page, "chat")
    visitor.see("#live", "live")

    pin(house, "embed")
    see_pinned(page, "embed")
    page.eval_on_selector("#slot-embed summary", "summary => summary.click()")
    pin(house, "embed", is_pinned=False)
    visitor.see("#live", "paused while you read")
    see_pinned(page, "embed")
    page.eval_on_selector("#slot-embed summary", "summary => summary.click()")
    see_pinned(page, "embed", is_pinned=False)

    page.keyboard.press("j")
    before = rows_of(page)
    house.load("loose", model="loose")
    visitor.see("#live", "paused while you read")
    house.wait_until("ready", "loose")
    assert rows_of(page) == before
    page.keyboard.press("Escape")
    see_newest(house, page, "jobs", "job")
    visitor.see("#live", "live")


def test_the_audit_follows_unless_it_is_told_not_to(house: House, visitor: Visitor) -> None:
    page = visitor.page
    page.click("#record >> text=Audit")
    page.wait_for_url("**tab=audit")
    page.uncheck("#follow")
    page.mouse.move(0, 0)
    before = rows_of(page)
    house.load("alone")
    house.wait_until("ready", "alone")
    visitor.see("#live", "paused while you read")
    assert rows_of(page) == before
    page.check("#follow")
    page.mouse.move(0, 0)
    see_newest(house, page, "transitions", "row")
    page.go_back()
    page.wait_for_selector("#record [aria-current] >> text=Jobs")
    assert rows_of(page)[0].startswith("job-")


def test_keys_move_choose_open_and_tell_what_they_do(house: House, visitor: Visitor) -> None:
    page, mark = visitor.page, "document.querySelector('tr.at')?.id"
    newest = rows_of(page)
    page.keyboard.press("?")
    visitor.see("#ask", "choose")
    page.keyboard.press("Escape")
    page.wait_for_selector("#ask", state="hidden")
    for key, row in (("j", newest[0]), ("j", newest[1]), ("j", newest[2]), ("k", newest[1])):
        page.keyboard.press(key)
        assert page.evaluate(mark) == row
    page.keyboard.press("x")
    assert page.locator("tr.at input").is_checked()
    visitor.see(".chosen", "Retry chosen")
    page.keyboard.press("x")
    page.keyboard.press("Escape")
    assert page.evaluate(mark) is None
    page.keyboard.press("j")
    page.keyboard.press("o")
    page.wait_for_url(f"**/page/jobs/{newest[0].removeprefix('job-')}")


def test_a_hidden_page_asks_for_nothing_and_goes_on_where_it_was(
    house: House, visitor: Visitor
) -> None:
    page = visitor.page
    page.evaluate(
        "Object.defineProperty(document, 'hidden', {get: () => true, configurable: true})"
    )
    pin(house, "vision")
    visitor.see("#live", "paused while you read")
    see_pinned(page, "vision", is_pinned=False)
    asked = list[str]()
    with page.expect_event("requestfailed", lambda request: "/events" in request.url):
        page.on("request", lambda request: asked.append(request.url))
        page.evaluate(HIDE, True)
    pin(house, "other", is_pinned=False)
    assert page.evaluate("document.hidden")
    assert asked == []
    with page.expect_request(EVENTS) as again:
        page.evaluate(HIDE, False)
    ((newest,),) = house.sql("SELECT max(id) FROM transitions")
    assert re.search(rf"last_event_id=[^&]+-{newest}$", again.value.url)
    see_pinned(page, "vision")


def test_what_changed_while_nothing_was_told_is_asked_for_afterwards(
    house: House, visitor: Visitor
) -> None:
    page = visitor.page
    page.evaluate(HIDE, True)
    page.route(EVENTS, lambda route: route.abort("connectionrefused"))
    page.evaluate(HIDE, False)
    visitor.see("#live", "stale since")
    pin(house, "vision", is_pinned=False)
    page.unroute(EVENTS)
    see_pinned(page, "vision", is_pinned=False)
    visitor.see("#live", "live")


def test_times_are_those_of_the_zone_and_go_on(visitor: Visitor) -> None:
    page = visitor.page
    told = page.locator("#slot-chat .why time")
    at = datetime.fromisoformat(str(told.get_attribute("datetime"))).astimezone(ZoneInfo(ZONE))
    assert str(told.text_content()).endswith(f"{at:%H:%M:%S}")
    assert "GMT+5:45" in str(told.get_attribute("title"))
    visitor.see(".who", "times are GMT+5:45")
    for form in ("ago", "left"):
        page.wait_for_function(GOES_ON, arg=f"#cards time[data-as={form}]")


def test_how_hal0_is_is_asked_for_again_and_again(visitor: Visitor) -> None:
    visitor.page.clock.install()
    go_and_see_drawn_anew(visitor, "/", "head")
    with visitor.page.expect_request("**/page/head"):
        visitor.page.clock.fast_forward(15_000)


def test_a_slot_that_is_deleted_leaves_the_page(house: House, visitor: Visitor) -> None:
    house.add_slot("brief", None)
    visitor.page.wait_for_selector("#slot-brief")
    go_and_see_drawn_anew(visitor, "/", "cards")
    house.client.delete("/api/v1/slots/brief").raise_for_status()
    visitor.page.wait_for_selector("#slot-brief", state="detached")


def test_who_is_let_in_no_longer_stands_at_the_door(
    house: House, token: str, browser: Browser
) -> None:
    guest = house.post("/api/v1/tokens", {"name": "guest", "role": "reader"})
    visitor = Visitor(browser, house.url)
    visitor.sign_in(str(guest["token"]))
    visitor.see("#live", "live")
    house.client.delete("/api/v1/tokens/guest").raise_for_status()
    visitor.page.evaluate("dispatchEvent(new PopStateEvent('popstate'))")  # the Back button
    visitor.see("main", "Sign in")
    visitor.leave()
