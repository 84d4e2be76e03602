"""What a test can tell the fake to do, as JSON: `--script FILE` or `POST /_script`.

    {"models": {"*": {"load_delay_s": 1}, "gb": {"load": "hang"}}, "health": "no_list"}

A posted script is merged into the one in force, model by model; null resets a model. "*" is for
every model that has no value of its own. A call that hangs looks again at the script all the time:
post another value and it goes on.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict


class ModelScript(BaseModel):
    """How the fake behaves for one model."""

    model_config = ConfigDict(extra="forbid")

    load: Literal["ok", "hang", "dribble", "die", "refuse", "garbage"] = "ok"
    """hang: never ends (until `global_timeout_s`); dribble: 200 and a space now and then, for ever;
    die: the process ends at once; refuse: 503 before anything is done; garbage: it is loaded, and
    the answer says nothing."""
    load_delay_s: float = 0
    load_fail: str | None = None
    """Message of a failing load."""
    load_evicts: bool | None = None
    """Whether a failing load evicts all; None = as lemond decides, by the message."""
    load_times: int | None = None
    """After so many loads that were begun, `load` and `load_fail` are as if not set."""
    unload: Literal["ok", "hang", "fail", "refuse", "die"] = "ok"
    unload_delay_s: float = 0
    chat: Literal["ok", "break", "error", "hang", "refuse"] = "ok"
    """break: the connection ends midway without [DONE]; error: lemond's error event midway."""
    chat_tokens: int = 4
    chat_token_delay_s: float = 0
    backend: Literal["ok", "refuse", "hang"] = "ok"
    in_health: bool = True
    """False: health leaves this model out."""
    entry: dict[str, Any] = {}
    """Values in place of the real ones in the model's entry of health, as `{"is_busy": null}`."""
    entry_without: list[str] = []
    """Fields that the entry lacks, as `["last_use"]`."""
    checkpoint: str | None = None
    """Another file that `GET /v1/models/{id}` and health name."""
    others: dict[str, str] = {}
    """More files, by role, that `GET /v1/models/{id}` names, as `{"mmproj": "/m/mmproj.gguf"}`."""
    downloaded: bool = True


class Script(BaseModel):
    """How the fake behaves."""

    model_config = ConfigDict(extra="forbid")

    max_loaded_models: int = -1
    global_timeout_s: float = 600
    evict_grace_s: float = 5
    live: Literal["ok", "refuse", "hang"] = "ok"
    health: Literal["ok", "no_list", "refuse", "hang", "garbage"] = "ok"
    health_delay_s: float = 0
    models: dict[str, ModelScript] = {}

    def of(self, model: str) -> ModelScript:
        """Return what is set for the model, then for "*", then the defaults."""
        own = self.models.get(model, ModelScript()).model_dump(exclude_unset=True)
        common = self.models.get("*", ModelScript()).model_dump(exclude_unset=True)
        return ModelScript(**(common | own))

    def merged(self, changes: dict[str, Any]) -> "Script":
        """Return the script with the changes, model by model."""
        old = self.model_dump(exclude_unset=True)
        models = dict(old.get("models", {}))
        for name, change in changes.get("models", {}).items():
            models[name] = {} if change is None else models.get(name, {}) | change
        return Script(**(old | changes | {"models": models}))


async def until(is_so: Callable[[], object]) -> None:
    """Return when the condition holds; looks 50 times a second, for the script may change."""
    while not is_so():  # noqa: ASYNC110 - conditions read the script, which rings no bell
        await asyncio.sleep(0.02)
