"""The model's name in a form with files: one place, which no parser can take for another."""

import contextlib
import email.policy
import time
from email.message import EmailMessage
from email.parser import BytesParser

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hal0.dispatcher.forms import form_body
from hal0.errors import InvalidRequest, NotJsonType

KIND = b"multipart/form-data; boundary=xYz"


def part(disposition: str, content: bytes, more: str = "") -> bytes:
    head = f"Content-Disposition: {disposition}\r\n{more}\r\n".encode()
    return b"--xYz\r\n" + head + content + b"\r\n"


MODEL = part('form-data; name="model"', b"chat")
FILE = part(
    'form-data; name="file"; filename="a.wav"',
    b"RIFF\r\n--xY\r\n\x00\xff",
    "Content-Type: audio/wav\r\n",
)
ALSO_MODEL = 'Content-Disposition: form-data; name="model"\r\n'
END = b"--xYz--\r\n"


def parts_of(content: bytes, kind: bytes) -> list[tuple[str, object]]:
    """Read a form by the rules of mail, with another parser."""
    text = b"Content-Type: " + kind + b"\r\n\r\n" + content
    message = BytesParser(EmailMessage, policy=email.policy.HTTP).parsebytes(text)
    assert isinstance(message, EmailMessage)
    return [
        (str(one["content-disposition"]), one.get_payload(decode=True))
        for one in message.iter_parts()
    ]


@pytest.mark.parametrize("content", [MODEL + FILE + END, FILE + MODEL + END, MODEL + END])
def test_the_name_alone_is_replaced_wherever_it_stands(content: bytes) -> None:
    body = form_body(content, KIND)
    assert (body.model, body.is_stream, body.content_type) == ("chat", False, KIND.decode())
    renamed = body.renamed("extra.tiny-1")
    assert renamed == content.replace(b"\r\n\r\nchat\r\n", b"\r\n\r\nextra.tiny-1\r\n")
    assert len(renamed) == len(content) + 8


@pytest.mark.parametrize(
    "kind",
    [
        b"multipart/form-data; boundary=xYz",
        b'multipart/form-data; boundary="xYz"',
        b"Multipart/Form-Data;boundary=xYz",
    ],
)
def test_a_boundary_may_be_quoted(kind: bytes) -> None:
    assert form_body(MODEL + END, kind).model == "chat"


@pytest.mark.parametrize("boundary", ["a b'()+_,-./:=?", "-" * 70, "0"])
def test_a_boundary_may_be_odd(boundary: str) -> None:
    content = (MODEL + FILE + END).replace(b"--xYz", b"--" + boundary.encode())
    body = form_body(content, f'multipart/form-data; boundary="{boundary}"'.encode())
    assert (body.model, body.renamed("chat")) == ("chat", content)


def test_a_stream_is_known_as_one() -> None:
    stream = part('form-data; name="stream"', b"true")
    assert form_body(MODEL + stream + END, KIND).is_stream


def test_what_httpx_sends_is_taken() -> None:
    sent = httpx.Request(
        "POST",
        "http://h",
        data={"model": "chat", "language": "ä"},
        files={"file": ('naïve "x".wav', b"\r\n--" + bytes(range(256)), "audio/wav")},
    )
    body = form_body(sent.read(), sent.headers["content-type"].encode())
    assert body.model == "chat"
    assert body.renamed("chat") == sent.content


CONTENTS = st.binary(max_size=99).filter(lambda text: b"--xYz" not in text)


