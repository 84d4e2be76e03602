"""What a request may say: bodies and queries, closed (`extra=forbid`) and typed strictly.

What one field may hold is in `fields.py`.
"""

from typing import Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.config import JsonDict

from hal0.access.tokens import LONGEST_S
from hal0.api.fields import (
    Bytes,
    Digits,
    EngineName,
    FileName,
    FilePath,
    HttpOrigin,
    Limit,
    ModelName,
    Seconds,
    Sha256,
    Since,
    SlotName,
    Source,
    TokenName,
)
from hal0.engines.options import LoadOptions
from hal0.settings import EngineKind
from hal0.states import Cause, IncidentKind, JobKind, JobState

MAX_LIMIT: Final = 1000
DEFAULT_LIMIT: Final = 100
MAX_REQUESTS: Final = 100_000


class Body(BaseModel):
    """A JSON object of a request."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Query(BaseModel):
    """The parameters behind the question mark: texts, so numbers are read from them."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Page(Query):
    """Which part of a list."""

    limit: Digits = Field(DEFAULT_LIMIT, ge=1, le=MAX_LIMIT)
    cursor: str | None = Field(None, max_length=500)


class Nothing(Body):
    """A request that says all in its path."""


class SlotChange(Body):
    """How a slot is set up; in a change what is left out stays, and null is the default again."""

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

    @property
    def setup(self) -> dict[str, Any]:
        """Every field but the options: which of them there are is the engine's to say."""
        return self.model_dump(mode="json", exclude={"name", "options"})

    @property
    def given(self) -> dict[str, Any]:
        """Those that the request names, but not the options."""
        return self.model_dump(mode="json", exclude_unset=True, exclude={"options"})

    @property
    def given_options(self) -> dict[str, Any] | None:
        """The options that the request names; None = it says nothing of options."""
        if "options" not in self.model_fields_set:
            return None
        return self.options.model_dump(mode="json", exclude_unset=True)


class SlotCreate(SlotChange):
    """A new slot; what is left out is the default."""

    name: SlotName


class SlotDelete(Query):
    """Whether to cancel what is queued first."""

    force: bool = False


class LoadBody(Body):
    """What to load; what is left out is what the slot is set up for."""

    model: ModelName | None = None
    options: LoadOptions | None = None
    rehash: bool = False

    @property
    def given_options(self) -> dict[str, Any]:
        """The options that the request names; the slot's own hold for the others."""
        return (
            {} if self.options is None else self.options.model_dump(mode="json", exclude_unset=True)
        )


class UnloadBody(Body):
    """How to unload."""

    force: bool = False
    even_if_pinned: bool = False
    drain_timeout_s: Seconds | None = None


class ValidateBody(Body):
    """Whether to read an unchanged file again."""

    rehash: bool = False


class PullBody(Body):
    """Whether to fetch from the network what is there already."""

    again: bool = False


class JobsQuery(Page):
    """Which jobs."""

    slot: str | None = None
    state: JobState | None = None
    kind: JobKind | None = None


class RetryFilter(Body):
    """Which failed jobs; all of what is given must fit."""

    slot: SlotName | None = None
    state: Literal["failed"] = "failed"
    kind: Literal["pull", "validate", "unload", "load"] | None = None
    code: str | None = Field(None, max_length=100)


class BulkRetry(Body):
    """Retry many; `dry_run` tells what would happen."""

    filter: RetryFilter = RetryFilter()
    dry_run: bool = False


class FileBody(Body):
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


class ModelCreate(Body):
    """A new model: `files`, or in short `source`, `size_bytes` and `sha256` of its only file."""

    model_config = ConfigDict(json_schema_extra=FILES_OR_SOURCE)

    name: ModelName
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
        return sorted(self.files, key=lambda file: ("main", "shard", "mmproj").index(file.role))


class EngineCreate(Body):
    """Another inference server."""

    name: EngineName
    kind: EngineKind
    url: HttpOrigin
    key_file: FilePath | None = None
    settle_s: Limit | None = None


class TokenCreate(Body):
    """Who is to be let in, as what, and for how long; without an end it holds until revoked."""

    name: TokenName
    role: Literal["client", "reader", "writer"]
    expires_in_s: float | None = Field(None, gt=0, le=LONGEST_S, allow_inf_nan=False)


class IncidentsQuery(Page):
    """Which incidents: at an engine, of a kind, of a slot, since a time or behind an id."""

    engine: str | None = None
    kind: IncidentKind | None = None
    slot: str | None = None
    since: Since = None


class TransitionsQuery(Page):
    """Which rows of the audit: of a slot, since a time or behind an id, of a cause."""

    slot: str | None = None
    since: Since = None
    cause: Cause | None = None
    order: Literal["asc", "desc"] = "asc"
