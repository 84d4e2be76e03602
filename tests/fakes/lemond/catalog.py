"""Which models the server knows, and by which names.

Three kinds: files of the models folder (`extra.<name>`, not registered), registered definitions
(`user.<name>`), and the server's own list, of which nothing is downloaded. Requests may use the
full or the bare name; what the server says of itself is the public name, which is the bare one
unless two models share it.
"""

import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from hal0.registry.files import FileIdentity
from tests.fakes.lemond.gguf_check import Verdict, judge
from tests.fakes.lemond.script import Told

BUILT_IN = {"Bonsai-1.7B-gguf": 0.25, "Bonsai-4B-gguf": 0.572, "Bonsai-8B-gguf": 1.16}
"""Name -> GB, of 82 that lemond 11.7 brings."""
PREFIXES = ("extra.", "user.")

Source = Literal["extra_models_dir", "local_path", "huggingface"]


@dataclass(frozen=True)
class Definition:
    """What the server knows of a model; `checkpoint` is a path or `repository:variant`."""

    name: str
    checkpoint: str
    source: Source

    @property
    def bare(self) -> str:
        """Return the name without its prefix."""
        return bare(self.name)

    @property
    def labels(self) -> list[str]:
        """Return the labels, in the server's order."""
        kind = "embeddings" if "embed" in self.bare.lower() else "chat"
        if self.source == "extra_models_dir":
            return ["custom", kind]
        return [kind, "custom" if self.name.startswith("user.") else "llamacpp"]


class Catalog:
    """The models, and the files that are there."""

    def __init__(self, models: Path, cache: Path, told: Told) -> None:
        self.models = models
        self.cache = cache
        self.saved: dict[str, dict[str, Any]] = {}
        self._told = told
        self._registered: dict[str, Definition] = {}
        self._built_in = {
            name: Definition(name, f"prism-ml/{name}:Q1_0", "huggingface") for name in BUILT_IN
        }
        self._extra: dict[str, Definition] = {}
        self._judged: dict[Path, tuple[FileIdentity, bool]] = {}
        self._looked_at = float("-inf")

    def all(self) -> dict[str, Definition]:
        """Return public name -> definition, in order of the names."""
        known = [*self._built_in.values(), *self._files().values(), *self._registered.values()]
        times = Counter(each.bare for each in known)
        names = {(each.bare if times[each.bare] == 1 else each.name): each for each in known}
        return {name: names[name] for name in sorted(names)}

    def find(self, name: str) -> Definition | None:
        """Return the model that a request means by `name`."""
        found = [each for each in self._called(bare(name)) if name in (each.name, each.bare)]
        return found[0] if len(found) == 1 else None

    def public(self, definition: Definition) -> str:
        """Return what the server calls a model."""
        is_alone = len(self._called(definition.bare)) < 2
        return definition.bare if is_alone else definition.name

    def register(self, name: str, checkpoint: str, source: Source) -> Definition:
        """Know a model from now on, or know it anew."""
        self._registered[name] = Definition(name, checkpoint, source)
        return self._registered[name]

    def forget(self, definition: Definition) -> None:
        """Know a registered model no more, and drop what was downloaded for it."""
        del self._registered[definition.name]
        if definition.source == "huggingface":
            self.path(definition).unlink(missing_ok=True)

    def path(self, definition: Definition) -> Path:
        """Return the file that a load opens, there or not."""
        if definition.source != "huggingface":
            return Path(definition.checkpoint)
        repository, _, variant = definition.checkpoint.partition(":")
        return self.cache / repository.replace("/", "--") / f"{variant}.gguf"

    def is_downloaded(self, definition: Definition) -> bool:
        """Tell whether the server takes the model's file for a model: it looks at the magic."""
        said = self._told.of(definition.bare).downloaded
        return said if said is not None else _is_gguf(self.path(definition))

    def starts(self, definition: Definition) -> bool:
        """Tell whether llama.cpp can load the file, which is read again only when it changed."""
        path = self.path(definition)
        if not path.is_file():
            return False
        seen = FileIdentity.from_stat(path.stat())
        if self._judged.get(path, (None, False))[0] != seen:
            self._judged[path] = seen, judge(path) is Verdict.GOOD
        return self._judged[path][1]

    def checkpoint(self, definition: Definition) -> str:
        """Return what the server says that it opens."""
        return self._told.of(definition.bare).checkpoint or definition.checkpoint

    def others(self, definition: Definition) -> dict[str, str]:
        """Return role -> path of what is opened beside the model's file."""
        return self._told.of(definition.bare).others

    def type(self, definition: Definition) -> str:
        """Return the pool that the model counts in."""
        by_name = "embedding" if "embed" in definition.bare.lower() else "llm"
        return self._told.of(definition.bare).type or by_name

    def _called(self, bare_name: str) -> list[Definition]:
        full = [self._registered.get(f"user.{bare_name}"), self._files().get(bare_name)]
        return [each for each in (*full, self._built_in.get(bare_name)) if each is not None]

    def _files(self) -> dict[str, Definition]:
        if time.monotonic() - self._looked_at >= self._told.script.watch_s:
            self._extra = _read(self.models)
            self._looked_at = time.monotonic()
        return self._extra


def bare(name: str) -> str:
    """Return a name without its prefix."""
    for prefix in PREFIXES:
        name = name.removeprefix(prefix)
    return name


def _is_gguf(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(4) == b"GGUF"
    except OSError:
        return False


def _read(folder: Path) -> dict[str, Definition]:
    """Return name -> file of the models folder; a folder in it is a model of several files."""
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path.suffix == ".gguf" and path.is_file():
            found[path.stem] = path
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        parts = sorted(path.glob("*.gguf")) if path.is_dir() else []
        parts = [part for part in parts if not part.name.startswith("mmproj")]
        if parts:
            found[path.name] = parts[0]
    return {
        name: Definition(f"extra.{name}", str(path.resolve()), "extra_models_dir")
        for name, path in found.items()
    }
