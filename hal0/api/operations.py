"""What is told of each route beside its path, its role and its handler's sentence: one table.

A query or a body is named here by the schema with which the handler checks it; a test sees that it
is the same. Answers are named by the shapes that views make. What every route has in common, and
every route with a body, is added by `openapi.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from prometheus_client import CONTENT_TYPE_LATEST

from hal0 import errors
from hal0.api import (
    answers,
    engine_answers,
    fields,
    firstrun_answers,
    process_answers,
    schemas,
    slot_answers,
)
from hal0.declare import fields as declared
from hal0.errors import Hal0Error

Shape = Any
"""A type of `answers.py`."""


@dataclass(frozen=True, slots=True)
class Operation:
    """A route's answers by status (None = without a body), what it takes, why it is refused."""

    success: Mapping[int, Shape]
    problems: tuple[type[Hal0Error], ...] = ()
    query: type[schemas.Query] = schemas.Query
    body: type[schemas.Body] | None = None
    can_wait: bool = False
    """Whether it heeds `Prefer: wait=N`."""

    is_told_once: bool = False
    """Whether its answer is kept nowhere: no Idempotency-Key, no Location."""

    media_type: str = "application/json"
    """Of a success; the shape of one that is not JSON is `str`."""


ORDER: Final = {200: answers.Accepted, 202: answers.Accepted}
SLOT: Final = (errors.SlotNotFound,)
SET_UP: Final = (errors.ModelNotFound, errors.EngineNotFound, errors.ModelTaken)
NOT_READY: Final = tuple(errors.tree(errors.DatabaseError))

