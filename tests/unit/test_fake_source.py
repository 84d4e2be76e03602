"""That the fake file server does what it says, on the wire."""

import gzip
import http.client
import socket
import threading
import time
from collections.abc import Iterator

import httpx
import pytest

from tests.fakes.source import Manner, Source
from tests.fakes.source.manner import WrongRange

PATH = "dir/tiny model.gguf"
CONTENT = bytes(range(256)) * 1000


@pytest.fixture
def source() -> Iterator[Source]:
    with Source() as running:
        running.put(PATH, CONTENT)
        yield running


def get(source: Source, first: int | None = None, **headers: str) -> httpx.Response:
    if first is not None:
        headers["Range"] = f"bytes={first}-"
    return httpx.get(
        source.url(PATH), headers={"Accept-Encoding": "identity"} | headers, timeout=30
    )


def raw(source: Source) -> bytes:
    """Return all bytes of an answer, up to the end of the connection."""
    with socket.create_connection(("127.0.0.1", source.port), timeout=30) as connection:
        connection.sendall(b"GET /dir/tiny%20model.gguf HTTP/1.1\r\nConnection: close\r\n\r\n")
        with connection.makefile("rb") as stream:
            return stream.read()


def body_until_it_ends(source: Source) -> bytes:
    """Return what came of a body that is known to break off."""
    came = b""
    with httpx.stream("GET", source.url(PATH), timeout=30) as answer:
        try:
            for chunk in answer.iter_raw():
                came += chunk
        except httpx.TransportError:
            return came
    raise AssertionError("it came whole")


def test_a_file_comes_whole_with_its_validators_and_is_written_down(source: Source) -> None:
    answer = get(source)
    assert (answer.status_code, answer.content) == (200, CONTENT)
    assert answer.headers["Content-Length"] == str(len(CONTENT))
    assert answer.headers["Accept-Ranges"] == "bytes"
    assert answer.headers["ETag"].startswith('"')
    assert answer.headers["Last-Modified"].endswith(" GMT")
    (asked,) = source.requests
    assert (asked["method"], asked["path"], asked["status"]) == ("GET", PATH, 200)
    assert asked["headers"]["accept-encoding"] == "identity"
    assert asked["sent_bytes"] == len(CONTENT)


def test_a_head_has_the_headers_and_no_body(source: Source) -> None:
    answer = httpx.head(source.url(PATH))
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["Content-Length"] == str(len(CONTENT))


def test_what_is_not_there_is_404_and_other_methods_405(source: Source) -> None:
    assert httpx.get(source.url("nothing")).status_code == 404
    assert httpx.delete(source.url(PATH)).status_code == 405


def test_validators_can_be_given_and_left_out(source: Source) -> None:
    source.put(PATH, CONTENT, etag='"mine"', last_modified=None)
    answer = get(source)
    assert answer.headers["ETag"] == '"mine"'
    assert "Last-Modified" not in answer.headers


def test_one_connection_serves_several_requests(source: Source) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", source.port, timeout=30)
    for _ in range(3):
        connection.request("GET", "/dir/tiny%20model.gguf")
        assert connection.getresponse().read() == CONTENT
    connection.close()
    assert len(source.requests) == 3


def test_a_range_is_answered_with_the_rest(source: Source) -> None:
    answer = get(source, 1000)
    assert (answer.status_code, answer.content) == (206, CONTENT[1000:])
    assert answer.headers["Content-Range"] == f"bytes 1000-{len(CONTENT) - 1}/{len(CONTENT)}"


@pytest.mark.parametrize(("asked", "expected"), [("5-9", CONTENT[5:10]), ("-7", CONTENT[-7:])])
def test_other_forms_of_a_range_are_known(source: Source, asked: str, expected: bytes) -> None:
    answer = get(source, Range=f"bytes={asked}")
    assert (answer.status_code, answer.content) == (206, expected)


def test_beyond_the_end_is_416_with_the_total(source: Source) -> None:
    answer = get(source, len(CONTENT))
    assert answer.status_code == 416
    assert answer.headers["Content-Range"] == f"bytes */{len(CONTENT)}"


@pytest.mark.parametrize("validator", ["ETag", "Last-Modified"])
def test_if_range_gives_the_rest_only_of_the_same_file(source: Source, validator: str) -> None:
    condition = get(source).headers[validator]
    assert get(source, 10, **{"If-Range": condition}).status_code == 206
    source.put(PATH, CONTENT[::-1], last_modified="Mon, 01 Jan 2024 00:00:00 GMT")
    whole = get(source, 10, **{"If-Range": condition})
    assert (whole.status_code, whole.content) == (200, CONTENT[::-1])


def test_a_weak_validator_never_gives_a_part(source: Source) -> None:
    source.script(PATH, Manner(weak_etag=True))
    weak = get(source).headers["ETag"]
    assert weak.startswith('W/"')
    assert get(source, 10, **{"If-Range": weak}).status_code == 200


