"""How a POST that comes twice is done once: its `Idempotency-Key`, kept for a day with its answer.

The row is written in the transaction of the change. Who got no answer, because the API died or the
line broke, sends the same request with the same key and hears what was done; nothing is done again.
What is refused rolls back, so it uses up no key. Two requests at once come one after the other, for
every write begins with BEGIN IMMEDIATE.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from sqlalchemy import Connection, delete, insert, select
from starlette.datastructures import Headers

from hal0.api.views import when
from hal0.clock import utc_now
from hal0.errors import KeyReused
from hal0.masks import holds_token
from hal0.refusals import refused
from hal0.tables import idempotency_keys

HEADER: Final = "Idempotency-Key"
REPLAYED: Final = "Idempotent-Replayed"
KEPT: Final = timedelta(hours=24)
"""How long a key means its request; longer than anybody tries again."""

MAX_LENGTH: Final = 255


@dataclass(frozen=True, slots=True)
class Reply:
    """What a change is answered, as it can be kept and said again."""

    body: Mapping[str, Any] | None
    status: int = 200
    location: str | None = None
    is_replayed: bool = False


@dataclass(frozen=True, slots=True)
class Once:
    """A request that is done once: whose it is, its key, and the digest of what it says."""

    actor: str
    key: str
    request_hash: str


def key_in(headers: Headers) -> str | None:
    """Return the caller's key, None without one; raises InvalidRequest for what cannot be one."""
    given = headers.getlist(HEADER)
    if not given:
        return None
    key = given[0]
    fits = len(given) == 1 and 0 < len(key) <= MAX_LENGTH and key.isascii() and key.isprintable()
    if fits and not holds_token(key):
        return key
    problem = f"takes one key of 1 to {MAX_LENGTH} printable ASCII characters, such as a UUID"
    raise refused([(HEADER, problem)])


def digest_of(method: str, path: str, body: Mapping[str, Any]) -> str:
    """Return what two requests share that say the same: order and space of their JSON aside."""
    canonical = json.dumps([method, path, body], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def done_once(tx: Connection, once: Once, do: Callable[[Connection], Reply]) -> Reply:
    """Return what `do` answers, or what it answered when this request came first.

    Needs a write transaction. Raises KeyReused, and whatever `do` raises.
    """
    tx.execute(delete(idempotency_keys).where(idempotency_keys.c.at <= utc_now() - KEPT))
    known = _known(tx, once)
    if known is not None:
        return known
    reply = do(tx)
    tx.execute(
        insert(idempotency_keys).values(
            actor=once.actor,
            key=once.key,
            request_hash=once.request_hash,
            status=reply.status,
            location=reply.location,
            body=reply.body,
            at=utc_now(),
        )
    )
    return reply


def _known(tx: Connection, once: Once) -> Reply | None:
    row = tx.execute(
        select(idempotency_keys).where(
            idempotency_keys.c.actor == once.actor, idempotency_keys.c.key == once.key
        )
    ).one_or_none()
    if row is None:
        return None
    if row.request_hash != once.request_hash:
        hours = KEPT // timedelta(hours=1)
        raise KeyReused(
            f"{HEADER} {once.key!r} was used for another request less than {hours} h ago: use a "
            "new key for each request, and the old one only to send that very request again",
            evidence={"key": once.key, "used_at": when(row.at)},
        )
    return Reply(row.body, row.status, row.location, is_replayed=True)
