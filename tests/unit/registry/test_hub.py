"""What hal0 learns of a file from a hub, by the real huggingface_hub from a fake hub."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from hashlib import sha1, sha256
from pathlib import Path
from socket import create_server
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hal0.errors import (
    Hal0Error,
    HubNotInstalled,
    InvalidRequest,
    PullError,
    SettingsError,
    SourceBadAnswer,
    SourceNotFound,
    SourceRefused,
    SourceUnreachable,
)
from hal0.registry.checksum import Interrupted
from hal0.registry.hub import HubAnswer, resolve
from hal0.registry.reach import PUBLIC_HUB
from hal0.registry.sources import HubFile, Source
from tests.fakes.source import Manner
from tests.fakes.source.hub import Hub

huggingface_hub = pytest.importorskip("huggingface_hub", reason="the extra `hub` is missing")

ROOT = Path(__file__).parents[3]
REPO = "org/tiny-models"
LARGE = "Q4/tiny.gguf"
SMALL = "config.json"
TOKEN = "hf_" + "s3cret" * 5
FILES = {LARGE: b"GGUF" + bytes(5000), SMALL: b'{"tiny": true}'}
ANY_COMMIT = "0123456789abcdef" * 2 + "01234567"

TELL = """
import json, sys
from hal0.errors import Hal0Error
from hal0.registry.hub import resolve
from hal0.registry.sources import Source
assert "huggingface_hub" not in sys.modules
try:
    found = resolve(Source.parse(sys.argv[1]).hub, endpoint=sys.argv[2] or None, token=None)
    print(json.dumps({"sha256": found.sha256}))
except Hal0Error as error:
    print(json.dumps(error.as_row()))
