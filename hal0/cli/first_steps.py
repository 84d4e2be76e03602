"""The steps of a first run but the choice of a model: machine, engine, slot, load, hello, token.

Each says what it found or did, notes that in `done`, and passes by what is so already.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

from hal0.cli import follow, output
from hal0.cli.client import ApiDown, Json, Refused, path_of
from hal0.cli.exits import Exit, Failure
from hal0.cli.show import size_of, table
from hal0.cli.walk import Walk

HELLO: Final = "Say hello."
MAX_TOKENS: Final = 24
LOADED: Final = frozenset({"ready", "serving", "idle"})


def look_around(walk: Walk) -> list[Json]:
    """Say what this machine has; return the engines that there are."""
    if not walk.api.get("/readyz")["workers"]:
        raise Failure("no worker runs, so nothing would be loaded: `hal0 worker`", Exit.DOWN)
    found = walk.api.post(path_of("probe"))
    walk.done["probe"] = found
    cpu, memory, disk = found["cpu"], found["memory"], found["disk"]
    flags = ", ".join(cpu["flags"]) or "none that llama.cpp has faster code for"
    walk.say(f"processor  {cpu['model'] or 'unknown'}, {cpu['threads'] or '?'} threads")
    walk.say(f"           {flags}")
    left, total = size_of(memory["available_bytes"]), size_of(memory["total_bytes"])
    walk.say(f"memory     {left} available of {total}")
    for kind, devices in (("GPU", found["gpus"]), ("NPU", found["npus"])):
        for device in devices:
            walk.say(f"{kind}        {_told(device)}")
    walk.say(f"disk       {size_of(disk['room_bytes'])} left for models at {disk['path']}")
    engines: list[Json] = found["engines"]
    return engines


def _told(device: Json) -> str:
    name = device["model"] or " ".join(filter(None, (device["vendor"], device["device"])))
    driver = f"driver {device['driver']}" if device["driver"] else "without a driver"
    memory = [
        f"{size_of(device[field])} {words}"
        for field, words in (("vram_bytes", "of its own"), ("gtt_bytes", "of main memory"))
        if device[field] is not None
    ]
    return ", ".join([name or "unknown", driver, *memory])


def choose_engine(walk: Walk, slot: Json | None, engines: list[Json]) -> str:
    """Return the name of the engine to use; one that is not registered yet is."""
    wanted = walk.wanted.engine
    if slot is not None:
        one = _of_slot(slot, wanted, engines)
    elif wanted is not None:
        one = _named(walk, wanted, engines)
    else:
        one = _picked(walk, engines)
    if not one["answers"]:
        raise Failure(_not_there(one), Exit.DOWN)
    name = one["name"] or _registered(walk, one, {engine["name"] for engine in engines})
    version = f" {one['version']}" if one["version"] else ""
    walk.say(f"\nengine {name}: {one['kind']}{version} at {one['url']}")
    walk.done["engine"] = name
    return str(name)


def _of_slot(slot: Json, wanted: str | None, engines: list[Json]) -> Json:
    """Return the engine of a slot that is there already."""
    one = next(engine for engine in engines if engine["name"] == slot["engine"])
    if wanted is not None and wanted.rstrip("/") not in (one["name"], one["url"]):
        raise Failure(
            f"slot {slot['name']} is there already, on engine {slot['engine']}: `hal0 slot set "
            f"{slot['name']} --engine NAME` changes that, --slot NAME makes another one",
            Exit.CONFLICT,
        )
    return one


def _picked(walk: Walk, engines: list[Json]) -> Json:
    """Return an engine that answers: the only one, or the one that somebody chooses."""
    answering = {str(one["name"] or one["url"]): one for one in engines if one["answers"]}
    if not answering:
        raise Failure(
            "no engine answers; `hal0 up` starts the one that comes along, --engine URL names one",
            Exit.DOWN,
            [f"  {_not_there(one)}" for one in engines],
        )
    if len(answering) > 1:
        headers = ["engine", "kind", "url", "version"]
        walk.say("")
        rows = [[name, one["kind"], one["url"], one["version"]] for name, one in answering.items()]
        table(headers, rows)
    return answering[walk.choose("engine", list(answering), next(iter(answering)))]


def _named(walk: Walk, wanted: str, engines: list[Json]) -> Json:
    for one in engines:
        if wanted.rstrip("/") in (one["name"], one["url"]):
            return one
    if "://" not in wanted:
        names = ", ".join(str(one["name"]) for one in engines if one["name"])
        raise Failure(f"there is no engine {wanted!r}; there are {names}", Exit.NOT_FOUND)
    kind = walk.wanted.kind or walk.choose("kind", ["lemonade", "llamacpp"], "lemonade")
    return {"name": None, "kind": kind, "url": wanted, "answers": True, "version": None}


def _not_there(one: Json) -> str:
    return f"engine {one['name'] or one['kind']} at {one['url']}: {one['problem']}"


def _registered(walk: Walk, one: Json, taken: set[str]) -> str:
    names = (one["kind"], *(f"{one['kind']}-{number}" for number in range(2, len(taken) + 3)))
    name = next(name for name in names if name not in taken)
    body = {"name": name, "kind": one["kind"], "url": one["url"]}
    return str(walk.api.post(path_of("engines"), body)["name"])


def make_slot(walk: Walk, engine: str, model: str) -> Json:
    """Create the slot."""
    name = walk.wanted.slot
    made = walk.api.post(path_of("slots"), {"name": name, "engine": engine, "model": model})
    walk.say(f"slot {name}: created, for model {model} on engine {engine}")
    return made


def load(walk: Walk, slot: Json, model: str) -> int:
    """Have the slot's model loaded, and show how it goes; return how it ended."""
    name = slot["name"]
    if slot["state"] in LOADED and slot["model"] == model:
        walk.say(f"slot {name}: has model {model} already")
    else:
        watch = follow.start(walk.api, name, math.inf, as_json=False)
        code = follow.finish(watch, walk.api.post(path_of("slots", name, "load"), {"model": model}))
        if code == Exit.FAILED:
            raise Failure(
                f"slot {name} has no model yet; mend what the job above says, then the same "
                "`hal0 setup` goes on from here"
            )
        if code != Exit.OK:
            return code
    walk.done["slot"] = walk.api.get(path_of("slots", name))
    return Exit.OK


