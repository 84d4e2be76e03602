"""What a slot may be called and how it may be set up."""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any, Final

from hal0.errors import InvalidRequest

NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")


def check_name(name: object, what: str = "slot") -> str:
    """Return `name` if it is one of 1-32 of a-z 0-9 _ -, not starting with _ or -."""
    if isinstance(name, str) and NAME.fullmatch(name):
        return name
    raise InvalidRequest(
        f"{name!r} is no {what} name: use 1 to 32 of a-z, 0-9, _ and -, beginning with a-z or 0-9",
        evidence={"field": "name", "pattern": NAME.pattern},
    )


def check_idle_times(idle_after_s: float, unload_after_s: float) -> None:
    """Refuse a demotion that would come after the unload; 0 switches either off (C13)."""
    if 0 < unload_after_s <= idle_after_s:
        raise InvalidRequest(
            f"idle_after_s ({idle_after_s:g}) must be less than unload_after_s "
            f"({unload_after_s:g}), so that IDLE is seen; 0 switches either off",
            evidence={"fields": ["idle_after_s", "unload_after_s"]},
        )


def load_key(model_id: int, options: Mapping[str, Any]) -> str:
    """Return the name of "this model with these options", as `failed_keys` stores it.

    The file's identity is left out on purpose: a machine that refuses a repaired file too errs on
    the safe side, and the operator who repaired it retries, which clears the key.
    """
    text = json.dumps([model_id, options], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
