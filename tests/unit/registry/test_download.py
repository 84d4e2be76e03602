"""How a download goes on behind what it has, and what of a source it does not believe."""

import gzip
import hashlib
import json
import os
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from email.utils import formatdate
from pathlib import Path
from typing import Any

import httpx
import pytest

from hal0.errors import (
    ClaimLost,
    DiskFull,
    FetchedMismatch,
    PartHeld,
    PullError,
    SourceBadAnswer,
    SourceFault,
    SourceNotFound,
    SourceRefused,
    SourceStalled,
    SourceUnreachable,
)
from hal0.hosts import HostList
from hal0.registry.checksum import Interrupted
from hal0.registry.download import Download, download, size_at_source
from hal0.registry.part import Fetched, Watcher, note_of, open_part, part_of
from hal0.registry.reach import PUBLIC_ONLY, Reach
from hal0.registry.web import MAX_TOLD, Asked, refuse_status
from tests.fakes.source import Manner, Source
from tests.ledger import eventually
from tests.tiny_gguf import tiny_gguf_bytes

NAME = "dir/model.gguf"
SIZE = 300_007
HALF = 150_000
LOOPBACK = Reach(private=HostList.of(["127.0.0.1"]))


@pytest.fixture
def source() -> Iterator[Source]:
    with Source() as server:
        yield server


@pytest.fixture
def content(source: Source) -> bytes:
    """What the source has."""
    made = os.urandom(SIZE)
    source.put(NAME, made)
    return made


@pytest.fixture
def wanted(source: Source, content: bytes, tmp_path: Path) -> Download:
    return Download(
        source.url(NAME),
        source.url(NAME),
        tmp_path / "models" / "m.gguf",
        len(content),
        hashlib.sha256(content).hexdigest(),
        reach=LOOPBACK,
    )


def fetch(wanted: Download, stall_s: float = 5, **watcher: Any) -> Fetched:
    return download(wanted, Watcher(**watcher), stall_s=stall_s)


def gets(source: Source) -> list[tuple[int, str | None]]:
    """Status and Range of every GET."""
    return [
        (one["status"], one["headers"].get("range"))
        for one in source.requests
        if one["method"] == "GET"
    ]


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()


def test_a_file_is_fetched_whole_and_hashed_on_the_way(
    source: Source, content: bytes, wanted: Download
) -> None:
    seen: list[tuple[Any, ...]] = []
    fetched = fetch(wanted, on_progress=lambda *at: seen.append(at))
    assert fetched.sha256 == wanted.sha256
    assert fetched.identity.size_bytes == SIZE
    assert wanted.target.read_bytes() == content
    assert names_in(wanted.target.parent) == {"m.gguf"}
    assert (seen[0], seen[-1]) == (("fetch", 0, SIZE), ("fetch", SIZE, SIZE))
    assert gets(source) == [(200, None)]
    assert source.requests[0]["headers"]["accept-encoding"] == "identity"


@pytest.mark.parametrize("drop_by", ["fin", "rst"])
def test_what_breaks_off_is_taken_up_again_behind_what_is_there(
    source: Source, content: bytes, wanted: Download, drop_by: Any
) -> None:
    source.script(NAME, Manner(drop_after=HALF, drop_by=drop_by, slow=2_000_000, times=1))
    with pytest.raises(SourceUnreachable):
        fetch(wanted)
    there = part_of(wanted.target).stat().st_size
    assert 0 < there <= HALF
    fetch(wanted)
    assert wanted.target.read_bytes() == content
    assert gets(source) == [(200, None), (206, f"bytes={there}-")]
    assert source.requests[1]["headers"]["if-range"].startswith('"')
    assert source.requests[1]["sent_bytes"] == SIZE - there


def break_off(source: Source, wanted: Download) -> int:
    """Leave half of the file as a part."""
    source.script(NAME, Manner(drop_after=HALF, times=1))
    with pytest.raises(SourceFault):
        fetch(wanted)
    return part_of(wanted.target).stat().st_size