def say_hello(walk: Walk) -> None:
    """Let the model say something."""
    slot = walk.wanted.slot
    message = {"role": "user", "content": HELLO}
    body = {"model": slot, "messages": [message], "max_tokens": MAX_TOKENS, "temperature": 0}
    try:
        answer = walk.api.post("/v1/chat/completions", body)
        text = " ".join(str(answer["choices"][0]["message"]["content"]).split())
    except Refused as exc:
        told = f"slot {slot} is loaded, and does not answer a chat: {exc.text}"
        raise Failure(told, exc.exit, [*exc.more, f"  `hal0 slot show {slot}` tells more"]) from exc
    except (ApiDown, LookupError, TypeError) as exc:
        told = f"slot {slot} is loaded, and what its engine says to a chat is no answer"
        raise Failure(
            told, Exit.FAILED, ["  is its model one for chats? the engine's log has more"]
        ) from exc
    walk.say(f"\nQ: {HELLO}\nA: {text}")
    walk.done["answer"] = text


def offer_token(walk: Walk) -> None:
    """Make a token if somebody wants one; the first one closes the home to all without."""
    name = walk.wanted.token
    if name is None and (walk.wanted.no_token or walk.api.token is not None):
        return
    if name is None:
        question = (
            "\nEverybody on this machine may use this hal0 until there is a token. Make one, so "
            "that only those with a token may?"
        )
        if not (walk.can_ask and walk.agree(question, default=False)):
            return
        name = walk.name_of("token", "admin")
    made = walk.api.post(path_of("tokens"), {"name": name, "role": "writer"})
    walk.done["token"] = made
    if walk.as_json:
        return  # whoever prints `done` shows it, and once is enough
    with token_is_read(walk):
        walk.say(
            f"\ntoken {name}, writer; it is not shown again:\n{made['token']}\nFrom now on every "
            "request needs a token. Put it into a file that only you can read, and name that:\n"
            "  export HAL0_TOKEN_FILE=~/.hal0-token"
        )


@contextmanager
def token_is_read(walk: Walk) -> Iterator[None]:
    """Take a token of this walk back when its text, printed in here, reaches nobody."""
    try:
        yield
    except OSError:
        if output.has_failed() and "token" in walk.done:
            made = walk.done["token"]
            api = replace(walk.api, token=walk.api.token or made["token"])
            api.ask("DELETE", path_of("tokens", made["name"]))
        raise
