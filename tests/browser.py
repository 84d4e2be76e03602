"""A real browser, as people use the page: Debian's Chromium without a window, driven by Playwright.

Pictures of what it shows are put where people look at them: `.cache/screenshots`.
"""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

SHOTS = Path(__file__).parents[1] / ".cache" / "screenshots"
LIMIT_MS = 40_000
Scheme = Literal["light", "dark"]
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
"""It asks nobody but the server that a test names."""
EXPECTED = ("401 (Unauthorized)", "Password forms should", "ERR_CONNECTION", "ERR_INCOMPLETE")
"""What Chromium tells of a visit that is not signed in, and of a server that is gone."""


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start a browser; skips where there is none."""
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("there is no chromium here; `make test` installs it on Debian")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=QUIET)
        yield browser
        browser.close()


class Visitor:
    """One person at one browser; `complaints` is what its console said that nobody expects."""

    def __init__(
        self, browser: Browser, url: str, *, with_script: bool = True, zone: str = "UTC"
    ) -> None:
        self.url = url
        self.context: BrowserContext = browser.new_context(
            viewport={"width": 1280, "height": 960},
            java_script_enabled=with_script,
            timezone_id=zone,
        )
        self.page: Page = self.context.new_page()
        self.page.set_default_timeout(LIMIT_MS)
        self.complaints: list[str] = []
        self.page.on("console", lambda said: self._note(said.text))
        self.page.on("pageerror", lambda error: self._note(str(error)))

    def _note(self, text: str) -> None:
        if not any(known in text for known in EXPECTED):
            self.complaints.append(text)

    def sign_in(self, token: str) -> None:
        """Come in by the door."""
        self.page.goto(self.url)
        self.page.fill("#token", token)
        self.page.click("text=Sign in")
        self.page.wait_for_selector("#cards")

    def see(self, selector: str, text: str) -> None:
        """Wait until a part of the page has this text."""
        self.page.locator(selector, has_text=text).first.wait_for()

    def press(self, label: str, within: str = "body") -> None:
        """Click on the button, or the link, that says this and no more."""
        says = re.compile(rf"^\s*{re.escape(label)}\s*$")
        self.page.locator(within).locator("button, a").filter(has_text=says).click()

    def look(self, width: int, scheme: Scheme, height: int = 960) -> None:
        """Take a window of this size, by day or by night."""
        self.page.set_viewport_size({"width": width, "height": height})
        self.page.emulate_media(color_scheme=scheme)

    def shoot(self, name: str) -> None:
        """Keep a picture of what is seen now."""
        SHOTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=SHOTS / f"{name}.png", full_page=True)

    def width(self) -> int:
        """Return how wide the document is, what hangs over the edge too."""
        wide: Any = self.page.evaluate("document.documentElement.scrollWidth")
        return int(wide)

    def leave(self) -> None:
        """Close the window."""
        self.context.close()
