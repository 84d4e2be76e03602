"""The headers of a request, as the rules on who may do what read them."""

from collections.abc import Sequence


class RequestHeaders:
    """Finds headers by name, in lower case as ASGI gives them; one pass over all for any number."""

    __slots__ = ("_given", "_last")

    def __init__(self, given: Sequence[tuple[bytes, bytes]]) -> None:
        self._given = given
        self._last = dict(given)

    def __contains__(self, name: bytes) -> bool:
        return name in self._last

    def all(self, name: bytes) -> list[str]:
        """Return the values of a header, each time that it came: a rule must see the second."""
        if name not in self._last:
            return []
        if len(self._last) == len(self._given):  # none came twice
            return [self._last[name].decode("latin-1")]
        return [value.decode("latin-1") for one, value in self._given if one == name]

    def first(self, name: bytes) -> str | None:
        """Return the value of a header, the first if it came more than once; None = it did not."""
        values = self.all(name)
        return values[0] if values else None