def test_manners_come_one_after_the_other_and_then_it_is_well(source: Source) -> None:
    source.script(PATH, Manner(status=503, times=2, retry_after="7"), Manner(status=404, times=1))
    assert [get(source).status_code for _ in range(4)] == [503, 503, 404, 200]


def test_a_manner_can_wait_for_its_kind_of_request(source: Source) -> None:
    source.script(
        PATH,
        Manner(method="HEAD", status=405),
        Manner(when="resume", status=500, times=1),
    )
    assert get(source).status_code == 200
    assert httpx.head(source.url(PATH)).status_code == 405
    assert [get(source, 5).status_code for _ in range(2)] == [500, 206]


def test_head_alone_can_be_refused(source: Source) -> None:
    source.script(PATH, Manner(head_status=405))
    assert httpx.head(source.url(PATH)).status_code == 405
    assert get(source).status_code == 200


@pytest.mark.parametrize("by", ["fin", "rst"])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_breaks_off_after_so_many_bytes(source: Source, by: str, chunked: bool) -> None:
    length = "chunked" if chunked else None
    source.script(PATH, Manner(drop_after=1234, drop_by=by, no_length=length))  # type: ignore[arg-type]
    assert body_until_it_ends(source) == CONTENT[:1234]
    assert source.requests[0]["sent_bytes"] == 1234


def test_a_stalled_body_goes_on_when_it_is_released(source: Source) -> None:
    source.script(PATH, Manner(stall_after=100))
    with httpx.stream("GET", source.url(PATH), timeout=30) as answer:
        chunks = answer.iter_raw()
        came = b""
        while len(came) < 100:
            came += next(chunks)
        assert came == CONTENT[:100]
        source.release()
        assert came + b"".join(chunks) == CONTENT


@pytest.mark.parametrize(
    "manner", [Manner(stall_after=100), Manner(stall_before_headers=True), Manner(dribble=True)]
)
def test_a_client_that_does_not_wait_is_not_waited_for(source: Source, manner: Manner) -> None:
    source.script(PATH, manner)
    with pytest.raises(httpx.TimeoutException):
        _get_within(source, 0.2)
    for thread in source._threads:
        thread.join(10)
        assert not thread.is_alive()


def _get_within(source: Source, limit_s: float) -> None:
    with httpx.stream("GET", source.url(PATH), timeout=limit_s) as answer:
        began = time.monotonic()
        for _ in answer.iter_raw():
            if time.monotonic() - began > limit_s:
                raise httpx.ReadTimeout("dribbled")


def test_the_middle_of_a_body_can_be_held(source: Source) -> None:
    gate = threading.Event()
    source.script(PATH, Manner(hold=gate))
    with httpx.stream("GET", source.url(PATH), timeout=30) as answer:
        chunks = answer.iter_raw()
        came = b""
        while len(came) < len(CONTENT) // 2:
            came += next(chunks)
        assert source.requests[0]["sent_bytes"] == len(CONTENT) // 2
        gate.set()
        assert came + b"".join(chunks) == CONTENT


@pytest.mark.parametrize(
    "manner",
    [
        Manner(stall_after=100),
        Manner(stall_before_headers=True),
        Manner(hold=threading.Event()),
        Manner(dribble=True),
        Manner(dribble_headers=True),
        Manner(endless=True),
        Manner(slow=1),
        Manner(delay_s=60),
    ],
)
def test_closing_ends_whatever_is_under_way(manner: Manner) -> None:
    source = Source()
    source.put(PATH, CONTENT)
    source.script(PATH, manner)
    connection = socket.create_connection(("127.0.0.1", source.port), timeout=30)
    connection.sendall(b"GET /dir/tiny%20model.gguf HTTP/1.1\r\nHost: x\r\n\r\n")
    while not source.requests:
        time.sleep(0.01)
    began = time.monotonic()
    source.close()
    assert time.monotonic() - began < 10
    assert not [thread for thread in source._threads if thread.is_alive()]
    connection.close()


def test_a_slow_body_takes_its_time(source: Source) -> None:
    source.put(PATH, bytes(1000))
    source.script(PATH, Manner(slow=4000))
    began = time.monotonic()
    assert len(get(source).content) == 1000
    assert time.monotonic() - began > 0.2


def test_a_length_can_lie(source: Source) -> None:
    source.script(PATH, Manner(wrong_length=5))
    assert body_until_it_ends(source) == CONTENT
    source.script(PATH, Manner(wrong_length=-5))
    head, _, body = raw(source).partition(b"\r\n\r\n")
    assert f"Content-Length: {len(CONTENT) - 5}\r\n".encode() in head + b"\r\n"
    assert body == CONTENT


def test_a_body_can_come_without_a_length(source: Source) -> None:
    source.script(PATH, Manner(no_length="chunked", times=1), Manner(no_length="close"))
    for _ in range(2):
        answer = get(source)
        assert answer.content == CONTENT
        assert "Content-Length" not in answer.headers


