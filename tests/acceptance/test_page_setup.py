"""A newcomer's first minutes at the page: from no slot to an answer and a token, in a browser."""

from pathlib import Path

import pytest

from tests.acceptance.house import House
from tests.browser import Visitor, chromium
from tests.fakes.lemond import Lemond
from tests.fakes.source.hub import Hub
from tests.tiny_gguf import write_tiny_gguf

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
STARTERS = """
[[starter]]
name = "tiny"
about = "to see that all works"
parameters = "1M"
licence = "Apache-2.0"
source = "hf://org/repo/tiny.gguf"
"""


def test_a_newcomer_walks_from_no_slot_to_an_answer_and_a_token(
    tmp_path: Path, lemond: Lemond
) -> None:
    pytest.importorskip("huggingface_hub", reason="the extra `hub` is missing")
    starters = tmp_path / "starters.toml"
    starters.write_text(STARTERS)
    model = write_tiny_gguf(tmp_path / "tiny.gguf")
    with Hub() as hub, chromium() as browser:
        commit = hub.commit("org/repo", {"tiny.gguf": model.read_bytes()})
        env = {"HAL0_HUB_ENDPOINT": hub.origin, "HAL0_STARTERS_FILE": str(starters)}
        with House(tmp_path, lemond.url, **env) as house:
            house.start_api()
            house.start_worker()
            visitor = Visitor(browser, house.url)
            _look(visitor)
            _agree(visitor, commit)
            _say_hello(visitor)
            _close(visitor)
            visitor.leave()
            assert visitor.complaints == []
            assert house.client.get("/api/v1/slots").status_code == 401


def _look(visitor: Visitor) -> None:
    page = visitor.page
    page.goto(visitor.url)
    visitor.see("#cards", "Nobody has looked at it yet")
    visitor.shoot("setup-1-new")
    page.click("text=Look at it")
    visitor.see("#machine", "GiB free")
    visitor.see("#engine", "answers")
    visitor.shoot("setup-2-machine")


def _agree(visitor: Visitor, commit: str) -> None:
    page = visitor.page
    page.click("[aria-label='Choose tiny']")
    visitor.see("main", commit)
    visitor.see("main", "available")
    visitor.shoot("setup-3-model")
    page.click("text=Fetch it and load it")
    page.wait_for_url("**/page/setup?slot=chat")
    page.wait_for_selector("#slot-chat.ready")
    visitor.see("#slot-chat", "loaded")


def _say_hello(visitor: Visitor) -> None:
    visitor.page.click("text=Ask chat")
    visitor.see("#said", "word3")
    visitor.shoot("setup-4-hello")
    visitor.look(360, "dark")
    assert visitor.width() <= 360
    visitor.shoot("setup-4-hello-dark-360")
    visitor.look(1280, "light")


def _close(visitor: Visitor) -> None:
    page = visitor.page
    page.click("text=Make a token")
    visitor.see(".secret", "hal0_")
    visitor.shoot("setup-5-token")
    page.click("text=Done")
    page.wait_for_selector("#slot-chat")
    visitor.see(".who", "me · writer")
