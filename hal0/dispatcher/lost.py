"""Whether an engine's refusal says that it does not have the model, whatever hal0's rows say.

the embedded engine  404 model_not_loaded, 502 backend_lost when the model's process died
Lemonade             loads by itself what is asked for: it refuses when that cannot be, and
                     says `model_not_found`, `model_load_error`, `slots_pinned_error`, …
llama.cpp's router   400 "model is not loaded", 503 "Loading model", 400 "model 'x' not found"
"""

import re
from typing import Any, Final

from msgspec import DecodeError
from msgspec.json import decode

MAX_BYTES: Final = 1 << 16
"""As much of a refusal is looked at; a longer one is passed on as it is."""

_CODES: Final = frozenset(
    {
        *("model_not_loaded", "backend_lost"),
        *("model_not_found", "model_not_supported", "model_load_error"),
        *("slots_pinned_error", "router_residency_conflict", "backend_watchdog_reset"),
    }
)
_WORDS: Final = re.compile(r"model is not loaded|^Loading model$|^model '.*' not found$")


def reason_in(refusal: bytes) -> str | None:
    """Return why the engine does not have the model, in its words; None = it does not say so."""
    try:
        said: Any = decode(refusal)
    except (DecodeError, UnicodeDecodeError, RecursionError):
        return None
    error = said.get("error") if isinstance(said, dict) else None
    if not isinstance(error, dict):
        return error if isinstance(error, str) and _WORDS.search(error) else None
    message = str(error.get("message"))
    details = error.get("details")
    codes = (error.get("code"), details.get("code") if isinstance(details, dict) else None)
    is_lost = any(isinstance(code, str) and code in _CODES for code in codes)
    return message if is_lost or _WORDS.search(message) else None
