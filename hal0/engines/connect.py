"""Which adapter serves which kind of engine."""

import os
import re
from functools import partial
from pathlib import Path
from typing import Final, get_args

from hal0.engines.base import Engine
from hal0.engines.lemonade import LemonadeEngine
from hal0.engines.llamacpp import LlamaCppEngine
from hal0.errors import EngineUnauthorized, SettingsError
from hal0.opening import open_regular
from hal0.settings import EngineKind

MAX_KEY_BYTES: Final = 4096
_KEY: Final = re.compile(rb"[ -~]*")
KINDS: Final[tuple[str, ...]] = get_args(EngineKind)


def connect(kind: str, url: str, key_file: Path | str | None = None) -> Engine:
    """Return an adapter for one event loop; close it there. Sends nothing yet.

    The key is read anew for each call, so that another one takes no restart. Raises SettingsError
    for a kind that is none, EngineUnauthorized when the key file cannot be read; so does each call.
    """
    if kind not in KINDS:
        raise SettingsError(f"{kind!r} is no kind of engine; kinds are {', '.join(KINDS)}")
    adapter = LlamaCppEngine if kind == "llamacpp" else LemonadeEngine  # embedded speaks its wire
    if key_file is None:
        return adapter(url)
    read_key(key_file)  # what is wrong with it is known at once
    return adapter(url, key=partial(read_key, key_file))


def read_key(key_file: Path | str | None) -> str | None:
    """Return the key in the file without its line end; None = no file is set or it is empty.

    Links are followed, for secrets are mounted so. What is no key is neither sent nor shown: the
    path may name any file. Raises EngineUnauthorized.
    """
    if key_file is None:
        return None
    try:
        with os.fdopen(open_regular(key_file), "rb") as file:
            key = file.read(MAX_KEY_BYTES + 1).strip()
    except OSError as exc:
        raise EngineUnauthorized(
            f"the engine's key file {key_file} cannot be read: {exc.strerror}"
        ) from exc
    if len(key) > MAX_KEY_BYTES or not _KEY.fullmatch(key):
        raise EngineUnauthorized(
            f"the engine's key file {key_file} holds no key: that is one line of at most "
            f"{MAX_KEY_BYTES} ASCII characters"
        )
    return key.decode("ascii") or None
