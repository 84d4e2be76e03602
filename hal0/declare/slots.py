"""How a declared slot compares with the one that is there, and in which order slots can change."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from hal0.declare.setup import SlotSetup
from hal0.declare.steps import Act, Change, Facts, Json, Noun, Step, changes_of
from hal0.engines.options import complete

FIELDS: Final = tuple(field for field in SlotSetup.model_fields if field != "options")
OPTION: Final = "options."

Place = tuple[str, str | None]
"""An engine and a model there: of one slot alone, for an engine unloads by the model's name."""


def declared_facts(setup: SlotSetup, engine: Json) -> dict[str, Any]:
    """Return what a slot is to be, all options filled in. Raises ValueError for options."""
    given = setup.options.model_dump(mode="json", exclude_unset=True)
    return {
        **{field: getattr(setup, field) for field in FIELDS},
        **_options(complete(engine["kind"], given)),
    }


def shown_facts(slot: Json) -> dict[str, Any]:
    """Return what a slot is."""
    return {
        **{field: slot["wanted_model" if field == "model" else field] for field in FIELDS},
        **_options(slot["options"]),
    }


def creation_of(name: str, facts: Facts, engine: Json) -> Step:
    """Return the step that creates a slot."""
    plain = declared_facts(SlotSetup(), engine)
    changes = changes_of(plain, facts)
    return Step(Act.CREATE, Noun.SLOT, name, changes, {"name": name, **_body(facts, changes)})


def change_of(slot: Json, facts: Facts) -> Step | None:
    """Return the step that makes a slot what is declared; None = it is."""
    changes = changes_of(shown_facts(slot), facts)
    if not changes:
        return None
    return Step(Act.CHANGE, Noun.SLOT, slot["name"], changes, _body(facts, changes))


def moves(step: Step) -> bool:
    """Tell whether a slot gets another engine or model, which only one at rest does."""
    return any(change.field in ("engine", "model") for change in step.changes)


def in_order(steps: Collection[Step], there: Mapping[str, Json]) -> Iterator[Step]:
    """Yield the changes so that each slot gets a model when no other has it any more.

    In a ring, of two that swap, one is without a model meanwhile. What is declared must give each
    model to one slot of an engine.
    """
    has = {name: (slot["engine"], slot["wanted_model"]) for name, slot in there.items()}
    waiting = {step.name: step for step in steps}
    while waiting:
        step = next((one for one in waiting.values() if not _is_taken(one, has)), None)
        if step is None:
            name = next(name for name in waiting if has[name][1] is not None)
            emptied, waiting[name] = _in_two(waiting[name], has[name])
            has[name] = (has[name][0], None)
            yield emptied
            continue
        del waiting[step.name]
        has[step.name] = _target(step, has[step.name])
        yield step


def _is_taken(step: Step, has: Mapping[str, Place]) -> bool:
    target = _target(step, has[step.name])
    others = (place for name, place in has.items() if name != step.name)
    return target[1] is not None and target in others


def _target(step: Step, place: Place) -> Place:
    body = step.body or {}
    return body.get("engine", place[0]), body.get("model", place[1])


def _in_two(step: Step, place: Place) -> tuple[Step, Step]:
    """Return a change as two: one that takes the model away, and the rest."""
    taken = Change("model", place[1], None)
    given = Change("model", None, _target(step, place)[1])
    others = tuple(change for change in step.changes if change.field != "model")
    emptied = replace(step, changes=(taken,), body={"model": None})
    body = {**(step.body or {}), "model": given.new}
    return emptied, replace(step, changes=(given, *others), body=body)


def _options(options: Json) -> dict[str, Any]:
    return {f"{OPTION}{name}": value for name, value in options.items()}


def _body(facts: Facts, changes: Collection[Change]) -> dict[str, Any]:
    """Return what changes; of options all, for those that are left out stay."""
    changed = {change.field for change in changes}
    body = {field: facts[field] for field in FIELDS if field in changed}
    options = {
        field.removeprefix(OPTION): value
        for field, value in facts.items()
        if field.startswith(OPTION)
    }
    if options and any(field.startswith(OPTION) for field in changed):
        body["options"] = options
    return body
