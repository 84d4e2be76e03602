"""How much of its memory one process gives to bodies whose requests are not answered yet.

Each body is bounded by who reads it; this bounds their sum, for a request may wait for minutes.
"""

from typing import Final

from hal0.errors import NoRoom

MOST_BYTES: Final = 1 << 29


class BodyRoom:
    """The bytes that are taken, and how many may be; for one event loop."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most = most_bytes
        self._taken = 0

    def fits(self, count: int) -> bool:
        """Whether there is room for so many."""
        return self._taken + count <= self._most

    def take(self, count: int) -> None:
        """Take so many bytes until they are given back; raises NoRoom, and has then taken none."""
        if not self.fits(count):
            raise NoRoom(
                f"the bodies of requests that wait for their answers take {self._taken} bytes, of "
                f"at most {self._most}",
                evidence={"limit_bytes": self._most},
                retry_after_s=1,
            )
        self._taken += count

    def give_back(self, count: int) -> None:
        """Give back what was taken, once."""
        self._taken -= count
