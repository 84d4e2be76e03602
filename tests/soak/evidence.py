"""What a soak leaves: the clients' log, the recorder's log, and the rows; read once, as values.

The clients write a line for each request when it is over:

    {"id", "name", "sent_at", "ended_at", "how": "whole|error_event|torn|cut|left|hung",
     "status", "code", "detail", "retry_after", "sha256"}

`name` is the slot or the model asked for. `how` is what became of it: `left` if the client left of
its own will, `torn` if the answer came to an end in the middle, `cut` if the connection broke. The
recorder's lines are described there.
"""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, Self

END: Final = datetime.max.replace(tzinfo=UTC)
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Violation:
    """One rule that does not hold, and where."""

    rule: str
    what: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.what}"


@dataclass(frozen=True, slots=True)
class Asked:
    """One request as its client saw it."""

    id: str
    name: str
    sent_at: datetime
    ended_at: datetime
    how: str
    status: int | None = None
    code: str | None = None
    detail: str | None = None
    retry_after: str | None = None
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class Seat:
    """A slot that held a model when a request for it reached the engine, as the rows said then."""

    slot: str
    state: str
    cause: str
    generation: int
    leases: int


@dataclass(frozen=True, slots=True)
class Forwarded:
    """One request as it reached the engine."""

    id: str
    model: str
    began_at: datetime
    ended_at: datetime
    how: str
    status: int | None
    sha256: str | None
    held: tuple[Seat, ...]

    @property
    def is_gone(self) -> bool:
        """Whether hal0 left before the answer was over."""
        return self.how == "gone"


@dataclass(frozen=True, slots=True)
class Stay:
    """From when to when a model was loaded, as the engine's answers say."""

    model: str
    began_at: datetime
    ended_at: datetime


@dataclass(frozen=True, slots=True)
class Period:
    """A time for which the rows say that a slot served, and on behalf of which requests."""

    slot: str
    generation: int
    began_at: datetime
    began_by: str | None
    ended_at: datetime
    ended_by: str | None
    cause: str | None

    @property
    def was_forced(self) -> bool:
        """Whether the model was taken away while somebody used it."""
        return self.cause == "forced"


@dataclass(frozen=True, slots=True)
class Evidence:
    """All of it."""

    asked: tuple[Asked, ...]
    forwarded: tuple[Forwarded, ...]
    stays: tuple[Stay, ...]
    periods: tuple[Period, ...]
    slots: frozenset[str]

    @classmethod
    def read(cls, database: Path, clients: Path, recorder: Path) -> Self:
        """Read what lies there; a call without an end lasts for ever."""
        asked = tuple(_asked(line) for line in _lines(clients))
        calls = list(_calls(_lines(recorder)))
        forwarded = tuple(_forwarded(*call) for call in calls if call[0]["held"] is not None)
        with closing(sqlite3.connect(database)) as connection:
            names = dict(connection.execute("SELECT id, name FROM slots"))
            periods = tuple(_periods(connection, names))
        return cls(asked, forwarded, tuple(_stays(calls)), periods, frozenset(names.values()))


def _lines(path: Path) -> list[Json]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _asked(line: Json) -> Asked:
    return Asked(**{**line, "sent_at": _at(line["sent_at"]), "ended_at": _at(line["ended_at"])})


def _calls(lines: list[Json]) -> Iterator[tuple[Json, Json]]:
    never = {"at": END.isoformat(), "how": "unfinished", "status": None}
    ends = {line["call"]: line for line in lines if line["phase"] == "end"}
    for line in lines:
        if line["phase"] == "begin":
            yield line, ends.get(line["call"], never)


def _forwarded(begin: Json, end: Json) -> Forwarded:
    return Forwarded(
        id=begin["id"],
        model=begin["model"],
        began_at=_at(begin["at"]),
        ended_at=_at(end["at"]),
        how=end["how"],
        status=end["status"],
        sha256=end.get("sha256"),
        held=tuple(Seat(*seat) for seat in begin["held"]),
    )


def _stays(calls: list[tuple[Json, Json]]) -> Iterator[Stay]:
    """Yield one for each load that was answered well, until the next unload of that model."""
    unloads = [(x["model"], _at(x["at"])) for x, _ in calls if x["path"].endswith("/unload")]
    for begin, end in calls:
        if begin["path"].endswith("/load") and end["status"] == 200:
            model, loaded_at = begin["model"], _at(end["at"])
            after = (at for name, at in unloads if name == model and at > loaded_at)
            yield Stay(model, loaded_at, min(after, default=END))


def _periods(connection: sqlite3.Connection, names: dict[int, str]) -> Iterator[Period]:
    for slot_id, name in names.items():
        rows = connection.execute(
            "SELECT to_state, at, generation, request_id, cause FROM transitions "
            "WHERE slot_id = ? ORDER BY id",
            (slot_id,),
        ).fetchall()
        open_end = (None, END.isoformat(), None, None, None)
        for (state, at, generation, request_id, _), then in pairwise([*rows, open_end]):
            if state == "serving":
                ended_at, ended_by, cause = _at(then[1]), then[3], then[4]
                yield Period(name, generation, _at(at), request_id, ended_at, ended_by, cause)


def _at(text: str) -> datetime:
    return datetime.fromisoformat(text)
