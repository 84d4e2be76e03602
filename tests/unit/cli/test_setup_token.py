"""The token that `hal0 setup` makes at its end: only if it is wanted, and told once."""

import os

import click
import pytest

from hal0.access import tokens
from hal0.cli.client import Api
from hal0.cli.first_steps import offer_token, token_is_read
from hal0.cli.walk import Walk, Wanted
from hal0.db import Database


def test_a_token_is_printed_once_with_what_to_do_with_it(
    api_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    walk = Walk(Api(api_url), Wanted(slot="chat", token="me"))
    offer_token(walk)
    text = walk.done["token"]["token"]
    said = capsys.readouterr().out
    assert said.count(text) == 1
    assert "HAL0_TOKEN_FILE" in said
    (made,) = Api(api_url, token=text).get("/api/v1/tokens")["items"]
    assert (made["name"], made["role"], made["state"]) == ("me", "writer", "valid")


def test_with_json_a_token_stands_in_the_json_alone(
    api_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    walk = Walk(Api(api_url), Wanted(slot="chat", token="me"), as_json=True)
    offer_token(walk)
    assert walk.done["token"]["token"] not in capsys.readouterr().out


def test_somebody_who_says_nothing_of_tokens_and_cannot_be_asked_gets_none(api_url: str) -> None:
    for wanted in (Wanted(slot="chat"), Wanted(slot="chat", yes=True)):
        offer_token(Walk(Api(api_url), wanted))
    assert Api(api_url).get("/api/v1/tokens")["items"] == []


@pytest.mark.parametrize("as_json", [False, True])
def test_a_token_whose_text_could_not_be_printed_is_taken_back(
    api_url: str, db: Database, monkeypatch: pytest.MonkeyPatch, as_json: bool
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w", encoding="utf-8") as nobody_reads:
        monkeypatch.setattr("sys.stdout", nobody_reads)
        walk = Walk(Api(api_url), Wanted(slot="chat", token="me"), as_json=as_json)

        def walk_to_its_end() -> None:
            offer_token(walk)
            with token_is_read(walk):
                click.echo("what --json prints of it")

        with pytest.raises(BrokenPipeError):
            walk_to_its_end()
        monkeypatch.undo()
        with db.read() as tx:
            assert [token.revoked_by for token in tokens.all_tokens(tx).rows] == ["me"]
