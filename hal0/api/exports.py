"""The audit as a file: every row that a filter lets through, oldest first, however many.

Rows are read in pages, each a short read of its own, and sent as they come: neither a long read
holds back SQLite's log, nor is more than a page in memory. What is written meanwhile is not in it.

Anyone who may ask for inference chooses the id of his request, and rows keep it. A spreadsheet runs
a cell that looks like a formula, so in a table such text, and text that begins with an apostrophe,
has one apostrophe more before it: who takes that away has what the row says. One that separates by
semicolons or tabs begins a cell behind each of them, so the same holds there.
"""

import csv
import io
import json
import re
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import Any, Final

from sqlalchemy import Connection, func, select
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from hal0.api import exchange, views
from hal0.api.answers import Transition
from hal0.api.schemas import ExportQuery
from hal0.jobs.filters import audit_filter
from hal0.slots.audit import AuditFilter, AuditRow, audit_page
from hal0.tables import transitions

ROWS: Final = 500
"""So many rows are read and sent at once."""

FORMULA: Final = re.compile(r"(?:^|(?<=[;\t\r\n]))(?=[-=+@'])")
"""Where a cell begins that is not taken at its word."""
FORMULA_IN_JSON: Final = re.compile(r"(?<=;)[-=+@]")

COLUMNS: Final = tuple(Transition.__annotations__)


async def export_ndjson(request: Request) -> Response:
    """Return all rows of the audit that fit, one JSON object a line."""
    return await _exported(request, "application/x-ndjson", "", _lines)


async def export_csv(request: Request) -> Response:
    """Return all rows of the audit that fit, as a table with a head."""
    return await _exported(request, "text/csv; charset=utf-8", _table([COLUMNS]), _cells)


async def _exported(
    request: Request, media_type: str, head: str, form: Callable[[Sequence[AuditRow]], str]
) -> Response:
    text = exchange.query_of(request, ExportQuery).filter

    def begin(tx: Connection) -> tuple[AuditFilter, int]:
        newest = tx.execute(select(func.max(transitions.c.id))).scalar_one()
        return audit_filter(tx, text), newest or 0

    wanted, newest = await exchange.read(request, begin)
    ending = "csv" if head else "ndjson"
    headers = {
        "Cache-Control": "no-store",
        "Content-Disposition": f'attachment; filename="hal0-audit.{ending}"',
        "X-Content-Type-Options": "nosniff",
    }
    pages = _pages(request, wanted, newest)
    return StreamingResponse(_texts(head, pages, form), headers=headers, media_type=media_type)


async def _texts(
    head: str,
    pages: AsyncIterator[Sequence[AuditRow]],
    form: Callable[[Sequence[AuditRow]], str],
) -> AsyncIterator[bytes]:
    if head:
        yield head.encode()
    async for rows in pages:
        yield form(rows).encode(errors="backslashreplace")  # an engine's words may be no UTF-8


async def _pages(
    request: Request, wanted: AuditFilter, newest: int
) -> AsyncIterator[Sequence[AuditRow]]:
    behind: int | None = None
    while True:
        look = partial(audit_page, wanted=wanted, limit=ROWS, behind=behind)
        found = await exchange.read(request, look)
        rows = [row for row in found if row.id <= newest]
        if rows:
            yield rows
        if len(rows) < ROWS:
            return
        behind = rows[-1].id


def _lines(rows: Sequence[AuditRow]) -> str:
    shown = (json.dumps(views.transition_json(row), ensure_ascii=False) for row in rows)
    return "".join(f"{line}\n" for line in shown)


def _cells(rows: Sequence[AuditRow]) -> str:
    return _table([[_cell(value) for value in views.transition_json(row).values()] for row in rows])


def _cell(value: Any) -> Any:
    if isinstance(value, dict):
        text = json.dumps(value, ensure_ascii=False)
        return FORMULA_IN_JSON.sub(lambda sign: f"\\u{ord(sign[0]):04x}", text)
    return FORMULA.sub("'", value) if isinstance(value, str) else value


def _table(rows: Sequence[Sequence[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


ROUTES = [
    Route("/api/v1/transitions.ndjson", export_ndjson, methods=["GET"]),
    Route("/api/v1/transitions.csv", export_csv, methods=["GET"]),
]