def test_what_is_another_file_by_now_is_fetched_anew(
    source: Source, content: bytes, wanted: Download
) -> None:
    break_off(source, wanted)
    other = os.urandom(SIZE)
    source.put(NAME, other)
    changed = replace(wanted, sha256=hashlib.sha256(other).hexdigest())
    fetch(changed)
    assert wanted.target.read_bytes() == other
    assert [status for status, _ in gets(source)] == [200, 200]


@pytest.mark.parametrize(
    "manner",
    [
        Manner(ignore_range=True),
        *(
            Manner(when="resume", wrong_range=how)
            for how in ("offset", "lie", "total", "missing", "garbage", "multipart", "short")
        ),
        Manner(when="resume", encoding="gzip"),
        Manner(when="resume", status=416),
    ],
    ids=str,
)
def test_a_source_that_does_not_go_on_where_it_was_asked_to_is_fetched_anew(
    source: Source, content: bytes, wanted: Download, manner: Manner
) -> None:
    break_off(source, wanted)
    source.script(NAME, manner)
    try:
        fetch(wanted)
    except FetchedMismatch:
        # A 206 that says what it should and is other bytes: the digest alone can tell.
        assert manner.wrong_range == "lie"
        return
    assert wanted.target.read_bytes() == content


def test_a_total_that_a_source_does_not_say_is_no_reason_to_begin_anew(
    source: Source, content: bytes, wanted: Download
) -> None:
    there = break_off(source, wanted)
    source.script(NAME, Manner(wrong_range="no_total"))
    fetch(wanted)
    assert wanted.target.read_bytes() == content
    assert gets(source)[-1] == (206, f"bytes={there}-")


@pytest.mark.parametrize("manner", [Manner(no_validator=True), Manner(weak_etag=True)], ids=str)
def test_nothing_is_taken_up_that_cannot_be_known_to_be_the_same(
    source: Source, content: bytes, wanted: Download, manner: Manner
) -> None:
    source.script(NAME, replace(manner, drop_after=HALF, times=1), manner)
    with pytest.raises(SourceFault):
        fetch(wanted)
    fetch(wanted)
    assert wanted.target.read_bytes() == content
    assert gets(source) == [(200, None), (200, None)]


def test_the_date_of_a_change_is_a_validator_where_there_is_no_etag(
    source: Source, content: bytes, wanted: Download
) -> None:
    source.put(NAME, content, etag=None)
    there = break_off(source, wanted)
    fetch(wanted)
    assert gets(source)[-1] == (206, f"bytes={there}-")


def test_a_part_that_is_whole_needs_no_request(
    source: Source, content: bytes, wanted: Download
) -> None:
    break_off(source, wanted)
    part_of(wanted.target).write_bytes(content)
    before = len(source.requests)
    fetched = fetch(wanted)
    assert fetched.sha256 == wanted.sha256
    assert len(source.requests) == before


def test_a_part_that_is_longer_than_the_file_is_thrown_away(
    source: Source, content: bytes, wanted: Download
) -> None:
    break_off(source, wanted)
    part_of(wanted.target).write_bytes(content + b"more")
    fetch(wanted)
    assert wanted.target.read_bytes() == content


def test_a_part_whose_bytes_were_damaged_is_found_by_its_digest(
    source: Source, content: bytes, wanted: Download
) -> None:
    there = break_off(source, wanted)
    part_of(wanted.target).write_bytes(bytes(there))
    with pytest.raises(FetchedMismatch) as caught:
        fetch(wanted)
    assert caught.value.evidence["expected"] == wanted.sha256
    assert names_in(wanted.target.parent) == {"m.gguf.bad"}
    fetch(wanted)
    assert wanted.target.read_bytes() == content


def test_a_wrong_digest_sets_the_file_aside_and_gives_it_no_name(
    source: Source, content: bytes, wanted: Download
) -> None:
    source.script(NAME, Manner(corrupt_at=HALF))
    with pytest.raises(FetchedMismatch) as caught:
        fetch(wanted)
    assert names_in(wanted.target.parent) == {"m.gguf.bad"}
    evidence = caught.value.evidence
    assert evidence["kept_as"] == f"{wanted.target}.bad"
    assert evidence["size_bytes"] == SIZE
    assert evidence["found"] != evidence["expected"] == wanted.sha256


