"""Who may come in, over HTTP. The text of a token is in one answer, and nowhere else."""

from typing import cast

from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from hal0.access.closed import open_if_refused
from hal0.access.roles import Role
from hal0.access.tokens import create, listed, revoke
from hal0.api import answers, exchange, views
from hal0.api.idempotency import HEADER, Reply
from hal0.api.paging import cursor_of, key_of, page
from hal0.api.schemas import Page, Query, TokenCreate
from hal0.refusals import refused


def _shown(tx: Connection, after: str, limit: int) -> list[answers.Token]:
    return [views.token_json(token) for token in listed(tx, after=after, limit=limit)]


async def list_tokens(request: Request) -> Response:
    """Return a page of tokens by name, those that are no longer valid too."""
    query = exchange.query_of(request, Page)
    after = key_of("tokens", str, query.cursor) or ""
    shown = await exchange.read(request, lambda tx: _shown(tx, after, query.limit + 1))
    return exchange.answer(page(shown, query.limit, lambda one: cursor_of("tokens", one["name"])))


async def create_token(request: Request) -> Response:
    """Make a token and tell its text, this once."""
    return exchange.answer(await made(request, await exchange.body_of(request, TokenCreate)), 201)


async def made(request: Request, body: TokenCreate) -> answers.NewToken:
    """Make a token and return it with its text.

    Takes no Idempotency-Key: to give the same answer again, the text would have to be kept.
    """
    if HEADER in request.headers:
        problem = (
            "is not taken here, for a token is told once and not kept; if the answer is lost, "
            "revoke the token and make another"
        )
        raise refused([(HEADER, problem)])
    by = exchange.by(request).actor

    def do(tx: Connection) -> Reply:
        token = create(tx, body.name, Role.named(body.role), by, body.expires_in_s)
        return Reply(views.new_token_json(*token))

    db = exchange.database_of(request)
    reply = await exchange.change(request, do, open_if_refused(db))
    request.app.state.keyring.forget()
    return cast(answers.NewToken, reply.body)


async def revoke_token(request: Request) -> Response:
    """Let a token open nothing any more; its row stays, and a second time changes nothing."""
    exchange.query_of(request, Query)
    name, by = request.path_params["token"], exchange.by(request).actor
    reply = await exchange.change(request, lambda tx: Reply(views.token_json(revoke(tx, name, by))))
    request.app.state.keyring.forget()
    return exchange.respond(reply)


ROUTES = [
    Route("/api/v1/tokens", list_tokens, methods=["GET"]),
    Route("/api/v1/tokens", create_token, methods=["POST"]),
    Route("/api/v1/tokens/{token}", revoke_token, methods=["DELETE"]),
]
