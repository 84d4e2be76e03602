"""Where hal0's things are, for a command that asks the API and nothing else.

`settings.py` reads every setting and checks it, which costs a third of a second of imports. The CLI
needs a few of them, from the same places in the same order: environment, `hal0.toml`, default.
"""

import os
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hal0.errors import SettingsError

PREFIX: Final = "HAL0_"
DEFAULT_BIND: Final = "127.0.0.1:13310"


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """Where the API answers, which file has the token for it, and where model files lie."""

    url: str
    token_file: Path | None
    models: Path


def default_home() -> Path:
    """Return the folder that XDG names for state of this user."""
    base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(base) / "hal0"


def home() -> Path:
    """Return HAL0_HOME."""
    return Path(os.environ.get(f"{PREFIX}HOME") or default_home())


def whereabouts() -> Whereabouts:
    """Read HAL0_URL, HAL0_BIND, HAL0_TOKEN_FILE and HAL0_MODELS_DIR; raises SettingsError."""
    file = _toml(home() / "hal0.toml")

    def setting(name: str) -> str | None:
        value = os.environ.get(f"{PREFIX}{name.upper()}", file.get(name))
        return None if value is None else str(value)

    token_file, bind = setting("token_file"), setting("bind") or DEFAULT_BIND
    if not re.fullmatch(r".+:\d{1,5}", bind):
        raise SettingsError(f"HAL0_BIND={bind} is not address:port, as in {DEFAULT_BIND}")
    return Whereabouts(
        setting("url") or f"http://{bind}",
        Path(token_file) if token_file else None,
        Path(setting("models_dir") or home() / "models"),
    )


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError) as exc:
        raise SettingsError(f"{path} cannot be read: {exc}") from exc
