"""Ways to look at the page: completed, zoomed, sent by link, narrow, at night, without a script."""

from collections.abc import Iterator
from urllib.parse import quote

import pytest
from playwright.sync_api import Browser

from tests.acceptance.house import House
from tests.acceptance.page_house import close, page_house
from tests.browser import Scheme, Visitor, chromium

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
PLACES = {
    "page": "/",
    "failed": "/?filter=state:failed",
    "audit": "/?tab=audit",
    "incidents": "/?tab=incidents",
    "models": "/?tab=models",
    "slot": "/page/slots/embed",
    "job": "/page/jobs/2",
    "refused": "/page/slots/nobody",
    "setup": "/page/setup",
    "setup-slot": "/page/setup?slot=chat",
}
LOOKS: list[tuple[int, Scheme]] = [
    (360, "dark"),
    (1280, "light"),
    (3840, "light"),
    (3840, "dark"),
]
CUT = """[...document.querySelectorAll('.fault p, .warning, .work, .why')].filter(
    one => one.scrollHeight > one.clientHeight + 1).map(one => one.textContent)"""
"""What a card says, and shows a part of only."""


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
    visitor = Visitor(browser, house.url)
    yield visitor
    visitor.leave()


def card(slot: str, state: str) -> str:
    return f"#slot-{slot}.{state}"


def test_a_filter_is_completed_and_a_strip_is_zoomed_by_drawing_over_it(
    house: House, token: str, visitor: Visitor
) -> None:
    visitor.sign_in(token)
    visitor.see("#live", "live")
    page = visitor.page
    page.keyboard.press("/")
    page.keyboard.type("slot:chat sta")
    offered = "[...document.querySelectorAll('#terms option')].map(option => option.value)"
    assert "slot:chat state:failed" in page.evaluate(offered)
    page.keyboard.press("Escape")
    page.keyboard.press("p")  # nothing is drawn anew below the mouse
    visitor.see("#live", "paused")

    strip = page.locator("#slot-chat .strip svg")
    box = strip.bounding_box()
    assert box is not None
    y = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] * 0.5, y)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.9, y, steps=4)
    page.mouse.move(box["x"] + box["width"] + 9, y, steps=4)
    page.mouse.up()
    page.wait_for_url("**/page/slots/chat?from=*")
    visitor.see("#main", "load was sent to the engine")
    visitor.shoot("11-zoomed")
    assert visitor.complaints == []


def test_a_filter_that_somebody_sent_is_seen_by_who_is_signed_in(
    house: House, token: str, visitor: Visitor
) -> None:
    visitor.sign_in(token)
    link = f"{house.url}/?tab=audit&filter=slot:chat"
    visitor.page.goto(f"data:text/html,<a href='{quote(link, safe=':/')}'>look</a>")
    visitor.page.click("text=look")
    visitor.see("#record", "created")
    assert visitor.page.input_value("#filter") == "slot:chat"


def test_nothing_hangs_over_the_edge_of_a_telephone_or_a_screen_by_day_or_by_night(
    house: House, token: str, visitor: Visitor
) -> None:
    visitor.sign_in(token)
    for name, path in PLACES.items():
        visitor.page.goto(house.url + path)
        for width, scheme in LOOKS:
            visitor.look(width, scheme)
            assert visitor.width() <= width, (name, scheme, width)
            if width < 3840 or name == "page":
                visitor.shoot(f"{name}-{scheme}-{width}")
    visitor.page.goto(house.url)
    visitor.look(1280, "light")
    assert visitor.page.evaluate(CUT) == []


def test_without_a_script_everything_is_read_and_done_by_plain_forms(
    house: House, token: str, browser: Browser
) -> None:
    visitor = Visitor(browser, house.url, with_script=False)
    visitor.sign_in(token)
    page = visitor.page
    visitor.press("Unload…", card("spare", "ready"))
    visitor.see("main", "Unload spare?")
    visitor.press("Unload", "form")
    house.wait_until("offline", "spare")
    page.goto(f"{house.url}/?tab=audit")
    visitor.see("#record", "unload was asked for")
    page.click("text=Sign out")
    visitor.see("main", "Token")
    visitor.leave()
    assert visitor.complaints == []
