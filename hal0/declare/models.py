"""How a declared model compares with a registered one, by what people may see of either.

REST shows no query of a URL, so two sources that differ in it alone are the same here. What a pull
found out (a size, a digest, the commit of a branch) is no difference to a file that leaves it open.
"""

from pathlib import Path, PurePath
from typing import Any, Final

from hal0.declare.setup import FileBody, ModelSetup
from hal0.declare.steps import Act, Change, Facts, Json, Noun, Step, changes_of
from hal0.errors import InvalidRequest
from hal0.registry.names import final_paths
from hal0.registry.sources import Source, shown_source

OPEN: Final = ("size_bytes", "sha256")
"""What a file may leave to a pull, or to nobody."""

PLAIN: Final[Facts] = {"format": "gguf", "allow_copy": False}


def places_of(name: str, setup: ModelSetup) -> list[str]:
    """Return what each file is called in the models folder. Raises InvalidRequest."""
    files = setup.in_order
    names = [
        file.name or (Source.parse(file.source).file_name if file.source else "") for file in files
    ]
    return [path.name for path in final_paths(Path("/"), name, names)]


def creation_of(name: str, setup: ModelSetup) -> Step:
    """Return the step that registers a model."""
    facts = {
        field: value
        for field, value in _declared(name, setup).items()
        if not field.endswith("name") and value != "main"
    }
    body = {"name": name, **setup.model_dump(mode="json", exclude_unset=True)}
    return Step(Act.CREATE, Noun.MODEL, name, changes_of(PLAIN, facts), body)


def differences(name: str, setup: ModelSetup, shown: Json) -> tuple[Change, ...]:
    """Return in what a registered model is another one than the declared."""
    ours, theirs = len(setup.in_order), len(shown["files"])
    if ours != theirs:
        return (Change("files", theirs, ours),)
    declared, registered = _declared(name, setup), _registered(shown)
    left_open = {
        field: registered[field]
        for field in registered
        if field.endswith(OPEN) and declared[field] is None
    }
    pinned = {
        field: registered[field]
        for field, source in declared.items()
        if field.endswith("source") and is_same_source(source, registered[field])
    }
    return changes_of(registered, {**declared, **left_open, **pinned})


def is_same_source(declared: str | None, registered: str | None) -> bool:
    """Tell whether a source is, as far as one can see, the one that was declared.

    A pull writes the commit that it found in the place of a branch, or of nothing.
    """
    if declared is None or registered is None:
        return declared == registered
    if shown_source(declared) == shown_source(registered):
        return True
    try:
        ours, theirs = Source.parse(declared).hub, Source.parse(registered).hub
    except InvalidRequest:
        return False
    if ours is None or theirs is None or ours.is_pinned or not theirs.is_pinned:
        return False
    return (ours.repo, ours.path) == (theirs.repo, theirs.path)


def _declared(name: str, setup: ModelSetup) -> dict[str, Any]:
    files = [
        _of_file(file, place)
        for file, place in zip(setup.in_order, places_of(name, setup), strict=True)
    ]
    return _facts(setup.format, setup.allow_copy, files)


def _of_file(file: FileBody, place: str) -> dict[str, Any]:
    source = None if file.source is None else shown_source(file.source)
    told = {field: getattr(file, field) for field in OPEN}
    return {"role": file.role, "source": source, "name": place, **told}


def _registered(shown: Json) -> dict[str, Any]:
    files = [
        {
            "role": file["role"],
            "source": file["source"],
            "name": PurePath(file["path"]).name,
            **{field: file[field] for field in OPEN},
        }
        for file in shown["files"]
    ]
    return _facts(shown["format"], shown["allow_copy"], files)


def _facts(file_format: str, allow_copy: bool, files: list[dict[str, Any]]) -> dict[str, Any]:
    """Return all facts by field; those of several files as `files.0.source`."""
    facts: dict[str, Any] = {"format": file_format, "allow_copy": allow_copy}
    for position, file in enumerate(files):
        head = f"files.{position}." if len(files) > 1 else ""
        facts.update({f"{head}{field}": value for field, value in file.items()})
    return facts
