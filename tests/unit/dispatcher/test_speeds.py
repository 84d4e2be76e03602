"""What an engine says of its speed, found in its answers; nothing else of them is kept."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import insert, select

from hal0.db import Database
from hal0.dispatcher.speeds import KEPT_BYTES, LAST, Meter, Speeds
from hal0.tables import speeds
from tests.machine.clock import Clock
from tests.rows import make_slot

TIMINGS = {"prompt_n": 9, "predicted_n": 20, "predicted_ms": 500.0, "predicted_per_second": 40.0}
USAGE = {"completion_tokens": 30, "prompt_tokens": 9, "total_tokens": 39}


def _rate(*chunks: bytes, lasted_s: float = 2.0) -> float | None:
    meter = Meter()
    for chunk in chunks:
        meter.feed(chunk)
    return meter.tokens_per_s(lasted_s)


def _answer(**more: Any) -> bytes:
    said = {"choices": [{"message": {"role": "assistant", "content": "hello"}}]}
    return json.dumps({**said, "object": "chat.completion", **more}).encode()


def _events(*data: Any) -> list[bytes]:
    lines = [b"data: " + json.dumps(one).encode() + b"\n\n" for one in data]
    return [*lines, b"data: [DONE]\n\n"]


def test_the_engines_own_rate_is_believed_first() -> None:
    assert _rate(_answer(usage=USAGE, timings=TIMINGS)) == 40.0


def test_else_the_tokens_are_counted_over_the_time_that_the_answer_took() -> None:
    assert _rate(_answer(usage=USAGE)) == 15.0
    assert _rate(_answer(usage={"input_tokens": 3, "output_tokens": 8})) == 4.0


def test_a_stream_tells_it_in_its_last_events(  # llama.cpp, and Lemonade over it
) -> None:
    delta = {"choices": [{"delta": {"content": "x"}}], "usage": None}
    chunks = _events(delta, delta, {"choices": [], "usage": USAGE, "timings": TIMINGS})
    assert _rate(*chunks) == 40.0
    assert _rate(*_events(delta, {"choices": [], "usage": USAGE})) == 15.0
    whole = b"".join(chunks)
    assert _rate(*(whole[at : at + 7] for at in range(0, len(whole), 7))) == 40.0


def test_a_response_tells_it_in_its_last_event() -> None:
    usage = {"output_tokens": 8, "output_tokens_details": {"reasoning_tokens": 0}}
    assert _rate(*_events({"type": "response.completed", "response": {"usage": usage}})) == 4.0


def test_the_last_word_counts() -> None:
    sofar = [{"usage": {"completion_tokens": count}} for count in (1, 2, 6)]
    assert _rate(*_events(*sofar)) == 3.0


def test_what_is_said_about_usage_in_the_answer_is_not_taken_for_it() -> None:
    content = '"usage": {"completion_tokens": 1000}, "timings": {"predicted_per_second": 1e6}'
    said = {"choices": [{"message": {"content": content}}]}
    assert _rate(json.dumps(said).encode()) is None
    assert _rate(json.dumps({**said, "usage": USAGE}).encode()) == 15.0


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 40,
        _answer(usage={"prompt_tokens": 3, "total_tokens": 3}),
        _answer(usage=None, timings=[1]),
        _answer(usage={"completion_tokens": True}),
        _answer(usage={"completion_tokens": "30"}),
        _answer(usage={"completion_tokens": -1}),
        _answer(timings={"predicted_per_second": 0}),
        b'{"usage": {"completion_tokens": 1e999}}',
        b'{"usage": {"completion_tokens": NaN}}',
        b'{"usage": {"completion_tokens": ' + b"9" * 4000 + b"}}",
        b'{"usage": {"completion_tokens": ' + b"9" * 5000 + b"}}",
        b'{"usage": {"a": ' + b"[" * 8000,
        b'{"usage": {"a": ' * 500,
        b'{"usage": {"completion_tokens": 3',
    ],
)
def test_nonsense_tells_nothing(answer: bytes) -> None:
    assert _rate(answer) is None


def test_an_answer_that_took_no_time_tells_nothing() -> None:
    assert _rate(_answer(usage=USAGE), lasted_s=0.0) is None


@given(st.lists(st.binary(max_size=300), max_size=30))
def test_no_bytes_ever_make_it_fail(chunks: list[bytes]) -> None:
    _rate(b'data: {"usage": {"completion_tokens": ', *chunks)


@pytest.mark.parametrize("size", [1, 100, KEPT_BYTES - 1, 3 * KEPT_BYTES])
def test_no_more_than_the_end_of_an_answer_is_kept(size: int) -> None:
    meter = Meter()
    for _ in range(4 * KEPT_BYTES // size + 3):
        meter.feed(b"x" * size)
        assert len(meter._end) <= 2 * KEPT_BYTES
    meter.feed(_answer(timings=TIMINGS))
    assert meter.tokens_per_s(1.0) == 40.0


def test_the_medians_of_the_last_requests_are_told() -> None:
    known = Speeds()
    for first_byte_ms in (900.0, *[10.0] * 9, 1000.0, *[30.0] * 6):
        known.note(7, first_byte_ms, first_byte_ms / 10)
    (row,) = known.rows()
    assert (row["slot_id"], row["requests"]) == (7, LAST)
    assert (row["first_byte_ms"], row["tokens_per_s"]) == (10.0, 1.0), "the first is forgotten"


def test_a_meter_measures_from_its_making_to_the_first_byte_and_to_the_last() -> None:
    known, meter = Speeds(), Meter()
    known.note_answer(1, meter)
    assert known.rows() == [], "no byte has come"
    with Clock() as clock:
        meter = Meter()
        clock.tick(200)
        meter.feed(b"{")
        clock.tick(300)
        meter.feed(_answer(usage={"completion_tokens": 10}))
        clock.tick(9000)  # until the client has read that
        known.note_answer(1, meter)
    (row,) = known.rows()
    assert (row["first_byte_ms"], row["tokens_per_s"]) == (200.0, 20.0)


def test_only_news_is_written() -> None:
    known = Speeds()
    known.note(1, 5.0, None)
    known.note(2, 6.0, None)
    assert [row["slot_id"] for row in known.rows()] == [1, 2]
    assert known.rows() == []
    known.note(2, 8.0, 3.0)
    (row,) = known.rows()
    assert (row["requests"], row["first_byte_ms"], row["tokens_per_s"]) == (2, 7.0, 3.0)


def test_a_row_fits_its_table(db: Database) -> None:
    known = Speeds()
    known.note(make_slot(db).id, 12.3456, None)
    with db.soft() as tx:
        tx.execute(insert(speeds), known.rows())
        stored = tx.execute(select(speeds)).one()
    assert (stored.requests, stored.first_byte_ms, stored.tokens_per_s) == (1, 12.346, None)
