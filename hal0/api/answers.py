"""What an answer says: closed shapes, which `views.py` makes and `openapi.py` tells.

They are typed dictionaries, so mypy checks that a view makes exactly what is told and nothing is
built twice. A name that ends in `_s` is seconds, in `_bytes` bytes, in `_at` an instant; null means
unknown, or none. What a shape says of a field beside its type is for who reads the document.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, Final, Generic, Literal, NotRequired, TypeVar

from pydantic import Field, WithJsonSchema
from typing_extensions import TypeAliasType, TypedDict

from hal0.access.roles import GRANTED
from hal0.access.tokens import TokenState
from hal0.engines.options import Backend
from hal0.errors import tree
from hal0.states import Cause, JobKind, JobState, Origin, Outcome, SlotState

T = TypeVar("T")


def _one_of(values: type[StrEnum]) -> Any:
    """Tell which texts there are, of a field that rows keep as plain text."""
    return Field(json_schema_extra={"enum": [*values]})


INSTANT: Final = {
    "type": "string",
    "format": "date-time",
    "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$",
    "description": "RFC 3339, UTC",
}
CODE: Final = {
    "type": "string",
    "enum": [error.code for error in tree()],
    "description": "what went wrong; `x-error-codes` says more",
}
Instant = TypeAliasType("Instant", Annotated[str, WithJsonSchema(INSTANT)])
Code = TypeAliasType("Code", Annotated[str, WithJsonSchema(CODE)])
Evidence = Annotated[Mapping[str, Any], Field(description="facts behind the detail, by name")]
Document = dict[str, Any]
CauseName = Annotated[str, _one_of(Cause)]


class Listed(TypedDict, Generic[T], closed=True):
    """A page of a list."""

    items: list[T]
    next_cursor: Annotated[str | None, Field(description="`cursor` of the next page; null = none")]


class OpenAIError(TypedDict, closed=True):
    """Why a request below `/v1` was refused, where clients of OpenAI's API look for it."""

    message: str
    type: str
    code: Code
    param: str | None


class Problem(TypedDict, closed=True):
    """Why a request was refused (RFC 9457); as `application/problem+json`."""

    type: Annotated[str, Field(description="`/problems/` and the code")]
    title: Annotated[str, Field(description="what this code means")]
    status: int
    detail: Annotated[str, Field(description="for an operator: what, which one, what to do")]
    instance: Annotated[str, Field(description="path of the request")]
    code: Code
    evidence: Evidence
    job_id: NotRequired[int]
    error: Annotated[NotRequired[OpenAIError], Field(description="below `/v1` alone")]


class ServedSlot(TypedDict, closed=True):
    """A slot, as clients of OpenAI's API read a model."""

    id: Annotated[str, Field(description="the slot's name: what a request says as `model`")]
    object: Literal["model"]
    created: Annotated[int, Field(description="Unix time at which the slot was made")]
    owned_by: Literal["hal0"]
    state: SlotState
    model: Annotated[str | None, Field(description="the model that it holds, else wants")]


class Served(TypedDict, closed=True):
    """All slots, as clients of OpenAI's API read models."""

    object: Literal["list"]
    data: list[ServedSlot]


class Fault(TypedDict, closed=True):
    """Why a job, an attempt or a slot failed."""

    code: Code
    detail: str
    evidence: Evidence | None
    job_id: int | None


class Refusal(TypedDict, closed=True):
    """Why one of many was left out, or an engine did not answer."""

    code: Code
    detail: str
    evidence: Evidence


class Options(TypedDict, closed=True, total=False):
    """Options of a load, defaults filled in; none where the engine takes none."""

    ctx_size: int
    llamacpp_backend: Backend | None
    llamacpp_args: str


class Progress(TypedDict, closed=True):
    """How far a running job is."""

    phase: str
    done_bytes: int
    total_bytes: Annotated[int, Field(description="0 = nobody knows")]
    rate_bytes_s: int | None
    left_s: float | None


class Attempt(TypedDict, closed=True):
    """One ended run of a job."""

    attempt: int
    owner: Annotated[str, Field(description="the process start that ran it")]
    started_at: Instant
    ended_at: Instant
    outcome: Annotated[str, _one_of(Outcome)]
    error: Fault | None


class Job(TypedDict, closed=True):
    """One step of a chain."""

    id: int
    chain_id: int
    kind: JobKind
    state: JobState
    outcome: Outcome | None
    slot: str
    model: str | None
    engine: str
    attempt: Annotated[int, Field(description="the run that it is in, or was in last; 0 = none")]
    created_at: Instant
    run_after: Annotated[Instant | None, Field(description="not before, if that is still to come")]
    started_at: Instant | None
    ended_at: Instant | None
    deadline_at: Instant | None
    waiting_for: Annotated[str | None, Field(description="what keeps a queued job")]
    caused_by: Annotated[int | None, Field(description="the job that made a machine ask for it")]
    incident_id: Annotated[int | None, Field(description="the newest incident that it made")]
    actor: str
    progress: Progress | None
    files: Annotated[
        dict[str, Literal["there", "linked", "copied", "downloaded", "good"]] | None,
        Field(description="path to how it came or was found, of a pull or validate that succeeded"),
    ]
    error: Fault | None
    attempts: list[Attempt]


