"""How a first run chooses a model: what is offered, what it weighs, whether it fits."""

import contextlib
from typing import Final

from hal0.cli.client import Json, Refused, path_of
from hal0.cli.exits import Exit, Failure
from hal0.cli.show import size_of, table
from hal0.cli.walk import Walk

HEADERS: Final = ("model", "parameters", "size", "memory", "fits", "licence", "good for")


def choose_model(walk: Walk, slot: Json | None) -> str:
    """Return the name of the model to load; one that is not registered yet is."""
    name = _of_slot(walk, slot) or _chosen(walk)
    walk.done["model"] = name
    return name


def _of_slot(walk: Walk, slot: Json | None) -> str | None:
    """Return the model of a slot that is there already."""
    wanted = walk.wanted.model
    has = None if slot is None else slot["wanted_model"]
    if slot is None or has is None:
        return None
    if wanted not in (None, has):
        if _is_registered(walk, wanted, _offered(walk)):
            _say_registered(walk, wanted)
        else:
            with contextlib.suppress(_Away):
                _weigh(walk, wanted)
        raise Failure(
            f"slot {slot['name']} is there already, for model {has}: `hal0 slot load "
            f"{slot['name']} --model {wanted}` changes that, --slot NAME makes another one",
            Exit.CONFLICT,
        )
    walk.say(f"slot {slot['name']}: there already, for model {has} on engine {slot['engine']}")
    return str(has)


def _chosen(walk: Walk) -> str:
    offers = _offered(walk)
    name = _picked(walk, offers) if walk.wanted.model is None else walk.wanted.model
    while True:
        if _is_registered(walk, name, offers):
            _say_registered(walk, name)
            return name
        try:
            return _register(walk, name)
        except _Away as away:
            offers = {other: offer for other, offer in offers.items() if other != name}
            if not (walk.can_ask and offers):
                more = f"--model names another one ({', '.join(offers)})"
                raise Failure(f"{away.text}; {more}") from away
            walk.say(away.text)
            name = _picked(walk, offers)


def _offered(walk: Walk) -> dict[str, Json]:
    return {offer["name"]: offer for offer in walk.api.get(path_of("starters"))["items"]}


def _is_registered(walk: Walk, name: str, offers: dict[str, Json]) -> bool:
    """Whether a model is; raises Failure for one that is not even offered."""
    offer = offers.get(name)
    if offer["registered"] if offer else walk.there("models", name):
        return True
    if offer is None:
        raise Failure(
            f"there is no model {name!r}, nor is it offered; there are {', '.join(offers)}, and "
            "`hal0 model add` registers any other",
            Exit.NOT_FOUND,
        )
    return False


def _say_registered(walk: Walk, name: str) -> None:
    """Say that a model is there, and what memory it takes if all its sizes are known."""
    needed_bytes = walk.api.get(path_of("models", name))["memory_bytes"]
    told = ""
    if needed_bytes is not None:
        available_bytes = walk.done["probe"]["memory"]["available_bytes"]
        need = {"needed_bytes": needed_bytes, "available_bytes": available_bytes}
        told = f"; memory {_of(need)} (estimated)"
    walk.say(f"model {name}: registered already{told}")


def _picked(walk: Walk, offers: dict[str, Json]) -> str:
    """Show what is offered and return what somebody, or the default, takes."""
    walk.say("")
    table(HEADERS, [[*_cells(offer)] for offer in offers.values()])
    can_be_had = [name for name, offer in offers.items() if offer["problem"] is None]
    default = next((name for name in can_be_had if offers[name]["default"]), None)
    if default is None and (walk.wanted.yes or not can_be_had):
        raise Failure(
            "none of these is known to fit this machine: name one with --model to have a closer "
            "look, or register another with `hal0 model add`"
        )
    return walk.choose("model", can_be_had, default or can_be_had[0])


def _cells(offer: Json) -> list[str]:
    fit = offer["fit"]
    memory = None if fit is None else fit["memory"]["needed_bytes"]
    fits = "not known yet" if fit is None else "yes" if fit["fits"] else fit["why"]
    return [
        *(offer["name"], offer["parameters"], size_of(offer["size_bytes"]), size_of(memory)),
        *(offer["problem"] or fits, offer["licence"], offer["about"]),
    ]


def _register(walk: Walk, name: str) -> str:
    """Show what a model weighs, and register it if it is wanted; raises _Away."""
    model, fit = _weigh(walk, name)
    if not fit["fits"] and not walk.can_ask:
        raise Failure(f"model {name} does not fit: {fit['why']}; --model names another one")
    question = f"Take {name}?" if fit["fits"] else f"It does not fit: {fit['why']}. Take it anyway?"
    if not walk.agree(question, default=fit["fits"]):
        raise Failure("nothing was registered; --model names another one")
    made = walk.api.post(path_of("models"), model)
    walk.say(f"model {made['name']}: registered")
    return str(made["name"])


class _Away(Failure):
    """Where a model comes from cannot tell what it weighs."""


def _weigh(walk: Walk, name: str) -> tuple[Json, Json]:
    """Say what a model weighs; return what would be registered, and whether it fits.

    Raises _Away.
    """
    try:
        look = walk.api.post(path_of("starters", name, "look"))
    except Refused as exc:
        if not str(exc.problem.get("code")).startswith("pull."):
            raise
        raise _Away(f"model {name} cannot be looked at now: {exc.text}") from exc
    model, fit = look["model"], look["fit"]
    how = "measured" if fit["measured"] else "estimated"
    walk.say(
        f"\nmodel {name}, {look['licence']}\n"
        f"  source  {model['source']}\n"
        f"  size    {size_of(model['size_bytes'])}\n"
        f"  sha256  {model['sha256'] or 'not told; what comes is noted'}\n"
        f"  disk    {_of(fit['disk'])}\n"
        f"  memory  {_of(fit['memory'])} ({how})"
    )
    return model, fit


def _of(need: Json) -> str:
    return f"{size_of(need['needed_bytes'])} needed, {size_of(need['available_bytes'])} available"
