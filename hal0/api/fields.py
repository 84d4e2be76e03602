"""What one field of a request may hold, and what its JSON Schema says of that.

Names, sources and paths are checked by the rooms that own them; here each check becomes a field's,
so that one answer lists everything that is wrong with a request.
"""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_core import PydanticKnownError

from hal0.access.tokens import NAME as TOKEN_NAME
from hal0.access.tokens import check_token_name
from hal0.errors import Hal0Error
from hal0.hosts import http_origin
from hal0.registry.names import MODEL_NAME, check_model_name
from hal0.registry.sources import (
    MAX_LENGTH,
    MAX_NAME_BYTES,
    checked_name,
    checked_path,
    checked_source,
)
from hal0.slots.spec import NAME, check_name

MAX_BYTES: Final = 2**63 - 1
YEAR_S: Final = 366 * 86400.0


def _field(check: Callable[[Any], str]) -> AfterValidator:
    """Turn a check that raises one of our errors into one of a field."""

    def run(value: Any) -> str:
        try:
            return check(value)
        except Hal0Error as exc:
            raise ValueError(exc.detail) from exc

    return AfterValidator(run)


def _digits(value: object) -> object:
    """Refuse a text that Python would take for a number, and others not: ` 5`, `1_0`."""
    if isinstance(value, str) and not re.fullmatch(r"-?[0-9]+", value):
        raise PydanticKnownError("int_parsing")
    return value


def _digest(value: str) -> str:
    if not re.fullmatch(r"[0-9A-Fa-f]{64}", value):
        raise ValueError("takes 64 hex digits")
    return value.lower()


def _instant_or_id(value: str) -> datetime | int:
    if value.isascii() and value.isdigit() and int(value) <= MAX_BYTES:
        return int(value)
    try:
        at = datetime.fromisoformat(value)
        if at.tzinfo is not None:
            return at.astimezone(UTC)
    except (ValueError, OverflowError) as exc:
        raise ValueError("takes an RFC 3339 time such as 2026-01-31T12:00:00Z, or an id") from exc
    raise ValueError("takes a time with its zone, such as 2026-01-31T12:00:00Z")


def _told(**keywords: Any) -> Any:
    """Add to a field's JSON Schema what its check says in Python."""
    return Field(json_schema_extra=keywords)


SlotName = Annotated[str, _field(check_name), _told(pattern=f"^{NAME.pattern}$")]
EngineName = Annotated[
    str,
    _field(lambda name: check_name(name, "engine")),
    _told(pattern=f"^{NAME.pattern}$"),
]
TokenName = Annotated[str, _field(check_token_name), _told(pattern=f"^{TOKEN_NAME.pattern}$")]
ModelName = Annotated[str, _field(check_model_name), _told(pattern=f"^{MODEL_NAME.pattern}$")]
Source = Annotated[
    str,
    _field(checked_source),
    _told(format="hal0-source", maxLength=MAX_LENGTH, examples=["hf://org/repo/model.gguf"]),
]
Seconds = Annotated[float, Field(ge=0, le=YEAR_S, allow_inf_nan=False)]
Limit = Annotated[float, Field(gt=0, le=YEAR_S, allow_inf_nan=False)]
Bytes = Annotated[int, Field(ge=0, le=MAX_BYTES)]
Sha256 = Annotated[str, AfterValidator(_digest), _told(pattern="^[0-9A-Fa-f]{64}$")]
HttpOrigin = Annotated[
    str,
    AfterValidator(http_origin),
    _told(format="hal0-http-origin", examples=["http://127.0.0.1:8000"]),
]
FileName = Annotated[
    str,
    _field(checked_name),
    _told(format="hal0-file-name", maxLength=MAX_NAME_BYTES, examples=["model.gguf"]),
]
FilePath = Annotated[
    str,
    _field(checked_path),
    _told(format="hal0-path", maxLength=MAX_LENGTH, examples=["/etc/hal0/engine.key"]),
]
Digits = Annotated[int, BeforeValidator(_digits)]
Id = Annotated[int, Field(ge=0, le=MAX_BYTES)]
Since = Annotated[datetime | Id | None, BeforeValidator(_instant_or_id)]
