"""The audit as a file: every row, in order, whatever is written meanwhile."""

import asyncio
import csv
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from sqlalchemy import event
from starlette.applications import Starlette
from starlette.types import Message

from hal0.api import exports
from hal0.api.views import transition_json
from hal0.db import Database
from hal0.slots.audit import AuditFilter, audit_page
from hal0.slots.queries import slot_named
from hal0.slots.transitions import Act, move
from hal0.states import Cause, SlotState
from tests.apis import LIMIT_S
from tests.documented import document_of
from tests.rows import ask_load, make_model, make_slot, run_load

pytestmark = pytest.mark.anyio


@pytest.fixture
def busy(db: Database) -> Database:
    """A slot that served so often that its rows fill some pages."""
    make_model(db, "tiny")
    make_slot(db, "chat", "tiny")
    make_slot(db, "other")
    ask_load(db)
    run_load(db)
    serve(db, exports.ROWS)
    return db


def serve(db: Database, times: int) -> None:
    """Let requests come and go."""
    with db.soft() as tx:
        for _ in range(times):
            for to, cause in (
                (SlotState.SERVING, Cause.REQUEST_STARTED),
                (SlotState.READY, Cause.REQUESTS_DONE),
            ):
                move(tx, slot_named(tx, "chat"), to, cause, Act("dispatcher"))


def rows_of(db: Database) -> list[Any]:
    with db.read() as tx:
        return [transition_json(row) for row in audit_page(tx, AuditFilter(), limit=10_000)]


async def test_every_row_is_a_line_of_json_in_order(api: httpx.AsyncClient, busy: Database) -> None:
    answer = await api.get("/api/v1/transitions.ndjson")
    assert answer.headers["content-disposition"] == 'attachment; filename="hal0-audit.ndjson"'
    assert [json.loads(line) for line in answer.text.splitlines()] == rows_of(busy)
    assert len(rows_of(busy)) > 2 * exports.ROWS


async def test_every_row_is_a_row_of_a_table_under_the_names_of_its_fields(
    api: httpx.AsyncClient, busy: Database
) -> None:
    answer = await api.get("/api/v1/transitions.csv")
    told = list(csv.DictReader(io.StringIO(answer.text)))
    expected = rows_of(busy)
    assert list(told[0]) == list(expected[0])
    assert [int(row["id"]) for row in told] == [row["id"] for row in expected]
    with_evidence = next(row for row in told if row["evidence"])
    assert isinstance(json.loads(with_evidence["evidence"]), dict)


async def test_a_filter_exports_what_it_shows(api: httpx.AsyncClient, busy: Database) -> None:
    answer = await api.get("/api/v1/transitions.ndjson", params={"filter": "slot:chat state:ready"})
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert {(row["slot"], row["to"]) for row in lines} == {("chat", "ready")}
    assert len(lines) == exports.ROWS + 1
    refused = await api.get("/api/v1/transitions.csv", params={"filter": "x"})
    assert (refused.status_code, refused.json()["code"]) == (422, "request.invalid")
    unknown = await api.get("/api/v1/transitions.csv", params={"filter": "slot:nobody"})
    assert unknown.status_code == 404


async def test_a_filter_may_be_as_long_as_the_document_says(
    api: httpx.AsyncClient, app: Starlette, db: Database
) -> None:
    make_slot(db, "chat")
    paths = ("/api/v1/transitions.ndjson", "/api/v1/transitions.csv")
    for path in paths:
        (told,) = document_of(app).tree["paths"][path]["get"]["parameters"]
        longest = "slot:chat".ljust(told["schema"]["maxLength"])
        for text, status in ((longest, 200), (f"{longest} ", 422)):
            answer = await api.get(path, params={"filter": text})
            assert answer.status_code == status, len(text)


@pytest.mark.parametrize(
    "text", ["=1+1", "+1", "-1", "@SUM(A1)", "'=1", "1=1", 'a,"b"', "a;=1+1", "a;;'@b;'", "a\t+1;b"]
)
async def test_no_cell_is_a_formula_and_what_it_says_can_be_had_back(
    api: httpx.AsyncClient, db: Database, text: str
) -> None:
    make_slot(db, "chat")
    with db.soft() as tx:
        act = Act("dispatcher", request_id=text)
        move(tx, slot_named(tx, "chat"), SlotState.STARTING, Cause.CHECKED, act)
    answer = await api.get("/api/v1/transitions.csv")
    cell = list(csv.DictReader(io.StringIO(answer.text)))[-1]["request_id"]
    assert not any(part.startswith(("=", "+", "-", "@")) for part in re.split("[;\t]", cell))
    assert re.sub("(^|[;\t])'", r"\1", cell) == text
    line = (await api.get("/api/v1/transitions.ndjson")).text.splitlines()[-1]
    assert json.loads(line)["request_id"] == text


