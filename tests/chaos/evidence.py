"""The three things that a checker may read: the database, the client's log, the engine's call log.

The client's log is NDJSON with two lines a request, which belong together by (client, n). A request
whose second line is missing got no answer: what became of it, nobody was told.

    {"client", "n", "at", "phase": "asked", "method", "path", "body"}
    {"client", "n", "at", "phase": "answered", "status", "body"}

The engine's is that of `hal0/embedded/call_log.py`, with the lines `opened` of the fake: which
bytes a backend read.
"""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

Json = dict[str, Any]
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """A request of the client and what it was told; `status` None = nothing."""

    method: str
    path: str
    asked: Any
    status: int | None = None
    body: Any = None

    @property
    def is_success(self) -> bool:
        """Whether the client was told that it is done."""
        return self.status is not None and 200 <= self.status < 300

    def objects(self) -> Iterator[Json]:
        """Yield every JSON object that a successful answer shows, however deep it lies."""
        if self.is_success:
            yield from _objects(self.body)


def _objects(value: Any) -> Iterator[Json]:
    if isinstance(value, dict):
        yield value
        for inner in value.values():
            yield from _objects(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _objects(inner)


@dataclass(frozen=True, slots=True)
class LoadCall:
    """One `POST /v1/load` as the engine saw it; `ended_ms` None = the engine died under it."""

    model: str
    pid: int
    at: str
    began_ms: int
    ended_ms: int | None
    status: int | None
    opened: tuple[Json, ...]
    """Which bytes the backend read: `{"path", "sha256", "identity"}`."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """Where the three lie."""

    database: Path
    answers: Path
    calls: Path

    def rows(self, query: str, *values: Any) -> list[Row]:
        """Read the database as anyone can."""
        with closing(sqlite3.connect(self.database, timeout=10)) as connection:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute(query, values)]

    def told(self) -> list[Answer]:
        """Return every request with its answer, in the order in which they were asked."""
        asked: dict[tuple[str, int], Answer] = {}
        for line in _lines(self.answers):
            key = (line["client"], line["n"])
            if line["phase"] == "asked":
                asked[key] = Answer(line["method"], line["path"], line["body"])
            else:
                asked[key] = replace(asked[key], status=line["status"], body=line["body"])
        return list(asked.values())

    def loads(self) -> list[LoadCall]:
        """Return every load that hal0 asked the engine for, oldest first.

        A test that asks past hal0, as a person in the engine's own app, says so: `"by"`.
        """
        lines = _lines(self.calls)
        ends = {(x["pid"], x["call"]): x for x in lines if x["phase"] == "end"}
        begins = [x for x in lines if x["phase"] == "begin" and x["path"].endswith("/load")]
        begins = [x for x in begins if "by" not in x["body"]]
        opened = [x for x in lines if x["phase"] == "opened"]
        return [_load_call(x, ends.get((x["pid"], x["call"])), opened) for x in begins]


def _load_call(begin: Json, end: Json | None, opened: list[Json]) -> LoadCall:
    model = str(begin["body"]["model_name"]).removeprefix("extra.")
    ended_ms = None if end is None else int(end["mono_ms"])
    return LoadCall(
        model=model,
        pid=begin["pid"],
        at=begin["at"],
        began_ms=begin["mono_ms"],
        ended_ms=ended_ms,
        status=None if end is None else end["status"],
        opened=tuple(
            x
            for x in opened
            if (x["pid"], x["model"]) == (begin["pid"], model)
            and begin["mono_ms"] <= x["mono_ms"]
            and (ended_ms is None or x["mono_ms"] <= ended_ms)
        ),
    )


def _lines(path: Path) -> list[Json]:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
