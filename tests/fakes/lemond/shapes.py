"""The bodies of the fake's answers, with the fields that were captured from lemond 11.7."""

from typing import Any

from starlette.responses import JSONResponse, Response

from tests.fakes.lemond.router import Backend, LoadError, Router

VERSION = "11.7.0"
TYPES = ("classification", "embedding", "image", "llm", "reranking", "transcription", "tts")
STATUS = {"slots_pinned_error": 409, "model_not_found": 404}


def error_b(message: str, code: str, model: str) -> Response:
    """Return lemond's error object of loads and model look-ups."""
    error = {"message": message, "type": code, "code": code}
    error |= {"param": "model", "requested_model": model}
    return JSONResponse({"error": error}, STATUS.get(code, 500))


def error_a(message: str, status: int) -> Response:
    """Return lemond's plain error."""
    return JSONResponse({"error": message}, status)


def not_found(router: Router, name: str) -> Response:
    """Return the answer for a name that no file has."""
    names = ", ".join(f"'{known}'" for known in list(router.files())[:3])
    message = f"Model '{name}' was not found. Available models include: {names}."
    return error_b(message, "model_not_found", name)


def load_failed(name: str, exc: LoadError) -> Response:
    """Return the answer of a failed load."""
    message = str(exc) if exc.code in STATUS else f"Failed to load model '{name}': {exc}"
    return error_b(message, exc.code, name)


def health_body(router: Router, url: str) -> dict[str, Any]:
    """Return what health says; the most recently used model comes first."""
    loaded = sorted(router.loaded.values(), key=lambda b: b.last_use, reverse=True)
    return {
        "status": "ok",
        "version": VERSION,
        "telemetry": {"enabled": False},
        "model_loaded": loaded[0].name if loaded else None,
        "all_models_loaded": [
            _entry(router, b, url) for b in loaded if router.script.of(b.name).in_health
        ],
        "max_models": dict.fromkeys(TYPES, router.script.max_loaded_models),
        "pinned_models": dict.fromkeys(TYPES, 0)
        | {"llm": sum(backend.pinned for backend in loaded)},
        "pinned_helper_models": dict.fromkeys(TYPES, 0),
        "update_check_done": True,
        "websocket_port": 9000,
    }


def _entry(router: Router, backend: Backend, url: str) -> dict[str, Any]:
    script = router.script.of(backend.name)
    entry = {
        "model_name": backend.name,
        "checkpoint": script.checkpoint or backend.checkpoint,
        "type": "llm",
        "residency_class": "standard",
        "slot_pool": "standard/llm",
        "device": "cpu",
        "backend_url": f"{url}/_backend/{backend.name}/v1",
        "backend_alive": True,
        "backend_health": "busy" if backend.active else "ready",
        "pid": backend.pid,
        "launch_command": ["llama-server", "-m", backend.checkpoint],
        "status": "in_use" if backend.active else "ready",
        "loaded": True,
        "watchdog_reset": False,
        "pinned": backend.pinned,
        "recipe": "llamacpp",
        "recipe_options": backend.options | ({"pinned": True} if backend.pinned else {}),
        "is_busy": backend.active > 0,
        "is_streaming": backend.streaming > 0,
        "last_use": backend.last_use,
        "max_context_window": 32768,
    }
    entry |= script.entry
    return {key: value for key, value in entry.items() if key not in script.entry_without}


def model_body(router: Router, name: str) -> dict[str, Any]:
    """Return how lemond describes a model of its `extra_models_dir`."""
    checkpoint = router.checkpoint(name)
    return {
        "id": name,
        "object": "model",
        "created": 1234567890,
        "owned_by": "lemonade",
        "checkpoint": checkpoint,
        "checkpoints": {"main": checkpoint, **router.script.of(name).others},
        "recipe": "llamacpp",
        "downloaded": router.script.of(name).downloaded,
        "update_available": False,
        "suggested": True,
        "source": "extra_models_dir",
        "registry_source": "huggingface",
        "labels": ["custom", "chat"],
        "components": [],
        "recipe_options": {},
        "context_length": 4096,
        "max_context_window": 32768,
        "size": 0.001,
    }
