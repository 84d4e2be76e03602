"""How the bytes of a request become a JSON object, or are refused before anything is done.

Stricter than `json.loads`: a name that is given twice is refused, for one of its values would be
lost, and so are NaN, half a surrogate pair, and numbers that no field takes. A body is bounded in
bytes and in the time that it may take to come, so nobody holds memory or a place for long.
"""

import json
import re
from collections import Counter
from typing import Any, Final, NoReturn

import anyio
from starlette.datastructures import Headers
from starlette.requests import Request

from hal0.errors import NotJson, NotJsonType, TooLarge, TooSlow
from hal0.masks import holds_token
from hal0.refusals import refused

MAX_BYTES: Final = 1 << 20
MAX_DIGITS: Final = 100
MAX_WHOLE: Final = 2**53
"""Beyond it a float is not the number that was written."""

SPACE: Final = " \t\r\n"
"""What JSON takes for space, and nothing else that Unicode has."""

Pairs = list[tuple[str, Any]]

_JSON_TYPE: Final = re.compile(r"\s*application/json\s*(?:;.*)?", re.IGNORECASE)
_CHARSET: Final = re.compile(r";\s*charset\s*=\s*\"?([^\s;\"]*)", re.IGNORECASE)


async def json_object(request: Request, within_s: float) -> dict[str, Any]:
    """Return the body; none at all counts as `{}`, whatever it is said to be.

    Raises TooLarge, TooSlow, NotJsonType, NotJson, and InvalidRequest for a name given twice
    or a token in it.
    """
    body = await body_bytes(request, within_s)
    if not body:
        return {}
    _ensure_json_type(request.headers)
    text = _text(body).strip(SPACE)
    if not text:
        return {}
    if holds_token(text):  # by a slip of who pasted it; rows would keep it
        problem = "has a token in it, which belongs into the header Authorization alone"
        raise refused([("body", problem)])
    try:
        value = json.loads(
            text,
            object_pairs_hook=_object,
            parse_int=_whole_number,
            parse_float=_number,
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


def _ensure_json_type(headers: Headers) -> None:
    """Refuse what says of itself that it is no JSON in UTF-8; who says nothing sends that."""
    kind = ", ".join(headers.getlist("content-type"))
    charset = _CHARSET.search(kind)
    if kind and not _JSON_TYPE.fullmatch(kind):
        raise NotJsonType(f"the body is sent as {kind:.100}; send JSON as application/json")
    if charset and charset[1].lower() not in {"utf-8", "utf8", "us-ascii"}:
        raise NotJsonType(f"the body is sent in {charset[1]:.100}; JSON is sent in UTF-8")
    coding = ", ".join(headers.getlist("content-encoding")).strip()
    if coding.lower() not in {"", "identity"}:
        raise NotJsonType(f"the body is sent as {coding:.100}; send it as it is, not compressed")


def _text(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError as exc:
        raise _not_json(f"byte {exc.start} is no UTF-8") from exc


async def body_bytes(request: Request, within_s: float) -> bytes:
    """Read the body up to the limit; the server throws away what comes after the answer.

    Raises TooLarge, TooSlow.
    """
    try:
        with anyio.fail_after(within_s):
            return await _bounded(request)
    except TimeoutError as exc:
        raise TooSlow(
            f"the body did not arrive within {within_s:g} s; send it in one go",
            evidence={"limit_s": within_s},
        ) from exc


async def _bounded(request: Request) -> bytes:
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


def _number(text: str) -> float:
    """Return 3 for 3.0, which JSON Schema calls an integer too."""
    value = float(text)
    return int(value) if value.is_integer() and abs(value) <= MAX_WHOLE else value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON value")
