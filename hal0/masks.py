"""What of a text may be shown: everything but a token of hal0, wherever it came from.

A token has a form of its own so that it can be found where it does not belong: pasted into a query,
a name or a path, it would else stand in a log, a row or an answer.
"""

import re
from typing import Final

PREFIX: Final = "hal0_"
_TOKEN: Final = re.compile(rf"{PREFIX}[A-Za-z0-9_-]{{43}}")


def masked(text: str) -> str:
    """Return the text with each token cut down to its prefix."""
    return _TOKEN.sub(f"{PREFIX}…", text) if PREFIX in text else text


def holds_token(text: str) -> bool:
    """Tell whether a text has a token in it."""
    return _TOKEN.search(text) is not None
