"""How a slot and a model can be set up: one shape each, for requests and for files.

A name is not part of it: a request says it in its body or path, a file in the head of a table.
"""

from typing import Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.config import JsonDict

from hal0.declare.fields import (
    Bytes,
    EngineName,
    FileName,
    Limit,
    ModelName,
    Seconds,
    Sha256,
    Source,
)
from hal0.engines.options import LoadOptions

MAX_REQUESTS: Final = 100_000
ROLES: Final = ("main", "shard", "mmproj")
"""The order of a model's files: the one first that an engine is told to open."""


class Declared(BaseModel):
    """An object that people wrote: closed, and typed strictly."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class SlotSetup(Declared):
    """How a slot is set up; null is the default, or none."""

    engine: EngineName = "default"
    model: ModelName | None = None
    options: LoadOptions = LoadOptions()
    pinned: bool = False
    priority: int = Field(0, ge=-1000, le=1000)
    idle_after_s: Seconds | None = None
    unload_after_s: Seconds | None = None
    load_timeout_s: Limit | None = None
    load_timeout_s_per_gb: Seconds | None = None
    wake: Literal["always", "auto", "never"] = "auto"
    max_in_flight: int | None = Field(None, ge=1, le=MAX_REQUESTS)
    max_waiting: int | None = Field(None, ge=0, le=MAX_REQUESTS)


class FileBody(Declared):
    """One file of a model; a null source = it lies in its final place already.

    `name` is what it is called in the models folder; null = as at its source.
    """

    role: Literal["main", "mmproj", "shard"] = "main"
    source: Source | None = None
    name: FileName | None = None
    size_bytes: Bytes | None = None
    sha256: Sha256 | None = None


FILES_OR_SOURCE: Final[JsonDict] = {
    "oneOf": [
        {
            "required": ["source"],
            "properties": {"source": {"type": "string"}, "files": {"maxItems": 0}},
        },
        {
            "required": ["files"],
            "properties": {
                "files": {"minItems": 1},
                "source": {"type": "null"},
                "size_bytes": {"type": "null"},
                "sha256": {"type": "null"},
            },
        },
    ]
}


class ModelSetup(Declared):
    """What a model is: `files`, or in short `source`, `size_bytes`, `sha256` of its only file."""

    model_config = ConfigDict(json_schema_extra=FILES_OR_SOURCE)

    format: Literal["gguf", "other"] = "gguf"
    files: list[FileBody] = Field([], max_length=1000)
    source: Source | None = None
    size_bytes: Bytes | None = None
    sha256: Sha256 | None = None
    allow_copy: bool = False

    @model_validator(mode="after")
    def _is_one_model(self) -> Self:
        if bool(self.files) == (self.source is not None):
            raise ValueError("give either files or source")
        if self.files and (self.size_bytes is not None or self.sha256 is not None):
            raise ValueError("size_bytes and sha256 belong to each of the files")
        roles = [file.role for file in self.in_order]
        mains, shards = roles.count("main"), roles.count("shard")
        if mains > 1 or (mains > 0) == (shards > 0) or roles.count("mmproj") > 1:
            raise ValueError("a model has one main file or its shards, and at most one mmproj")
        if len(roles) > 1 and any(file.source is None for file in self.files):
            raise ValueError("where a model has several files, each needs its source")
        return self

    @property
    def in_order(self) -> list[FileBody]:
        """The files, the one first that an engine is told to open."""
        if self.source is not None:
            return [FileBody(source=self.source, size_bytes=self.size_bytes, sha256=self.sha256)]
        return sorted(self.files, key=lambda file: ROLES.index(file.role))
