"""What of a text may be shown: everything but a token of hal0, and but what acts on who shows it.

A token has a form of its own so that it can be found where it does not belong: pasted into a query,
a name or a path, it would else stand in a log, a row or an answer. An engine, a server that files
come from, a file's name may hold a line's end or an escape sequence: it is shown, and does nothing.
"""

import re
from typing import Final

PREFIX: Final = "hal0_"
_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_SHORT: Final = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
_TOKEN: Final = re.compile(rf"{PREFIX}[A-Za-z0-9_-]{{43}}")


def masked(text: str) -> str:
    """Return the text with each token cut down to its prefix."""
    return _TOKEN.sub(f"{PREFIX}…", text) if PREFIX in text else text


def escaped(text: str, keep: str = "") -> str:
    """Return the text with each character that is none to read, but those of `keep`, as JSON does.

    What is JSON means the same after it.
    """

    def shown(found: re.Match[str]) -> str:
        sign = found[0]
        return sign if sign in keep else _SHORT.get(sign, f"\\u{ord(sign):04x}")

    return _CONTROL.sub(shown, text)


def holds_token(text: str) -> bool:
    """Tell whether a text has a token in it."""
    return _TOKEN.search(text) is not None
