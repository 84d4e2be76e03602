"""What is to be done so that what is declared is there, and all that would be refused of it.

The order: models are registered, slots that nobody declares deleted, slots changed, then created,
models that nobody declares forgotten. So what gives a model up comes before what takes it.
"""

from collections.abc import Iterator, Mapping
from typing import Final

from hal0.declare import models, slots
from hal0.declare.document import Document
from hal0.declare.steps import Act, Facts, Json, Noun, Plan, Step, There
from hal0.declare.words import word

Names = Mapping[Noun, tuple[str, ...]]
NOTHING: Final[Names] = {Noun.SLOT: (), Noun.MODEL: ()}
GIVES_NOTHING_UP: Final = ("offline", "error")
"""States of a slot that may be deleted."""


def plan(document: Document, there: There, *, prune: bool) -> Plan:
    """Return the steps from what is there to what is declared; `prune` deletes what is not."""
    unnamed = {
        Noun.SLOT: tuple(sorted(set(there.slots) - set(document.slots))),
        Noun.MODEL: tuple(sorted(set(there.models) - set(document.models))),
    }
    gone, left = (unnamed, NOTHING) if prune else (NOTHING, unnamed)
    slot_facts, impossible = _facts_of_slots(document, there)
    refusals = [
        *_otherwise_registered(document, there),
        *impossible,
        *_models_not_to_be_had(document, there, gone),
    ]
    steps = _steps_of_slots(slot_facts, there)
    refusals += _not_at_rest(steps, there)
    refusals += _taken_twice(slot_facts, there, left[Noun.SLOT])
    refusals += _still_held(document, there, gone)
    if refusals:
        return Plan((), tuple(refusals), left)
    staying = {name: slot for name, slot in there.slots.items() if name not in gone[Noun.SLOT]}
    in_order = (
        *_new_models(document, there),
        *_deletions(Noun.SLOT, gone),
        *slots.in_order([step for step in steps if step.act is Act.CHANGE], staying),
        *(step for step in steps if step.act is Act.CREATE),
        *_deletions(Noun.MODEL, gone),
    )
    return Plan(in_order, (), left)


def _new_models(document: Document, there: There) -> Iterator[Step]:
    for name, setup in sorted(document.models.items()):
        if name not in there.models:
            yield models.creation_of(name, setup)


def _deletions(noun: Noun, gone: Names) -> Iterator[Step]:
    return (Step(Act.DELETE, noun, name) for name in gone[noun])


def _otherwise_registered(document: Document, there: There) -> Iterator[str]:
    for name, setup in sorted(document.models.items()):
        changes = (
            models.differences(name, setup, there.models[name]) if name in there.models else ()
        )
        if changes:
            told = "; ".join(f"{one.field}: {word(one.old)} -> {word(one.new)}" for one in changes)
            yield (
                f"model {name} is registered otherwise ({told}), and a model never changes: give "
                f"this one another name, or take the other from its slots, `hal0 model delete "
                f"{name}`, and apply again"
            )


def _facts_of_slots(document: Document, there: There) -> tuple[dict[str, Facts], list[str]]:
    """Return what each declared slot is to be, and why others cannot be."""
    found: dict[str, Facts] = {}
    refusals = []
    for name, setup in sorted(document.slots.items()):
        engine = there.engines.get(setup.engine)
        if engine is None:
            known = ", ".join(sorted(there.engines)) or "none"
            refusals.append(
                f"slot {name}: there is no engine {setup.engine}, only {known}; `hal0 engine add`"
            )
            continue
        try:
            found[name] = slots.declared_facts(setup, engine)
        except ValueError as exc:
            refusals.append(f"slot {name}: options: {exc}")
    return found, refusals


def _models_not_to_be_had(document: Document, there: There, gone: Names) -> Iterator[str]:
    for name, setup in sorted(document.slots.items()):
        if setup.model is None or setup.model in document.models:
            continue
        if setup.model not in there.models:
            yield f"slot {name}: model {setup.model} is neither declared nor registered"
        elif setup.model in gone[Noun.MODEL]:
            yield f"slot {name}: model {setup.model} is not declared, so --prune would delete it"


def _steps_of_slots(slot_facts: Mapping[str, Facts], there: There) -> list[Step]:
    steps = []
    for name, facts in slot_facts.items():
        if name in there.slots:
            step = slots.change_of(there.slots[name], facts)
        else:
            step = slots.creation_of(name, facts, there.engines[facts["engine"]])
        if step is not None:
            steps.append(step)
    return steps


def _not_at_rest(steps: list[Step], there: There) -> Iterator[str]:
    moving = [step.name for step in steps if step.act is Act.CHANGE and slots.moves(step)]
    for slot in (there.slots[name] for name in moving):
        if slot["job_id"] is not None or slot["state"] != "offline":
            yield f"{_what_it_does(slot)}, and gets another model or engine at rest: {_rest(slot)}"


def _still_held(document: Document, there: There, gone: Names) -> Iterator[str]:
    for slot in (there.slots[name] for name in gone[Noun.SLOT]):
        if slot["job_id"] is not None or slot["state"] not in GIVES_NOTHING_UP:
            yield f"{_what_it_does(slot)}, and --prune deletes only what is at rest: {_rest(slot)}"
    for name in sorted(set(document.slots) & set(there.slots)):
        slot = there.slots[name]
        held = slot["model"]
        if held in gone[Noun.MODEL] and held != document.slots[name].model:
            yield f"slot {name} holds model {held}, which --prune would delete: {_rest(slot)}"


def _what_it_does(slot: Json) -> str:
    if slot["job_id"] is not None:
        return f"slot {slot['name']} has unfinished jobs, the first is {slot['job_id']}"
    return f"slot {slot['name']} is {slot['state']}"


def _rest(slot: Json) -> str:
    if slot["job_id"] is not None:
        return f"wait for them, or `hal0 job cancel {slot['job_id']}`"
    return f"`hal0 slot unload {slot['name']} --wait`"


def _taken_twice(
    slot_facts: Mapping[str, Facts], there: There, kept: tuple[str, ...]
) -> Iterator[str]:
    """Say which model would be of two slots of one engine: the engine unloads it by its name."""
    has: dict[tuple[str, str], set[str]] = {}
    for name in (*slot_facts, *kept):
        slot = there.slots.get(name)
        places = set() if slot is None else {(slot["engine"], slot["model"])}
        if name in slot_facts:
            places.add((slot_facts[name]["engine"], slot_facts[name]["model"]))
        elif slot is not None:
            places.add((slot["engine"], slot["wanted_model"]))
        for engine, model in places:
            if model is not None:
                has.setdefault((engine, model), set()).add(name)
    for (engine, model), names in sorted(has.items()):
        if len(names) > 1:
            yield (
                f"slots {' and '.join(sorted(names))} would both have model {model} at engine "
                f"{engine}, which unloads by model name: give each slot a model of its own"
            )
