"""How an error of ours looks to a client of OpenAI's API: beside a problem, and inside a stream."""

import json
from typing import Any, Final

from hal0.errors import Hal0Error
from hal0.masks import masked

TYPES: Final = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}


def as_openai(error: Hal0Error) -> dict[str, Any]:
    """Return `{message, type, code, param}`."""
    otherwise = "invalid_request_error" if error.status < 500 else "server_error"
    return {
        "message": error.detail,
        "type": TYPES.get(error.status, otherwise),
        "code": error.code,
        "param": error.evidence.get("field"),
    }


def last_event(error: Hal0Error, *, is_typed: bool) -> bytes:
    """Return the event that ends a stream; an event that was left half said ends before it."""
    told = as_openai(error)
    if is_typed:
        text = f"event: error\ndata: {json.dumps({**told, 'type': 'error'})}"
    else:
        text = f"data: {json.dumps({'error': told})}"
    return f"\n\n{masked(text)}\n\n".encode()
