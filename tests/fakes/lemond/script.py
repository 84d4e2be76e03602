"""What a test can tell the fake to do, as JSON: `--script FILE` or `POST /_script`.

    {"models": {"*": {"load_delay_s": 1}, "gb": {"load": "hang"}}, "health": "no_list"}

A posted script is merged into the one in force, model by model; null resets a model. "*" is for
every model that has no value of its own. A call that hangs looks again at the script all the time:
post another value and it goes on.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, PrivateAttr


class ModelScript(BaseModel):
    """How the fake behaves for one model."""

    model_config = ConfigDict(extra="forbid")

    type: str | None = None
    """Pool that it counts in (`llm`, `embedding`, …); None = `embedding` when its name says so."""
    load: Literal["ok", "hang", "dribble", "die", "refuse", "garbage", "pretend"] = "ok"
    """hang: never ends (until `global_timeout_s`); dribble: 200 and a space now and then, for ever;
    die: the process ends at once; refuse: 503 before anything is done; garbage: it is loaded, and
    the answer says nothing; pretend: the answer says success, and nothing is loaded."""
    load_delay_s: float = 0
    load_fail: str | None = None
    """Message of a failing load."""
    load_evicts: bool | None = None
    """Whether a failing load evicts all; None = as lemond decides, by the message."""
    load_times: int | None = None
    """After so many loads that were begun, `load` and `load_fail` are as if not set."""
    retry_works: bool = False
    """The second start, after everything was evicted, ignores `load` and `load_fail`."""
    unload: Literal["ok", "hang", "fail", "refuse", "die"] = "ok"
    """hang: the answer never comes, and nothing is held or dropped meanwhile."""
    unload_delay_s: float = 0
    """How long the backend takes to end; health waits as long."""
    chat: Literal["ok", "break", "error", "hang", "refuse"] = "ok"
    """break: the connection ends midway without [DONE]; error: lemond's error event midway."""
    chat_tokens: int = 4
    """Words of an answer, unless the request's `max_tokens` is less."""
    chat_token_delay_s: float = 0
    backend: Literal["ok", "refuse", "hang", "dead"] = "ok"
    """What the model's own server does when asked for its health; dead: nobody listens there."""
    in_health: bool = True
    """False: health leaves this model out."""
    ghost: bool = False
    """True: health lists this model though it is not loaded."""
    entry: dict[str, Any] = {}
    """Values in place of the real ones in the model's entry of health, as `{"is_busy": null}`."""
    entry_without: list[str] = []
    """Fields that the entry lacks, as `["last_use"]`."""
    checkpoint: str | None = None
    """Another file that `GET /v1/models/{id}` and health name."""
    others: dict[str, str] = {}
    """More files, by role, that `GET /v1/models/{id}` names, as `{"mmproj": "/m/mmproj.gguf"}`."""
    downloaded: bool | None = None
    """Whether the server takes its file for a downloaded model; None = when it is a GGUF."""


class Script(BaseModel):
    """How the fake behaves."""

    model_config = ConfigDict(extra="forbid")

    max_loaded_models: int = 1
    ctx_size: int = 4096
    """Context length of a load that names none."""
    global_timeout_s: float = 600
    evict_grace_s: float = 5
    """How long evict-all waits for each busy model; a wait that runs looks again."""
    auto_evict: bool = False
    auto_evict_tick_s: float = 5
    auto_evict_second_s: float = 1
    """Length of a second of `evict_idle_timeout` and `downsize_idle_timeout`."""
    live: Literal["ok", "refuse", "hang"] = "ok"
    health: Literal["ok", "no_list", "refuse", "hang", "dribble", "garbage"] = "ok"
    health_delay_s: float = 0
    describe: Literal["ok", "refuse"] = "ok"
    """Its answer to what it knows of one model."""
    watch_s: float = 0
    """How old the server's view of its models folder may be; 0 = it sees every change at once."""
    offline: bool = False
    hub: dict[str, dict[str, Literal["good", "truncated"]]] = {}
    """What can be pulled: repository -> file -> what it is like, as `{"owner/Tiny-GGUF":
    {"tiny-Q4_K_M.gguf": "good"}}`. Empty = the hub cannot be reached."""
    download_chunks: int = 8
    download_chunk_delay_s: float = 0
    models: dict[str, ModelScript] = {}

    _of: dict[str, ModelScript] = PrivateAttr(default_factory=dict)

    def of(self, model: str) -> ModelScript:
        """Return what is set for the model, then for "*", then the defaults."""
        if model not in self._of:
            own = self.models.get(model, ModelScript()).model_dump(exclude_unset=True)
            common = self.models.get("*", ModelScript()).model_dump(exclude_unset=True)
            self._of[model] = ModelScript(**(common | own))
        return self._of[model]

    def merged(self, changes: dict[str, Any]) -> "Script":
        """Return the script with the changes, model by model."""
        old = self.model_dump(exclude_unset=True)
        models = dict(old.get("models", {}))
        for name, change in changes.get("models", {}).items():
            models[name] = {} if change is None else models.get(name, {}) | change
        return Script(**(old | changes | {"models": models}))


class Told:
    """The script in force, which every part of the server looks up when it needs it."""

    def __init__(self, script: Script) -> None:
        self.script = script

    def merge(self, changes: dict[str, Any]) -> None:
        """Put a script with these changes in force."""
        self.script = self.script.merged(changes)

    def of(self, model: str) -> ModelScript:
        """Return what is in force for a model, by its public name."""
        return self.script.of(model)


async def until(is_so: Callable[[], object]) -> None:
    """Return when the condition holds; looks 50 times a second, for the script may change."""
    while not is_so():  # noqa: ASYNC110 - conditions read the script, which rings no bell
        await asyncio.sleep(0.02)
