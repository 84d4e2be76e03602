"""The phases of a load: whatever its attempts were, they add up to the whole, and none is less than
nothing."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from hal0.jobs.phases import Phase, Span, loads, pauses
from hal0.states import JobKind, Outcome

ASKED_AT = datetime(2026, 1, 31, 12, tzinfo=UTC)
SECONDS = st.floats(0, 1000, allow_nan=False).map(lambda seconds: round(seconds, 3))
ATTEMPT = st.tuples(SECONDS, SECONDS, st.sampled_from(JobKind), st.sampled_from(Outcome))


def at(seconds: float) -> datetime:
    return ASKED_AT + timedelta(seconds=seconds)


def chain(*attempts: tuple[float, float, JobKind, Outcome]) -> list[Span]:
    """Return attempts of which each is told as a pause, a time that it took, kind and outcome."""
    spans, now = list[Span](), 0.0
    for row, (pause, took, kind, outcome) in enumerate(attempts, 1):
        started, now = now + pause, now + pause + took
        spans.append(Span(row, kind, outcome, at(started), at(now)))
    return spans


def told(spans: list[Span]) -> list[tuple[Span, dict[Phase, float]]]:
    return list(loads(spans, pauses(ASKED_AT, spans)))


def test_each_second_of_a_load_is_in_one_phase() -> None:
    done, skipped = Outcome.DONE, Outcome.SKIPPED
    spans = chain(
        (1, 10, JobKind.PULL, done),
        (0.5, 2, JobKind.VALIDATE, done),
        (0, 0.25, JobKind.UNLOAD, skipped),
        (4, 1, JobKind.LOAD, Outcome.DEFERRED),
        (3, 20, JobKind.LOAD, done),
    )
    assert told(spans) == [
        (
            spans[-1],
            {
                Phase.PULL: 10,
                Phase.VALIDATE: 2,
                Phase.UNLOAD: 0.25,
                Phase.LOAD: 21,
                Phase.WAITED: 8.5,
                Phase.FAILED: 0,
            },
        )
    ]


def test_what_failed_and_was_retried_is_no_waiting_and_each_end_of_a_load_is_one() -> None:
    spans = chain(
        (1, 2, JobKind.VALIDATE, Outcome.FAILED),
        (3600, 2, JobKind.VALIDATE, Outcome.DONE),
        (0, 5, JobKind.LOAD, Outcome.FAILED),
        (60, 2, JobKind.VALIDATE, Outcome.DONE),
        (0.5, 7, JobKind.LOAD, Outcome.DONE),
    )
    first, second = told(spans)
    assert (first[1][Phase.FAILED], first[1][Phase.WAITED], first[1][Phase.LOAD]) == (3600, 1, 5)
    assert (second[1][Phase.FAILED], second[1][Phase.WAITED]) == (60, 0.5)
    assert (second[1][Phase.VALIDATE], second[1][Phase.LOAD]) == (2, 7)


def test_a_chain_whose_load_never_ended_is_no_load() -> None:
    assert told([]) == []
    assert told(chain((1, 2, JobKind.VALIDATE, Outcome.FAILED))) == []
    assert told(chain((1, 2, JobKind.LOAD, Outcome.INTERRUPTED))) == []
    assert told(chain((1, 0, JobKind.LOAD, Outcome.SKIPPED))) == []


def test_a_clock_that_was_set_back_makes_no_time_negative() -> None:
    back = Span(1, JobKind.LOAD, Outcome.DONE, at(-60), at(-90))
    ((_, phases),) = told([back])
    assert set(phases.values()) == {0.0}


@given(st.lists(ATTEMPT, max_size=12))
def test_the_phases_add_up_to_the_whole(
    attempts: list[tuple[float, float, JobKind, Outcome]],
) -> None:
    spans = chain(*attempts)
    began = ASKED_AT
    for span, phases in told(spans):
        assert abs(sum(phases.values()) - (span.ended_at - began).total_seconds()) < 0.001
        assert min(phases.values()) >= 0
        began = span.ended_at