OPERATIONS: Final[Mapping[str, Operation]] = {
    "GET /livez": Operation({200: process_answers.Live}),
    "GET /readyz": Operation({200: process_answers.Ready}, NOT_READY),
    "GET /metrics": Operation({200: str}, media_type=CONTENT_TYPE_LATEST),
    "GET /api/v1/meta": Operation({200: process_answers.Meta}),
    "GET /api/v1/openapi.json": Operation({200: answers.Document}),
    "GET /api/v1/slots": Operation({200: answers.Listed[slot_answers.Slot]}, query=schemas.Page),
    "POST /api/v1/slots": Operation(
        {201: slot_answers.Slot}, (errors.SlotExists, *SET_UP), body=schemas.SlotCreate
    ),
    "GET /api/v1/slots/{slot}": Operation({200: slot_answers.Slot}, SLOT),
    "PATCH /api/v1/slots/{slot}": Operation(
        {200: slot_answers.Slot},
        (*SLOT, *SET_UP, errors.SlotBusy, errors.SlotNotOffline),
        body=schemas.SlotChange,
    ),
    "DELETE /api/v1/slots/{slot}": Operation(
        {204: None}, (*SLOT, errors.SlotBusy, errors.JobAlreadySent), query=schemas.SlotDelete
    ),
    "POST /api/v1/slots/{slot}/load": Operation(
        ORDER,
        (*SLOT, errors.ModelNotFound, errors.ModelTaken, errors.SlotHasNoModel),
        body=schemas.LoadBody,
        can_wait=True,
    ),
    "POST /api/v1/slots/{slot}/unload": Operation(
        ORDER, (*SLOT, errors.SlotPinned), body=schemas.UnloadBody, can_wait=True
    ),
    "POST /api/v1/slots/{slot}/validate": Operation(
        ORDER, (*SLOT, errors.SlotHasNoModel), body=schemas.ValidateBody, can_wait=True
    ),
    "POST /api/v1/slots/{slot}/pull": Operation(
        ORDER, (*SLOT, errors.SlotHasNoModel), body=schemas.PullBody, can_wait=True
    ),
    "GET /api/v1/slots/{slot}/loads": Operation(
        {200: slot_answers.Loads}, SLOT, query=schemas.LoadsQuery
    ),
    "GET /api/v1/jobs": Operation(
        {200: answers.Listed[answers.Job]}, SLOT, query=schemas.JobsQuery
    ),
    "GET /api/v1/jobs/failed": Operation(
        {200: answers.Listed[answers.Job]}, SLOT, query=schemas.FailedQuery
    ),
    "POST /api/v1/jobs/retry": Operation({200: answers.Bulk}, SLOT, body=schemas.BulkRetry),
    "POST /api/v1/jobs/cancel": Operation({200: answers.BulkCancel}, SLOT, body=schemas.BulkCancel),
    "GET /api/v1/jobs/{job_id}": Operation({200: answers.Job}, (errors.JobNotFound,)),
    "POST /api/v1/jobs/{job_id}/retry": Operation(
        ORDER,
        (
            *(errors.JobNotFound, errors.JobNotFailed, errors.JobSuperseded, errors.ModelTaken),
            *(errors.SlotNotFound, errors.ModelNotFound),
        ),
        body=schemas.Nothing,
        can_wait=True,
    ),
    "POST /api/v1/jobs/{job_id}/cancel": Operation(
        {200: answers.Cancelled},
        (errors.JobNotFound, errors.JobFinished, errors.JobAlreadySent),
        body=schemas.Nothing,
    ),
    "GET /api/v1/chains/{chain_id}": Operation({200: answers.Chain}, (errors.JobNotFound,)),
    "GET /api/v1/models": Operation({200: answers.Listed[answers.Model]}, query=schemas.Page),
    "POST /api/v1/models": Operation(
        {201: answers.Model}, (errors.ModelExists, errors.HostNotAllowed), body=schemas.ModelCreate
    ),
    "GET /api/v1/models/{model}": Operation({200: answers.Model}, (errors.ModelNotFound,)),
    "DELETE /api/v1/models/{model}": Operation(
        {204: None}, (errors.ModelNotFound, errors.ModelInUse)
    ),
    "GET /api/v1/engines": Operation(
        {200: answers.Listed[engine_answers.Engine]}, query=schemas.Page
    ),
    "POST /api/v1/engines": Operation(
        {201: engine_answers.Engine}, (errors.EngineExists,), body=schemas.EngineCreate
    ),
    "GET /api/v1/engines/{engine}": Operation(
        {200: engine_answers.Engine}, (errors.EngineNotFound,)
    ),
    "GET /api/v1/probe": Operation({200: firstrun_answers.Probe}, (errors.ProbeNotFound,)),
    "POST /api/v1/probe": Operation({200: firstrun_answers.Probe}, body=schemas.Nothing),
    "GET /api/v1/starters": Operation(
        {200: answers.Listed[firstrun_answers.Offer]}, (errors.SettingsError,)
    ),
    "POST /api/v1/starters/{starter}/look": Operation(
        {200: firstrun_answers.Look},
        (
            *(errors.StarterNotFound, errors.SettingsError, errors.SizeMismatch),
            *(errors.HostNotAllowed, errors.HubNotInstalled, errors.SourceNotFound),
            *(errors.SourceRefused, errors.SourceBadAnswer, errors.SourceUnreachable),
        ),
        body=schemas.Nothing,
        is_told_once=True,
    ),
    "GET /api/v1/incidents": Operation(
        {200: answers.Listed[engine_answers.Incident]},
        (*SLOT, errors.EngineNotFound),
        query=schemas.IncidentsQuery,
    ),
    "GET /api/v1/incidents/{incident_id}": Operation(
        {200: engine_answers.Incident}, (errors.IncidentNotFound,)
    ),
    "POST /api/v1/incidents/{incident_id}/ack": Operation(
        {200: engine_answers.Incident}, (errors.IncidentNotFound,), body=schemas.Nothing
    ),
    "GET /api/v1/events": Operation(
        {200: str},
        (errors.TooManyStreams,),
        query=schemas.EventsQuery,
        media_type="text/event-stream",
    ),
    "GET /api/v1/transitions": Operation(
        {200: answers.Listed[answers.Transition]}, SLOT, query=schemas.TransitionsQuery
    ),
    "GET /api/v1/transitions.ndjson": Operation(
        {200: str}, SLOT, query=schemas.ExportQuery, media_type="application/x-ndjson"
    ),
    "GET /api/v1/transitions.csv": Operation(
        {200: str}, SLOT, query=schemas.ExportQuery, media_type="text/csv; charset=utf-8"
    ),
    "GET /api/v1/tokens": Operation({200: answers.Listed[answers.Token]}, query=schemas.Page),
    "POST /api/v1/tokens": Operation(
        {201: answers.NewToken},
        (errors.TokenExists,),
        body=schemas.TokenCreate,
        is_told_once=True,
    ),
    "DELETE /api/v1/tokens/{token}": Operation({200: answers.Token}, (errors.TokenNotFound,)),
    "GET /v1/models": Operation({200: answers.Served}),
    "GET /v1/models/{name}": Operation(
        {200: answers.ServedSlot}, (errors.ModelNotFound, errors.ModelAmbiguous)
    ),
}

PATH_PARAMETERS: Final[Mapping[str, Any]] = {
    "slot": declared.SlotName,
    "model": declared.ModelName,
    "engine": declared.EngineName,
    "starter": declared.ModelName,
    "token": fields.TokenName,
    "name": declared.ModelName,
    "job_id": fields.Id,
    "chain_id": fields.Id,
    "incident_id": fields.Id,
}