def test_an_endless_body_ends_with_its_client(source: Source) -> None:
    source.script(PATH, Manner(endless=True))
    with httpx.stream("GET", source.url(PATH), timeout=30) as answer:
        assert "Content-Length" not in answer.headers
        came = 0
        for chunk in answer.iter_raw():
            came += len(chunk)
            if came > 3 * len(CONTENT):
                break


WRONG: list[tuple[WrongRange, str | None, bytes]] = [
    ("offset", "bytes 999-255999/256000", CONTENT[999:]),
    ("lie", "bytes 1000-255999/256000", CONTENT[999:-1]),
    ("total", "bytes 1000-255999/256001", CONTENT[1000:]),
    ("no_total", "bytes 1000-255999/*", CONTENT[1000:]),
    ("missing", None, CONTENT[1000:]),
    ("garbage", "bytes of the file", CONTENT[1000:]),
    ("short", "bytes 1000-128499/256000", CONTENT[1000:128500]),
]


@pytest.mark.parametrize(("wrong", "shown", "body"), WRONG)
def test_a_part_can_be_wrong(
    source: Source, wrong: WrongRange, shown: str | None, body: bytes
) -> None:
    source.script(PATH, Manner(wrong_range=wrong))
    answer = get(source, 1000)
    assert answer.status_code == 206
    assert answer.headers.get("Content-Range") == shown
    assert answer.content == body


def test_a_part_can_be_of_several_or_unasked_or_the_whole(source: Source) -> None:
    source.script(PATH, Manner(wrong_range="multipart"))
    assert get(source, 1000).headers["Content-Type"].startswith("multipart/byteranges")
    source.script(PATH, Manner(wrong_range="unasked"))
    assert (get(source).status_code, get(source).content) == (206, CONTENT)
    source.script(PATH, Manner(ignore_range=True))
    assert (get(source, 1000).status_code, get(source, 1000).content) == (200, CONTENT)


def test_a_coding_comes_although_nobody_asked(source: Source) -> None:
    source.script(PATH, Manner(encoding="gzip"))
    head, _, body = raw(source).partition(b"\r\n\r\n")
    assert b"Content-Encoding: gzip" in head
    assert gzip.decompress(body) == CONTENT


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_goes_where_it_is_told(source: Source, status: int) -> None:
    source.put("other", b"other")
    source.script(PATH, Manner(redirect_to=source.url("other"), redirect_status=status))
    answer = httpx.get(source.url(PATH), follow_redirects=True)
    assert answer.history[0].status_code == status
    assert answer.content == b"other"


@pytest.mark.parametrize("to", ["file:///etc/hostname", "ftp://h/x", "http://169.254.169.254/"])
def test_a_redirect_is_word_for_word(source: Source, to: str) -> None:
    source.script(PATH, Manner(redirect_to=to))
    assert get(source).headers["Location"] == to


def test_redirects_can_go_in_a_circle(source: Source) -> None:
    source.script(PATH, Manner(redirect_to=source.url("b")))
    source.script("b", Manner(redirect_to=source.url(PATH)))
    with pytest.raises(httpx.TooManyRedirects):
        httpx.get(source.url(PATH), follow_redirects=True)


def test_a_file_can_change_with_each_request_or_rot_in_silence(source: Source) -> None:
    source.script(PATH, Manner(changes=True))
    answers = [get(source) for _ in range(3)]
    assert answers[0].content == CONTENT
    assert len({answer.content for answer in answers}) == 3
    assert len({answer.headers["ETag"] for answer in answers}) == 3
    source.script(PATH, Manner(corrupt_at=1005))
    rotten = get(source, 1000)
    assert rotten.headers["ETag"] == answers[0].headers["ETag"]
    assert [n for n in range(10) if rotten.content[n] != CONTENT[1000 + n]] == [5]


def test_validators_can_be_left_out_and_headers_set(source: Source) -> None:
    source.script(PATH, Manner(no_validator=True, headers={"Accept-Ranges": None, "X-Mine": "1"}))
    answer = get(source)
    assert not {"etag", "last-modified", "accept-ranges"} & set(answer.headers)
    assert answer.headers["X-Mine"] == "1"


def test_an_answer_can_be_none_or_nonsense_or_huge(source: Source) -> None:
    source.script(PATH, Manner(close_before_answer=True, times=1))
    with pytest.raises(httpx.RemoteProtocolError):
        get(source)
    source.script(PATH, Manner(garbage=b"220 mail.example ESMTP\r\n", times=1))
    with pytest.raises(httpx.RemoteProtocolError):
        get(source)
    source.script(PATH, Manner(huge_headers=20_000))
    assert len(raw(source).partition(b"\r\n\r\n")[0]) > 20_000


def test_many_clients_are_served_at_once(source: Source) -> None:
    came: list[bytes] = []
    threads = [threading.Thread(target=lambda: came.append(get(source).content)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert came == [CONTENT] * 8
    assert len(source.requests) == 8


def test_a_source_can_be_at_another_address_of_this_machine() -> None:
    with Source(host="127.0.0.2") as source:
        source.put("x", b"x")
        assert httpx.get(source.url("x")).content == b"x"
        assert source.origin.startswith("http://127.0.0.2:")
