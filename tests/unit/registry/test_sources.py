"""Which texts are sources of a model's files, and what each of them means."""

import json
from pathlib import PurePosixPath

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hal0.errors import InvalidRequest
from hal0.registry.sources import (
    MAX_LENGTH,
    MAX_NAME_BYTES,
    HubFile,
    Source,
    SourceKind,
    checked_source,
    local_source,
)

COMMIT = "0123456789abcdef0123456789abcdef01234567"

LOCAL = [
    ("/data/tiny.gguf", "/data/tiny.gguf"),
    ("/tiny.gguf", "/tiny.gguf"),
    ("/data/a b/ä?#@:%20.gguf", "/data/a b/ä?#@:%20.gguf"),
    ("/no ending", "/no ending"),
    ("file:///data/tiny.gguf", "/data/tiny.gguf"),
    ("file:/data/tiny.gguf", "/data/tiny.gguf"),
    ("file://localhost/data/tiny.gguf", "/data/tiny.gguf"),
    ("FILE:///data/tiny.gguf", "/data/tiny.gguf"),
    ("file:///data/a%20b%25.gguf", "/data/a b%.gguf"),
    ("file:///data/%C3%A4.gguf", "/data/ä.gguf"),
]


@pytest.mark.parametrize(("text", "path"), LOCAL)
def test_a_file_of_this_machine_is_kept_as_its_path(text: str, path: str) -> None:
    source = Source.parse(text)
    assert (source.kind, source.text) == (SourceKind.LOCAL, path)
    assert source.path == PurePosixPath(path)
    assert source.file_name == path.rpartition("/")[2]
    assert (source.url, source.hub) == (None, None)
    assert local_source(text) == checked_source(text) == source.shown == path


WEB = [
    ("https://host/dir/tiny.gguf", "tiny.gguf"),
    ("http://host:8080/tiny.gguf", "tiny.gguf"),
    ("HTTPS://HOST/tiny.gguf", "tiny.gguf"),
    ("http://127.0.0.1/tiny.gguf", "tiny.gguf"),
    ("http://[::1]:80/tiny.gguf", "tiny.gguf"),
    ("https://host/tiny.gguf?download=true&x=/y", "tiny.gguf"),
    ("https://host/a%20b.gguf", "a b.gguf"),
    ("https://host/a%2Fb.gguf", "b.gguf"),
    ("https://host/..%2F..%2Fb.gguf", "b.gguf"),
    ("https://host/%C3%A4.gguf", "ä.gguf"),
    ("https://host/a%3Fb.gguf", "a?b.gguf"),
    ("https://host/no-ending", "no-ending"),
    ("https://host//tiny.gguf", "tiny.gguf"),
    ("https://host/a//b@c/d@e.gguf", "d@e.gguf"),
]


@pytest.mark.parametrize(("text", "name"), WEB)
def test_a_url_is_kept_word_for_word_and_names_its_file(text: str, name: str) -> None:
    source = Source.parse(text)
    assert (source.kind, source.text, source.url) == (SourceKind.WEB, text, text)
    assert source.file_name == name
    assert (source.path, source.hub) == (None, None)


def test_a_url_is_shown_without_its_query_which_may_be_a_signature() -> None:
    source = Source.parse("https://host/tiny.gguf?Signature=secret")
    assert source.shown == "https://host/tiny.gguf"
    assert source.url == "https://host/tiny.gguf?Signature=secret"


