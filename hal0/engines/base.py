"""What hal0 asks of an inference server, and what its answers mean.

Every call but `load` and `unload` has a timeout, and all raise only `hal0.errors.EngineError`s: a
refused connection is `EngineUnreachable`, silence `EngineTimeout`, an error answer `EngineRefused`,
nonsense or a connection that broke after the request was on its way `EngineBadAnswer`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeGuard

LLM: Final = "llm"
"""The type of a language model, as Lemonade calls it; what an engine does not type is one."""


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """One entry of the engine's list.

    `last_use` is opaque: compare it for change only. `busy` None = unknown = in use. `type` is
    what it counts as against the engine's limits; None = `LLM`. `checkpoint` is the absolute path
    of the file that the engine opened, as the engine says it.
    """

    name: str
    checkpoint: str | None = None
    backend_url: str | None = None
    pid: int | None = None
    last_use: str | None = None
    busy: bool | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    type: str | None = None
    is_asleep: bool = False
    """Nobody uses it, and the engine does not tell its last use: what was seen of that holds."""


@dataclass(frozen=True, slots=True)
class EngineHealth:
    """One reading of an engine.

    `models` None = the engine gave no list: unknown, not empty. `process` names the server's
    process opaquely ("pid-starttime"); None = unknown, and nothing may be concluded from it.
    `limits` are the engine's own, of loaded models by type; a type without one has no limit, or it
    is unknown. `version` is what the engine says of itself; None = nothing.
    """

    process: str | None
    models: tuple[LoadedModel, ...] | None
    limits: Mapping[str, int] = field(default_factory=dict)
    version: str | None = None

    @property
    def max_models(self) -> int | None:
        """How many language models fit at once; None = no limit or unknown."""
        return self.limits.get(LLM)

    def is_full_of(self, type_: str = LLM) -> bool:
        """Tell whether one more model of this type would make the engine drop one."""
        loaded = sum((model.type or LLM) == type_ for model in self.models or ())
        return type_ in self.limits and loaded >= self.limits[type_]

    def find(self, names: frozenset[str], checkpoint: str | None) -> LoadedModel | None:
        """Return the entry with this checkpoint, else the only one with one of these names."""
        loaded = self.models or ()
        if checkpoint is not None:
            for model in loaded:
                if model.checkpoint == checkpoint:
                    return model
        named = [model for model in loaded if model.name in names]
        return named[0] if len(named) == 1 else None


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """How an engine is set up, as far as it matters to hal0; None = it does not say."""

    auto_evict: bool | None
    """Whether it unloads by itself what was not used for a while."""
    load_limit_s: float | None
    """After so many seconds it gives a load up, with its own consequences."""


@dataclass(frozen=True, slots=True)
class EngineModel:
    """What an engine means by a model's name.

    `name` is what it wants to be called by (its public name), `checkpoint` the file it will open;
    `downloaded` False = a load would fetch something first.
    """

    name: str
    checkpoint: str | None
    downloaded: bool
    others: tuple[str, ...] = ()
    """Further files that it will open with it, as a projector."""
    type: str | None = None
    """As that of a `LoadedModel`."""


def checked_name(name: str) -> str:
    """Return the name, or raise ValueError: to unload "" means to Lemonade to unload everything."""
    if not is_name(name):
        raise ValueError(f"{name!r} names no model")
    return name


def is_name(value: object) -> TypeGuard[str]:
    """Tell whether a model can be called so; rows and JSON do not know an annotation."""
    return isinstance(value, str) and bool(value.strip()) and value.isprintable()


class Engine(Protocol):
    """One inference server. All methods are coroutines; an instance serves one event loop."""

    @property
    def unload_stops_load(self) -> bool:
        """Whether an unload ends a load that is under way; else it goes on to its own end."""
        ...

    async def is_live(self) -> bool:
        """Tell whether the process answers at all; a slow `health` is not a death."""
        ...

    async def health(self) -> EngineHealth:
        """Read process, loaded models, last use, busy."""
        ...

    async def config(self) -> EngineConfig | None:
        """Read how the engine is set up; None = it does not tell this caller, or anybody."""
        ...

    async def resolve(self, name: str) -> EngineModel | None:
        """Return what the engine means by `name`; None = it knows no such model."""
        ...

    async def load(
        self, name: str, options: Mapping[str, Any], on_sent: Callable[[], None]
    ) -> None:
        """Send one load and wait for its answer as long as the connection lives.

        `on_sent` is called once, when the whole request has been handed to the socket; what it
        raises reaches the caller. Has no deadline of its own: who calls it owns the clock
        (ADR-0007). Raises ValueError, before anything is sent, for a name or an option that no
        engine may be sent. EngineUnreachable = nothing was sent.
        """
        ...

    async def unload(self, name: str, on_sent: Callable[[], None]) -> bool:
        """Unload one model; False = it was not loaded. Raises ValueError for an empty name.

        Waits for the model's running requests as long as the engine does; no deadline of its own.
        """
        ...

    async def answers(self, model: LoadedModel) -> bool:
        """Probe the backend of a loaded model, without generating anything.

        False = it was asked and is not healthy. True when it could not be asked at all: the
        engine names no address, or one that only another machine can reach.
        """
        ...

    async def close(self) -> None:
        """Give up pooled connections."""
        ...
