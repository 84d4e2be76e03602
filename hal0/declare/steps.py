"""What leads from what is there to what is declared: steps, each one call of REST."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

Json = Mapping[str, Any]
Facts = Mapping[str, Any]
"""What there is to say of a slot or a model, by field; what is nested has a dot in its name."""


class Act(StrEnum):
    """What a step does."""

    CREATE = "create"
    CHANGE = "change"
    DELETE = "delete"


class Noun(StrEnum):
    """What a step is about."""

    MODEL = "model"
    SLOT = "slot"


@dataclass(frozen=True, slots=True)
class Change:
    """A field that will be another one; None = none, or the default."""

    field: str
    old: Any
    new: Any


@dataclass(frozen=True, slots=True)
class Step:
    """One call; `body` is what it sends, `changes` what it does, as people may see it."""

    act: Act
    noun: Noun
    name: str
    changes: tuple[Change, ...] = ()
    body: Json | None = None


@dataclass(frozen=True, slots=True)
class There:
    """What is there, by name, as REST shows it."""

    slots: Mapping[str, Json]
    models: Mapping[str, Json]
    engines: Mapping[str, Json]

    @classmethod
    def of(cls, slots: Iterable[Json], models: Iterable[Json], engines: Iterable[Json]) -> Self:
        """Sort the items of three lists by their names."""
        return cls(*({one["name"]: one for one in items} for items in (slots, models, engines)))


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done, in order; or why it would be refused, then there are no steps."""

    steps: tuple[Step, ...]
    refusals: tuple[str, ...]
    left_alone: Mapping[Noun, tuple[str, ...]]
    """What is there and not declared."""


def changes_of(old: Facts, new: Facts) -> tuple[Change, ...]:
    """Return what differs, in the order of `new`, then what only `old` has."""
    return tuple(_changes(old, new))


def _changes(old: Facts, new: Facts) -> Iterator[Change]:
    for field in [*new, *(field for field in old if field not in new)]:
        if old.get(field) != new.get(field):
            yield Change(field, old.get(field), new.get(field))