HUB = [
    ("hf://org/repo/tiny.gguf", HubFile("org/repo", "tiny.gguf", None), "tiny.gguf"),
    ("HF://org/repo/tiny.gguf", HubFile("org/repo", "tiny.gguf", None), "tiny.gguf"),
    ("hf://o/r/a/b/tiny.gguf@main", HubFile("o/r", "a/b/tiny.gguf", "main"), "tiny.gguf"),
    ("hf://o/r/t.gguf@refs/pr/7", HubFile("o/r", "t.gguf", "refs/pr/7"), "t.gguf"),
    ("hf://o/r/t.gguf@v1.0_x-y", HubFile("o/r", "t.gguf", "v1.0_x-y"), "t.gguf"),
    (f"hf://o/r/t.gguf@{COMMIT}", HubFile("o/r", "t.gguf", COMMIT), "t.gguf"),
    ("hf://Org-1/re_po.2/a b#%20.gguf", HubFile("Org-1/re_po.2", "a b#%20.gguf", None), None),
    ("hf://o/r/a@b.gguf@main", HubFile("o/r", "a@b.gguf", "main"), "a@b.gguf"),
]


@pytest.mark.parametrize(("text", "file", "name"), HUB)
def test_a_file_of_a_hub_has_repository_path_and_revision(
    text: str, file: HubFile, name: str | None
) -> None:
    source = Source.parse(text)
    assert (source.kind, source.text, source.hub) == (SourceKind.HUB, text, file)
    assert source.file_name == (name or file.path)
    assert file.text == text.replace("HF://", "hf://")
    assert (source.path, source.url) == (None, None)
    assert source.shown == text


def test_a_hub_file_is_pinned_by_a_whole_commit_alone() -> None:
    file = HubFile("o/r", "a@b/t.gguf", None)
    assert not file.is_pinned
    assert not HubFile("o/r", "t.gguf", COMMIT[:39]).is_pinned
    assert not HubFile("o/r", "t.gguf", COMMIT.upper()).is_pinned
    pinned = Source.parse(file.pinned(COMMIT)).hub
    assert pinned == HubFile("o/r", "a@b/t.gguf", COMMIT)
    assert pinned.is_pinned


