"""`hal0 token`, in a home and through an API, and what a command without a good token ends with."""

import json
from datetime import datetime
from pathlib import Path

import pytest

from hal0.access import tokens
from hal0.access.roles import Role
from hal0.db import Database
from tests.unit.cli.conftest import Run

TEXT = r"hal0_[A-Za-z0-9_-]{43}\n"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home that is not made yet, and no API."""
    monkeypatch.setenv("HAL0_HOME", str(tmp_path / "fresh"))
    return tmp_path / "fresh"


@pytest.fixture
def token_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "token"
    file.touch(mode=0o600)
    monkeypatch.setenv("HAL0_TOKEN_FILE", str(file))
    return file


@pytest.mark.parametrize("way", ["home", "api_url"])
def test_a_token_is_made_listed_and_revoked_in_a_home_and_through_an_api(
    run: Run, way: str, request: pytest.FixtureRequest, token_file: Path
) -> None:
    request.getfixturevalue(way)
    by = ["local", "local"] if way == "home" else ["local", "alice"]
    made = run("token", "create", "alice", "--role", "writer")
    assert made.code == 0, made.err
    assert made.err == "token alice, writer, until revoked; it is not shown again:\n"
    token_file.write_text(made.out)
    other = json.loads(
        run("token", "create", "ci", "--role", "reader", "--expires", "30d", "--json").out
    )
    assert (other["name"], other["role"], other["state"]) == ("ci", "reader", "valid")
    span = datetime.fromisoformat(other["expires_at"]) - datetime.fromisoformat(other["created_at"])
    assert span.days == 30
    listed = json.loads(run("token", "list", "--json").out)["items"]
    assert [one["created_by"] for one in listed] == by
    shown = run("token", "list").out
    assert shown.splitlines()[0].split() == [
        *("NAME", "ROLE", "STATE", "CREATED", "BY", "EXPIRES", "LAST", "USED")
    ]
    for text in (made.out.strip(), other["token"]):
        assert text.removeprefix("hal0_") not in shown + json.dumps(listed)
    revoked = json.loads(run("token", "revoke", "ci", "--json").out)
    assert (revoked["state"], revoked["revoked_by"]) == ("revoked", by[1])
    assert [line.split()[2] for line in run("token", "list").out.splitlines()[1:]] == [
        *("valid", "revoked")
    ]


@pytest.mark.parametrize("way", ["home", "api_url"])
@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (("create", "ci"), 2, "--role"),
        (("create", "ci", "--role", "root"), 2, "root"),
        (("create", "ci", "--role", "reader", "--expires", "soon"), 2, "30d"),
        (("create", "ci", "--role", "reader", "--expires", "999999999w"), 2, "30d"),
        (("create", "ci", "--role", "reader", "--expires", "99w99"), 2, "30d"),
        (("create", "ci", "--role", "reader", "--expires", "0d"), 2, "more than 0"),
        (("create", "ci", "--role", "reader", "--expires", "9999w"), 2, "expires_in_s|at most"),
        (("create", "local", "--role", "reader"), 2, "no token can be called 'local'"),
        (("create", "Ci", "--role", "reader"), 2, "'Ci' is no token name"),
    ],
)
def test_what_cannot_be_a_token_is_usage(
    run: Run, way: str, request: pytest.FixtureRequest, args: tuple[str, ...], code: int, says: str
) -> None:
    request.getfixturevalue(way)
    done = run("token", *args)
    assert (done.code, done.out) == (code, "")
    assert any(word in done.err for word in says.split("|")), done.err


@pytest.mark.parametrize("way", ["home", "api_url"])
def test_a_name_that_is_taken_or_unknown_has_its_code(
    run: Run, way: str, request: pytest.FixtureRequest, token_file: Path
) -> None:
    request.getfixturevalue(way)
    token_file.write_text(run("token", "create", "ci", "--role", "writer").out)
    again = run("token", "create", "ci", "--role", "writer")
    assert (again.code, "[token.exists]" in again.err) == (5, True)
    missing = run("token", "revoke", "nobody")
    assert (missing.code, "[token.not_found]" in missing.err) == (3, True)


@pytest.mark.usefixtures("api_url")
def test_a_command_without_a_good_token_ends_with_4_and_says_what_to_do(
    run: Run, db: Database, token_file: Path
) -> None:
    with db.write() as tx:
        tokens.create(tx, "alice", Role.WRITER, "local")
        reader = tokens.create(tx, "bob", Role.READER, "local")[1]
    for text in ("", "hal0_" + "x" * 43):
        token_file.write_text(text)
        done = run("slot", "list")
        assert (done.code, done.out) == (4, "")
        assert "HAL0_TOKEN_FILE" in done.err
        assert "`hal0 token create`" in done.err
        assert "[auth.unauthorized]" in done.err
    token_file.write_text(reader)
    assert run("slot", "list").code == 0
    done = run("slot", "create", "chat")
    assert (done.code, "needs the role writer" in done.err) == (4, True)
    assert "the token bob has the role reader" in done.err
    token_file.write_text("hal0_" + "x" * 43)
    codes = [run("slot", "list") for _ in range(12)]
    assert {one.code for one in codes} == {4}
    assert "[auth.too_many_failures]" in codes[-1].err


@pytest.mark.parametrize("text", [b"two\nlines", b"a b", b"\xff\xfe", b"a\0b"])
def test_a_token_file_that_holds_something_else_is_refused_without_showing_it(
    run: Run, token_file: Path, text: bytes
) -> None:
    token_file.write_bytes(text)
    done = run("slot", "list")
    assert (done.code, done.out) == (2, "")
    assert done.err == (
        f"hal0: HAL0_TOKEN_FILE={token_file} holds no token: put one into it, and no more "
        "[settings.invalid]\n"
    )


def _found(run: Run) -> dict[str, dict[str, str]]:
    done = run("doctor", "--json")
    return {one["check"]: one for one in json.loads(done.out)["findings"]}


@pytest.mark.usefixtures("api_url")
def test_doctor_says_when_the_api_is_closed_to_this_command(
    run: Run, db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with db.write() as tx:
        text = tokens.create(tx, "alice", Role.WRITER, "local")[1]
        weak = tokens.create(tx, "chat", Role.CLIENT, "local")[1]
    found = _found(run)
    api = found["api"]
    assert "token file" not in found
    assert (api["verdict"], "has no token" in api["detail"]) == ("wrong", True)
    assert "set HAL0_TOKEN_FILE" in api["to_do"]
    file = tmp_path / "token"
    monkeypatch.setenv("HAL0_TOKEN_FILE", str(file))
    for content, says in ((f"{text}x", "auth.unauthorized"), (weak, "needs the role reader")):
        file.write_text(content)
        assert (_found(run)["api"]["verdict"], says in _found(run)["api"]["detail"]) == (
            *("wrong", True),
        )
    file.write_text(text)
    assert _found(run)["api"]["verdict"] == "ok"


def test_doctor_warns_of_a_token_that_others_can_read(
    run: Run, home: Path, token_file: Path
) -> None:
    for mode, verdict in ((0o600, "ok"), (0o640, "ok"), (0o644, "wrong"), (0o606, "wrong")):
        token_file.chmod(mode)
        found = _found(run)["token file"]
        assert found["verdict"] == verdict, oct(mode)
        assert (f"chmod o= {token_file}" in (found["to_do"] or "")) == (verdict == "wrong")
    token_file.unlink()
    assert _found(run)["token file"]["verdict"] == "wrong"


def test_a_command_says_what_it_sent_when_it_is_not_let_in(
    run: Run, api_url: str, db: Database, token_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with db.write() as tx:
        tokens.create(tx, "alice", Role.WRITER, "local")
    assert f"HAL0_TOKEN_FILE={token_file} is empty" in run("slot", "list").err
    token_file.write_text("hal0_" + "a" * 43)
    bad = run("slot", "list")
    assert (bad.code, "was revoked, has ended, or is of another home" in bad.err) == (4, True)
    monkeypatch.delenv("HAL0_TOKEN_FILE")
    assert "HAL0_TOKEN_FILE is not set, so no token was sent" in run("slot", "list").err
