"""What one field of a slot or a model may hold, and what its JSON Schema says of that.

Names, sources and paths are checked by the rooms that own them; here each check becomes a field's,
so that one answer lists everything that is wrong with a request, or a file.
"""

import re
from collections.abc import Callable
from typing import Annotated, Any, Final

from pydantic import AfterValidator, Field

from hal0.errors import Hal0Error
from hal0.registry.names import MODEL_NAME, check_model_name
from hal0.registry.sources import MAX_LENGTH, MAX_NAME_BYTES, checked_name, checked_source
from hal0.slots.spec import NAME, check_name

MAX_BYTES: Final = 2**63 - 1
YEAR_S: Final = 366 * 86400.0


def checked(check: Callable[[Any], str]) -> AfterValidator:
    """Turn a check that raises one of our errors into one of a field."""

    def run(value: Any) -> str:
        try:
            return check(value)
        except Hal0Error as exc:
            raise ValueError(exc.detail) from exc

    return AfterValidator(run)


def told(**keywords: Any) -> Any:
    """Add to a field's JSON Schema what its check says in Python."""
    return Field(json_schema_extra=keywords)


def _digest(value: str) -> str:
    if not re.fullmatch(r"[0-9A-Fa-f]{64}", value):
        raise ValueError("takes 64 hex digits")
    return value.lower()


SlotName = Annotated[str, checked(check_name), told(pattern=f"^{NAME.pattern}$")]
EngineName = Annotated[
    str,
    checked(lambda name: check_name(name, "engine")),
    told(pattern=f"^{NAME.pattern}$"),
]
ModelName = Annotated[str, checked(check_model_name), told(pattern=f"^{MODEL_NAME.pattern}$")]
Source = Annotated[
    str,
    checked(checked_source),
    told(format="hal0-source", maxLength=MAX_LENGTH, examples=["hf://org/repo/model.gguf"]),
]
FileName = Annotated[
    str,
    checked(checked_name),
    told(format="hal0-file-name", maxLength=MAX_NAME_BYTES, examples=["model.gguf"]),
]
Seconds = Annotated[float, Field(ge=0, le=YEAR_S, allow_inf_nan=False)]
Limit = Annotated[float, Field(gt=0, le=YEAR_S, allow_inf_nan=False)]
Bytes = Annotated[int, Field(ge=0, le=MAX_BYTES)]
Sha256 = Annotated[str, AfterValidator(_digest), told(pattern="^[0-9A-Fa-f]{64}$")]
