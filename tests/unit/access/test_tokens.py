"""Which tokens there are: what a row keeps, which text opens, and until when."""

import re
from datetime import timedelta
from pathlib import Path

import pytest
from freezegun import freeze_time

from hal0.access import tokens
from hal0.access.roles import GRANTED, MACHINES, RESERVED, Role
from hal0.access.tokens import LONGEST_S, TokenState
from hal0.clock import utc_now
from hal0.db import Database
from hal0.errors import InvalidRequest, TokenExists, TokenNotFound
from tests.rows import contents

ROOT = Path(__file__).parents[3]


def make(
    db: Database, name: str = "ci", role: Role = Role.WRITER, expires_in_s: float | None = None
) -> str:
    """Create a token and return its text."""
    with db.write() as tx:
        return tokens.create(tx, name, role, "local", expires_in_s)[1]


def find(db: Database, text: str) -> str | None:
    """Return the name of the token that this text opens with."""
    with db.read() as tx:
        found = tokens.all_tokens(tx).find(text)
    return None if found is None else found.name


def test_a_token_is_256_random_bits_and_its_text_is_in_no_row(db: Database) -> None:
    texts = {make(db, f"t{number}") for number in range(20)}
    assert len(texts) == 20
    for text in texts:
        assert re.fullmatch(r"hal0_[A-Za-z0-9_-]{43}", text)
        assert text.removeprefix("hal0_") not in str(contents(db.path))
    stored = contents(db.path)["tokens"]
    assert {len(row[3]) for row in stored} == {64}


@pytest.mark.parametrize("role", GRANTED)
def test_a_token_is_found_by_its_text_alone(db: Database, role: str) -> None:
    text = make(db, "ci", Role.named(role))
    make(db, "other")
    assert find(db, text) == "ci"
    with db.read() as tx:
        row = tokens.token_named(tx, "ci")
    assert (str(row.role), row.created_by, row.revoked_by) == (role, "local", None)
    for wrong in (
        *("", "hal0_", text[:-1], text + "a", text.upper(), f" {text}", f"{text}\n"),
        *("ci", row.token_hash, "hal0_" + "é" * 43),
    ):
        assert find(db, wrong) is None


def test_a_token_ends_at_its_time_and_not_before(db: Database) -> None:
    with freeze_time("2026-11-01 12:00:00") as clock:
        text = make(db, expires_in_s=60)
        clock.tick(59.9)
        assert find(db, text) == "ci"
        clock.tick(0.2)
        assert find(db, text) is None
        with db.read() as tx:
            assert tokens.token_named(tx, "ci").state is TokenState.EXPIRED
            assert not tokens.all_tokens(tx).has_valid


def test_a_token_that_was_found_once_still_ends_at_its_time(db: Database) -> None:
    with freeze_time("2026-11-01 12:00:00") as clock:
        text = make(db, expires_in_s=60)
        with db.read() as tx:
            read = tokens.all_tokens(tx)
        assert read.find(text) is read.find(text) is not None
        assert text not in repr(read)
        clock.tick(timedelta(seconds=60))
        assert read.find(text) is None


def test_a_revoked_token_opens_nothing_and_keeps_who_revoked_it_first(db: Database) -> None:
    text = make(db)
    with db.write() as tx:
        first = tokens.revoke(tx, "ci", "alice")
    with db.write() as tx:
        again = tokens.revoke(tx, "ci", "bob")
    assert again == first
    assert (first.state, first.revoked_by) == (TokenState.REVOKED, "alice")
    assert find(db, text) is None
    with db.read() as tx:
        assert [token.name for token in tokens.listed(tx, after="", limit=5)] == ["ci"]
    with pytest.raises(TokenNotFound, match="hal0 token list"), db.write() as tx:
        tokens.revoke(tx, "nobody", "alice")


def test_a_name_is_used_once_also_after_the_token_was_revoked(db: Database) -> None:
    make(db)
    with pytest.raises(TokenExists, match="a name is used once"):
        make(db)
    with db.write() as tx:
        tokens.revoke(tx, "ci", "local")
    with pytest.raises(TokenExists, match="there is or was a token 'ci'"):
        make(db)


@pytest.mark.parametrize("name", ["", "-a", "A", "a b", "a" * 33, "ä", "a\n", *sorted(RESERVED)])
def test_what_no_token_can_be_called_is_refused(db: Database, name: str) -> None:
    with pytest.raises(InvalidRequest):
        make(db, name)
    assert contents(db.path)["tokens"] == []


def test_no_token_can_have_a_name_that_a_machine_writes_into_rows() -> None:
    written: set[str] = set()
    for folder in ("hal0", "workers"):
        for path in (ROOT / folder).rglob("*.py"):
            written |= set(re.findall(r'\b(?:Act|By)\("(\w+)"', path.read_text(encoding="utf-8")))
    assert {"worker", "reconcile"} <= written <= RESERVED
    assert MACHINES <= RESERVED


@pytest.mark.parametrize("expires_in_s", [0, -1, LONGEST_S + 1, float("nan"), float("inf")])
def test_an_end_that_cannot_be_is_refused(db: Database, expires_in_s: float) -> None:
    with pytest.raises(InvalidRequest):
        make(db, expires_in_s=expires_in_s)
    assert contents(db.path)["tokens"] == []


def test_anyone_is_no_role_of_a_token(db: Database) -> None:
    with pytest.raises(InvalidRequest, match="client, reader, writer, not anyone"):
        make(db, role=Role.ANYONE)


def test_the_use_of_a_token_is_written_once_a_minute(db: Database) -> None:
    def used_at() -> object:
        with db.soft() as tx:
            tokens.note_use(tx, 1)
        with db.read() as tx:
            return tokens.token_named(tx, "ci").last_used_at

    make(db)
    with freeze_time("2026-11-01 12:00:00") as clock:
        first = used_at()
        assert first == utc_now()
        clock.tick(30)
        assert used_at() == first
        clock.tick(31)
        assert used_at() == utc_now() != first
        clock.tick(timedelta(hours=-1))  # somebody set the clock back
        assert used_at() == utc_now()
