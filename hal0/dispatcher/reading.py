"""How the body of a request is read: whole, as it is meant, and bounded in bytes."""

from collections.abc import Mapping

from starlette.types import Receive

from hal0.dispatcher.interrupts import ClientGoneError
from hal0.errors import NotJsonType, TooLarge


async def whole_body(receive: Receive, said: Mapping[bytes, bytes], limit_bytes: int) -> bytes:
    """Return the body of a request with these headers, whose names are in lower case.

    Raises NotJsonType for one that is compressed, TooLarge, before anything is read when it says
    that it is too large, and ClientGoneError.
    """
    coding = said.get(b"content-encoding", b"").strip().lower()
    if coding not in (b"", b"identity"):
        told = coding[:100].decode("latin-1")
        raise NotJsonType(f"the body is sent as {told}; send it as it is, not compressed")
    announced = said.get(b"content-length")
    if announced is not None and announced.isdigit() and int(announced) > limit_bytes:
        raise _too_large(limit_bytes)
    message = await receive()
    body: bytes | bytearray = message.get("body", b"")
    while message["type"] == "http.request":
        if len(body) > limit_bytes:
            raise _too_large(limit_bytes)
        if not message.get("more_body"):
            return bytes(body)
        message = await receive()
        body = bytearray(body) if isinstance(body, bytes) else body
        body += message.get("body", b"")
    raise ClientGoneError


def _too_large(limit_bytes: int) -> TooLarge:
    return TooLarge(
        f"the body is larger than {limit_bytes} bytes; HAL0_BODY_LIMIT_BYTES sets how large it "
        "may be",
        evidence={"limit_bytes": limit_bytes},
    )
