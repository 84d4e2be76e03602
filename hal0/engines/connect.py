"""Which adapter serves which kind of engine."""

import os
import stat
from pathlib import Path
from typing import Final

from hal0.engines.base import Engine
from hal0.engines.lemonade import LemonadeEngine
from hal0.errors import EngineUnauthorized, SettingsError

MAX_KEY_BYTES: Final = 4096
KINDS: Final = ("embedded", "lemonade")
"""Both speak Lemonade's wire."""


def connect(kind: str, url: str, key_file: Path | str | None = None) -> Engine:
    """Return an adapter for one event loop; close it there. Sends nothing yet.

    Raises SettingsError for a kind that is none, EngineUnauthorized when the key file cannot be
    read.
    """
    if kind not in KINDS:
        raise SettingsError(f"{kind!r} is no kind of engine; kinds are {', '.join(KINDS)}")
    return LemonadeEngine(url, key=read_key(key_file))


def read_key(key_file: Path | str | None) -> str | None:
    """Return the key in the file without its line end; None = no file is set or it is empty."""
    if key_file is None:
        return None
    try:
        descriptor = os.open(key_file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise EngineUnauthorized(f"the engine's key file {key_file} is no regular file")
            return file.read(MAX_KEY_BYTES).decode("ascii").strip() or None
    except (OSError, UnicodeDecodeError) as exc:
        raise EngineUnauthorized(f"the engine's key file cannot be read: {exc}") from exc
