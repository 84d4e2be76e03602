"""What tests of the page have in common: rows to show, a browser without a script, its eyes."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from html.parser import HTMLParser
from typing import Final

import httpx
from sqlalchemy import select
from starlette.types import ASGIApp

from hal0.db import Database
from hal0.errors import ChecksumMismatch, Hal0Error
from hal0.jobs.incidents import record
from hal0.states import IncidentKind, JobState, Outcome
from hal0.tables import jobs
from tests.ledger import begin_validate, end, fail
from tests.rows import ask_load, claim_next, make_model, make_slot, run_load

BASE: Final = "http://127.0.0.1:13310"
HTML: Final = {"Accept": "text/html", "Origin": BASE}
FRAGMENT: Final = {"Hal0-Fragment": "yes"}


@asynccontextmanager
async def browser_of(app: ASGIApp) -> AsyncIterator[httpx.AsyncClient]:
    """Be somebody on this machine, while there is no token."""
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url=BASE, headers=HTML) as client:
        yield client


def furnish(db: Database) -> None:
    """Make three slots: one ready, one in error by job 6, one whose load waits; and an incident."""
    for slot in ("chat", "broken", "waiting"):
        make_model(db, f"of-{slot}", source=f"https://example.org/{slot}.gguf")
        make_slot(db, slot, f"of-{slot}")
    ask_load(db, "chat")
    run_load(db)
    break_files(db, ChecksumMismatch("bad bytes", evidence={"found": "41ab"}))
    ask_load(db, "waiting")
    with db.write() as tx:
        record(tx, 1, IncidentKind.ENGINE_RESTARTED, "the engine is another process")


def break_files(db: Database, error: Hal0Error, slot: str = "broken") -> None:
    """Let the validation of a load fail."""
    ask_load(db, slot)
    end(db, claim_next(db), Outcome.SKIPPED)
    held = claim_next(db)
    begin_validate(db, held)
    fail(db, held, error)


def failed_job(db: Database) -> int:
    """Return the one job that failed."""
    with db.read() as tx:
        failed = select(jobs.c.id).where(jobs.c.state == JobState.FAILED)
        return int(tx.execute(failed).scalar_one())


class Tags(HTMLParser):
    """Which tags with which attributes a document has."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take a tag down."""
        self.found.append((tag, dict(attrs)))

    def of(self, tag: str) -> list[dict[str, str | None]]:
        """Return the attributes of each tag of this name."""
        return [attributes for one, attributes in self.found if one == tag]


class Reader(HTMLParser):
    """What somebody reads of a document, or of the part of it with an id: words, one space between.

    A link or a button stands in brackets: `[Retry all…]`.
    """

    EMPTY: Final = frozenset({"meta", "link", "input", "br", "img"})
    UNSEEN: Final = frozenset({"title", "datalist", "option", "symbol"})
    PRESSED: Final = frozenset({"a", "button"})
    WITHIN_WORDS: Final = frozenset({"time", "b", "code", "kbd"})

    def __init__(self, text: str, part: str | None = None) -> None:
        super().__init__()
        self._part, self._inside = part, part is None
        self._open: list[str] = []
        self._until = 0
        self._said: list[str] = []
        self.feed(text)

    @property
    def words(self) -> str:
        """What there is to read."""
        return " ".join("".join(self._said).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Go into an element."""
        if tag in self.EMPTY:
            return
        if self._part is not None and ("id", self._part) in attrs:
            self._inside, self._until = True, len(self._open)
        self._open.append(tag)
        self._part_from(tag, " [")

    def handle_endtag(self, tag: str) -> None:
        """Leave an element."""
        if tag in self.EMPTY:
            return
        self._part_from(tag, "]")
        assert self._open.pop() == tag, f"{tag} is closed, and was not open"
        if self._part is not None and len(self._open) == self._until:
            self._inside = False

    def handle_data(self, data: str) -> None:
        """Read."""
        self._say(data)

    def _part_from(self, tag: str, edge: str) -> None:
        if tag not in self.WITHIN_WORDS:
            self._say(edge if tag in self.PRESSED else " ")

    def _say(self, text: str) -> None:
        if self._inside and not self.UNSEEN.intersection(self._open):
            self._said.append(text)


def words_of(text: str, part: str | None = None) -> str:
    """Return what somebody reads of a document, or of the part of it with this id."""
    return Reader(text, part).words
