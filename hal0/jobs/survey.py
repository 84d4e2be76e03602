"""An engine's list laid beside its slots: which entry is whose, which is nobody's; writes nothing.

One picture of all slots of an engine, in a handful of queries however many they are. What is done
about it is in `jobs.reconcile` and `jobs.idle_scan`.
"""

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, select

from hal0.engines.base import LoadedModel
from hal0.jobs.ledger.rows import slots_with_work
from hal0.jobs.reading import Reading
from hal0.registry.catalog import MainFile, main_files
from hal0.slots.queries import Slot, slots_of_engine
from hal0.tables import failed_keys, jobs


@dataclass(frozen=True, slots=True)
class Pair:
    """A slot and the entry of its model; `is_listed` also when several entries may be it."""

    slot: Slot
    entry: LoadedModel | None
    is_listed: bool
    is_its_file: bool
    """Whether the entry is certainly of the slot's model: by its file, where the engine says it."""
    is_another_file: bool = False
    """Whether it certainly is not, and only bears its name."""

    @property
    def is_missing(self) -> bool:
        """Whether the engine certainly has not got the slot's model."""
        return not self.is_listed or self.is_another_file


@dataclass(frozen=True, slots=True)
class Survey:
    """What an engine has and what its slots say, at one reading."""

    reading: Reading
    pairs: Sequence[Pair]
    strangers: tuple[str, ...]
    """Models in the engine that belong to no slot, by the engine's names for them."""
    untouched: Sequence[Pair]
    """Slots that no job works on and of which the list is true: nothing but requests has moved them
    since it was read."""

    @property
    def undisturbed(self) -> list[Pair]:
        """Those of them that no request has moved either: what is told of their use is of now."""
        before = self.reading.before
        return [pair for pair in self.untouched if before.get(pair.slot.id) == pair.slot.stand]


def survey(tx: Connection, reading: Reading) -> Survey:
    """Lay the list of a reading beside the slots of its engine; the reading must have a list."""
    assert reading.health.models is not None
    of_engine = slots_of_engine(tx, reading.engine.id)
    model_of = {slot.id: _model_of(slot) for slot in of_engine}
    files = main_files(tx, {model for model in model_of.values() if model is not None})
    listed = _Listed(reading.health.models)
    pairs = [listed.pair(slot, files.get(model_of[slot.id] or 0)) for slot in of_engine]
    owned = {id(pair.entry) for pair in pairs if pair.entry is not None}
    strangers = sorted(entry.name for entry in reading.health.models if id(entry) not in owned)
    at_work = slots_with_work(tx)
    untouched = [
        pair for pair in pairs if pair.slot.id not in at_work and reading.is_true_of(tx, pair.slot)
    ]
    return Survey(reading, pairs, tuple(strangers), untouched)


def _model_of(slot: Slot) -> int | None:
    """Return the model by which an entry would be this slot's: what it holds, held, or wants."""
    if slot.model_id is not None:
        return slot.model_id
    return slot.wanted_model_id if slot.restore is None else int(slot.restore["model_id"])


class _Listed:
    """The entries of a list by file and by name."""

    def __init__(self, models: Sequence[LoadedModel]) -> None:
        self._by_file: dict[str, LoadedModel] = {}
        self._by_name: Mapping[str, list[LoadedModel]] = defaultdict(list)
        for model in models:
            if model.checkpoint is not None:
                self._by_file.setdefault(model.checkpoint, model)
            self._by_name[model.name].append(model)

    def pair(self, slot: Slot, file: MainFile | None) -> Pair:
        """Find a slot's entry: by the file first, then the only one of its names."""
        of_file = None if file is None else self._by_file.get(file.path)
        if of_file is not None:
            return Pair(slot, of_file, is_listed=True, is_its_file=True)
        names = {slot.engine_model, None if file is None else file.model} - {None}
        named = [entry for name in names for entry in self._by_name.get(name or "", ())]
        if len(named) != 1:
            return Pair(slot, None, is_listed=bool(named), is_its_file=False)
        (entry,) = named
        return Pair(
            slot,
            entry,
            is_listed=True,
            is_its_file=file is not None and entry.checkpoint is None,
            is_another_file=file is not None and _is_another_file(entry, file.path),
        )


def _is_another_file(entry: LoadedModel, path: str) -> bool:
    """Whether an entry is of another file, also behind every link in its path."""
    opened = entry.checkpoint
    return opened is not None and os.path.realpath(opened) != os.path.realpath(path)


def timed_out(tx: Connection, slot: Slot) -> bool:
    """Whether a load of what this slot wants passed its deadline, and nobody asked again."""
    late = (
        select(jobs.c.error)
        .join(failed_keys, failed_keys.c.job_id == jobs.c.id)
        .where(failed_keys.c.slot_id == slot.id, jobs.c.model_id == slot.wanted_model_id)
    )
    return any((row.error or {}).get("code") == "preload.load_timeout" for row in tx.execute(late))
