"""What a model may be called: its name is also that of its file, or of its folder."""

import re
from pathlib import PurePath
from typing import Final

from hal0.errors import InvalidRequest

MODEL_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


def check_model_name(name: object) -> str:
    """Return `name` if it is 1 to 64 of a-z 0-9 . _ -, beginning with a letter or digit."""
    if isinstance(name, str) and MODEL_NAME.fullmatch(name):
        return name
    raise InvalidRequest(
        f"{name!r} is no model name: use 1 to 64 of a-z, 0-9, '.', _ and -, "
        "beginning with a-z or 0-9",
        evidence={"field": "name", "pattern": MODEL_NAME.pattern},
    )


def name_for(path: PurePath) -> str:
    """Return the model name that a file suggests: `Qwen3-0.6B_Q8.gguf` is `qwen3-0.6b_q8`."""
    stem = path.name.removesuffix(".gguf").lower()
    kept = re.sub(r"[^a-z0-9._-]+", "-", stem).lstrip("._-")
    return kept[:64] or "model"
