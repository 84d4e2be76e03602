"""What may be asked below /v1: a closed list, and how each of its routes names its model.

An engine has more below /v1 than inference: Lemonade loads, unloads, pulls and deletes there, and
what it does not know today it may know tomorrow. So a path is looked up here whole, and the path
that an engine gets is the one of this list, never the one that came.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Takes(StrEnum):
    """In which type a route takes its body, and its model's name in it."""

    JSON = "application/json"
    FORM = "multipart/form-data"


@dataclass(frozen=True, slots=True)
class Route:
    """One path of OpenAI's API; `path` is without the /v1."""

    path: str
    takes: Takes = Takes.JSON
    has_typed_events: bool = False
    """Whether the events of its streams have names, as those of the Responses API."""


ROUTES: Final[Mapping[str, Route]] = {
    f"/v1/{route.path}": route
    for route in (
        Route("chat/completions"),
        Route("completions"),
        Route("embeddings"),
        Route("rerank"),
        Route("responses", has_typed_events=True),
        Route("audio/speech"),
        Route("audio/transcriptions", Takes.FORM),
        Route("audio/translations", Takes.FORM),
        Route("images/generations"),
        Route("images/edits", Takes.FORM),
        Route("images/variations", Takes.FORM),
    )
}
"""By the whole path of a request; all are POST."""