REFUSED = [
    ("", "is not a source"),
    ("tiny.gguf", "is not a source"),
    ("./tiny.gguf", "is not a source"),
    ("~/tiny.gguf", "is not a source"),
    (" /data/tiny.gguf", "is not a source"),
    (" https://host/tiny.gguf", "is not a source"),
    ("host/tiny.gguf", "is not a source"),
    ("org/repo/tiny.gguf", "is not a source"),
    ("C:\\tiny.gguf", "c: is no source"),
    ("ftp://host/tiny.gguf", "ftp: is no source"),
    ("s3://bucket/tiny.gguf", "s3: is no source"),
    ("data:,x", "data: is no source"),
    ("/", "is not a source"),
    ("/data/", "is not a source"),
    ("/data/.", "has no part"),
    ("/data/..", "has no part"),
    ("file:tiny.gguf", "is not a source"),
    ("file://host/tiny.gguf", "another machine"),
    ("file://[::1/tiny.gguf", "is no URL"),
    ("file:///tiny.gguf?x", "another machine"),
    ("file:///tiny.gguf#x", "another machine"),
    ("file:///a%00b", "one line"),
    ("file:///a%0Ab/tiny.gguf", "one line"),
    ("file:///%FF.gguf", "UTF-8"),
    ("https:", "no URL"),
    ("https:host/tiny.gguf", "no URL"),
    ("https:///tiny.gguf", "no URL"),
    ("https://:80/tiny.gguf", "no URL"),
    ("https://host:0/tiny.gguf", "no URL"),
    ("https://host:99999/tiny.gguf", "no URL"),
    ("https://host:x/tiny.gguf", "no URL"),
    ("https://[::1/tiny.gguf", "no URL"),
    ("https://host/a b.gguf", "no URL"),
    ("https://ho\u3000st/tiny.gguf", "no URL"),
    ("https://host/tiny.gguf#part", "no #fragment"),
    ("https://host/tiny.gguf#", "no #fragment"),
    ("https://user:secret@host/tiny.gguf", "user name or password"),
    ("https://user@host/tiny.gguf", "user name or password"),
    ("https://:secret@host:99999/tiny.gguf", "user name or password"),
    ("https://:secret@/tiny.gguf", "user name or password"),
    ("https://host", "a file's name"),
    ("https://host/", "a file's name"),
    ("https://host/dir/", "a file's name"),
    ("https://host/?file=tiny.gguf", "a file's name"),
    ("https://host/..", "a file's name"),
    ("https://host/%2e%2E", "a file's name"),
    ("https://host/x%2F", "a file's name"),
    ("https://host/a%00b", "do not print"),
    ("https://host/a%0Ab", "do not print"),
    ("https://host/a%1B[31mb", "do not print"),
    ("https://host/%E2%80%AEfugg.gguf", "do not print"),
    ("hf:", "hf://org/repo/file"),
    ("hf:org/repo/tiny.gguf", "hf://org/repo/file"),
    ("hf:/org/repo/tiny.gguf", "hf://org/repo/file"),
    ("hf:x://org/repo/tiny.gguf", "hf://org/repo/file"),
    ("hf://", "names no file"),
    ("hf://org", "names no file"),
    ("hf://org/repo", "names no file"),
    ("hf://org/repo@main", "names no file"),
    ("hf://org/repo@main/tiny.gguf", "names no file"),
    ("hf://org/repo/", "no path inside"),
    ("hf://org/repo/dir/", "no path inside"),
    ("hf://org/repo/a//b.gguf", "no path inside"),
    ("hf://org/repo/../b.gguf", "no path inside"),
    ("hf://org/repo/./b.gguf", "no path inside"),
    ("hf://org/repo/a\\b.gguf", "no path inside"),
    ("hf://org/repo/tiny.gguf?x", "no path inside"),
    ("hf:///repo/tiny.gguf", "no org/repo"),
    ("hf://org//tiny.gguf", "no org/repo"),
    ("hf://../repo/tiny.gguf", "no org/repo"),
    ("hf://user:secret@org/repo/tiny.gguf", "names no file"),
    ("hf://-org/repo/tiny.gguf", "no org/repo"),
    ("hf://org/re po/tiny.gguf", "no org/repo"),
    ("hf://org/repo./tiny.gguf", "no org/repo"),
    ("hf://org/re--po/tiny.gguf", "no org/repo"),
    ("hf://org/re..po/tiny.gguf", "no org/repo"),
    ("hf://org/repo.git/tiny.gguf", "no org/repo"),
    (f"hf://org/{'r' * 97}/tiny.gguf", "no org/repo"),
    ("hf://datasets/org/repo/tiny.gguf", "no org/repo"),
    ("hf://org/repo/tiny.gguf@", "no branch, tag or commit"),
    ("hf://org/repo/tiny.gguf@-x", "no branch, tag or commit"),
    ("hf://org/repo/tiny.gguf@a..b", "no branch, tag or commit"),
    ("hf://org/repo/tiny.gguf@a b", "no branch, tag or commit"),
    ("hf://org/repo/tiny.gguf@../main", "no branch, tag or commit"),
    ("/data/a\nb.gguf", "one line"),
    ("/data/a\0b.gguf", "one line"),
    ("/data/a\x1b[31m/tiny.gguf", "one line"),
    ("/data/a\x7f/tiny.gguf", "one line"),
    ("/data/a\x9b31m/tiny.gguf", "one line"),
    ("/data/a\u2028/tiny.gguf", "one line"),
    ("/data/a\ud800/tiny.gguf", "one line"),
    ("/data/a\ud800.gguf", "one line"),
    ("https://host/tiny.gguf\r\n", "one line"),
    ("hf://org/repo/tiny.gguf\n", "one line"),
    ("/data/a\u00a0b.gguf", "do not print"),
    ("/" + "x" * MAX_LENGTH, "one line"),
    ("/data/" + "x" * (MAX_NAME_BYTES + 1), "a file's name"),
    ("/data/" + "ä" * (MAX_NAME_BYTES // 2 + 1), "a file's name"),
]


@pytest.mark.parametrize(("text", "why"), REFUSED, ids=[ascii(text)[:40] for text, _ in REFUSED])
def test_what_is_no_source_is_refused_and_told_why(text: str, why: str) -> None:
    with pytest.raises(InvalidRequest, match=why) as caught:
        Source.parse(text)
    caught.value.detail.encode()  # it can be sent and kept
    assert "secret" not in caught.value.detail


@pytest.mark.parametrize(
    "text",
    [
        "ftp://user:secret@host/tiny.gguf",
        "file://user:secret@host/tiny.gguf",
        "https://user:secret@host/tiny.gguf\n",
        "hf://user:secret@org/repo/tiny.gguf",
        "hf://user:secret@org/repo/tiny.gguf@main",
        "https:/user:secret@host/tiny.gguf",
        "https:user:secret@host/tiny.gguf",
        "https:///user:secret@host/tiny.gguf",
        "https://user:secret@host:x/tiny.gguf",
        "https://host:x/tiny.gguf?Signature=secret",
        "https://host/tiny.gguf?Signature=secret#x",
        "https://host/?Signature=secret",
    ],
)
def test_a_refusal_repeats_no_password_and_no_signature(text: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        Source.parse(text)
    assert "secret" not in json.dumps(caught.value.as_row())


def test_names_may_be_as_long_as_they_can_be_with_an_ending_of_ours() -> None:
    for name in ("x" * MAX_NAME_BYTES, "ä" * (MAX_NAME_BYTES // 2)):
        assert Source.parse(f"/data/{name}").file_name == name


def test_a_hub_file_is_no_longer_than_leaves_room_for_its_commit() -> None:
    deep = "hf://o/r/" + "d/" * MAX_LENGTH
    kept = deep[: MAX_LENGTH - 42] + "f"
    hub = Source.parse(kept).hub
    assert hub is not None
    pinned = hub.pinned(COMMIT)
    assert len(pinned) == MAX_LENGTH
    assert Source.parse(pinned).text == pinned
    with pytest.raises(InvalidRequest, match="one line"):
        Source.parse(deep[: MAX_LENGTH - 41] + "f")


def test_a_branch_may_be_longer_than_a_commit() -> None:
    branch = "b" * 200
    long = "hf://o/r/" + "d/" * MAX_LENGTH
    text = long[: MAX_LENGTH - 42 - 200] + "f" + "@" + branch
    assert Source.parse(text).hub is not None


PIECES = [
    "/", "//", ":", "@", "#", "?", "%", ".", "..", "\\", "~", " ", "-", "[", "]", "[::1]", "%2F",
    "%2e", "%00", "%0A", "%FF", "hf", "file", "http", "https", "hf://", "file://", "https://",
    "org/repo", "host", ":80", "user:pw@", "tiny.gguf", "main", COMMIT, "\0", "\n", "\x85",
    "\u2028", "\u202e", "\ud800", "ä", "\uff0f", "\u2100",
]  # fmt: skip
TEXTS = st.text(max_size=60) | st.lists(st.sampled_from(PIECES) | st.text(max_size=3)).map("".join)


@given(text=TEXTS)
@example(text="file://[::1/x")
@example(text="https://host\u2100/x")
@example(text="/\ud800")
def test_any_text_is_a_source_of_a_safe_name_that_reads_the_same_again_or_is_refused(
    text: str,
) -> None:
    try:
        source = Source.parse(text)
    except InvalidRequest as refusal:
        json.dumps(refusal.as_row(), ensure_ascii=False).encode()
        return
    name = source.file_name
    assert PurePosixPath("/models/tiny", name).parts == ("/", "models", "tiny", name)
    assert name not in {"", ".", ".."}
    assert name.isprintable()
    assert len(name.encode()) <= MAX_NAME_BYTES
    assert Source.parse(source.text) == source
    assert source.text.encode()
    assert [source.path, source.url, source.hub].count(None) == 2
    if source.hub is not None:
        pinned = Source.parse(source.hub.pinned(COMMIT))
        assert pinned.hub == HubFile(source.hub.repo, source.hub.path, COMMIT)
        assert pinned.file_name == name
