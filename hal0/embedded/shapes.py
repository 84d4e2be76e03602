"""The bodies of the engine's answers, in the shapes that lemond 11.7 was seen to give."""

from pathlib import Path
from typing import Any, Final

from starlette.responses import JSONResponse, Response

from hal0 import __version__
from hal0.embedded.catalog import ModelFiles, list_models
from hal0.embedded.options import CTX_SIZE
from hal0.embedded.residents import Resident

TYPES: Final = (
    "classification",
    "embedding",
    "image",
    "llm",
    "reranking",
    "transcription",
    "tts",
)
CREATED: Final = 1234567890
"""Lemonade gives every model this time of creation."""


def plain_error(message: str, status: int) -> Response:
    """Return `{"error": text}`."""
    return JSONResponse({"error": message}, status)


def typed_error(message: str, kind: str, code: str | None, status: int) -> Response:
    """Return `{"error": {message, type, code}}`."""
    error = {"message": message, "type": kind} | ({"code": code} if code else {})
    return JSONResponse({"error": error}, status)


def model_error(message: str, code: str, model: str, status: int) -> Response:
    """Return the error of what was asked about one model."""
    return JSONResponse(
        {
            "error": {
                "message": message,
                "type": code,
                "code": code,
                "param": "model",
                "requested_model": model,
            }
        },
        status,
    )


def unknown_model(models: Path, name: str) -> Response:
    """Return the 404 for a name that no file has, with some that do."""
    names = [f"'{files.name}'" for files in list_models(models)]
    more = f", and {len(names) - 3} more" if len(names) > 3 else ""
    message = f"Model '{name}' was not found. Available models include: {', '.join(names[:3])}"
    return model_error(f"{message}{more}.", "model_not_found", name, 404)


def health_body(residents: list[Resident], pid: int) -> dict[str, Any]:
    """Return what health says; `residents` are the latest used first."""
    return {
        "status": "ok",
        "version": __version__,
        "pid": pid,
        "telemetry": {"enabled": False},
        "model_loaded": residents[0].name if residents else None,
        "all_models_loaded": [_entry(resident) for resident in residents],
        "max_models": dict.fromkeys(TYPES, -1),
        "pinned_models": dict.fromkeys(TYPES, 0)
        | {"llm": sum(resident.is_pinned for resident in residents)},
        "pinned_helper_models": dict.fromkeys(TYPES, 0),
        "update_check_done": True,
    }


def model_body(files: ModelFiles) -> dict[str, Any]:
    """Return how a model of the folder is described."""
    checkpoints = {"main": str(files.main)}
    if files.mmproj is not None:
        checkpoints["mmproj"] = str(files.mmproj)
    return {
        "id": files.name,
        "object": "model",
        "created": CREATED,
        "owned_by": "hal0",
        "checkpoint": str(files.main),
        "checkpoints": checkpoints,
        "recipe": "llamacpp",
        "downloaded": True,
        "update_available": False,
        "suggested": True,
        "source": "extra_models_dir",
        "registry_source": "local",
        "labels": ["custom", "chat", *(["vision"] if files.mmproj else [])],
        "components": [],
        "recipe_options": {},
        "context_length": CTX_SIZE,
        "size": round(files.size_bytes() / 1e9, 3),
    }


def _entry(resident: Resident) -> dict[str, Any]:
    is_busy = resident.active > 0
    status = "evicting" if resident.leaving else "in_use" if is_busy else "ready"
    return {
        "model_name": resident.name,
        "checkpoint": str(resident.files.main),
        "type": "llm",
        "residency_class": "standard",
        "slot_pool": "standard/llm",
        "device": "cpu",
        "backend_url": f"{resident.child.url}/v1",
        "backend_alive": True,
        "backend_health": "busy" if is_busy else "ready",
        "pid": resident.child.pid,
        "launch_command": [],
        "status": status,
        "loaded": True,
        "watchdog_reset": False,
        "pinned": resident.is_pinned,
        "recipe": "llamacpp",
        "recipe_options": resident.options.as_recipe()
        | ({"pinned": True} if resident.is_pinned else {}),
        "is_busy": is_busy,
        "is_streaming": resident.streaming > 0,
        "last_use": resident.last_use,
    }
