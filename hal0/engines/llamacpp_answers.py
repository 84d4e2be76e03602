"""What the answers of llama.cpp's router mean.

There is no status "failed": a model that failed to load is `unloaded` with `failed: true`, and so
is one whose process was killed. What is not understood is unknown (None), which nobody may take for
"no".
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hal0.engines.base import LLM
from hal0.engines.http import int_of, text_of

RUNNING: Final = frozenset({"loading", "loaded", "sleeping"})
STATUSES: Final = RUNNING | {"unloaded", "downloading", "downloaded"}

MODEL: Final = ("--model", "-m")
OTHERS: Final = (
    *("--mmproj", "-mm", "--model-draft", "-md", "--spec-draft-model", "--model-vocoder", "-mv"),
    *("--lora", "--lora-scaled", "--control-vector", "--control-vector-scaled"),
)
FETCHED: Final = (
    *("--hf-repo", "-hf", "-hfr", "--hf-file", "-hff", "--model-url", "-mu", "--docker-repo"),
    *("-dr", "--mmproj-url", "-mmu", "--hf-repo-draft", "-hfd", "-hfrd"),
)
"""With one of these, llama.cpp may fetch something before it opens a file."""

COUNTERS: Final = (
    "llamacpp:prompt_tokens_total",
    "llamacpp:prompt_tokens_cached_total",
    "llamacpp:tokens_predicted_total",
    "llamacpp:n_decode_total",
)
WAITING: Final = ("llamacpp:requests_processing", "llamacpp:requests_deferred")


@dataclass(frozen=True, slots=True)
class Listed:
    """One model of the router's list, loaded or not; `args` start its process."""

    name: str
    aliases: tuple[str, ...]
    status: str
    exit_code: int | None
    args: tuple[str, ...]

    @property
    def is_loaded(self) -> bool:
        """Whether it has been loaded; it may sleep, and is woken by a request."""
        return self.status in ("loaded", "sleeping")

    @property
    def path(self) -> str | None:
        """The file that its process opens, as its arguments say it."""
        return next(iter(self.values(MODEL)), None)

    @property
    def checkpoint(self) -> str | None:
        """The same; None when only the router's own folder could tell which file it is."""
        return self.path if self.path is not None and Path(self.path).is_absolute() else None

    @property
    def others(self) -> tuple[str, ...]:
        """Files that its process opens besides."""
        return self.values(OTHERS)

    @property
    def is_on_disk(self) -> bool:
        """Whether its process only opens files that are there."""
        return self.path is not None and not any(flag in self.args for flag in FETCHED)

    @property
    def port(self) -> str:
        """Where its process listens: no two that it had in a row have the same."""
        return next(iter(self.values(("--port",))), "")

    def values(self, flags: Sequence[str]) -> tuple[str, ...]:
        """Return what follows each of these flags in the arguments."""
        pairs = zip(self.args, self.args[1:], strict=False)
        return tuple(value for flag, value in pairs if flag in flags)


def listed_of(body: Mapping[str, Any]) -> tuple[Listed, ...] | None:
    """Return the models of a `/models` body; None = no list, or one entry is nonsense."""
    data = body.get("data")
    if not isinstance(data, list):
        return None
    entries = [_listed(entry) for entry in data]
    known = tuple(entry for entry in entries if entry is not None)
    return known if len(known) == len(entries) else None


def _listed(entry: object) -> Listed | None:
    status = entry.get("status") if isinstance(entry, dict) else None
    if not isinstance(entry, dict) or not isinstance(status, dict):
        return None
    name, value = text_of(entry.get("id")), status.get("value")
    if name is None or value not in STATUSES:
        return None
    return Listed(
        name=name,
        aliases=_texts(entry.get("aliases")),
        status=value,
        exit_code=int_of(status.get("exit_code")),
        args=_texts(status.get("args")),
    )


def _texts(value: object) -> tuple[str, ...]:
    given = value if isinstance(value, list) else []
    return tuple(one for one in given if isinstance(one, str))


def find(listed: Iterable[Listed], name: str) -> Listed | None:
    """Return the model that the router means by this name: its own, else an alias."""
    aliased = None
    for one in listed:
        if one.name == name:
            return one
        if name in one.aliases:
            aliased = one
    return aliased


def limits_of(props: Mapping[str, Any]) -> dict[str, int]:
    """Return how many models fit at once (`--models-max`), whatever their type; 0 = no limit."""
    limit = int_of(props.get("max_instances"))
    return {LLM: limit} if limit is not None and limit > 0 else {}


def counters_of(text: str) -> dict[str, str]:
    """Return the samples of a Prometheus page that have no labels, by name."""
    pairs = (line.split() for line in text.splitlines() if not line.startswith("#"))
    return {pair[0]: pair[1] for pair in pairs if len(pair) == 2}


def last_use_of(port: str, counters: Mapping[str, str]) -> str | None:
    """Return what is another text after each use of this process; None = it does not count."""
    counts = [counters[name] for name in COUNTERS if name in counters]
    return "/".join([port, *counts]) if counts else None


def is_busy_by(counters: Mapping[str, str]) -> bool | None:
    """Return whether requests run or wait; None = the page does not say."""
    counts = [counters[name] for name in WAITING if name in counters]
    return any(count != "0" for count in counts) if counts else None


def is_busy_by_slots(body: object) -> bool | None:
    """Return whether a `/slots` body shows one that works; None = it is no such body."""
    if not isinstance(body, list) or not body:
        return None
    working = [one.get("is_processing") if isinstance(one, dict) else None for one in body]
    return any(working) if all(isinstance(one, bool) for one in working) else None