async def test_evidence_has_no_formula_behind_a_semicolon_and_is_read_as_it_is(
    api: httpx.AsyncClient, db: Database
) -> None:
    make_slot(db, "chat")
    evidence = {"detail": "no;=1+1;-2;'@3"}
    with db.soft() as tx:
        act = Act("dispatcher")
        move(tx, slot_named(tx, "chat"), SlotState.STARTING, Cause.CHECKED, act, evidence)
    answer = await api.get("/api/v1/transitions.csv")
    cell = list(csv.DictReader(io.StringIO(answer.text)))[-1]["evidence"]
    assert not any(part.startswith(("=", "+", "-", "@")) for part in cell.split(";"))
    assert json.loads(cell) == evidence


async def test_words_of_an_engine_that_are_no_utf_8_break_nothing_off(
    api: httpx.AsyncClient, db: Database
) -> None:
    make_slot(db, "chat")
    with db.soft() as tx:
        evidence = {"detail": "bad \ud800\n\u2028 end"}
        slot, act = slot_named(tx, "chat"), Act("scan")
        move(tx, slot, SlotState.STARTING, Cause.CHECKED, act, evidence=evidence)
    lines = (await api.get("/api/v1/transitions.ndjson")).text.split("\n")
    assert json.loads(lines[-2])["evidence"] == evidence
    table = csv.DictReader(io.StringIO((await api.get("/api/v1/transitions.csv")).text))
    assert json.loads(list(table)[-1]["evidence"]) == evidence


@dataclass
class Download:
    """One who asks for a file, takes `parts` of it, and then leaves or takes no more for now."""

    app: Starlette
    parts: int
    leaves: bool
    bodies: list[bytes] = field(default_factory=list)
    had_enough: asyncio.Event = field(default_factory=asyncio.Event)
    goes_on: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        """Ask, until the server is done."""
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},  # as uvicorn says
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": "/api/v1/transitions.ndjson",
            "raw_path": b"/api/v1/transitions.ndjson",
            "root_path": "",
            "query_string": b"",
            "headers": [(b"host", b"127.0.0.1:13310")],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 13310),
        }
        await self.app(scope, self._receive, self._send)

    async def _receive(self) -> Message:
        await (self.had_enough if self.leaves else asyncio.Event()).wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        self.bodies += [message["body"]] if message.get("body") else []
        if len(self.bodies) == self.parts:
            self.had_enough.set()
            if not self.leaves:
                await self.goes_on.wait()


@pytest.fixture
def pages(app: Starlette) -> Iterator[list[str]]:
    """The pages of rows that were read."""
    read: list[str] = []

    def note(_c: object, _cursor: object, text: str, *_more: object) -> None:
        if "FROM transitions" in text and "LIMIT" in text:
            read.append(text)

    event.listen(app.state.db._readers, "before_cursor_execute", note)
    yield read
    event.remove(app.state.db._readers, "before_cursor_execute", note)


async def test_no_page_is_read_ahead_of_one_who_takes_his_time(
    app: Starlette, busy: Database, pages: list[str]
) -> None:
    download = Download(app, parts=1, leaves=False)
    asking = asyncio.ensure_future(download.run())
    await asyncio.wait_for(download.had_enough.wait(), LIMIT_S)
    await asyncio.sleep(0.2)
    assert (len(pages), len(download.bodies)) == (1, 1)
    download.goes_on.set()
    await asyncio.wait_for(asking, LIMIT_S)
    assert len(pages) == len(download.bodies) > 2


async def test_what_is_written_meanwhile_is_not_in_it(app: Starlette, busy: Database) -> None:
    before = rows_of(busy)
    download = Download(app, parts=1, leaves=False)
    asking = asyncio.ensure_future(download.run())
    await asyncio.wait_for(download.had_enough.wait(), LIMIT_S)
    serve(busy, 1)
    download.goes_on.set()
    await asyncio.wait_for(asking, LIMIT_S)
    rows = b"".join(download.bodies).splitlines()
    assert [json.loads(row) for row in rows] == before != rows_of(busy)


async def test_nothing_more_is_read_for_one_who_has_left(
    app: Starlette, busy: Database, pages: list[str]
) -> None:
    serve(busy, exports.ROWS)
    download = Download(app, parts=1, leaves=True)
    await asyncio.wait_for(download.run(), LIMIT_S)
    assert len(pages) <= 2 < len(rows_of(busy)) / exports.ROWS - 1


async def test_nothing_to_export_is_a_head_alone(api: httpx.AsyncClient) -> None:
    assert (await api.get("/api/v1/transitions.ndjson")).text == ""
    assert (await api.get("/api/v1/transitions.csv")).text == ",".join(exports.COLUMNS) + "\n"
