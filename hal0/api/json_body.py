"""How the bytes of a request become a JSON object, or are refused before anything is done.

Stricter than `json.loads`: a name that is given twice is refused, for one of its values would be
lost, and so are NaN, half a surrogate pair, and numbers that no field takes.
"""

import json
from collections import Counter
from typing import Any, Final, NoReturn

from starlette.requests import Request

from hal0.api.refusals import refused
from hal0.errors import NotJson, TooLarge

MAX_BYTES: Final = 1 << 20
MAX_DIGITS: Final = 100
Pairs = list[tuple[str, Any]]


async def json_object(request: Request) -> dict[str, Any]:
    """Return the body; none at all counts as `{}`.

    Raises TooLarge, NotJson, and InvalidRequest for a name that is given twice.
    """
    text = await _text(request)
    if not text.strip():
        return {}
    try:
        value = json.loads(
            text,
            object_pairs_hook=_object,
            parse_int=_whole_number,
            parse_constant=_refuse_constant,
        )
        json.dumps(value, ensure_ascii=False).encode()
    except RecursionError as exc:
        raise _not_json("it is nested too deeply") from exc
    except UnicodeEncodeError as exc:
        raise _not_json("it has half a surrogate pair, which is no text") from exc
    except ValueError as exc:
        raise _not_json(str(exc)) from exc
    if not isinstance(value, dict):
        raise NotJson(f'the body is a JSON {_kind(value)}; send an object, as in {{"name": "x"}}')
    return value


async def _text(request: Request) -> str:
    try:
        return (await _bytes(request)).decode()
    except UnicodeDecodeError as exc:
        raise _not_json(f"byte {exc.start} is no UTF-8") from exc


async def _bytes(request: Request) -> bytes:
    """Read the body up to the limit; the server throws away what comes after the answer."""
    announced = request.headers.get("content-length", "0")
    if announced.isascii() and announced.isdigit() and int(announced) > MAX_BYTES:
        raise _too_large()
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BYTES:
            raise _too_large()
    return bytes(body)


def _too_large() -> TooLarge:
    return TooLarge(
        f"the body is larger than {MAX_BYTES} bytes, which no request needs; a file is named by "
        "its path or URL, never sent",
        evidence={"limit_bytes": MAX_BYTES},
    )


def _not_json(why: str) -> NotJson:
    return NotJson(f"the body is not JSON: {why}; send one JSON object in UTF-8, or no body")


def _kind(value: object) -> str:
    kinds = {str: "text", list: "list", bool: "true or false", type(None): "null"}
    return kinds.get(type(value), "number")


def _object(pairs: Pairs) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        times = Counter(name for name, _ in pairs)
        raise refused([(name, "is given twice") for name in times if times[name] > 1])
    return found


def _whole_number(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError(f"a number has {len(text)} digits")
    return int(text)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON value")
