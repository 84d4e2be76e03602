"""What one field of a request may hold, and what its JSON Schema says of that.

What slots and models are made of is in `hal0/declare/fields.py`.
"""

import re
from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_core import PydanticKnownError

from hal0.access.tokens import NAME as TOKEN_NAME
from hal0.access.tokens import check_token_name
from hal0.declare.fields import MAX_BYTES, checked, told
from hal0.hosts import http_origin
from hal0.jobs.filters import MAX_LENGTH as FILTER_LENGTH
from hal0.registry.sources import MAX_LENGTH, checked_path


def _digits(value: object) -> object:
    """Refuse a text that Python would take for a number, and others not: ` 5`, `1_0`."""
    if isinstance(value, str) and not re.fullmatch(r"-?[0-9]+", value):
        raise PydanticKnownError("int_parsing")
    return value


def _instant_or_id(value: str) -> datetime | int:
    if value.isascii() and value.isdigit() and int(value) <= MAX_BYTES:
        return int(value)
    return _read_instant(value, ", or an id")


def _instant(value: str) -> datetime:
    return _read_instant(value, "")


def _read_instant(value: str, else_: str) -> datetime:
    try:
        at = datetime.fromisoformat(value)
        if at.tzinfo is not None:
            return at.astimezone(UTC)
    except (ValueError, OverflowError) as exc:
        raise ValueError(f"takes an RFC 3339 time such as 2026-01-31T12:00:00Z{else_}") from exc
    raise ValueError("takes a time with its zone, such as 2026-01-31T12:00:00Z")


TokenName = Annotated[str, checked(check_token_name), told(pattern=f"^{TOKEN_NAME.pattern}$")]
HttpOrigin = Annotated[
    str,
    AfterValidator(http_origin),
    told(format="hal0-http-origin", examples=["http://127.0.0.1:8000"]),
]
FilePath = Annotated[
    str,
    checked(checked_path),
    told(format="hal0-path", maxLength=MAX_LENGTH, examples=["/etc/hal0/engine.key"]),
]
FilterText = Annotated[
    str,
    Field(max_length=FILTER_LENGTH),
    told(format="hal0-filter", examples=["slot:chat since:2h"]),
]
"""Terms as the page takes them; `hal0.jobs.filters` reads them."""
Digits = Annotated[int, BeforeValidator(_digits)]
Id = Annotated[int, Field(ge=0, le=MAX_BYTES)]
Since = Annotated[datetime | Id | None, BeforeValidator(_instant_or_id)]
Until = Annotated[datetime | None, BeforeValidator(_instant)]