@pytest.mark.parametrize(
    ("manner", "error"),
    [
        (Manner(status=404), SourceNotFound),
        (Manner(status=410), SourceNotFound),
        (Manner(status=401), SourceRefused),
        (Manner(status=403), SourceRefused),
        (Manner(status=400), SourceBadAnswer),
        (Manner(status=302), SourceBadAnswer),
        (Manner(status=204), SourceBadAnswer),
        (Manner(status=429), SourceUnreachable),
        (Manner(status=500), SourceUnreachable),
        (Manner(status=503), SourceUnreachable),
        (Manner(close_before_answer=True), SourceUnreachable),
        (Manner(close_before_answer=True, drop_by="rst"), SourceUnreachable),
        (Manner(garbage=b"\x16\x03\x01 what\r\n\r\n"), SourceUnreachable),
        (Manner(huge_headers=500_000), SourceUnreachable),
        (Manner(encoding="gzip"), SourceBadAnswer),
        (Manner(wrong_range="unasked"), SourceBadAnswer),
        (Manner(wrong_length=+1), SourceBadAnswer),
        (Manner(wrong_length=-1), SourceBadAnswer),
        (Manner(no_length="chunked", drop_after=HALF), SourceUnreachable),
        (Manner(no_length="close", drop_after=HALF), SourceUnreachable),
        (Manner(endless=True, slow=50_000_000), SourceBadAnswer),
        (Manner(redirect_to="/dir/model.gguf"), SourceBadAnswer),
        (Manner(redirect_to="ftp://127.0.0.1/model.gguf"), SourceBadAnswer),
        (Manner(redirect_to="file:///etc/passwd"), SourceBadAnswer),
        (Manner(redirect_to="http://[bad"), PullError),
        (Manner(redirect_to="http://127.0.0.1:99999/"), SourceBadAnswer),
        (Manner(redirect_to="http://xn--/"), PullError),
        (Manner(headers={"Content-Length": "9" * 30}), PullError),
    ],
    ids=str,
)
def test_each_bad_answer_has_its_name_and_says_which_source(
    source: Source, wanted: Download, manner: Manner, error: type[PullError]
) -> None:
    source.script(NAME, manner)
    with pytest.raises(error) as caught:
        fetch(wanted)
    assert wanted.source in caught.value.detail
    assert caught.value.evidence["source"] == wanted.source
    assert not wanted.target.exists()


def test_a_source_that_is_busy_says_when_to_come_again(source: Source, wanted: Download) -> None:
    source.script(NAME, Manner(status=503, retry_after="7", times=1))
    with pytest.raises(SourceUnreachable) as caught:
        fetch(wanted)
    assert caught.value.retry_after_s == 7


def test_nobody_at_the_address_is_unreachable(wanted: Download) -> None:
    with pytest.raises(SourceUnreachable):
        fetch(replace(wanted, url="http://127.0.0.1:9/x.gguf"))


@pytest.mark.parametrize("digest", [True, False])
def test_a_length_that_nobody_says_is_the_length_of_what_comes(
    source: Source, content: bytes, wanted: Download, digest: bool
) -> None:
    source.script(NAME, Manner(no_length="chunked"))
    unknown = replace(wanted, size_bytes=None, sha256=wanted.sha256 if digest else None)
    seen: list[tuple[Any, ...]] = []
    fetched = fetch(unknown, on_progress=lambda *at: seen.append(at))
    assert (fetched.identity.size_bytes, fetched.sha256) == (SIZE, wanted.sha256)
    assert {total for _, _, total in seen} == {0}


@pytest.mark.parametrize(
    "manner",
    [
        Manner(stall_before_headers=True),
        Manner(stall_after=0),
        Manner(stall_after=HALF),
        Manner(dribble=True),
        Manner(dribble_headers=True),
    ],
    ids=str,
)
def test_a_source_that_sends_next_to_nothing_is_given_up_and_what_came_is_kept(
    source: Source, wanted: Download, manner: Manner
) -> None:
    source.script(NAME, manner)
    begun = time.monotonic()
    with pytest.raises(SourceStalled) as caught:
        fetch(wanted, stall_s=0.5)
    assert time.monotonic() - begun < 10  # and not the hours that a dribble would take
    assert caught.value.evidence["stall_s"] == 0.5
    if manner.stall_after:
        assert part_of(wanted.target).stat().st_size == HALF


