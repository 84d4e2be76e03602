"""Which tokens there are: made, listed and revoked as rows, which never hold the text of one.

A token is 256 random bits, so its row keeps a plain sha256 of it. A slow hash is for passwords,
which people choose: here there is no list of likely texts to try.

A row stays for ever, so a name in the audit always means the same token.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import Connection, exc, insert, not_, or_, select, update

from hal0.access.closed import close_for_good
from hal0.access.roles import GRANTED, LOCAL, RESERVED, Role
from hal0.clock import utc_now
from hal0.errors import InvalidRequest, TokenExists, TokenNotFound
from hal0.masks import PREFIX
from hal0.tables import tokens

NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
RANDOM_BYTES: Final = 32
LONGEST_S: Final = 10 * 366 * 86400.0
"""How far away the end of a token may be; one without an end is given none."""

NOTED_EACH: Final = timedelta(minutes=1)
"""How often the use of a token is written at most."""


class TokenState(StrEnum):
    """What a token is good for."""

    VALID = "valid"
    EXPIRED = "expired"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class Token:
    """A token as its row says it; `created_by` is unknown for those of the first schema."""

    id: int
    name: str
    role: Role
    token_hash: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
    created_by: str | None
    revoked_by: str | None

    @property
    def state(self) -> TokenState:
        """What it is good for now, by the wall clock."""
        if self.revoked_at is not None:
            return TokenState.REVOKED
        is_over = self.expires_at is not None and self.expires_at <= utc_now()
        return TokenState.EXPIRED if is_over else TokenState.VALID


@dataclass(frozen=True, slots=True)
class Tokens:
    """All tokens as they were read at one moment."""

    rows: Sequence[Token] = ()
    was_closed: bool = False
    """Whether there ever was one, as the home says, whatever its database says."""
    _found: dict[str, Token] = field(default_factory=dict, init=False, repr=False, compare=False)
    """Those that were valid, by their text, for as long as this reading of the table is used: a
    digest and the comparisons take longer than all else that is looked at of a request."""

    @property
    def is_open(self) -> bool:
        """Whether there never was a token, so that this machine's users need none."""
        return not self.rows and not self.was_closed

    @property
    def has_valid(self) -> bool:
        """Whether anybody can come in with a token."""
        return any(token.state is TokenState.VALID for token in self.rows)

    def admits(self, actor: str) -> bool:
        """Whether who came in under this name would come in still."""
        if actor == LOCAL:
            return self.is_open
        return any(row.name == actor and row.state is TokenState.VALID for row in self.rows)

    def find(self, text: str) -> Token | None:
        """Return the valid token of this text; every row is compared, in constant time."""
        found = self._found.get(text) or self._compared(text)
        if found is None or found.state is not TokenState.VALID:
            return None
        self._found[text] = found
        return found

    def _compared(self, text: str) -> Token | None:
        digest, found = digest_of(text), None
        for token in self.rows:
            if hmac.compare_digest(digest, token.token_hash):
                found = token
        return found


def digest_of(text: str) -> str:
    """Return what a row keeps of a token's text."""
    return hashlib.sha256(text.encode()).hexdigest()


def check_token_name(name: object) -> str:
    """Return `name` if a token may have it: the rule of slot names, and not one of hal0's own."""
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise InvalidRequest(
            f"{name!r} is no token name: use 1 to 32 of a-z, 0-9, _ and -, beginning with a-z or "
            "0-9",
            evidence={"field": "name", "pattern": NAME.pattern},
        )
    if name in RESERVED:
        raise InvalidRequest(
            f"no token can be called {name!r}, which in the audit means hal0 itself; choose "
            "another name",
            evidence={"field": "name", "reserved": sorted(RESERVED)},
        )
    return name


def create(
    tx: Connection, name: str, role: Role, by: str, expires_in_s: float | None = None
) -> tuple[Token, str]:
    """Insert a token; return it and its text, which nothing can tell again.

    Raises InvalidRequest for a name, a role or a time that cannot be, TokenExists.
    """
    check_token_name(name)
    if str(role) not in GRANTED:
        raise InvalidRequest(f"a token has one of the roles {', '.join(GRANTED)}, not {role}")
    if expires_in_s is not None and not 0 < expires_in_s <= LONGEST_S:
        raise InvalidRequest(
            f"a token ends in more than 0 and at most {LONGEST_S:.0f} s, not {expires_in_s:g} s; "
            "leave that out for one that does not end"
        )
    close_for_good(tx)
    now = utc_now()
    text = PREFIX + secrets.token_urlsafe(RANDOM_BYTES)
    try:
        tx.execute(
            insert(tokens).values(
                name=name,
                role=str(role),
                token_hash=digest_of(text),
                created_at=now,
                created_by=by,
                expires_at=None if expires_in_s is None else now + timedelta(seconds=expires_in_s),
            )
        )
    except exc.IntegrityError as error:
        raise TokenExists(
            f"there is or was a token {name!r}, and a name is used once; choose another",
            evidence={"token": name},
        ) from error
    return token_named(tx, name), text


def revoke(tx: Connection, name: str, by: str) -> Token:
    """Let a token open nothing any more; one that was revoked stays as it is.

    Raises TokenNotFound.
    """
    token = token_named(tx, name)
    if token.revoked_at is None:
        tx.execute(
            update(tokens)
            .where(tokens.c.id == token.id)
            .values(revoked_at=utc_now(), revoked_by=by)
        )
    return token_named(tx, name)


def token_named(tx: Connection, name: str) -> Token:
    """Return the token of this name, whatever its state; raises TokenNotFound."""
    row = tx.execute(select(tokens).where(tokens.c.name == name)).one_or_none()
    if row is None:
        raise TokenNotFound(
            f"there is no token {name!r}; `hal0 token list` shows them", evidence={"token": name}
        )
    return _token(row)


def listed(tx: Connection, *, after: str, limit: int) -> list[Token]:
    """Return tokens by name, those behind `after`."""
    behind = select(tokens).where(tokens.c.name > after).order_by(tokens.c.name).limit(limit)
    return [_token(row) for row in tx.execute(behind)]


def all_tokens(tx: Connection, *, was_closed: bool = False) -> Tokens:
    """Return the whole table."""
    return Tokens([_token(row) for row in tx.execute(select(tokens))], was_closed)


def note_use(tx: Connection, token_id: int) -> None:
    """Write that a token was used now, unless that was written less than a minute ago; soft."""
    now = utc_now()
    last = tokens.c.last_used_at
    tx.execute(
        update(tokens)
        .where(tokens.c.id == token_id)
        # A time in the future is of a clock that was set back since.
        .where(or_(last.is_(None), not_(last.between(now - NOTED_EACH, now))))
        .values(last_used_at=now)
    )


def _token(row: Any) -> Token:
    return Token(**{**row._mapping, "role": Role.named(row.role)})
