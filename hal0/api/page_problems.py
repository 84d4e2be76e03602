"""How a page's user is told that something went wrong: in HTML, with what to do beside it.

Who is not known gets the form to sign in. Everyone else who asks, programs at the same paths too,
gets a problem (`problems.py`).
"""

from typing import Final

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Scope

from hal0 import __version__
from hal0.api.callers import SESSION, session_in
from hal0.api.page_answers import html, is_fragment
from hal0.api.problems import response_for, title_of
from hal0.api.request_headers import RequestHeaders
from hal0.errors import Hal0Error, TooManyFailures, Unauthorized
from hal0.page.render import render

KEPT: Final = ("retry-after", "allow", "www-authenticate", "connection")
"""What a problem says in its headers, and the page says too."""


def told(error: Hal0Error, scope: Scope) -> Response:
    """Return what whoever asked is told of an error: people a page, all others a problem."""
    return answer_for(error, scope) if is_for_people(scope) else response_for(error, scope["path"])


def is_for_people(scope: Scope) -> bool:
    """Tell whether a browser asks for a page."""
    path: str = scope["path"]
    is_page = path == "/" or path.startswith(("/page/", "/session"))
    return is_page and "text/html" in Headers(scope=scope).get("accept", "")


def is_from_elsewhere(method: str, headers: Headers) -> bool:
    """Tell whether a link of another site led here: with those a browser sends no strict cookie.

    Asked for once more, by our own page, it does.
    """
    return method == "GET" and headers.get("sec-fetch-site") in {"cross-site", "same-site"}


def answer_for(error: Hal0Error, scope: Scope) -> Response:
    """Return what people are told of an error."""
    headers, problem = Headers(scope=scope), response_for(error, scope["path"])
    is_stranger = isinstance(error, Unauthorized | TooManyFailures)
    template = "sign_in" if is_stranger and not is_fragment(headers) else "refused"
    text = render(
        template,
        title=title_of(type(error)),
        error=error,
        job_id=error.job_id or error.evidence.get("job_id"),
        is_from_elsewhere=is_from_elsewhere(scope["method"], headers),
        was_tried=is_stranger and scope["method"] == "POST",
        is_fragment=is_fragment(headers),
        version=__version__,
    )
    answer = html(text, error.status)
    answer.headers.update({name: problem.headers[name] for name in KEPT if name in problem.headers})
    if isinstance(error, Unauthorized) and session_in(RequestHeaders(scope["headers"])):
        answer.delete_cookie(SESSION, path="/", httponly=True, samesite="strict")
    return answer
