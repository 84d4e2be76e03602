"""The bodies of the fake's answers, with the fields that were captured from lemond 11.7."""

from collections import Counter
from typing import Any

from starlette.responses import JSONResponse, Response

from tests.fakes.lemond import options
from tests.fakes.lemond.backend import Backend, LoadError
from tests.fakes.lemond.catalog import BUILT_IN, Catalog, Definition
from tests.fakes.lemond.router import Router

VERSION = "11.7.0"
TYPES = ("classification", "embedding", "image", "llm", "reranking", "transcription", "tts")
STATUS = {"slots_pinned_error": 409, "model_not_found": 404}
WINDOW = 32768


def error_b(message: str, code: str, model: str) -> Response:
    """Return lemond's error object of loads and model look-ups."""
    error = {"message": message, "type": code, "code": code}
    error |= {"param": "model", "requested_model": model}
    return JSONResponse({"error": error}, STATUS.get(code, 500))


def error_a(message: str, status: int) -> Response:
    """Return lemond's plain error."""
    return JSONResponse({"error": message}, status)


def not_found_text(catalog: Catalog, name: str) -> str:
    """Return what is said of a name that no model has."""
    names = list(catalog.all())
    first = ", ".join(f"'{known}'" for known in names[:3])
    return (
        f"Model '{name}' was not found. Available models include: {first}, and "
        f"{len(names) - 3} more. Use 'lemonade list' or GET /api/v1/models?show_all=true to see "
        "all available models."
    )


def not_found(catalog: Catalog, name: str) -> Response:
    """Return the answer for a name that no model has."""
    return error_b(not_found_text(catalog, name), "model_not_found", name)


def load_failed(name: str, exc: LoadError) -> Response:
    """Return the answer of a failed load."""
    message = str(exc) if exc.code in STATUS else f"Failed to load model '{name}': {exc}"
    return error_b(message, exc.code, name)


def health_body(router: Router, url: str) -> dict[str, Any]:
    """Return what health says; models stand in the order in which they were loaded."""
    listed = [each for each in router.loaded.values() if router.told.of(each.name).in_health]
    pinned = Counter(each.type for each in router.loaded.values() if each.pinned)
    recent = router.most_recent()
    return {
        "status": "ok",
        "version": VERSION,
        "telemetry": {"enabled": False},
        "model_loaded": recent.name if recent else None,
        "all_models_loaded": [_entry(router, each, url) for each in (*listed, *_ghosts(router))],
        "max_models": dict.fromkeys(TYPES, router.told.script.max_loaded_models),
        "pinned_models": {kind: pinned[kind] for kind in TYPES},
        "pinned_helper_models": dict.fromkeys(TYPES, 0),
        "update_check_done": True,
        "websocket_port": 9000,
    }


def _ghosts(router: Router) -> list[Backend]:
    script = router.told.script
    named = [name for name in script.models if name not in router.loaded and script.of(name).ghost]
    wanted = options.defaults(script.ctx_size)
    return [
        Backend(
            name,
            router.catalog.type(definition),
            router.catalog.checkpoint(definition),
            wanted,
            pid=1 << 22,
            last_use=0,
        )
        for name in named
        if (definition := router.catalog.find(name)) is not None
    ]


def _entry(router: Router, backend: Backend, url: str) -> dict[str, Any]:
    script = router.told.of(backend.name)
    # port 1 is nobody's
    server = "http://127.0.0.1:1" if script.backend == "dead" else f"{url}/_backend/{backend.name}"
    entry = {
        "model_name": backend.name,
        "checkpoint": script.checkpoint or backend.checkpoint,
        "type": backend.type,
        "residency_class": "standard",
        "slot_pool": f"standard/{backend.type}",
        "device": "cpu",
        "backend_url": f"{server}/v1",
        "backend_alive": True,
        "backend_health": "busy" if backend.active else "ready",
        "pid": backend.pid,
        "launch_command": ["llama-server", "-m", backend.checkpoint],
        "status": backend.status,
        "loaded": True,
        "watchdog_reset": False,
        "pinned": backend.pinned,
        "recipe": "llamacpp",
        "recipe_options": options.shown(backend.options)
        | ({"pinned": True} if backend.pinned else {}),
        "is_busy": backend.active > 0,
        "is_streaming": backend.streaming > 0,
        "last_use": backend.last_use,
        "max_context_window": WINDOW,
    }
    entry |= script.entry
    return {key: value for key, value in entry.items() if key not in script.entry_without}


def model_body(
    catalog: Catalog, name: str, definition: Definition, ctx_size: int
) -> dict[str, Any]:
    """Return how lemond describes a model; size and window only when it can read them."""
    checkpoint = catalog.checkpoint(definition)
    is_downloaded = catalog.is_downloaded(definition)
    body = {
        "id": name,
        "object": "model",
        "created": 1234567890,
        "owned_by": "lemonade",
        "checkpoint": checkpoint,
        "checkpoints": {"main": checkpoint, **catalog.others(definition)},
        "recipe": "llamacpp",
        "downloaded": is_downloaded,
        "update_available": False,
        "suggested": True,
        "source": definition.source,
        "registry_source": "huggingface",
        "labels": definition.labels,
        "components": [],
        "recipe_options": catalog.saved.get(name, {}),
        "context_length": ctx_size,
    }
    size_gb = BUILT_IN.get(name, 0.0)
    if is_downloaded and catalog.path(definition).is_file():
        size_gb = round(catalog.path(definition).stat().st_size / (1 << 30), 3)
        if catalog.starts(definition):
            body["max_context_window"] = WINDOW
    return body | ({"size": size_gb} if size_gb else {})
