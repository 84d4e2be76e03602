"""The model's name in a JSON body: found as the engine will find it, and put in its place."""

import contextlib
import json
import time
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hal0.dispatcher.bodies import PIECE_BYTES, json_body
from hal0.errors import InvalidRequest, NotJson, NotJsonType

JSON = b"application/json"
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip
OBJECTS = st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), VALUES, max_size=6)


@given(OBJECTS, st.booleans())
def test_all_but_the_name_is_as_it_was(value: dict[str, object], is_ascii: bool) -> None:
    asked = {**value, "model": "chat"}
    body = json_body(json.dumps(asked, ensure_ascii=is_ascii).encode(), JSON)
    assert body.model == "chat"
    assert json.loads(body.renamed("other")) == {**asked, "model": "other"}


def test_values_stay_byte_for_byte() -> None:
    body = json_body(b'{"t" : 1.50e3,\n "model":"chat", "s":[ 1,  "\\u00e9" ]}', JSON)
    assert body.renamed("m") == b'{"t" : 1.50e3,\n "model":"m", "s":[ 1,  "\\u00e9" ]}'


INNER = b'{"model":"chat"}'


@pytest.mark.parametrize(
    "content",
    [
        b'{"model":"chat","x":%s}' % INNER,
        b'{"x":[%s,%s],"model" :\n"chat"}' % (INNER, INNER),
        b'{"x":[%s],"role":"model","model":"chat","y":%s}' % (INNER, INNER),
        b'{"x":"\\"model\\":\\"chat\\"","model":"ch\\u0061t"}',
    ],
)
def test_the_name_is_found_among_others_like_it(content: bytes) -> None:
    body = json_body(content, JSON)
    assert body.model == "chat"
    assert json.loads(body.renamed("m")) == {**json.loads(content), "model": "m"}


@pytest.mark.parametrize(
    "content",
    [
        b'{"model":"a","model":"b"}',
        b'{"model":"a","mod\\u0065l":"a"}',
        b'{"mod\\u0065l":"a"}',
        b'{"mod\\u0065l":"a","x":{"model":"a"}}',
        b'{"model":1,"model":"a"}',
    ],
)
def test_a_name_that_two_parsers_may_not_both_find_is_refused(content: bytes) -> None:
    with pytest.raises(InvalidRequest, match="once, and written without escapes"):
        json_body(content, JSON)


MANY = {
    "names": b'{"model":"chat"' + b"".join(b',"%d":1' % n for n in range(300_000)) + b"}",
    "objects": b'{"model":"chat","x":[' + b'{"a":"b"},' * 300_000 + b"1]}",
    "letters": b'{"model":"chat","x":"' + "Ж😀".encode() * 600_000 + b'"}',
    "such names": b'{"mod\\u0065l":"a","x":[' + b'{"model":"a"},' * 250_000 + b"1]}",
    "a long name": b'{"model":"' + b"x" * 4_000_000 + b'"}',
}


@pytest.mark.parametrize("content", MANY.values(), ids=MANY)
def test_a_body_costs_its_bytes_whatever_is_in_them(content: bytes) -> None:
    """In time of the CPU: streams of others wait for it, and a busy machine makes it no longer."""
    began_s = time.thread_time()
    tracemalloc.start()
    try:
        with contextlib.suppress(InvalidRequest):
            json_body(content, JSON)
        _, most_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert time.thread_time() - began_s < 1
    assert most_bytes < len(content) + 8 * PIECE_BYTES


@pytest.mark.parametrize("value", [b"true", b" true "])
def test_a_stream_is_known_as_one(value: bytes) -> None:
    assert json_body(b'{"model":"a","stream":' + value + b"}", JSON).is_stream


@pytest.mark.parametrize("value", [b"false", b"null", b"1", b'"true"'])
def test_anything_else_is_no_stream(value: bytes) -> None:
    assert not json_body(b'{"model":"a","stream":' + value + b"}", JSON).is_stream


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "it is empty"),
        (b" \n", "it is empty"),
        (b"[]", "Expected `object`"),
        (b'"model"', "Expected `object`"),
        (b"{", "truncated"),
        (b'{"model":"a"}x', "trailing"),
        (b'{"model":"a","x":NaN}', "malformed"),
        (b'{"model":"a","x":-Infinity}', "malformed"),
        (b'{"model":"a","x":"\\ud800"}', ""),
        (b'{"model":"a","x":"\\ud800 and more"}', ""),
        (b'{"model":"a","x":"\\udc00"}', ""),
        (b'{"\\ud800":1,"model":"a"}', ""),
        (b'{"model":"a","x":"\xff"}', "byte 18 is no UTF-8"),
        (b'{"\xff":1}', "byte 2 is no UTF-8"),
        (b'\xef\xbb\xbf{"model":"a"}', "malformed"),
        (b'{"model":"a","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
        (b'{"model":"a","x":' + b'{"a":' * 50_000 + b"1" + b"}" * 50_001, "nested too deeply"),
        (b'{"model":"a","x":"\x00"}', "malformed"),
    ],
)
def test_what_is_no_json_object_is_refused(content: bytes, why: str) -> None:
    with pytest.raises(NotJson, match="the body is no JSON object: .*" + why):
        json_body(content, JSON)


@pytest.mark.parametrize(
    "content",
    [
        b"{}",
        b'{"model":null}',
        b'{"model":""}',
        b'{"model":["chat"]}',
        b'{"model":1}',
        b'{"Model":"chat"}',
        b'{"model_name":"chat"}',
        b'{"model":"' + b"x" * 257 + b'"}',
    ],
)
def test_a_body_that_names_no_model_is_refused(content: bytes) -> None:
    with pytest.raises(InvalidRequest) as caught:
        json_body(content, JSON)
    assert caught.value.evidence == {"field": "model"}


@pytest.mark.parametrize(
    "kind",
    [
        b"",
        b"application/json",
        b"Application/JSON; charset=UTF-8",
        b'application/json;charset="utf-8"',
    ],
)
def test_json_may_be_called_so_or_not_at_all(kind: bytes) -> None:
    body = json_body(b'{"model":"a"}', kind)
    assert body.content_type == "application/json"


@pytest.mark.parametrize(
    "kind",
    [b"text/plain", b"multipart/form-data; boundary=x", b"application/json; charset=utf-16",
     b"application/jsonx", b"application/x-www-form-urlencoded"],
)  # fmt: skip
def test_what_says_that_it_is_something_else_is_refused(kind: bytes) -> None:
    with pytest.raises(NotJsonType):
        json_body(b'{"model":"a"}', kind)


def test_a_body_of_20_mb_is_taken_whole() -> None:
    image = b"A" * 20_000_000
    body = json_body(b'{"model":"a","image":"' + image + b'"}', JSON)
    assert body.renamed("b") == b'{"model":"b","image":"' + image + b'"}'


@given(st.binary(max_size=60) | OBJECTS.map(lambda value: json.dumps(value).encode()[:-1]))
def test_whatever_comes_is_understood_or_refused(content: bytes) -> None:
    with contextlib.suppress(NotJson, InvalidRequest):
        assert json.loads(json_body(content, JSON).renamed("m"))["model"] == "m"
