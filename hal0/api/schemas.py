"""What a request may say: bodies and queries, closed (`extra=forbid`) and typed strictly.

What one field may hold is in `fields.py`; how a slot or a model is set up, in `hal0/declare/`.
"""

from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from hal0.access.tokens import LONGEST_S
from hal0.api.fields import Digits, FilePath, FilterText, HttpOrigin, Since, TokenName, Until
from hal0.declare.fields import EngineName, Limit, ModelName, Seconds, SlotName
from hal0.declare.setup import Declared, ModelSetup, SlotSetup
from hal0.engines.options import LoadOptions
from hal0.settings import EngineKind
from hal0.states import Cause, IncidentKind, JobKind, JobState

MAX_LIMIT: Final = 1000
DEFAULT_LIMIT: Final = 100


class Body(Declared):
    """A JSON object of a request."""


class Query(BaseModel):
    """The parameters behind the question mark: texts, so numbers are read from them."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Page(Query):
    """Which part of a list."""

    limit: Digits = Field(DEFAULT_LIMIT, ge=1, le=MAX_LIMIT)
    cursor: str | None = Field(None, max_length=500)


class Nothing(Body):
    """A request that says all in its path."""


class SlotChange(Body, SlotSetup):
    """How a slot is set up; in a change what is left out stays, and null is the default again."""

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
    """Which jobs; all of what is given must fit."""

    filter: FilterText = ""
    slot: str | None = None
    state: JobState | None = None
    kind: JobKind | None = None


class FailedQuery(Query):
    """Which failed jobs."""

    filter: FilterText = ""


class LoadsQuery(Query):
    """How many of the newest loads."""

    limit: Digits = Field(5, ge=1, le=50)


class RetryFilter(Body):
    """Which failed jobs; all of what is given must fit."""

    text: FilterText = ""
    slot: SlotName | None = None
    state: Literal["failed"] = "failed"
    kind: Literal["pull", "validate", "unload", "load"] | None = None
    code: str | None = Field(None, max_length=100)


class BulkRetry(Body):
    """Retry many; `dry_run` tells what would happen."""

    filter: RetryFilter = RetryFilter()
    dry_run: bool = False


class CancelFilter(Body):
    """Which unfinished jobs; all of what is given must fit."""

    text: FilterText = ""
    slot: SlotName | None = None
    kind: Literal["pull", "validate", "unload", "load"] | None = None


class BulkCancel(Body):
    """Cancel many; `dry_run` tells what would happen."""

    filter: CancelFilter = CancelFilter()
    dry_run: bool = False


class ModelCreate(Body, ModelSetup):
    """A new model: `files`, or in short `source`, `size_bytes` and `sha256` of its only file."""

    name: ModelName


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


class EventsQuery(Query):
    """Where to take a stream up again, for who cannot set the header `Last-Event-ID`."""

    last_event_id: str | None = Field(None, max_length=100)


class TransitionsQuery(Page):
    """Which rows of the audit: of a slot, since a time or behind an id, until, of a cause."""

    filter: FilterText = ""
    slot: str | None = None
    since: Since = None
    until: Until = None
    cause: Cause | None = None
    order: Literal["asc", "desc"] = "asc"


class ExportQuery(Query):
    """Which rows of the audit."""

    filter: FilterText = ""
