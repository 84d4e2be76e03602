"""Who asks: the bearer of a valid token, or the user of this machine while there are no tokens.

A browser that signed in bears its token in a cookie. That one counts only where there is no header
Authorization, so a program says alone who it is, whatever cookies it was made to keep.
"""

import logging
from typing import Final, NamedTuple

from starlette.requests import cookie_parser

from hal0.access.roles import LOCAL, Role
from hal0.access.tokens import Token
from hal0.api.failed_logins import FailedLogins
from hal0.api.keyring import Keyring
from hal0.api.request_headers import RequestHeaders
from hal0.errors import TooManyFailures, Unauthorized

log = logging.getLogger(__name__)

WHAT_IS_NEEDED: Final = (
    "this needs a valid token, as in `Authorization: Bearer hal0_…`; the command hal0 reads it "
    "from HAL0_TOKEN_FILE, and `hal0 token create` on the machine of hal0 makes one"
)
"""The same whatever was wrong: who guesses learns nothing of the tokens that there are."""

SESSION: Final = "hal0_session"
"""The cookie of a browser that signed in; its value is the token."""

FORWARDED: Final = (b"forwarded", b"via", b"x-forwarded-for", b"x-forwarded-host", b"x-real-ip")
"""What proxies add to a request of another machine."""


class Caller(NamedTuple):
    """Who asks, by the name that rows carry, and what they may do."""

    actor: str
    role: Role
    token: Token | None = None


class Callers:
    """Tells who asks; a token that is valid passes always, however many others failed."""

    def __init__(self, keyring: Keyring, *, is_loopback: bool) -> None:
        self._keyring = keyring
        self._is_loopback = is_loopback
        self._failed = FailedLogins()

    async def identify(self, headers: RequestHeaders, address: str) -> Caller:
        """Return who asks from `address`; raises Unauthorized, TooManyFailures.

        Open to this machine is only a home that never had a token: one that was revoked or has
        ended still stands in the table, and the home remembers that table. What a proxy hands on is
        not of this machine.
        """
        known = await self._keyring.tokens()
        if self._is_loopback and known.is_open and not any(name in headers for name in FORWARDED):
            return Caller(LOCAL, Role.WRITER)
        given = headers.all(b"authorization")
        text = _bearer(given) if given else session_in(headers)
        token = known.find(text or "")
        if token is not None:
            return Caller(token.name, token.role, token)
        if given or text:
            self._count(address)
        raise Unauthorized(WHAT_IS_NEEDED)

    async def sign_in(self, text: str, address: str) -> Token:
        """Return the valid token of this text; raises Unauthorized, TooManyFailures."""
        token = (await self._keyring.tokens()).find(text)
        if token is not None:
            return token
        self._count(address)
        raise Unauthorized(WHAT_IS_NEEDED)

    async def note_use(self, caller: Caller) -> None:
        """Write that the caller's token was used."""
        if caller.token is not None:
            await self._keyring.note_use(caller.token)

    def _count(self, address: str) -> None:
        """Count a token that was not valid; none at all is no guess, so it is not counted."""
        wait_s = self._failed.count(address)
        if wait_s > 0:
            raise TooManyFailures(
                "too many tokens from this address were not valid; correct the token, "
                "then come again",
                retry_after_s=wait_s,
            )
        log.warning("a token that is not valid came from %s", address or "nowhere")


def session_in(headers: RequestHeaders) -> str | None:
    """Return the token that a browser bears in its cookie; None where a header speaks for it."""
    if b"authorization" in headers or b"cookie" not in headers:
        return None
    return cookie_parser("; ".join(headers.all(b"cookie"))).get(SESSION)


def _bearer(given: list[str]) -> str:
    """Return the text in one `Authorization: Bearer …`; "" for anything else."""
    if len(given) != 1:
        return ""
    scheme, _, text = given[0].partition(" ")
    return text.strip(" ") if scheme.lower() == "bearer" else ""