def test_a_slow_source_is_not_a_stalled_one(
    source: Source, content: bytes, wanted: Download
) -> None:
    source.script(NAME, Manner(slow=200_000))
    assert fetch(wanted, stall_s=0.6) is not None  # takes 1.5 s in all
    assert wanted.target.read_bytes() == content


@pytest.mark.parametrize("manner", [Manner(stall_after=HALF), Manner(stall_before_headers=True)])
def test_a_download_that_is_told_to_stop_stops_within_a_second_and_keeps_its_part(
    source: Source, wanted: Download, manner: Manner
) -> None:
    source.script(NAME, manner)
    stop = threading.Event()
    told = [0.0]

    def say_stop() -> None:
        told[0] = time.monotonic()
        stop.set()

    timer = threading.Timer(0.3, say_stop)
    timer.start()
    with pytest.raises(Interrupted):
        fetch(wanted, stall_s=60, should_stop=stop.is_set)
    assert time.monotonic() - told[0] < 1
    timer.join()
    if manner.stall_after:
        assert part_of(wanted.target).stat().st_size == HALF
        assert note_of(wanted.target).exists()
    else:
        assert names_in(wanted.target.parent) == set()


def test_a_redirect_is_followed_to_where_the_file_is(
    source: Source, content: bytes, wanted: Download
) -> None:
    for status in (301, 302, 303, 307, 308):
        source.script("moved", Manner(redirect_to=f"/{NAME}", redirect_status=status))
        moved = replace(
            wanted, url=source.url("moved"), target=wanted.target.with_name(f"{status}")
        )
        fetch(moved)
        assert moved.target.read_bytes() == content


def test_a_resume_is_asked_of_where_the_redirect_leads(
    source: Source, content: bytes, wanted: Download
) -> None:
    source.script("moved", Manner(redirect_to=f"/{NAME}"))
    moved = replace(wanted, url=source.url("moved"))
    there = break_off(source, moved)
    fetch(moved)
    assert source.requests[-1]["headers"]["range"] == f"bytes={there}-"
    assert "if-range" in source.requests[-1]["headers"]


@pytest.mark.parametrize("chain", [["a"], ["a", "b"]])
def test_redirects_in_a_circle_end(source: Source, wanted: Download, chain: list[str]) -> None:
    for place, name in enumerate(chain):
        following = chain[(place + 1) % len(chain)]
        source.script(name, Manner(redirect_to=f"/{following}"))
    with pytest.raises(SourceBadAnswer, match="more than 10 times"):
        fetch(replace(wanted, url=source.url("a")))
    assert len(source.requests) == 11


def test_a_redirect_to_another_port_of_the_named_host_is_followed(
    source: Source, content: bytes, wanted: Download
) -> None:
    with Source() as cdn:
        cdn.put("bytes", content)
        source.script("moved", Manner(redirect_to=cdn.url("bytes")))
        fetch(replace(wanted, url=source.url("moved")))


def test_what_opens_a_source_is_not_shown_to_where_it_redirects(
    source: Source, content: bytes, wanted: Download
) -> None:
    with Source() as cdn:
        cdn.put("bytes", content)
        source.script("moved", Manner(redirect_to=cdn.url("bytes")))
        secret = replace(wanted, url=source.url("moved"), authorization="Bearer secret")
        fetch(secret)
        assert source.requests[0]["headers"]["authorization"] == "Bearer secret"
        assert "authorization" not in cdn.requests[0]["headers"]


def test_what_is_there_is_replaced_when_the_new_one_is_whole(
    source: Source, content: bytes, wanted: Download
) -> None:
    wanted.target.parent.mkdir()
    wanted.target.write_bytes(b"old")
    break_off(source, wanted)
    assert wanted.target.read_bytes() == b"old"
    with wanted.target.open("rb") as reader:
        fetch(wanted)
        assert reader.read() == b"old"
    assert wanted.target.read_bytes() == content


