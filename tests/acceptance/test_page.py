"""An operator's evening at the page, in a real browser over real processes."""

import csv
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.acceptance.house import House
from tests.browser import Visitor, chromium
from tests.fakes.lemond import Lemond

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def token(house: House, lemond: Lemond) -> str:
    """Three slots, of which nothing is loaded; a writer's token, which closes the house."""
    lemond.script(max_loaded_models=-1)
    house.start_api()
    house.start_worker()
    for slot, model in (("chat", "tiny"), ("embed", "other"), ("vision", "third")):
        house.add_model(model, seed=len(slot))
        house.add_slot(slot, model)
    text = str(house.post("/api/v1/tokens", {"name": "laptop", "role": "writer"})["token"])
    house.client.headers["Authorization"] = f"Bearer {text}"
    return text


@pytest.fixture
def visitor(house: House, token: str, browser: Browser) -> Iterator[Visitor]:
    visitor = Visitor(browser, house.url)
    yield visitor
    visitor.leave()


def card(slot: str, state: str) -> str:
    return f"#slot-{slot}.{state}"


def test_an_operator_sees_a_load_live_mends_a_broken_file_and_loses_no_row(
    house: House, lemond: Lemond, token: str, visitor: Visitor, tmp_path: Path
) -> None:
    page = visitor.page
    page.goto(house.url)
    page.fill("#token", "hal0_" + "x" * 43)
    page.click("text=Sign in")
    visitor.see(".problem", "This token is not valid")
    visitor.shoot("1-door")
    visitor.sign_in(token)
    visitor.see("#live", "live")
    page.evaluate("window.isTheSamePage = true")

    _load_chat_live(lemond, visitor)
    _see_the_next_load_go_on(house, lemond, visitor)
    _break_and_mend_embed(house, visitor)
    _suffer_an_incident(house, lemond, visitor)
    _filter_and_export(house, visitor, tmp_path)
    _lose_the_server(house, visitor)

    assert page.evaluate("window.isTheSamePage") is True  # all of it without loading it anew
    assert visitor.complaints == []


def _load_chat_live(lemond: Lemond, visitor: Visitor) -> None:
    lemond.script(models={"tiny": {"load": "hang"}})
    visitor.press("Load", card("chat", "offline"))
    visitor.see("#notices", "chat: load asked for, job")
    visitor.see(card("chat", "warming"), "load was sent to the engine, asked for by laptop")
    visitor.shoot("2-warming")
    lemond.script(models={"tiny": {"load": "ok"}})
    visitor.see(card("chat", "ready"), "loaded, asked for by laptop")
    visitor.shoot("3-ready")


def _see_the_next_load_go_on(house: House, lemond: Lemond, visitor: Visitor) -> None:
    house.post("/api/v1/slots/chat/unload", {"drain_timeout_s": 0})
    lemond.script(models={"tiny": {"load": "hang"}})
    visitor.press("Load", card("chat", "offline"))
    visitor.page.wait_for_selector(f"{card('chat', 'warming')} .progress[data-began]")
    visitor.page.wait_for_function(
        "() => { const bar = document.querySelector('#slot-chat .progress');"
        "  if (bar === null) return false;"
        "  const width = +bar.querySelector('.done').getAttribute('width');"
        "  if (bar !== window.bar) [window.bar, window.begun] = [bar, width];"
        "  return width > window.begun; }"
    )
    lemond.script(models={"tiny": {"load": "ok"}})
    visitor.page.wait_for_selector(card("chat", "ready"))


def _break_and_mend_embed(house: House, visitor: Visitor) -> None:
    file = house.sources / "other.gguf"
    good = file.read_bytes()
    file.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    visitor.press("Load", card("embed", "offline"))
    visitor.see(card("embed", "error"), "preload.checksum_mismatch")
    visitor.page.click(f"{card('embed', 'error')} >> text=evidence")
    visitor.see(card("embed", "error"), "expected")
    visitor.shoot("4-refused")
    visitor.page.click(f"{card('embed', 'error')} >> text=evidence")
    assert house.slot("chat")["state"] == "ready"
    file.write_bytes(good)
    visitor.press("Load again", card("embed", "error"))
    visitor.see(card("embed", "ready"), "loaded")
    visitor.shoot("5-mended")


def _suffer_an_incident(house: House, lemond: Lemond, visitor: Visitor) -> None:
    lemond.script(models={"third": {"load_fail": "llama-server failed to start"}})
    visitor.page.click("#record >> text=Incidents")
    visitor.see("#record", "Nothing happened at an engine")
    house.load("vision")
    visitor.see("#alerts", "Incident 1")
    visitor.see("#record tbody", "vision")
    visitor.see(card("vision", "error"), "llama-server failed to start")
    for slot in ("chat", "embed"):
        visitor.page.wait_for_selector(f"{card(slot, 'ready')}, {card(slot, 'idle')}")
    visitor.shoot("6-incident")
    visitor.page.click("#alerts >> text=Acknowledge")
    visitor.page.wait_for_selector(".alert", state="detached")
    visitor.page.mouse.move(0, 0)
    visitor.see("#record tbody", "laptop")
    visitor.page.click("#record >> text=Jobs")
    visitor.page.wait_for_selector("#record[data-tab=jobs]")


def _filter_and_export(house: House, visitor: Visitor, tmp_path: Path) -> None:
    page = visitor.page
    page.mouse.move(0, 0)
    page.keyboard.press("/")
    page.wait_for_selector("#filter:focus")
    page.keyboard.type("state:failed slot:vision")
    page.wait_for_url("**filter=state%3Afailed+slot%3Avision")
    page.wait_for_function("document.querySelectorAll('#record tbody tr[id]').length === 1")
    visitor.shoot("7-filter")
    page.keyboard.press("Escape")
    page.keyboard.press("j")
    page.keyboard.press("r")
    visitor.see("#ask", "Retry 1 job?")
    visitor.shoot("8-ask")
    page.click("#ask >> text=Leave them")
    page.keyboard.press("Escape")
    page.click("#record >> text=Audit")
    page.wait_for_url("**tab=audit")
    with page.expect_download() as download:
        page.click("#record >> text=CSV")
    download.value.save_as(tmp_path / "audit.csv")
    with (tmp_path / "audit.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(int(row["id"]),) for row in rows] == house.sql(
        "SELECT id FROM transitions ORDER BY id"
    )


def _lose_the_server(house: House, visitor: Visitor) -> None:
    page = visitor.page
    page.mouse.move(0, 0)
    api = house.processes[0]
    api.send_signal(signal.SIGKILL)
    api.wait(30)
    visitor.see("#live", "stale since")
    visitor.shoot("9-stale")
    house.start_api()
    visitor.see("#live", "live")
    house.post("/api/v1/slots/chat/unload", {"drain_timeout_s": 0})
    visitor.see(card("chat", "offline"), "unloaded, asked for by laptop")
    house.wait_settled()
    newest = house.sql("SELECT id FROM transitions ORDER BY id DESC LIMIT 50")
    expected = [f"row-{row_id}" for (row_id,) in newest]
    page.wait_for_function(
        "ids => JSON.stringify(ids) === JSON.stringify("
        "[...document.querySelectorAll('#record tbody tr')].map(row => row.id))",
        arg=expected,
    )
    visitor.shoot("10-back")