"""


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as running:
        running.commit(REPO, FILES)
        yield running
    huggingface_hub.close_session()


def ask(
    hub: Hub, path: str = LARGE, *, revision: str | None = None, token: str | None = None
) -> HubAnswer:
    return resolve(HubFile(REPO, path, revision), endpoint=hub.origin, token=token)


def at(path: str = LARGE, revision: str = "main") -> str:
    return f"{REPO}/resolve/{revision}/{path}"


def fetched(found: HubAnswer) -> bytes:
    headers = {"Authorization": found.authorization} if found.authorization else {}
    return httpx.get(found.url, headers=headers, follow_redirects=True).content


def test_a_large_file_has_its_commit_size_and_sha256(hub: Hub) -> None:
    commit = hub.commit(REPO, {"other.gguf": b"x"})
    found = ask(hub)
    assert found == HubAnswer(
        url=f"{hub.origin}/{REPO}/resolve/{commit}/{LARGE}",
        commit=commit,
        size_bytes=len(FILES[LARGE]),
        sha256=sha256(FILES[LARGE]).hexdigest(),
        authorization=None,
    )


def test_a_small_file_has_no_sha256_for_its_etag_is_one_of_git(hub: Hub) -> None:
    found = ask(hub, SMALL)
    blob = sha1(b"blob 14\0" + FILES[SMALL]).hexdigest()
    assert httpx.head(found.url, follow_redirects=True).headers["ETag"] == f'"{blob}"'
    assert (found.sha256, found.size_bytes) == (None, 14)


def test_it_only_asks_and_the_bytes_are_left_where_they_are(hub: Hub) -> None:
    ask(hub)
    (asked,) = hub.requests
    assert (asked["method"], asked["path"]) == ("HEAD", at())
    assert asked["headers"]["accept-encoding"] == "identity"
    assert asked["headers"]["user-agent"].startswith("hal0/")
    assert hub.cdn.requests == []


@pytest.mark.parametrize("path", [LARGE, SMALL])
def test_the_url_gives_the_same_bytes_when_the_branch_has_moved_on(hub: Hub, path: str) -> None:
    found = ask(hub, path)
    hub.commit(REPO, {path: b"newer"})
    assert fetched(found) == FILES[path]
    assert ask(hub, path).commit != found.commit


def test_a_branch_a_tag_and_a_commit_lead_to_the_same_commit(hub: Hub) -> None:
    commit = ask(hub).commit
    hub.tag(REPO, "v1.0", commit)
    hub.tag(REPO, "refs/pr/7", commit)
    hub.commit(REPO, {LARGE: b"newer"})
    for revision in ("v1.0", "refs/pr/7", commit):
        assert ask(hub, revision=revision).commit == commit


def test_a_name_of_any_characters_is_asked_for_and_fetched(hub: Hub) -> None:
    odd = "a b/100%+#ä&~.gguf"
    hub.commit(REPO, {odd: b"odd"})
    assert fetched(ask(hub, odd)) == b"odd"


def test_a_repository_that_was_renamed_is_followed(hub: Hub) -> None:
    commit = ask(hub).commit
    hub.move_repo(REPO, "org/new-name")
    found = ask(hub)
    assert found.commit == commit
    assert fetched(found) == FILES[LARGE]


def test_a_slash_behind_the_endpoint_is_of_no_matter(hub: Hub) -> None:
    found = resolve(HubFile(REPO, LARGE, None), endpoint=f"{hub.origin}/", token=None)
    assert found.url.startswith(f"{hub.origin}/{REPO}/")


# -- what is not there -----------------------------------------------------------------------------


def test_what_is_missing_is_named(hub: Hub) -> None:
    hub.know(TOKEN)
    with pytest.raises(SourceNotFound, match="there is no org/none") as caught:
        resolve(HubFile("org/none", LARGE, None), endpoint=hub.origin, token=TOKEN)
    assert caught.value.evidence == {
        "source": "hf://org/none/Q4/tiny.gguf",
        "endpoint": hub.origin,
        "http_status": 404,
    }
    with pytest.raises(SourceNotFound, match="org/tiny-models has no branch, tag or commit v9"):
        ask(hub, revision="v9")
    with pytest.raises(SourceNotFound, match=r"org/tiny-models has no file no\.gguf"):
        ask(hub, "no.gguf")


def test_who_asks_without_a_token_for_what_is_not_there_learns_that_it_may_be_private(
    hub: Hub,
) -> None:
    with pytest.raises(SourceNotFound, match=r"or it is private.*HAL0_HUB_TOKEN_FILE"):
        resolve(HubFile("org/none", LARGE, None), endpoint=hub.origin, token=None)


def test_a_name_that_no_repository_can_have_is_not_found(hub: Hub) -> None:
    with pytest.raises(SourceNotFound, match="no name of a repository"):
        resolve(HubFile("org/a--b", LARGE, None), endpoint=hub.origin, token=None)
    assert hub.requests == []


@given(
    repo=st.from_regex(r"[A-Za-z0-9_.-]{1,12}/[A-Za-z0-9_.-]{1,12}(\.git)?", fullmatch=True)
    | st.sampled_from(["a" * 96 + "/b", "a/" + "b" * 97, "a/b.git", "a.git/b", "a./b", "_/b_"])
)
def test_a_source_is_accepted_if_and_only_if_the_library_accepts_its_repository(repo: str) -> None:
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    def is_repo() -> bool:
        try:
            validate_repo_id(repo)
        except HFValidationError:
            return False
        return True

    def is_source() -> bool:
        try:
            Source.parse(f"hf://{repo}/tiny.gguf")
        except InvalidRequest:
            return False
        return True

    assert is_repo() == is_source()


# -- who may see it --------------------------------------------------------------------------------


def test_a_private_repository_opens_to_its_token(hub: Hub) -> None:
    hub.make_private(REPO, TOKEN)
    for path in (LARGE, SMALL):
        found = ask(hub, path, token=TOKEN)
        assert found.authorization == f"Bearer {TOKEN}"
        assert TOKEN not in found.url
        assert fetched(found) == FILES[path]
    with pytest.raises(SourceNotFound, match="HAL0_HUB_TOKEN_FILE"):
        ask(hub)


def test_the_token_goes_to_the_hub_alone(hub: Hub) -> None:
    hub.make_private(REPO, TOKEN)
    fetched(ask(hub, token=TOKEN))
    assert {asked["headers"].get("authorization") for asked in hub.requests} == {f"Bearer {TOKEN}"}
    assert [asked["headers"].get("authorization") for asked in hub.cdn.requests] == [None]


@pytest.mark.parametrize("token", [None, TOKEN])
def test_a_gated_repository_says_what_to_do(hub: Hub, token: str | None) -> None:
    hub.gate(REPO)
    hub.know(TOKEN)
    with pytest.raises(SourceRefused, match=r"is gated.*HAL0_HUB_TOKEN_FILE"):
        ask(hub, token=token)


def test_a_token_that_the_hub_does_not_know_is_refused(hub: Hub) -> None:
    with pytest.raises(SourceRefused, match="HAL0_HUB_TOKEN_FILE"):
        ask(hub, token=TOKEN)


@pytest.mark.parametrize("token", [f"{TOKEN}\n{TOKEN}", f"{TOKEN} x", f"{TOKEN}ä", f"{TOKEN}\0"])
def test_what_is_no_token_is_neither_sent_nor_repeated(hub: Hub, token: str) -> None:
    with pytest.raises(SourceRefused, match="is no token") as caught:
        ask(hub, token=token)
    assert TOKEN not in json.dumps(caught.value.as_row())
    assert hub.requests == []


@pytest.mark.parametrize(
    "manner",
    [
        Manner(status=401, headers={"X-Error-Message": TOKEN, "X-Error-Code": TOKEN}),
        Manner(status=403, headers={"X-Error-Message": TOKEN}),
        Manner(status=404, headers={"X-Error-Message": TOKEN, "X-Error-Code": "EntryNotFound"}),
        Manner(status=400, headers={"X-Error-Message": TOKEN}),
        Manner(status=500, headers={"X-Error-Message": TOKEN, "Retry-After": TOKEN}),
        Manner(garbage=f"{TOKEN} HTTP/1.1 200 OK\r\n\r\n".encode()),
        Manner(redirect_to=f"http://127.0.0.1:1/{TOKEN}"),
        Manner(redirect_to=f"/{TOKEN}"),
        Manner(headers={"X-Repo-Commit": TOKEN}),
        Manner(headers={"X-Linked-Size": TOKEN, "X-Repo-Commit": ""}),
    ],
)
def test_no_error_repeats_the_token_even_if_the_hub_does(hub: Hub, manner: Manner) -> None:
    hub.make_private(REPO, TOKEN)
    hub.script(at(), manner)
    with pytest.raises(PullError) as caught:
        ask(hub, token=TOKEN)
    assert TOKEN not in json.dumps(caught.value.as_row())
    assert caught.value.evidence["source"] == f"hf://{REPO}/{LARGE}"


# -- a hub that is ill -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (400, SourceBadAnswer),
        (401, SourceRefused),
        (402, SourceRefused),
        (403, SourceRefused),
        (404, SourceNotFound),
        (408, SourceUnreachable),
        (410, SourceNotFound),
        (418, SourceBadAnswer),
        (429, SourceUnreachable),
        (451, SourceRefused),
        (500, SourceUnreachable),
        (502, SourceUnreachable),
        (503, SourceUnreachable),
        (504, SourceUnreachable),
    ],
)
def test_a_status_without_a_code_means_what_it_says_and_is_not_tried_again(
    hub: Hub, status: int, expected: type[Hal0Error]
) -> None:
    hub.script(at(), Manner(status=status, times=1))
    with pytest.raises(expected) as caught:
        ask(hub)
    assert type(caught.value) is expected
    assert caught.value.evidence["http_status"] == status
    assert len(hub.requests) == 1


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"Retry-After": "7"}, 7),
        ({"Retry-After": "99999999"}, 600),
        ({"RateLimit": '"resolvers";r=0;t=55'}, 55),
        ({"RateLimit": '"resolvers";r=9;t=55'}, None),
        ({"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}, None),
        ({"Retry-After": "\N{SUPERSCRIPT TWO}"}, None),
        ({}, None),
    ],
)
def test_a_hub_that_is_busy_says_for_how_long(
    hub: Hub, headers: dict[str, str], expected: float | None
) -> None:
    hub.script(at(), Manner(status=429, headers=headers))
    with pytest.raises(SourceUnreachable) as caught:
        ask(hub)
    assert caught.value.retry_after_s == expected


def test_where_nobody_listens_the_hub_is_unreachable() -> None:
    with closing(create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
    endpoint = f"http://127.0.0.1:{port}"
    with pytest.raises(SourceUnreachable, match="cannot be reached"):
        resolve(HubFile(REPO, LARGE, None), endpoint=endpoint, token=None)


@pytest.mark.parametrize(
    "manner", [Manner(close_before_answer=True), Manner(garbage=b"220 hi\r\n")]
)
def test_what_breaks_off_or_is_no_http_may_pass(hub: Hub, manner: Manner) -> None:
    hub.script(at(), manner)
    with pytest.raises(SourceUnreachable, match="broke off"):
        ask(hub)


@pytest.mark.parametrize(
    "manner", [Manner(stall_before_headers=True), Manner(dribble_headers=True)]
)
def test_the_wait_for_an_answer_is_bounded(hub: Hub, manner: Manner) -> None:
    hub.script(at(), manner)
    began = time.monotonic()
    with pytest.raises(SourceUnreachable):
        resolve(HubFile(REPO, LARGE, None), endpoint=hub.origin, token=None, wait_s=0.4)
    assert time.monotonic() - began < 8


def test_a_wait_ends_when_it_should_stop(hub: Hub) -> None:
    hub.script(at(), Manner(stall_before_headers=True))
    began = time.monotonic()
    with pytest.raises(Interrupted):
        resolve(
            HubFile(REPO, LARGE, None),
            endpoint=hub.origin,
            token=None,
            should_stop=lambda: True,
        )
    assert time.monotonic() - began < 8


@pytest.mark.parametrize(
    ("manner", "why"),
    [
        (Manner(headers={"X-Repo-Commit": None}), "names no commit"),
        (Manner(headers={"X-Repo-Commit": "main"}), "names no commit"),
        (Manner(headers={"X-Repo-Commit": "A" * 40}), "names no commit"),
        (Manner(headers={"X-Linked-Size": "-1"}), "-1 bytes"),
        (Manner(redirect_to="http://127.0.0.1:1/login"), "names no commit"),
        (Manner(redirect_to=f"/{at()}"), "circle"),
        (Manner(redirect_to="http://[::1/x"), "no URL"),
        (Manner(redirect_to="http://h:99999/x"), "no URL"),
    ],
)
def test_an_answer_that_no_hub_gives_is_of_no_use(hub: Hub, manner: Manner, why: str) -> None:
    hub.script(at(), manner)
    with pytest.raises(SourceBadAnswer, match=why) as caught:
        ask(hub)
    assert caught.value.evidence["source"] == f"hf://{REPO}/{LARGE}"


def test_a_commit_that_was_asked_for_is_the_one_that_answers(hub: Hub) -> None:
    commit = ask(hub).commit
    hub.script(at(revision=commit), Manner(headers={"X-Repo-Commit": ANY_COMMIT}))
    with pytest.raises(SourceBadAnswer, match=f"answers for commit {ANY_COMMIT}"):
        ask(hub, revision=commit)


@pytest.mark.parametrize("etag", ["x" * 64, "a" * 63, "A" * 64, "", 'W/"abc"'])
def test_what_is_no_sha256_is_not_taken_for_one(hub: Hub, etag: str) -> None:
    hub.script(at(), Manner(headers={"X-Linked-ETag": etag}))
    assert ask(hub).sha256 is None


def test_a_size_may_be_missing(hub: Hub) -> None:
    hub.script(at(), Manner(headers={"X-Linked-Size": None}))
    assert ask(hub).size_bytes is None


@pytest.mark.parametrize(
    "endpoint", ["", "hub", "//hub", "ftp://hub", "http://", "http://u:p@hub", "http://h:x", "h t"]
)
def test_an_endpoint_that_is_no_url_is_a_wrong_setting(endpoint: str) -> None:
    with pytest.raises(SettingsError, match="HAL0_HUB_ENDPOINT"):
        resolve(HubFile(REPO, LARGE, None), endpoint=endpoint, token=None)


# -- the library and its surroundings --------------------------------------------------------------


@pytest.mark.parametrize("missing", ["huggingface_hub", "httpx2"])
def test_without_the_library_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(HubNotInstalled, match="install hal0 with its extra `hub`"):
        resolve(HubFile(REPO, LARGE, None), endpoint=None, token=None)


def test_several_threads_ask_at_once(hub: Hub) -> None:
    found: list[HubAnswer] = []
    barrier = threading.Barrier(8)

    def run() -> None:
        barrier.wait()
        found.append(ask(hub))

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [ask(hub)] * 8


def ask_in_process(home: Path, endpoint: str, **env: str) -> dict[str, Any]:
    """Ask in a new process, in which any warning is an error, with `home` as the user's folder."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", TELL, f"hf://{REPO}/{LARGE}", endpoint],
        cwd=ROOT,
        env={**kept, "HOME": str(home), "XDG_CACHE_HOME": str(home / ".cache"), **env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_nothing_is_written_and_nobody_is_told_of_us(hub: Hub, tmp_path: Path) -> None:
    """HF_ENDPOINT is the fake too, so that it sees what the library asks of its own accord."""
    found = ask_in_process(tmp_path, hub.origin, HF_ENDPOINT=hub.origin, AI_AGENT="tiny")
    assert found == {"sha256": sha256(FILES[LARGE]).hexdigest()}
    assert [asked["path"] for asked in hub.requests] == [at()]
    assert list(tmp_path.iterdir()) == []


def test_the_token_of_whoever_is_logged_in_is_not_sent(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("hf_of_the_user")
    ask_in_process(tmp_path, hub.origin, HF_HOME=str(tmp_path), HF_TOKEN="hf_of_the_shell")
    (asked,) = hub.requests
    assert "authorization" not in asked["headers"]


def test_hf_endpoint_does_not_move_the_public_hub_and_offline_is_obeyed(
    hub: Hub, tmp_path: Path
) -> None:
    error = ask_in_process(tmp_path, "", HF_ENDPOINT=hub.origin, HF_HUB_OFFLINE="1")
    assert error["code"] == SourceRefused.code
    assert "HF_HUB_OFFLINE" in error["detail"]
    assert error["evidence"]["endpoint"] == PUBLIC_HUB
    assert hub.requests == []
