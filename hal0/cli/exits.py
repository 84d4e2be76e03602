"""Which exit code says what."""

from collections.abc import Sequence
from enum import IntEnum


class Exit(IntEnum):
    """Exit codes of `hal0`."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    NOT_ALLOWED = 4
    CONFLICT = 5
    STILL_GOING = 6
    """`--wait` ran out; the job goes on."""
    DOWN = 7
    """The engine or the API cannot be reached or cannot work."""
    INTERRUPTED = 130


class Failure(Exception):  # noqa: N818 - what the user reads is not the class's name
    """A command that ends here: what to say on stderr, and the exit code."""

    def __init__(self, text: str, code: Exit = Exit.FAILED, more: Sequence[str] = ()) -> None:
        super().__init__(text)
        self.text = text
        self.exit = code
        self.more = tuple(more)


def exit_for(status: int) -> Exit:
    """Return the exit code for an HTTP status that is no success."""
    if status in (400, 413, 422):
        return Exit.USAGE
    if status in (401, 403, 429):
        return Exit.NOT_ALLOWED
    if status == 409:
        return Exit.CONFLICT
    if status == 404:
        return Exit.NOT_FOUND
    return Exit.DOWN if status in (502, 503, 504) else Exit.FAILED
