"""Which engines there are, and what was last seen of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, exc, insert, select, update

from hal0.clock import boot_id, monotonic_ms, utc_now
from hal0.errors import EngineExists, EngineNotFound
from hal0.hosts import server_of
from hal0.tables import engines

FAR_APART_MS: Final = 120_000
"""More than the longest look takes: one at an engine that hangs."""


@dataclass(frozen=True, slots=True)
class EngineRow:
    """An inference server as hal0 knows it; `settle_s` bounds what it may still owe us."""

    id: int
    name: str
    kind: str
    url: str
    key_file: str | None
    settle_s: float
    process: str | None
    healthy_boot_id: str | None
    last_health_at: datetime | None
    last_error: Mapping[str, Any] | None
    created_at: datetime
    seen: Mapping[str, Any] | None
    scanned_boot: str | None
    scanned_ms: int | None
    unreachable_boot: str | None
    unreachable_ms: int | None
    unreachable_seen_ms: int | None
    scan_took_ms: int | None

    @property
    def key_path(self) -> Path | None:
        """Where its API key is."""
        return None if self.key_file is None else Path(self.key_file)

    @property
    def is_well(self) -> bool:
        """Whether it answered this boot, and the last time that it was asked."""
        return self.healthy_boot_id == boot_id() and self.last_error is None

    @property
    def away_ms(self) -> int | None:
        """Since how many milliseconds nobody is there; None = it was there when last asked."""
        if self.unreachable_ms is None or self.unreachable_boot != boot_id():
            return None
        return monotonic_ms() - self.unreachable_ms

    @property
    def list_ms(self) -> int | None:
        """When the last scan began that got a list, on the monotonic clock; None = not this boot.

        What is so since then may not be in the list.
        """
        return self.scanned_ms if self.scanned_boot == boot_id() else None


def _row(row: Any) -> EngineRow:
    return EngineRow(**row._mapping)


def engine_by_id(tx: Connection, engine_id: int) -> EngineRow:
    """Return the engine."""
    return _row(tx.execute(select(engines).where(engines.c.id == engine_id)).one())


def engine_named(tx: Connection, name: str) -> EngineRow:
    """Return the engine of this name; raises EngineNotFound."""
    row = tx.execute(select(engines).where(engines.c.name == name)).one_or_none()
    if row is None:
        raise EngineNotFound(
            f"there is no engine {name!r}; `hal0 engine list` shows them",
            evidence={"engine": name},
        )
    return _row(row)


def all_engines(tx: Connection) -> list[EngineRow]:
    """Return the engines by name."""
    return [_row(row) for row in tx.execute(select(engines).order_by(engines.c.name))]


def add_engine(tx: Connection, values: Mapping[str, Any]) -> EngineRow:
    """Insert an engine: `{name, kind, url, key_file, settle_s}`. Raises EngineExists.

    Two engines at one server would be two lanes to it, each of which knows nothing of the other.
    """
    for known in all_engines(tx):
        if server_of(known.url) == server_of(values["url"]) and known.name != values["name"]:
            raise EngineExists(
                f"engine {known.name!r} is at {known.url} already: let the slots use that one",
                evidence={"engine": known.name},
            )
    try:
        tx.execute(insert(engines).values(created_at=utc_now(), **values))
    except exc.IntegrityError as error:
        raise EngineExists(
            f"there is an engine {values['name']!r} already; choose another name",
            evidence={"engine": values["name"]},
        ) from error
    return engine_named(tx, str(values["name"]))


def note_health(tx: Connection, engine_id: int, process: str | None) -> None:
    """Remember that the engine answered, and as which process."""
    tx.execute(
        update(engines)
        .where(engines.c.id == engine_id)
        .values(
            process=process,
            healthy_boot_id=boot_id(),
            last_health_at=utc_now(),
            last_error=None,
            unreachable_boot=None,
            unreachable_ms=None,
        )
    )


def note_failure(tx: Connection, engine_id: int, error: Mapping[str, Any]) -> None:
    """Remember why the engine did not answer; it may be there all the same."""
    tx.execute(update(engines).where(engines.c.id == engine_id).values(last_error=dict(error)))


def note_absence(tx: Connection, engine_id: int, error: Mapping[str, Any]) -> None:
    """Remember that nobody is there, and since when: since the first look in a row.

    Looks that lie far apart are not in a row: nobody knows who was there between them.
    """
    note_failure(tx, engine_id, error)
    now_ms = monotonic_ms()
    is_first = (
        engines.c.unreachable_ms.is_(None)
        | (engines.c.unreachable_boot != boot_id())
        | (engines.c.unreachable_seen_ms < now_ms - FAR_APART_MS)
    )
    of_engine = update(engines).where(engines.c.id == engine_id)
    tx.execute(of_engine.where(is_first).values(unreachable_boot=boot_id(), unreachable_ms=now_ms))
    tx.execute(of_engine.values(unreachable_seen_ms=now_ms))


def note_presence(tx: Connection, engine_id: int) -> None:
    """Remember that it is there, though it does not say what it has."""
    tx.execute(
        update(engines)
        .where(engines.c.id == engine_id)
        .values(unreachable_boot=None, unreachable_ms=None)
    )


def note_scan(tx: Connection, engine: EngineRow, seen: Mapping[str, Any], began_ms: int) -> None:
    """Remember that a scan which began then got a list, and what the engine said of itself.

    The scan is as good as over: only this write is left of it.
    """
    changed: dict[str, Any] = {} if engine.seen == seen else {"seen": dict(seen)}
    changed["scan_took_ms"] = monotonic_ms() - began_ms
    tx.execute(
        update(engines)
        .where(engines.c.id == engine.id)
        .values(scanned_boot=boot_id(), scanned_ms=began_ms, **changed)
    )
