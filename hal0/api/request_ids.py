"""Under which id a request is found again: in its answer, in the rows it makes and in the log."""

from itertools import count
from secrets import token_hex
from typing import Final

from hal0.masks import holds_token

HEADER: Final = "X-Request-ID"
MAX_LENGTH: Final = 128

_PROCESS: Final = token_hex(8)
_NUMBERS: Final = count(1)


def kept_or_made(given: str | None) -> str:
    """Return the caller's id if it is 1 to 128 printable ASCII characters, else a new one.

    One with a token in it is a slip that rows would keep. A new one is a number of this process
    start's: unique, and no secret.
    """
    fits = given and len(given) <= MAX_LENGTH and given.isascii() and given.isprintable()
    if given and fits and not holds_token(given):
        return given
    return f"{_PROCESS}{next(_NUMBERS):016x}"
