"""In which order slots get other models: at no time do two of an engine have one, whoever swaps."""

from collections.abc import Mapping

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hal0.declare.document import Document
from hal0.declare.plan import plan
from hal0.declare.setup import ModelSetup, SlotSetup
from hal0.declare.steps import Act
from tests.declared import there

MODELS = {name: ModelSetup(source=f"/data/{name}") for name in "abcde"}
SLOTS = ("s1", "s2", "s3", "s4", "s5", "s6")
Place = tuple[str, str | None]


def is_free_of_doubles(has: Mapping[str, Place]) -> bool:
    taken = [place for place in has.values() if place[1] is not None]
    return len(taken) == len(set(taken))


PLACES = st.dictionaries(
    st.sampled_from(SLOTS),
    st.tuples(st.sampled_from(["default", "gpu"]), st.sampled_from([None, *MODELS])),
    min_size=3,
).filter(is_free_of_doubles)


def declared(has: Mapping[str, Place]) -> Document:
    slots = {name: SlotSetup(engine=engine, model=model) for name, (engine, model) in has.items()}
    return Document(models=MODELS, slots=slots)


@given(PLACES, PLACES, st.booleans())
@settings(deadline=None, max_examples=300)
def test_no_step_gives_a_slot_a_model_that_another_one_has(
    before: dict[str, Place], after: dict[str, Place], prune: bool
) -> None:
    wanted = after if prune else {**before, **after}
    assume(is_free_of_doubles(wanted))
    found = plan(declared(after), there(declared(before)), prune=prune)
    assert found.refusals == ()
    has = dict(before)
    for step in found.steps:
        if step.act is Act.DELETE:
            del has[step.name]
            continue
        body = step.body or {}
        engine, model = has.get(step.name, ("default", None))
        has[step.name] = (body.get("engine", engine), body.get("model", model))
        assert is_free_of_doubles(has)
    assert has == wanted
    assert len(found.steps) <= len(SLOTS) + len(SLOTS) // 2
