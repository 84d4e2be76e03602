"""What a model and its files are called: a model's name is also that of its file, or its folder."""

import re
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Final

from hal0.errors import InvalidRequest
from hal0.registry.sources import MAX_NAME_BYTES

RESERVED: Final = (".part", ".part.json", ".bad")
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
    stem = path.name.lower().removesuffix(".gguf")
    kept = re.sub(r"[^a-z0-9._-]+", "-", stem).lstrip("._-")
    return kept[:64] or "model"


def final_paths(models_dir: Path, name: str, file_names: Sequence[str]) -> tuple[Path, ...]:
    """Return where the files of a model lie when they are loaded, in the order of `file_names`.

    One file: `<models>/<name><suffix>`, `.gguf` where it has none, or has that in capitals.
    Several: they keep their names, which tell llama.cpp their order, in `<models>/<name>/`. Raises
    InvalidRequest.
    """
    for one in (name, *filter(None, file_names)):
        if not name or one in {".", ".."} or Path(one).name != one:
            raise InvalidRequest(f"what is named {one!r} has no place in the models folder")
    if len(file_names) > 1:
        _refuse_reserved(models_dir / name, (*RESERVED, ".gguf"))
    if len(file_names) == 1:
        suffix = Path(file_names[0]).suffix or ".gguf"
        suffix = ".gguf" if suffix.lower() == ".gguf" else suffix
        paths: tuple[Path, ...] = (models_dir / f"{name}{suffix}",)
    elif len(set(file_names)) < len(file_names):
        raise InvalidRequest(f"two files of model {name} have the same name: they share a folder")
    else:
        paths = tuple(models_dir / name / file_name for file_name in file_names)
    for path in paths:
        _refuse_reserved(path)
    return paths


def _refuse_reserved(path: Path, endings: tuple[str, ...] = RESERVED) -> None:
    """Refuse a name that a file on its way (`part.py`), or another model's file, may have."""
    if len(path.name.encode()) > MAX_NAME_BYTES:
        raise InvalidRequest(
            f"{path.name} is too long for a name in the models folder: it has at most "
            f"{MAX_NAME_BYTES} bytes, with the ending of its source"
        )
    if path.name.startswith(".") or path.name.endswith(endings):
        raise InvalidRequest(
            f"nothing of a model can be called {path.name}: files on their way, or other models', "
            "are called so; give it another name"
        )
