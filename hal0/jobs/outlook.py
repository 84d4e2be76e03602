"""What keeps a machine from loading a slot again, in words for people."""

from datetime import datetime
from typing import Final

from hal0.jobs.ledger.breaker import Breaker

TO_THE_SECOND: Final = "%Y-%m-%dT%H:%M:%SZ"


def opens_at(breaker: Breaker | None) -> datetime | None:
    """Return when a machine may load a slot again; None = now, or never (parked)."""
    waits = breaker is not None and breaker.refuses and not breaker.is_parked
    return breaker.opens_at if breaker is not None and waits else None


def hindrance(breaker: Breaker | None, model: str | None) -> str | None:
    """Say what keeps a machine from loading `model` again; None = nothing does."""
    if breaker is None or not breaker.refuses:
        return None
    if breaker.is_parked:
        return f"parked after {_loads(breaker.sent)}: load it to begin anew"
    return (
        f"a machine loads {model or 'it'} again no earlier than "
        f"{breaker.opens_at.strftime(TO_THE_SECOND)} ({_loads(breaker.sent)} so far)"
    )


def _loads(count: int) -> str:
    return "1 automatic load" if count == 1 else f"{count} automatic loads"
