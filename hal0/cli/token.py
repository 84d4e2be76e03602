"""`hal0 token …`: who may come in over the network, and as what.

On the database of this home, without an API: whoever can write that file can let anybody in, and
the first token must come from somewhere. With HAL0_URL set, through the API that is there.
"""

from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from hal0.access.roles import GRANTED, LOCAL, Role
from hal0.cli import known, output
from hal0.cli.client import Api, Json, path_of
from hal0.cli.exits import Exit, Failure
from hal0.cli.show import emit, emit_list, facts, json_option, list_options, table
from hal0.cli.times import clock_of
from hal0.errors import Hal0Error
from hal0.timespans import span_of

if TYPE_CHECKING:
    from hal0.db import Database

HEADERS = ("name", "role", "state", "created", "by", "expires", "last used")


class Span(click.ParamType[float, float]):
    """`90m`, `12h`, `30d`: so long."""

    name = "span"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return seconds."""
        try:
            span = span_of(str(value).strip())
        except OverflowError:
            span = None
        if span is None:
            self.fail(f"{value!r} is no span of time: give 90m, 12h, 30d or 8w", param, ctx)
        return span.total_seconds()


@click.group()
def token() -> None:
    """Who may come in over the network, and as what."""


@token.command()
@click.argument("name")
@click.option("--role", type=click.Choice(GRANTED), required=True, help="What its bearer may do.")
@click.option("--expires", "expires_in_s", type=Span(), help="After how long, as 30d; else never.")
@json_option
def create(name: str, role: str, expires_in_s: float | None, as_json: bool) -> None:
    """Make a token and print it, this once: only a hash of it is kept.

    \b
    hal0 token create dashboard --role reader --expires 30d > ~/.hal0-token
    """

    def in_home(db: "Database") -> Json:
        from hal0.access import tokens
        from hal0.access.closed import open_if_refused
        from hal0.api.views import new_token_json

        with open_if_refused(db), db.write() as tx:
            made = tokens.create(tx, name, Role.named(role), LOCAL, expires_in_s)
            return {**new_token_json(*made)}

    body = {"name": name, "role": role, "expires_in_s": expires_in_s}
    made = _ask(lambda api: api.post(path_of("tokens"), body), in_home)

    def show() -> None:
        end = f"until {clock_of(made['expires_at'])}" if made["expires_at"] else "until revoked"
        click.echo(f"token {name}, {role}, {end}; it is not shown again:", err=True)
        click.echo(made["token"])

    try:
        emit(made, as_json, show)
    except OSError as exc:
        if not output.has_failed():
            raise
        raise _never_shown(name, made["token"]) from exc


def _never_shown(name: str, text: str) -> Failure:
    """Revoke a token whose text nobody has; return what to say."""
    why = f"the text of token {name} could not be printed"
    with suppress(Failure, Hal0Error):
        _revoke(name, text)
        return Failure(f"{why}, so it was revoked; make one of another name")
    return Failure(f"{why}, nor could it be revoked: `hal0 token revoke {name}`")


def _revoke(name: str, text: str | None = None) -> Json:
    """Revoke a token; one that has closed an API is the only one that may, if any."""

    def by_http(api: Api) -> Json:
        asking = api if text is None or api.token else replace(api, token=text)
        return asking.ask("DELETE", path_of("tokens", name))

    def in_home(db: "Database") -> Json:
        from hal0.access import tokens
        from hal0.api.views import token_json

        with db.write() as tx:
            return {**token_json(tokens.revoke(tx, name, LOCAL))}

    return _ask(by_http, in_home)


@token.command("list")
@list_options
def list_tokens(as_json: bool, is_quiet: bool) -> None:
    """Show who has or had a token, and when it was last used."""
    found = _all()
    rows = [
        [
            *(one["name"], one["role"], one["state"]),
            *(clock_of(one["created_at"]), one["created_by"]),
            *(clock_of(one["expires_at"]), clock_of(one["last_used_at"])),
        ]
        for one in found
    ]
    emit_list(found, "name", lambda: table(HEADERS, rows), as_json=as_json, is_quiet=is_quiet)


@token.command()
@click.argument("name", shell_complete=known.tokens)
@json_option
def show(name: str, as_json: bool) -> None:
    """Show one token, as far as anybody knows it: never its text."""
    found = next((one for one in _all() if one["name"] == name), None)
    if found is None:
        raise Failure(f"there is no token {name!r}; `hal0 token list` shows them", Exit.NOT_FOUND)
    emit(found, as_json, lambda: facts(found))


def _all() -> list[Json]:
    def in_home(db: "Database") -> Json:
        from hal0.access import tokens
        from hal0.api.views import token_json

        with db.read() as tx:
            rows = tokens.all_tokens(tx).rows
        return {"items": [token_json(row) for row in sorted(rows, key=lambda row: row.name)]}

    found: list[Json] = _ask(lambda api: {"items": list(api.items(path_of("tokens")))}, in_home)[
        "items"
    ]
    return found


@token.command()
@click.argument("name", shell_complete=known.tokens)
@json_option
def revoke(name: str, as_json: bool) -> None:
    """Let a token open nothing any more."""
    revoked = _revoke(name)
    emit(revoked, as_json, lambda: facts(revoked))


def _ask(by_http: Callable[[Api], Json], in_home: Callable[["Database"], Json]) -> Json:
    from hal0.db import open_database
    from hal0.settings import Settings

    settings = Settings.load()
    if settings.url is not None:
        return by_http(Api.from_settings())
    with closing(open_database(settings)) as db:
        return in_home(db)
