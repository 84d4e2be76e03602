"""What Lemonade's answers mean.

Errors come as `{"error": "text"}`, as `{"error": {"message", "code", …}}` and, from a backend, as
the latter with other keys; all three are read. In a health body every field may be missing or of
another type: what is not understood is unknown (None), which nobody may take for "no".
"""

from collections.abc import Mapping
from typing import Any

import httpx

from hal0.engines.base import LoadedModel
from hal0.errors import EngineBadAnswer, EngineRefused, EngineUnauthorized


def object_of(response: httpx.Response) -> dict[str, Any]:
    """Return the JSON object of a good answer.

    Raises EngineUnauthorized for a 401, EngineRefused for any other error, EngineBadAnswer for
    what is no JSON object.
    """
    _raise_for_refusal(response)
    try:
        body = response.json()
    except (ValueError, RecursionError) as exc:
        raise EngineBadAnswer(f"{response.url} answered no JSON: {response.text[:100]!r}") from exc
    if not isinstance(body, dict):
        raise EngineBadAnswer(f"{response.url} answered JSON that is no object")
    if "error" in body:
        message, code = _error_of(response)
        raise EngineRefused(f"the engine answered: {message}", evidence={"engine_code": code})
    return body


def _raise_for_refusal(response: httpx.Response) -> None:
    if response.is_success:
        return
    message, code = _error_of(response)
    evidence = {"http_status": response.status_code, "engine_code": code, "message": message}
    if response.status_code == 401:
        raise EngineUnauthorized(f"the engine refuses the key: {message}", evidence=evidence)
    raise EngineRefused(f"the engine answered {response.status_code}: {message}", evidence=evidence)


def _error_of(response: httpx.Response) -> tuple[str, str | None]:
    """Return message and code of any of the three error shapes, or else the start of the text."""
    try:
        error = response.json()["error"]
    except (ValueError, TypeError, KeyError):
        return response.text[:300] or response.reason_phrase, None
    if isinstance(error, dict):
        code = error.get("code")
        return str(error.get("message") or error), None if code is None else str(code)
    return str(error), None


def models_of(body: Mapping[str, Any]) -> tuple[LoadedModel, ...] | None:
    """Return the loaded models of a health body; None = no list, or one entry is nonsense."""
    listed = body.get("all_models_loaded", body.get("loaded"))
    if not isinstance(listed, list):
        return None
    models = [_model(entry) for entry in listed]
    known = tuple(model for model in models if model is not None)
    return known if len(known) == len(models) else None


def limit_of_models(body: Mapping[str, Any]) -> int | None:
    """Return how many language models fit at once; None = no limit (-1) or unknown."""
    limits = body.get("max_models")
    limit = int_of(limits.get("llm")) if isinstance(limits, dict) else None
    return limit if limit is not None and limit > 0 else None


def _model(entry: object) -> LoadedModel | None:
    if not isinstance(entry, dict):
        return None
    name = text_of(entry.get("model_name"))
    if name is None:
        return None
    last_use, busy = entry.get("last_use"), entry.get("is_busy")
    options = entry.get("recipe_options")
    return LoadedModel(
        name=name,
        checkpoint=text_of(entry.get("checkpoint")),
        backend_url=text_of(entry.get("backend_url")),
        pid=int_of(entry.get("pid")),
        last_use=str(last_use) if _is_number(last_use) else None,
        busy=busy if isinstance(busy, bool) else None,
        options=options if isinstance(options, dict) else {},
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def int_of(value: object) -> int | None:
    """Return a whole number, else None."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def text_of(value: object) -> str | None:
    """Return a text that is not empty, else None."""
    return value if isinstance(value, str) and value else None