class Chain(TypedDict, closed=True):
    """What one request set going."""

    id: int
    slot: str
    goal: JobKind
    state: JobState
    origin: Origin
    actor: str
    request_id: str | None
    model: str | None
    options: Options | None
    rehash: bool
    force: bool
    drain_timeout_s: float | None
    caused_by: int | None
    created_at: Instant
    jobs: list[Job]


class Accepted(TypedDict, closed=True):
    """What an order became, and how it ended for who waited for that."""

    already: Annotated[bool, Field(description="it is so, and no job was needed")]
    chain_id: int | None
    jobs: list[int]
    deduplicated: Annotated[bool, Field(description="these jobs were asked for before")]
    state: NotRequired[JobState]
    results: NotRequired[list["Result"]]


class Result(TypedDict, closed=True):
    """How a job of a chain ended."""

    id: int
    kind: JobKind
    state: JobState
    outcome: Outcome | None
    error: Fault | None


class Ending(TypedDict, closed=True):
    """How a chain ended: what is added to `Accepted`."""

    state: JobState
    results: list[Result]


class Cancelled(TypedDict, closed=True):
    """Which jobs of a chain were cancelled."""

    chain_id: int
    jobs: list[int]


class Retried(TypedDict, closed=True):
    """What a bulk retry did, or would do, about one failed job."""

    slot: str
    job_id: int
    chain_id: int
    kind: JobKind
    failed_with: Code | None
    jobs: list[int]
    refused: Refusal | None


class Bulk(TypedDict, closed=True):
    """What a bulk retry did, or would do."""

    dry_run: bool
    items: list[Retried]
    next_cursor: None


class CancelledJob(TypedDict, closed=True):
    """What a bulk cancel did, or would do, about one unfinished job."""

    slot: str
    job_id: int
    chain_id: int
    kind: JobKind
    was: Annotated[JobState, Field(description="its state before")]
    jobs: list[int]
    refused: Refusal | None


class BulkCancel(TypedDict, closed=True):
    """What a bulk cancel did, or would do."""

    dry_run: bool
    items: list[CancelledJob]
    next_cursor: None


class ModelFile(TypedDict, closed=True):
    """One file of a model."""

    role: Annotated[str, Field(json_schema_extra={"enum": ["main", "mmproj", "shard"]})]
    path: str
    source: Annotated[str | None, Field(description="of a URL without its query")]
    has_query: Annotated[bool, Field(description="its source has a query, which nobody is shown")]
    size_bytes: int | None
    sha256: str | None
    noted: Annotated[
        list[Literal["size_bytes", "sha256"]],
        Field(description="which of these a pull found, and nobody had told"),
    ]
    verified_at: Annotated[
        Instant | None,
        Field(description="when the newest validation found it good; null = it did not, or none"),
    ]


class Model(TypedDict, closed=True):
    """A registered model, the file first that an engine is told to open."""

    name: str
    format: Annotated[str, Field(json_schema_extra={"enum": ["gguf", "other"]})]
    allow_copy: Annotated[bool, Field(description="it is copied where it cannot be linked")]
    files: list[ModelFile]
    source: Annotated[
        str | None, Field(description="of the first file; of a URL without its query")
    ]
    on_disk: Annotated[
        Literal[True] | None,
        Field(description="true = the newest validation found all files; null = nobody knows"),
    ]
    memory_bytes: Annotated[
        int | None,
        Field(description="main memory that it takes loaded, estimated; null = a size is missing"),
    ]


Transition = TypedDict(
    "Transition",
    {
        "id": int,
        "at": Instant,
        "slot": str,
        "from": Annotated[str | None, Field(description="a state; null = it came into being")],
        "to": Annotated[str, _one_of(SlotState)],
        "cause": CauseName,
        "actor": str,
        "job_id": int | None,
        "request_id": str | None,
        "incident_id": int | None,
        "evidence": Evidence | None,
    },
    closed=True,
)


class _TokenRow(TypedDict):
    name: Annotated[str, Field(description="the actor of what is done with it")]
    role: Annotated[str, Field(json_schema_extra={"enum": [*GRANTED]})]
    state: TokenState
    created_at: Instant
    created_by: Annotated[str | None, Field(description="null = made before this was kept")]
    expires_at: Annotated[Instant | None, Field(description="null = never")]
    revoked_at: Instant | None
    revoked_by: str | None
    last_used_at: Annotated[Instant | None, Field(description="to a minute")]


class Token(_TokenRow, closed=True):
    """Who may come in, as what; never the text that lets them."""


class NewToken(_TokenRow, closed=True):
    """A token that was just made: the one answer that shows its text."""

    token: Annotated[str, Field(description="send it as `Authorization: Bearer …`")]
