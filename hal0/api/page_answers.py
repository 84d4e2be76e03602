"""What every answer of the page has in common: its headers, and what templates know of who asks.

Nothing runs that is not a file of hal0's own: no script or style inside a document, no frame around
it, no form to elsewhere (CSP). A page asks with the header `Hal0-Fragment` for a part of itself.
"""

from typing import Any, Final

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from hal0 import __version__
from hal0.access.roles import Role
from hal0.api.callers import SESSION
from hal0.clock import utc_now
from hal0.page.render import render

FRAGMENT: Final = "Hal0-Fragment"
CSP: Final = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    ]
)
SAFE: Final = {
    "Content-Security-Policy": CSP,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",  # without one a form's Origin would be `null`
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def is_fragment(headers: Headers) -> bool:
    """Whether page.js asks, for a part of the page."""
    return FRAGMENT in headers


def html(text: str, status: int = 200) -> Response:
    """Return a document, or a part of one."""
    headers = {**SAFE, "Cache-Control": "no-store", "Vary": FRAGMENT}
    return Response(text.encode(errors="backslashreplace"), status, headers, "text/html")


def page(request: Request, template: str, status: int = 200, **shown: Any) -> Response:
    """Return a template as who asks may see it."""
    return html(
        render(
            template,
            actor=request.state.actor,
            can_write=request.state.role >= Role.WRITER,
            is_signed_in=SESSION in request.cookies,
            is_fragment=is_fragment(request.headers),
            version=__version__,
            path=request.url.path + (f"?{request.url.query}" if request.url.query else ""),
            now=utc_now(),
            **shown,
        ),
        status,
    )


def done(request: Request, said: str, to: str) -> Response:
    """Return what a form brought about: a notice for page.js, else the way back."""
    if is_fragment(request.headers):
        return page(request, "notice", said=said)
    return RedirectResponse(to, 303, {"Cache-Control": "no-store"})
