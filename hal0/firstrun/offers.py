"""What is known of a starter, and what would have to be registered to have it.

What a hub says (commit, size, sha256) is asked for when somebody looks at one, and never before.
"""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field
from typing_extensions import TypedDict

from hal0.errors import SizeMismatch, SourceNotFound
from hal0.firstrun.fit import Fit, Need, estimated_memory, fit
from hal0.firstrun.probe import disk_of, memory_at
from hal0.firstrun.starters import Starter, packaged_model, starter_named
from hal0.registry import hub
from hal0.registry.reach import ensure_allowed
from hal0.registry.sources import Source
from hal0.settings import Settings


class Offer(TypedDict, closed=True):
    """A starter, without asking anybody."""

    name: str
    about: str
    parameters: str
    licence: str
    source: Annotated[str, Field(description="where it comes from, for people")]
    size_bytes: Annotated[int | None, Field(description="null = its hub is to be asked")]
    sha256: str | None
    fit: Annotated[Fit | None, Field(description="null = its size is not known yet")]
    problem: Annotated[str | None, Field(description="why it cannot be had")]
    default: Annotated[bool, Field(description="the first one that is known to fit")]
    registered: Annotated[bool, Field(description="there is a model of this name")]


class ToRegister(TypedDict, closed=True):
    """What `POST /api/v1/models` is to be sent."""

    name: str
    source: str
    size_bytes: int | None
    sha256: str | None
    allow_copy: bool


class Look(TypedDict, closed=True):
    """A starter at which somebody looked."""

    name: str
    about: str
    parameters: str
    licence: str
    commit: Annotated[str | None, Field(description="of its hub; null = it comes from a package")]
    model: Annotated[ToRegister, Field(description="send this to `POST /api/v1/models`")]
    fit: Fit


def offers(
    settings: Settings,
    starters: Sequence[Starter],
    registered: Collection[str],
    root: Path = Path("/"),
) -> list[Offer]:
    """Return what is known of starters, in their order, asking nobody; reads files."""
    found = [_offer(settings, starter, registered, root) for starter in starters]
    for offer in found:
        if offer["problem"] is None and offer["fit"] is not None and offer["fit"]["fits"]:
            offer["default"] = True
            break
    return found


def look_at(settings: Settings, name: str, root: Path = Path("/")) -> Look:
    """Return what a starter needs, and what is to be registered. Reads files, or asks the hub.

    Raises StarterNotFound, SettingsError; HostNotAllowed and what `hub.resolve` raises of a hub's;
    SourceNotFound and SizeMismatch of a package's.
    """
    starter = starter_named(settings, name)
    commit, model = _of_package(starter) if starter.source is None else _of_hub(settings, starter)
    return {
        "name": starter.name,
        "about": starter.about,
        "parameters": starter.parameters,
        "licence": starter.licence,
        "commit": commit,
        "model": model,
        "fit": _fit(settings, starter, model["size_bytes"], root),
    }


def _offer(settings: Settings, starter: Starter, registered: Collection[str], root: Path) -> Offer:
    problem = None
    if starter.package is not None:
        try:
            _file_of(starter)
        except (SourceNotFound, SizeMismatch) as exc:
            problem = exc.detail
    is_known = starter.size_bytes is not None
    return {
        "name": starter.name,
        "about": starter.about,
        "parameters": starter.parameters,
        "licence": starter.licence,
        "source": starter.shown_source,
        "size_bytes": starter.size_bytes,
        "sha256": starter.sha256,
        "fit": _fit(settings, starter, starter.size_bytes, root) if is_known else None,
        "problem": problem,
        "default": False,
        "registered": starter.name in registered,
    }


def _fit(settings: Settings, starter: Starter, size_bytes: int | None, root: Path) -> Fit:
    room_bytes = disk_of(settings.models, settings.disk_reserve_bytes)["room_bytes"]
    is_linked = starter.package is not None and _is_beside(settings.models, starter.package)
    disk: Need = {"needed_bytes": 0 if is_linked else size_bytes, "available_bytes": room_bytes}
    memory: Need = {
        "needed_bytes": starter.memory_bytes or estimated_memory(size_bytes),
        "available_bytes": memory_at(root)["available_bytes"],
    }
    return fit(disk, memory, measured=starter.memory_bytes is not None)


def _is_beside(models: Path, package: str) -> bool:
    """Tell whether a package's file is on the disk of the models folder, so can be linked."""
    try:
        return packaged_model(package).stat().st_dev == models.stat().st_dev
    except (OSError, SourceNotFound):
        return False


def _file_of(starter: Starter) -> Path:
    """Return the file of a package. Raises SourceNotFound, SizeMismatch."""
    path = packaged_model(str(starter.package))
    found_bytes = path.stat().st_size
    if found_bytes != starter.size_bytes:
        raise SizeMismatch(
            f"{path} has {found_bytes} bytes, starter {starter.name} says {starter.size_bytes}: "
            "another version of its package is installed",
            evidence={"path": str(path), "expected": starter.size_bytes, "found": found_bytes},
        )
    return path


def _of_package(starter: Starter) -> tuple[None, ToRegister]:
    return None, {
        "name": starter.name,
        "source": str(_file_of(starter)),
        "size_bytes": starter.size_bytes,
        "sha256": starter.sha256,
        "allow_copy": True,  # where it is copied, the room for it is in `fit`
    }


def _of_hub(settings: Settings, starter: Starter) -> tuple[str, ToRegister]:
    source = Source.parse(str(starter.source))
    assert source.hub is not None
    ensure_allowed(settings, source)
    found = hub.resolve(source.hub, endpoint=settings.hub_endpoint, token=hub.token_of(settings))
    return found.commit, {
        "name": starter.name,
        "source": source.hub.pinned(found.commit),
        "size_bytes": found.size_bytes,
        "sha256": found.sha256,
        "allow_copy": False,
    }
