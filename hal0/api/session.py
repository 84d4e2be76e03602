"""How a browser signs in and out: its token in a cookie that no script can read.

The cookie is the token, so a revocation holds for it as for every other use, and there is nothing
more to keep. It goes to this host alone and never with a request that another site begins; what it
may change besides is `auth.check_origin`'s to say. Cookies know no ports: another server of the
same host name is sent it too, when this user visits it.
"""

from datetime import datetime
from typing import Final

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from hal0.api import exchange
from hal0.api.callers import SESSION, Callers
from hal0.api.forms import form_of
from hal0.api.schemas import Query
from hal0.clock import utc_now

HOME: Final = "/"


class SignIn(Query):
    """What the form says."""

    token: str = ""


async def sign_in(request: Request) -> Response:
    """Keep a valid token for this browser, and show the page."""
    form = await form_of(request, SignIn)
    address = "" if request.client is None else request.client.host
    callers: Callers = request.app.state.callers
    token = await callers.sign_in(form.token.strip(), address)
    answer = _to_the_page()
    remember(answer, request, form.token.strip(), token.expires_at)
    return answer


def remember(answer: Response, request: Request, text: str, expires_at: datetime | None) -> None:
    """Let the browser bear this token from now on."""
    left = None if expires_at is None else expires_at - utc_now()
    answer.set_cookie(
        SESSION,
        text,
        max_age=None if left is None else max(1, int(left.total_seconds())),
        path=HOME,
        secure=request.headers.get("origin", "").startswith("https://"),
        httponly=True,
        samesite="strict",
    )


async def sign_out(request: Request) -> Response:
    """Forget the token that this browser bears; it stays valid."""
    exchange.query_of(request, Query)
    answer = _to_the_page()
    answer.delete_cookie(SESSION, path=HOME, httponly=True, samesite="strict")
    return answer


def _to_the_page() -> Response:
    return RedirectResponse(HOME, 303, {"Cache-Control": "no-store"})


ROUTES = [
    Route("/session", sign_in, methods=["POST"], include_in_schema=False),
    Route("/session", sign_out, methods=["DELETE"], include_in_schema=False),
    Route("/session/end", sign_out, methods=["POST"], include_in_schema=False),
]