@given(st.lists(CONTENTS, max_size=3), st.lists(CONTENTS, max_size=3))
def test_every_other_part_stays_as_it_was_to_another_parser(
    before: list[bytes], behind: list[bytes]
) -> None:
    fields = [
        part(
            f'form-data; name="f{number}"',
            content,
            "Content-Type: application/octet-stream\r\nContent-Transfer-Encoding: binary\r\n",
        )
        for number, content in enumerate([*before, *behind])
    ]
    content = b"".join([*fields[: len(before)], MODEL, *fields[len(before) :], END])
    renamed = form_body(content, KIND).renamed("other")
    was, now = parts_of(content, KIND), parts_of(renamed, KIND)
    place = len(before)
    assert now[place][1] == b"other"
    assert now[:place] + now[place + 1 :] == was[:place] + was[place + 1 :]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (FILE + END, "name of a slot"),
        (part('form-data; name="model"', b"") + END, "name of a slot"),
        (MODEL + MODEL + END, "`model` is given twice"),
        (MODEL + FILE + part("form-data; name=model", b"b") + END, "`model` is given twice"),
        (part('form-data; name="model"', b"\xff") + END, "no UTF-8"),
        (part('form-data; name="model"; name="file"', b"b") + END, "a part has one name"),
        (part('form-data; name="x"; name="model"', b"b") + MODEL + END, "a part has one name"),
        (part("form-data; name*=utf-8''model", b"b") + MODEL + END, "needs one header"),
        (part('form-data; name="mod\\el"', b"b") + MODEL + END, "backslash"),
        (part('form-data; filename="model"', b"b") + MODEL + END, "a part has one name"),
        (part('attachment; name="model"', b"b") + MODEL + END, "needs one header"),
        (part('form-data; name="x"', b"b", ALSO_MODEL) + MODEL + END, "needs one header"),
        (part('form-data; name="model"', b"b", "Content-Transfer-Encoding: base64\r\n") + END,
         "headers of its own"),
        (b"--xYz\r\n\r\nno header\r\n" + MODEL + END, "needs one header"),
        (part('form-data; name="model"; filename="m"', b"chat") + END, "`model` is a file"),
        (part('form-data; name="x"', b"\n--xYz\n") + MODEL + END, "where no part begins"),
        (part('form-data; name="x"', b"\r\n--xYzq\r\n") + MODEL + END, "where no part begins"),
        (part('form-data; name="x"', b"\r\n--xYz \r\n") + MODEL + END, "where no part begins"),
        (part('form-data; name="x"; filename="--xYz"', b"b") + MODEL + END, "where no part begins"),
        (b"before\r\n" + MODEL + END, "begin with its boundary"),
        (MODEL + END + MODEL, "end with its boundary"),
        (MODEL + END + b"\r\n--xYz--", "where no part begins"),
        (MODEL + END + b"\r\n--", "end with its boundary"),
        (MODEL, "end with its boundary"),
        (MODEL + b"--xYz", "end with its boundary"),
        (MODEL[:-9], "end with its boundary"),
        (b"", "begin with its boundary"),
        (END, "begin with its boundary"),
        (b'{"model":"chat"}', "begin with its boundary"),
    ],
)  # fmt: skip
def test_what_two_parsers_could_read_differently_is_refused(content: bytes, why: str) -> None:
    with pytest.raises(InvalidRequest, match=why):
        form_body(content, KIND)


def test_a_form_of_too_many_parts_is_refused_before_it_is_read() -> None:
    """In time of the CPU: streams of others wait for it, and a busy machine makes it no longer."""
    content = MODEL + part("form-data; name=a", b"") * 100_000 + END
    began_s = time.thread_time()
    with pytest.raises(InvalidRequest, match="more than 200 parts"):
        form_body(content, KIND)
    assert time.thread_time() - began_s < 0.3
    assert form_body(MODEL + part("form-data; name=a", b"") * 199 + END, KIND).model == "chat"


@pytest.mark.parametrize(
    "kind",
    [
        b"",
        b"application/json",
        b"multipart/form-data",
        b"multipart/form-data; boundary=",
        b'multipart/form-data; boundary="x',
        b"multipart/form-data; boundary=a; boundary=b",
        b"multipart/mixed; boundary=xYz",
        b"multipart/form-data; boundary=" + b"x" * 71,
    ],
)
def test_another_type_is_refused(kind: bytes) -> None:
    with pytest.raises(NotJsonType):
        form_body(MODEL + END, kind)


@given(
    st.binary(max_size=200)
    | st.lists(st.sampled_from([MODEL, FILE, END, b"--xYz", b"\r\n", b"x"])).map(b"".join)
)
def test_whatever_comes_is_understood_or_refused(content: bytes) -> None:
    with contextlib.suppress(InvalidRequest):
        body = form_body(content, KIND)
        assert body.renamed(body.model) == content
