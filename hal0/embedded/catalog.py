"""Which files of the models folder a model's name means.

    <models>/<name>.gguf                             one file
    <models>/<name>/…-00001-of-0000N.gguf            shards: the first one names them all
    <models>/<name>/….gguf                           the only one that is no mmproj
    <models>/<name>/mmproj….gguf                     what the model sees with, beside either

`extra.<name>`, as Lemonade prefixes the models of such a folder, means `<name>`.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PREFIX: Final = "extra."
SHARD: Final = re.compile(r".+-(\d{5})-of-\d{5}\.gguf")
NAME_LENGTH: Final = 200

Identity = tuple[tuple[int, int, int, int], ...]


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A model as it lies on disk; `main` is absolute and is what llama.cpp is told to open."""

    name: str
    main: Path
    mmproj: Path | None = None

    def identity(self) -> Identity:
        """Return what changes when a file is replaced or written; raises OSError if one is gone."""
        stats = [path.stat() for path in (self.main, self.mmproj) if path is not None]
        return tuple((s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns) for s in stats)

    def size_bytes(self) -> int:
        """Return the size of the main file; raises OSError."""
        return self.main.stat().st_size


def find(models: Path, name: str) -> ModelFiles | None:
    """Return the files of a model; None = no such model, or a name that could leave the folder."""
    public = name.removeprefix(PREFIX)
    if not _is_name(public):
        return None
    return _in_file(models, public) or _in_folder(models, public)


def list_models(models: Path) -> list[ModelFiles]:
    """Return every model of the folder by name; a folder that is not there has none."""
    return sorted(_all(models), key=lambda files: files.name)


def _all(models: Path) -> Iterator[ModelFiles]:
    if not models.is_dir():
        return
    for path in models.iterdir():
        name = path.name if path.is_dir() else path.stem
        found = find(models, name)
        if found is not None and found.main.is_relative_to(path.absolute()):
            shard = SHARD.fullmatch(found.main.name)
            if shard is None or int(shard[1]) == 1:
                yield found


def _is_name(name: str) -> bool:
    return (
        0 < len(name) <= NAME_LENGTH
        and name.isprintable()
        and not name.startswith(".")
        and not set(name) & {"/", "\\"}
    )


def _in_file(models: Path, name: str) -> ModelFiles | None:
    path = models / f"{name}.gguf"
    return ModelFiles(name, path.absolute()) if path.is_file() else None


def _in_folder(models: Path, name: str) -> ModelFiles | None:
    folder = models / name
    if not folder.is_dir():
        return None
    files = sorted(path for path in folder.glob("*.gguf") if path.is_file())
    projectors = [path for path in files if path.name.lower().startswith("mmproj")]
    mains = [path for path in files if path not in projectors]
    firsts = [
        path for path in mains if (found := SHARD.fullmatch(path.name)) and int(found[1]) == 1
    ]
    candidates = firsts or mains
    if len(candidates) != 1:
        return None
    return ModelFiles(
        name, candidates[0].absolute(), projectors[0].absolute() if projectors else None
    )
