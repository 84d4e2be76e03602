"""Asking one engine what it has and how it is set up; or why it could not be asked."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from hal0.cli.findings import Finding
from hal0.engines.base import Engine, EngineConfig, EngineHealth
from hal0.engines.connect import connect, read_key
from hal0.errors import (
    EngineError,
    EngineTimeout,
    EngineUnauthorized,
    EngineUnreachable,
    Hal0Error,
)
from hal0.registry.roster import EngineRow
from hal0.slots.queries import Slot

ENGINE_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Asked:
    """An engine that answered, what it says, and the slots that are its."""

    row: EngineRow
    slots: Sequence[Slot]
    health: EngineHealth
    config: EngineConfig | None
    is_open: bool
    """Whether it answers who has no key; an engine that is no Lemonade is not tried."""

    @property
    def name(self) -> str:
        """What findings of it are called."""
        return f"engine {self.row.name}"

    @property
    def is_lemonade(self) -> bool:
        """Whether it is Lemonade's own server, not the embedded engine, which speaks as it does."""
        return self.row.kind == "lemonade"


async def ask(row: EngineRow, slots: Sequence[Slot]) -> Asked | Finding:
    """Return what the engine says, or what kept it from that."""
    name = f"engine {row.name}"
    try:
        engine = connect(row.kind, row.url, row.key_path)
        try:
            async with asyncio.timeout(ENGINE_S):
                health, config = await engine.health(), await _config(engine)
                return Asked(row, slots, health, config, await _is_open(row))
        finally:
            await engine.close()
    except (EngineTimeout, TimeoutError):
        detail = f"does not answer at {row.url} within {ENGINE_S:g} s"
        return Finding(name, "unknown", detail, "it may be busy; ask again")
    except EngineUnauthorized:
        return Finding(name, "wrong", *_about_its_key(row))
    except EngineUnreachable as exc:
        or_up = ", or `hal0 up`" if row.kind == "embedded" else ""
        return Finding(name, "wrong", exc.detail, f"start it at {row.url}{or_up}")
    except EngineError as exc:
        to_do = f"see what listens at {row.url}; is it an engine of the kind {row.kind}?"
        return Finding(name, "wrong", exc.detail, to_do)
    except Hal0Error as exc:
        return Finding(name, "wrong", exc.detail)


async def _config(engine: Engine) -> EngineConfig | None:
    try:
        return await engine.config()
    except EngineError:
        return None


async def _is_open(row: EngineRow) -> bool:
    """Ask once more as somebody without a key."""
    if row.kind != "lemonade":
        return False
    anybody = connect(row.kind, row.url)
    try:
        await anybody.health()
    except EngineError:
        return False
    finally:
        await anybody.close()
    return True


def to_have_a_key(row: EngineRow) -> str:
    """Say how hal0 gets a key for an engine that it knows without one, whose row stays as it is."""
    return (
        "write the key into a file that hal0's user can read, start the engine at another port, "
        f"`hal0 engine add NAME --kind {row.kind} --url URL --key-file FILE`, and "
        "`hal0 slot set SLOT --engine NAME` for each of its slots"
    )


def _about_its_key(row: EngineRow) -> tuple[str, str]:
    """Tell a key that is missing from one that is wrong, and from one that cannot be read."""
    if row.key_path is None:
        return "wants a key, and hal0 has none for it", to_have_a_key(row)
    try:
        key = read_key(row.key_path)
    except EngineUnauthorized as unreadable:
        return unreadable.detail, "put the engine's API key there, readable for hal0's user"
    what = "is empty" if key is None else "holds another one"
    to_do = f"write the engine's API key into {row.key_path}; nothing is to be restarted"
    return f"wants a key, and {row.key_path} {what}", to_do
