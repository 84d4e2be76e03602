"""What one check of `hal0 doctor` says."""

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["ok", "note", "wrong", "unknown"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found; `to_do` where there is something to do.

    `unknown` is not `wrong`: what answers too slowly may be well.
    """

    check: str
    verdict: Verdict
    detail: str
    to_do: str | None = None
