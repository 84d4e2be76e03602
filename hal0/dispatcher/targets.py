"""Which slot a request means by its `model`: a slot of that name, else the one with that model.

Names are read from the rows at most once a second, so a request costs no look at the database; one
that names nobody is looked up anew before it is told so. What a slot is now is not decided here:
whoever goes on with it finds that out, and also whether it still has the model that was named.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, select

from hal0.clock import monotonic_ms
from hal0.db import Database
from hal0.dispatcher.places import Held
from hal0.errors import Hal0Error, ModelAmbiguous, ModelNotFound, SlotLoading, SlotUnloaded
from hal0.jobs.ledger.rows import slots_with_work
from hal0.slots.queries import Slot, slot_by_id
from hal0.states import DISPATCHABLE
from hal0.tables import models, slots

MAX_AGE_MS: Final = 1000
COME_AGAIN_S: Final = 2.0
_HELD, _WANTED = models.alias("held"), models.alias("wanted")
_SEATS: Final = (
    select(
        slots.c.id,
        slots.c.name,
        slots.c.state,
        slots.c.model_id,
        _HELD.c.name.label("held"),
        slots.c.wanted_model_id,
        _WANTED.c.name.label("wanted"),
    )
    .outerjoin(_HELD, _HELD.c.id == slots.c.model_id)
    .outerjoin(_WANTED, _WANTED.c.id == slots.c.wanted_model_id)
    .where(slots.c.deleted_at.is_(None))
)


@dataclass(frozen=True, slots=True)
class Seat:
    """A slot by name, with the models that it holds and wants, and whether a job works on it."""

    slot_id: int
    name: str
    held_id: int | None
    held: str | None
    wanted_id: int | None
    wanted: str | None
    is_at_work: bool


@dataclass(frozen=True, slots=True)
class Target:
    """What a request means: a slot, with this model if it named one."""

    slot_id: int
    model_id: int | None

    def is_met_by(self, held: Held) -> bool:
        """Whether what the slot holds is what is meant."""
        return self.model_id is None or self.model_id == held.model_id


class Names:
    """What names meant at one moment."""

    def __init__(self, seats: Iterable[Seat] = ()) -> None:
        self._slots: dict[str, Seat] = {}
        self._held: dict[str, list[Seat]] = {}
        self._wanted: dict[str, list[Seat]] = {}
        for seat in seats:
            self._slots[seat.name] = seat
            for known, name in ((self._held, seat.held), (self._wanted, seat.wanted)):
                if name is not None:
                    known.setdefault(name, []).append(seat)

    def find(self, name: str) -> Seat:
        """Return the slot that is meant.

        A model means the one slot that holds it; while none holds it, the one that wants it. Raises
        ModelNotFound, ModelAmbiguous.
        """
        if (seat := self._slots.get(name)) is not None:
            return seat
        found = self._held.get(name) or self._wanted.get(name)
        if not found:
            raise ModelNotFound(
                f"no slot is called {name!r}, and none has a model of that name; GET /v1/models "
                "lists the slots",
                evidence={"field": "model", "model": name},
            )
        if len(found) > 1:
            listed = sorted(seat.name for seat in found)
            raise ModelAmbiguous(
                f"the slots {', '.join(listed)} have the model {name!r}: name one of them instead",
                evidence={"field": "model", "model": name, "slots": listed},
            )
        return found[0]

    def target(self, name: str) -> Target:
        """Return what is meant by a name.

        Raises as `find`; SlotLoading or SlotUnloaded for a model that its slot is only to hold,
        while it holds another one.
        """
        seat = self.find(name)
        if name == seat.name:
            return Target(seat.slot_id, None)
        if seat.held == name:
            return Target(seat.slot_id, seat.held_id)
        if seat.held is None:
            return Target(seat.slot_id, seat.wanted_id)
        evidence = {"slot": seat.name, "holds": seat.held}
        if seat.is_at_work:
            raise SlotLoading(
                f"slot {seat.name} holds {seat.held} until {name!r} takes its place",
                evidence=evidence,
                retry_after_s=COME_AGAIN_S,
            )
        raise SlotUnloaded(
            f"slot {seat.name} is set up for {name!r} and holds {seat.held}; "
            f"`hal0 slot load {seat.name}`",
            evidence=evidence,
        )


def names_in(tx: Connection) -> Names:
    """Return what names mean now."""
    at_work = slots_with_work(tx)
    return Names(
        Seat(
            slot_id=row.id,
            name=row.name,
            held_id=row.model_id if row.state in DISPATCHABLE else None,
            held=row.held if row.state in DISPATCHABLE else None,
            wanted_id=row.wanted_model_id,
            wanted=row.wanted,
            is_at_work=row.id in at_work,
        )
        for row in tx.execute(_SEATS)
    )


class Targets:
    """What names mean now, as one process knows it; for one event loop."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._names = Names()
        self._good_until_ms = 0
        self._begun = 0
        """How many looks at the rows were begun."""
        self._known_by = 0
        """Which of them the names are of; one may fail, or be cancelled with who began it."""
        self._reading = asyncio.Lock()

    async def find(self, name: str) -> Target:
        """Return what is meant, by rows that are no older than a second.

        Raises ModelNotFound, ModelAmbiguous, SlotLoading, SlotUnloaded, DatabaseError.
        """
        if monotonic_ms() < self._good_until_ms:
            try:
                return self._names.target(name)
            except Hal0Error:  # perhaps no longer
                pass
        return (await self._read()).target(name)

    async def find_now(self, name: str) -> tuple[Target, Slot]:
        """Return what is meant, and the slot as its row is now; raises as `find`."""
        target = (await self._read()).target(name)
        return target, await asyncio.to_thread(self._slot, target.slot_id)

    async def _read(self) -> Names:
        """Read the rows, once for all who asked before that began."""
        before = self._begun
        async with self._reading:
            if self._known_by <= before:
                self._begun += 1
                this, began_ms = self._begun, monotonic_ms()
                self._names = await asyncio.to_thread(self._look)
                self._known_by, self._good_until_ms = this, began_ms + MAX_AGE_MS
            return self._names

    def _look(self) -> Names:
        with self._db.read() as tx:
            return names_in(tx)

    def _slot(self, slot_id: int) -> Slot:
        with self._db.read() as tx:
            return slot_by_id(tx, slot_id)