def test_a_second_writer_waits_for_the_part_and_trusts_nothing_that_the_first_left(
    source: Source, content: bytes, wanted: Download
) -> None:
    """The first may have fetched another model's file to this name."""
    go_on = threading.Event()
    source.put("other.gguf", b"another model" * 1000)
    source.script("other.gguf", Manner(hold=go_on))
    other = replace(
        wanted, source="other", url=source.url("other.gguf"), size_bytes=None, sha256=None
    )
    thread = threading.Thread(target=lambda: fetch(other))
    thread.start()
    eventually(lambda: part_of(wanted.target).exists())
    threading.Timer(0.3, go_on.set).start()
    fetch(wanted)
    thread.join(10)
    assert wanted.target.read_bytes() == content


def test_a_part_that_another_never_lets_go_of_is_not_waited_for_for_ever(
    source: Source, wanted: Download
) -> None:
    with open_part(wanted.target, Watcher()), pytest.raises(PartHeld) as caught:
        fetch(wanted, wait_s=0.2)
    assert caught.value.evidence["path"] == str(part_of(wanted.target))


def test_who_may_not_name_the_file_does_not(
    source: Source, content: bytes, wanted: Download
) -> None:
    """No fence reaches a rename: a pull whose claim is another's by now asks first."""

    def forbid(digest: str | None, size_bytes: int) -> None:
        assert (digest, size_bytes) == (wanted.sha256, SIZE)
        raise ClaimLost("it is another's")

    with pytest.raises(ClaimLost):
        fetch(wanted, on_name=forbid)
    assert names_in(wanted.target.parent) == {"m.gguf.part", "m.gguf.part.json"}
    before = len(source.requests)
    fetch(wanted)
    assert len(source.requests) == before


def test_a_part_that_was_replaced_under_its_writer_gets_no_name(
    source: Source, wanted: Download
) -> None:
    """Else half of another's bytes would lie under the final name."""

    def replace_it(*_: object) -> None:
        part_of(wanted.target).unlink()
        part_of(wanted.target).write_bytes(b"half of another's")

    with pytest.raises(PullError, match="taken away, or replaced"):
        fetch(wanted, on_name=replace_it)
    assert not wanted.target.exists()


def test_two_files_of_one_url_but_for_the_query_are_two(
    source: Source, content: bytes, wanted: Download
) -> None:
    one = replace(wanted, url=source.url(NAME) + "?file=a", sha256=None)
    break_off(source, one)
    other = replace(one, url=source.url(NAME) + "?file=b")
    fetch(other)
    assert [one["query"] for one in source.requests] == ["file=a", "file=b"]
    assert gets(source)[-1] == (200, None)
    assert "file=" not in one.key


def test_a_date_that_is_not_settled_is_no_validator(
    source: Source, content: bytes, wanted: Download
) -> None:
    """It counts whole seconds, and may stand for two contents of one second."""
    source.put(NAME, content, etag=None, last_modified=formatdate(usegmt=True))
    break_off(source, wanted)
    fetch(wanted)
    assert gets(source) == [(200, None), (200, None)]


@pytest.mark.parametrize(
    "date",
    [
        "Mon, 01 Jan 99999999999999999999 00:00:00 GMT",
        "Mon, 01 Jan 2024 00:00:00 -0000",
        "Mon, 01 Jan 2024 00:00:00",
        "yesterday",
        "",
    ],
)
def test_a_date_that_is_none_is_no_validator(
    source: Source, content: bytes, wanted: Download, date: str
) -> None:
    odd = {"ETag": None, "Last-Modified": date}
    source.script(NAME, Manner(headers=odd, drop_after=HALF, times=1), Manner(headers=odd))
    with pytest.raises(SourceFault):
        fetch(wanted)
    fetch(wanted)
    assert gets(source) == [(200, None), (200, None)]


def test_what_a_server_says_is_cut_before_it_comes_into_a_row(
    source: Source, wanted: Download
) -> None:
    source.script(NAME, Manner(headers={"Content-Encoding": "x" * 60_000}))
    with pytest.raises(SourceBadAnswer) as caught:
        fetch(wanted)
    assert len(str(caught.value.as_row())) < 2000


