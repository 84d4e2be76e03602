"""Slots and models as REST would show them, made from what was declared; nothing is loaded."""

from pathlib import Path
from typing import Any

from hal0.api.views import model_json
from hal0.clock import utc_now
from hal0.declare.document import Document
from hal0.declare.setup import ModelSetup, SlotSetup
from hal0.declare.steps import There
from hal0.engines.options import complete
from hal0.registry.catalog import Model, RegisteredFile
from hal0.registry.names import final_paths
from hal0.registry.sources import Source

ENGINES = {"default": "embedded", "gpu": "lemonade", "router": "llamacpp"}


def model_shown(name: str, setup: ModelSetup, *, is_pulled: bool = False) -> dict[str, Any]:
    """Return a model's JSON; a pull has noted what nobody told."""
    given = setup.in_order
    names = [
        one.name or (Source.parse(one.source).file_name if one.source else "") for one in given
    ]
    files = tuple(
        RegisteredFile(one.role, path, one.source, one.size_bytes, one.sha256)
        for one, path in zip(given, final_paths(Path("/models"), name, names), strict=True)
    )
    if is_pulled:
        files = tuple(file.found(7, "ab" * 32) for file in files)
    return dict(model_json(Model(1, name, setup.format, setup.allow_copy, utc_now(), files), {}))


def slot_shown(name: str, setup: SlotSetup | None = None, **more: Any) -> dict[str, Any]:
    """Return of a slot's JSON what says how it is set up, and that it rests."""
    setup = setup or SlotSetup()
    given = setup.options.model_dump(mode="json", exclude_unset=True)
    facts = setup.model_dump(mode="json", exclude={"model", "options"})
    return {
        "name": name,
        **facts,
        "wanted_model": setup.model,
        "options": complete(ENGINES[setup.engine], given),
        "model": None,
        "state": "offline",
        "job_id": None,
        **more,
    }


def there(document: Document | None = None, *shown: dict[str, Any]) -> There:
    """Return what is there when a document was applied; `shown` are other slots, or these."""
    document = document or Document()
    slots = {name: slot_shown(name, setup) for name, setup in document.slots.items()}
    slots.update({one["name"]: one for one in shown})
    models = {name: model_shown(name, setup) for name, setup in document.models.items()}
    engines = {name: {"name": name, "kind": kind} for name, kind in ENGINES.items()}
    return There(slots, models, engines)
