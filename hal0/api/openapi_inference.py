"""What the OpenAPI document tells of inference: what hal0 itself reads and says, and no more.

The rest of a body, and every answer of an engine, is between a client and the engine: no schema of
hal0's could tell it, and none judges it.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from hal0 import errors
from hal0.api.openapi_refusals import (
    ALWAYS,
    OF_A_ROLE,
    REQUEST_ID,
    Json,
    Refusals,
    by_status,
    name_of,
    refusal,
)
from hal0.dispatcher.bodies import MAX_NAME
from hal0.dispatcher.routing import Route, Takes
from hal0.errors import Hal0Error

JSON: Final = "application/json"
EVENTS: Final = "text/event-stream"
ANY_TYPE: Final = "*/*"

TOLD: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "chat/completions": ("Go on with a conversation", (JSON, EVENTS)),
    "completions": ("Go on with a text", (JSON, EVENTS)),
    "embeddings": ("Make vectors of texts", (JSON,)),
    "rerank": ("Put documents in the order in which they fit a question", (JSON,)),
    "responses": ("Answer as the Responses API does", (JSON, EVENTS)),
    "audio/speech": ("Speak a text", ("audio/*", EVENTS)),
    "audio/transcriptions": ("Write down what is said", (JSON, "text/*")),
    "audio/translations": ("Write down in English what is said", (JSON, "text/*")),
    "images/generations": ("Make images of a description", (JSON, EVENTS)),
    "images/edits": ("Change images as described", (JSON, EVENTS)),
    "images/variations": ("Vary an image", (JSON,)),
}
"""What each route is for, and as what an engine usually answers."""

PROBLEMS: Final[tuple[type[Hal0Error], ...]] = (
    *ALWAYS,
    *OF_A_ROLE,
    *(errors.BadOrigin, errors.NotJsonType, errors.TooLarge, errors.TooSlow),
    *(errors.ModelNotFound, errors.ModelAmbiguous, errors.SlotNotFound),
    *(errors.SlotLoading, errors.SlotDraining, errors.SlotUnloaded, errors.SlotParked),
    *(errors.SlotLoadFailed, errors.SlotFull, errors.SlotHasNoModel, errors.ModelTaken),
    *(errors.EngineUnreachable, errors.EngineUnauthorized),
    *(errors.EngineBadAnswer, errors.EngineTimeout),
)

BODY: Final[Json] = {
    "type": "object",
    "required": ["model"],
    "properties": {
        "model": {
            "type": "string",
            "minLength": 1,
            "maxLength": MAX_NAME,
            "description": "the name of a slot, or of the model that one slot alone has",
        },
        "stream": {"description": "true = the answer comes in pieces; such a request is sent once"},
    },
    "additionalProperties": True,
    "description": "hal0 reads `model` and `stream`; all else is for the engine to judge",
}


def operation(route: Route) -> Json:
    """Return the operation object, but for who may use it."""
    summary, gives = TOLD[route.path]
    return {
        "operationId": "infer_" + route.path.replace("/", "_"),
        "summary": summary,
        "tags": ["v1"],
        "parameters": [],
        "requestBody": {"content": {str(route.takes): {"schema": BODY}}, "required": True},
        "responses": {
            "200": _of_the_engine({kind: {} for kind in (*gives, ANY_TYPE)}),
            **{
                str(status): {"$ref": f"#/components/responses/{_name_of(kinds)}"}
                for status, kinds in problems(route).items()
            },
            "default": _of_the_engine({ANY_TYPE: {}}),
        },
    }


def problems(route: Route) -> Refusals:
    """Return what hal0 itself may refuse a request of this route with."""
    of_its_type = (errors.NotJson,) if route.takes is Takes.JSON else ()
    return by_status((*PROBLEMS, *of_its_type))


def refusals(route: Route, problem: Json) -> dict[str, Json]:
    """Return the responses of a route that are no success, by the names that refer to them.

    Where hal0 says `problem`, an engine may have answered with the same status in its own words,
    and need not say when to come back.
    """
    told: dict[str, Json] = {}
    for kinds in problems(route).values():
        said = refusal(kinds, problem)
        headers = {
            name: {**header, "required": name in REQUEST_ID}
            for name, header in said["headers"].items()
        }
        content = {**said["content"], ANY_TYPE: {}}
        told[_name_of(kinds)] = {**said, "headers": headers, "content": content}
    return told


def _name_of(kinds: Sequence[type[Hal0Error]]) -> str:
    """Return a name that no response has in which hal0 alone speaks."""
    return f"{name_of(kinds)}-or-the-engine"


def _of_the_engine(content: Json) -> Json:
    return {"description": "what the engine answers", "headers": REQUEST_ID, "content": content}
