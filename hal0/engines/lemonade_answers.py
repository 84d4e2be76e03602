"""What Lemonade's answers mean.

In a health body every field may be missing or of another type: what is not understood is unknown
(None), which nobody may take for "no".
"""

from collections.abc import Mapping
from typing import Any, Final, TypeGuard

from hal0.engines.base import EngineConfig, LoadedModel
from hal0.engines.http import int_of, text_of

TYPES: Final = {"embeddings": "embedding", "reranking": "reranking"}
"""Types of models by the label that makes them one."""
LONGEST_S: Final = 366 * 86400.0
"""A limit beyond it is none that a load ever meets."""


def models_of(body: Mapping[str, Any]) -> tuple[LoadedModel, ...] | None:
    """Return the loaded models of a health body; None = no list, or one entry is nonsense."""
    listed = body.get("all_models_loaded", body.get("loaded"))
    if not isinstance(listed, list):
        return None
    models = [_model(entry) for entry in listed]
    known = tuple(model for model in models if model is not None)
    return known if len(known) == len(models) else None


def limits_of(body: Mapping[str, Any]) -> dict[str, int]:
    """Return how many models of each type fit at once, without what has no limit (-1)."""
    told = body.get("max_models")
    told = told if isinstance(told, dict) else {}
    numbers = {type_: int_of(limit) for type_, limit in told.items()}
    return {type_: limit for type_, limit in numbers.items() if limit is not None and limit > 0}


def type_of(body: Mapping[str, Any]) -> str | None:
    """Return the type that a described model will count as; None = its labels do not say one."""
    labels = body.get("labels")
    labels = labels if isinstance(labels, list) else []
    return next((type_ for label, type_ in TYPES.items() if label in labels), None)


def config_of(body: Mapping[str, Any]) -> EngineConfig:
    """Return what matters of the configuration; one that says nothing of `auto_evict` has it off.

    `global_timeout` is in seconds.
    """
    auto_evict, limit = body.get("auto_evict", False), body.get("global_timeout")
    return EngineConfig(
        auto_evict=auto_evict if isinstance(auto_evict, bool) else None,
        load_limit_s=_seconds_of(limit),
    )


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
        type=text_of(entry.get("type")),
    )


def _seconds_of(value: object) -> float | None:
    return float(value) if _is_number(value) and 0 < value <= LONGEST_S else None


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
