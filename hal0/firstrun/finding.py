"""Which engines there are: those that are registered, and who answers where engines usually listen.

Each is asked through its adapter, all at once, for a second. What may be asked is a fixed list of
this machine's own addresses and the rows of `engines`: no request names a host here.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Final

from pydantic import Field
from typing_extensions import TypedDict

from hal0.engines.base import EngineHealth
from hal0.engines.connect import KINDS, connect
from hal0.errors import EngineError, EngineUnauthorized
from hal0.hosts import server_of
from hal0.registry.roster import EngineRow

LOOK_S: Final = 1.0
MAX_VERSION: Final = 100

WELL_KNOWN: Final = (
    ("lemonade", "http://127.0.0.1:13305"),
    ("llamacpp", "http://127.0.0.1:8080"),
)
"""Kinds, and where they listen when nobody says otherwise."""


class FoundEngine(TypedDict, closed=True):
    """An engine that is registered, or that could be."""

    name: Annotated[str | None, Field(description="null = it is not registered")]
    kind: Annotated[str, Field(json_schema_extra={"enum": list(KINDS)})]
    url: str
    answers: bool
    version: str | None
    problem: Annotated[str | None, Field(description="why it cannot be used as it is")]


@dataclass(frozen=True, slots=True)
class _Place:
    name: str | None
    kind: str
    url: str
    key_file: str | None = None

    def found(self, health: EngineHealth | None, problem: str | None = None) -> FoundEngine:
        version = None if health is None or health.version is None else health.version
        return {
            "name": self.name,
            "kind": self.kind,
            "url": self.url,
            "answers": health is not None,
            "version": version and version[:MAX_VERSION],
            "problem": problem,
        }


async def find_engines(
    registered: Sequence[EngineRow], well_known: Sequence[tuple[str, str]] = WELL_KNOWN
) -> list[FoundEngine]:
    """Return the registered engines, then what else is found at `well_known`: kinds and URLs."""
    known = {server_of(row.url) for row in registered}
    places = [_Place(row.name, row.kind, row.url, row.key_file) for row in registered]
    places += [_Place(None, kind, url) for kind, url in well_known if server_of(url) not in known]
    found = await asyncio.gather(*map(_look, places))
    return [one for one in found if one is not None]


async def _look(place: _Place) -> FoundEngine | None:
    """Return what is there; None = nobody who is registered, or looks like an engine."""
    try:
        async with asyncio.timeout(LOOK_S):
            health = await _health(place)
    except TimeoutError:
        late = f"{place.url} did not answer within {LOOK_S:g} s"
        return place.found(None, late) if place.name else None
    except EngineError as exc:
        is_engine = isinstance(exc, EngineUnauthorized) or "role" in exc.evidence
        return place.found(None, exc.detail) if place.name or is_engine else None
    if place.name is None and (health.models is None or health.version is None):
        return None  # another program, which answers anything with some JSON
    return place.found(health)


async def _health(place: _Place) -> EngineHealth:
    # in a thread, for a key and certificates are read from disk
    engine = await asyncio.to_thread(connect, place.kind, place.url, place.key_file)
    try:
        return await engine.health()
    finally:
        await engine.close()
