"""Whatever rows say, what views make of them is of the shape that the document tells."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter
from starlette.applications import Starlette

from hal0.access.roles import Role
from hal0.access.tokens import Token
from hal0.api import answers, engine_answers, engine_views, slot_answers, views
from hal0.api.slot_views import Beside, slot_json
from hal0.clock import utc_now
from hal0.engines.options import parse
from hal0.errors import Hal0Error, SlotBusy, tree
from hal0.jobs.bulk import Retried
from hal0.jobs.incident_queries import Incident, MovedSlot
from hal0.jobs.ledger.breaker import Breaker
from hal0.jobs.ledger.intake import Accepted
from hal0.jobs.ledger.rows import Chain, Job
from hal0.jobs.queries import Attempt, ChainDetail, JobDetail, Progress
from hal0.registry.catalog import Model, RegisteredFile
from hal0.registry.roster import EngineRow
from hal0.slots.audit import AuditRow
from hal0.slots.fading import Fading
from hal0.slots.overview import SlotOverview, Speed
from hal0.slots.queries import Slot
from hal0.slots.times import Room, Times
from hal0.states import Cause, Outcome, SlotState
from tests.documented import document_of

Strategy = st.SearchStrategy[Any]

TIMES = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
CODES = [error.code for error in tree() if error.__module__ == Hal0Error.__module__]
FACTS = st.dictionaries(st.text(max_size=5), st.none() | st.integers() | st.text(max_size=5))
REFUSALS = st.fixed_dictionaries(
    {"code": st.sampled_from(CODES), "detail": st.text(max_size=9), "evidence": FACTS}
)
FAULTS = REFUSALS.flatmap(
    lambda row: st.integers(1, 9).map(lambda job_id: {**row, "job_id": job_id}) | st.just(row)
)
OPTIONS = st.sampled_from([{}, {"ctx_size": 512, "llamacpp_backend": "cpu"}]).map(
    lambda given: parse(given).model_dump(mode="json")
)


def text_of(values: type[StrEnum]) -> Strategy:
    """A text as a row has it where its type is no enum."""
    return st.sampled_from([str(value) for value in values])


def some(kind: type[Any], /, **fields: Strategy) -> Strategy:
    """Any value of a frozen row; what is not named follows from its type."""
    plain = {datetime: TIMES, float: st.floats(0, 9), Path: st.text(max_size=9).map(Path)}
    known: dict[Any, Strategy] = {
        **plain,
        **{one | None: st.none() | values for one, values in plain.items()},
    }
    hints = get_type_hints(kind)
    return st.builds(
        kind, **{name: known[hint] for name, hint in hints.items() if hint in known} | fields
    )


NOTES = st.fixed_dictionaries(
    {
        "cause": text_of(Cause),
        "model_id": st.integers(1, 9),
        "options": OPTIONS,
        "job_id": st.none() | st.integers(1, 9),
    }
)
SLOTS = some(
    Slot,
    cause=text_of(Cause),
    options=OPTIONS,
    error=st.none() | FAULTS,
    held_options=st.none(),
    restore=st.none() | NOTES,
)
NAMES = st.lists(st.text(max_size=5), max_size=2)
SEEN = st.fixed_dictionaries(
    {
        "version": st.none() | st.text(max_size=5),
        "max_models": st.none() | st.integers(1, 9),
        "models": NAMES,
        "strangers": NAMES,
    }
)
MOVED = some(
    MovedSlot, from_state=text_of(SlotState), to_state=text_of(SlotState), cause=text_of(Cause)
)
JOBS = some(Job, error=st.none() | FAULTS, result=st.none())
ATTEMPTS = some(Attempt, outcome=text_of(Outcome), error=st.none() | FAULTS)
DETAILS = some(
    JobDetail,
    job=JOBS,
    progress=st.none()
    | some(
        Progress,
        done_bytes=st.integers(0, 9),
        total_bytes=st.integers(0, 9),
        rate_bytes_s=st.none() | st.floats(0, 9),
    ),
    attempts=st.lists(ATTEMPTS, max_size=2).map(tuple),
)
CHAINS = some(
    ChainDetail,
    chain=some(Chain, options=st.none() | OPTIONS, drain_timeout_s=st.none() | st.floats(0, 9)),
    jobs=st.lists(DETAILS, min_size=1, max_size=2).map(tuple),
)
FILES = some(RegisteredFile, role=st.sampled_from(["main", "mmproj", "shard"]))
VIEWS: dict[str, tuple[Any, Callable[[Any], Any], Strategy]] = {
    "slot": (
        slot_answers.Slot,
        lambda told: slot_json(*told),
        st.tuples(
            some(SlotOverview, slot=SLOTS, speed=st.none() | some(Speed)),
            some(Times),
            some(Room),
            some(
                Beside,
                breaker=st.none() | some(Breaker, sent=st.integers(0, 6)),
                fading=some(Fading),
            ),
        ),
    ),
    "job": (answers.Job, views.job_json, DETAILS),
    "chain": (answers.Chain, views.chain_json, CHAINS),
    "order": (answers.Accepted, views.accepted_json, some(Accepted)),
    "waited": (
        answers.Accepted,
        lambda chain: {**views.accepted_json(Accepted(1)), **views.result_json(chain)},
        CHAINS,
    ),
    "retried": (
        answers.Retried,
        views.retried_json,
        some(Retried, failed=JOBS, refusal=st.none() | st.just(SlotBusy("busy"))),
    ),
    "model": (
        answers.Model,
        lambda model: views.model_json(model, {model.main.path: utc_now()}),
        some(
            Model,
            format=st.sampled_from(["gguf", "other"]),
            files=st.lists(FILES, min_size=1, max_size=2).map(tuple),
        ),
    ),
    "engine": (
        engine_answers.Engine,
        engine_views.engine_json,
        some(
            EngineRow,
            kind=st.sampled_from(["embedded", "lemonade"]),
            settle_s=st.floats(0, 9),
            last_error=st.none() | REFUSALS,
            seen=st.none() | SEEN,
        ),
    ),
    "incident": (
        engine_answers.Incident,
        engine_views.incident_json,
        some(
            Incident,
            moved=st.lists(MOVED, max_size=2).map(tuple),
            evidence=st.none() | FACTS,
        ),
    ),
    "transition": (
        answers.Transition,
        views.transition_json,
        some(
            AuditRow,
            from_state=st.none() | text_of(SlotState),
            to_state=text_of(SlotState),
            cause=text_of(Cause),
            evidence=st.none() | FACTS,
        ),
    ),
    "token": (answers.Token, views.token_json, some(Token, role=st.sampled_from([*Role][1:]))),
}


@pytest.mark.parametrize("name", VIEWS)
def test_what_a_view_makes_is_of_its_shape(app: Starlette, name: str) -> None:
    """Of its types strictly, and of its schema as the document has it: no field more, none less."""
    shape, view, rows = VIEWS[name]
    adapter = TypeAdapter(shape)
    told = document_of(app).shape({"$ref": f"#/components/schemas/{shape.__name__}"})

    @settings(max_examples=12, deadline=None)
    @given(rows)
    def check(row: Any) -> None:
        text = json.dumps(view(row), allow_nan=False)
        adapter.validate_json(text, strict=True)
        made = json.loads(text)
        told.validate(made)
        assert not told.is_valid({**made, "hal0_knows_no_such": 1})
        for field in made.keys() - {"state", "results"}:
            assert not told.is_valid({key: made[key] for key in made if key != field}), field

    check()