def test_a_file_is_on_the_disk_before_its_name_and_its_name_before_it_counts(
    source: Source, wanted: Download, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut leaves a whole file under the name, or none."""
    done: list[str] = []
    fsync, rename = os.fsync, os.replace

    def note_fsync(fd: int) -> None:
        done.append(f"fsync {Path(f'/proc/self/fd/{fd}').resolve().name}")
        fsync(fd)

    def note_rename(old: Any, new: Any) -> None:
        done.append(f"rename {Path(old).name} {Path(new).name}")
        rename(old, new)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "replace", note_rename)
    fetch(wanted, on_name=lambda *_: done.append("commit"))
    assert done[-4:] == [
        "fsync m.gguf.part",
        "commit",
        "rename m.gguf.part m.gguf",
        "fsync models",
    ]


def test_an_etag_that_cannot_be_sent_back_is_no_validator(
    source: Source, content: bytes, wanted: Download
) -> None:
    odd = {"ETag": '"\u00e4 b"', "Last-Modified": None}
    source.script(NAME, Manner(headers=odd, drop_after=HALF, times=1), Manner(headers=odd))
    with pytest.raises(SourceFault):
        fetch(wanted)
    fetch(wanted)
    assert gets(source) == [(200, None), (200, None)]


@pytest.mark.parametrize(
    "said", ["bytes 1-2/" + "9" * 5000, "bytes -1-2/3", "bytes \u0661-2/3", "items 1-2/3", ""]
)
def test_a_range_that_is_none_is_not_gone_on_with(
    source: Source, content: bytes, wanted: Download, said: str
) -> None:
    break_off(source, wanted)
    raw = said.encode().decode("latin-1")
    source.script(NAME, Manner(when="resume", headers={"Content-Range": raw}))
    fetch(wanted)
    assert wanted.target.read_bytes() == content


def test_half_of_a_file_whose_length_nobody_says_is_not_taken_for_whole(
    source: Source, wanted: Download
) -> None:
    model = tiny_gguf_bytes()
    source.put("m.gguf", model)
    cut = Manner(no_length="close", drop_after=len(model) // 2, when="whole")
    source.script("m.gguf", cut)
    url = source.url("m.gguf")
    unknown = Download(url, url, wanted.target, is_gguf=True, reach=LOOPBACK)
    with pytest.raises(SourceUnreachable, match="without saying how many"):
        fetch(unknown)
    assert part_of(wanted.target).stat().st_size == len(model) // 2
    fetch(unknown)
    assert wanted.target.read_bytes() == model
    assert gets(source)[-1][0] == 206


@pytest.mark.parametrize("no_length", ["chunked", None])
def test_a_page_in_place_of_a_model_is_kept_aside_and_replaces_nothing(
    source: Source, wanted: Download, no_length: Any
) -> None:
    wanted.target.parent.mkdir()
    wanted.target.write_bytes(b"the model that was there")
    source.put("m.gguf", b"<!DOCTYPE html><title>Sign in</title>" + bytes(2000))
    source.script("m.gguf", Manner(no_length=no_length))
    url = source.url("m.gguf")
    with pytest.raises(SourceBadAnswer, match="a web page") as caught:
        fetch(Download(url, url, wanted.target, is_gguf=True, reach=LOOPBACK))
    assert caught.value.evidence["kept_as"].endswith("m.gguf.bad")
    assert wanted.target.read_bytes() == b"the model that was there"


@pytest.mark.parametrize("name", ["m.gguf", "m.gguf.bad", "m.gguf.part"])
def test_what_is_in_the_way_is_found_before_the_first_byte(
    source: Source, wanted: Download, name: str
) -> None:
    (wanted.target.parent / name).mkdir(parents=True)
    with pytest.raises(PullError, match=f"{name}"):
        fetch(wanted)
    assert source.requests == []


@pytest.mark.parametrize("kind", ["fifo", "folder", "link", "nonsense", "negative"])
def test_a_note_that_is_no_note_is_none(
    source: Source, content: bytes, wanted: Download, tmp_path: Path, kind: str
) -> None:
    break_off(source, wanted)
    note, spare = note_of(wanted.target), wanted.target.with_name(".m.gguf.part.json")
    facts = json.loads(note.read_text())
    note.unlink()
    victim = tmp_path / "victim"
    spare.symlink_to(victim)
    if kind == "fifo":
        os.mkfifo(note)
    elif kind == "folder":
        note.mkdir()
    elif kind == "link":
        note.symlink_to(victim)
    else:
        facts["synced_bytes"] = -1 if kind == "negative" else "many"
        note.write_text(json.dumps(facts))
    if kind == "folder":
        with pytest.raises(PullError):
            fetch(wanted)
    else:
        fetch(wanted)
        assert wanted.target.read_bytes() == content
    assert not victim.exists()


def test_room_is_looked_for_when_the_source_says_how_much_it_needs(
    source: Source, wanted: Download
) -> None:
    """Some sources say nothing to HEAD."""
    free = shutil.disk_usage(source_folder := wanted.target.parent.parent).free
    assert source_folder.is_dir()
    with pytest.raises(DiskFull) as caught:
        fetch(replace(wanted, size_bytes=None), reserve_bytes=free)
    assert caught.value.evidence["reserve_bytes"] == free
    assert part_of(wanted.target).exists() is False


def test_a_proxy_of_the_environment_is_used(
    source: Source, content: bytes, wanted: Download, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It connects in our place, so the address that we dial is its own."""
    monkeypatch.setenv("HTTP_PROXY", source.origin)
    with pytest.raises(SourceNotFound):
        fetch(replace(wanted, url="http://models.example/x.gguf"))
    assert source.requests[0]["path"] == "http://models.example/x.gguf"


@pytest.mark.parametrize(
    ("name", "value"), [("ALL_PROXY", "nonsense://x"), ("SSL_CERT_FILE", "/no/such/file")]
)
def test_an_environment_that_cannot_be_used_is_named(
    wanted: Download, name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(PullError, match=name):
        fetch(wanted)


def test_the_size_is_asked_for_without_fetching(source: Source, wanted: Download) -> None:
    assert size_at_source(wanted, Watcher(), stall_s=5) == SIZE
    for manner in (Manner(head_status=405), Manner(head_status=403), Manner(no_length="chunked")):
        source.script(NAME, manner)
        assert size_at_source(wanted, Watcher(), stall_s=5) is None
    assert gets(source) == []


def test_a_size_other_than_registered_is_refused_before_a_byte_is_kept(
    source: Source, wanted: Download
) -> None:
    with pytest.raises(SourceBadAnswer) as caught:
        fetch(replace(wanted, size_bytes=SIZE + 1))
    evidence = caught.value.evidence
    assert (evidence["expected"], evidence["found"]) == (SIZE + 1, SIZE)
    assert names_in(wanted.target.parent) == set()


def test_a_disk_that_fills_up_is_disk_full_and_the_part_is_kept(
    source: Source, wanted: Download, tmp_path: Path
) -> None:
    """A file-size limit stands for a quota: the same call fails, with another number."""
    import resource
    import signal

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (HALF, before[1]))
    try:
        with pytest.raises(PullError) as caught:
            fetch(wanted)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not isinstance(caught.value, SourceFault)
    assert part_of(wanted.target).stat().st_size == HALF
    assert not isinstance(caught.value, DiskFull)  # EFBIG; ENOSPC has a test with a real disk
    fetch(wanted)


def test_a_compressed_file_that_is_the_file_is_no_coding(
    source: Source, wanted: Download, tmp_path: Path
) -> None:
    packed = gzip.compress(b"a gguf in a gzip" * 999)
    source.put("model.gguf.gz", packed)
    url = source.url("model.gguf.gz")
    fetch(Download(url, url, tmp_path / "m.gz", reach=LOOPBACK))
    assert (tmp_path / "m.gz").read_bytes() == packed


@pytest.mark.parametrize("status", [404, 403, 503, 418])
def test_of_a_server_s_reason_no_more_is_kept_than_of_all_it_says(status: int) -> None:
    response = httpx.Response(status, extensions={"reason_phrase": b"so " * 5000})
    with pytest.raises(PullError) as caught:
        refuse_status(Asked("http://h/a.gguf", "http://h/a.gguf", 1, PUBLIC_ONLY), response)
    assert f"the server answered {status} so so" in caught.value.detail
    assert len(caught.value.detail) < 2 * MAX_TOLD
