"""What is said when a chain has ended: its result, by what it was for, or why there is none."""

from collections import Counter
from typing import Final

import click

from hal0 import advice
from hal0.cli.client import Json
from hal0.cli.times import in_local_time
from hal0.masks import escaped

HOW: Final = {
    "good": "checked, good",
    "linked": "linked: source and model are one file",
    "there": "there already",
}
"""How a file came, or was found, where the word of the API is not enough."""


def how_it_ended(chain: Json, slot: Json) -> str:
    """Return what a chain that succeeded brought about."""
    if chain["goal"] in ("pull", "validate"):
        told = f"{chain['model']}: {_of_files(chain['jobs'][0])}"
        return f"slot {slot['name']}: {told}{_still_in_error(slot)}"
    return how_it_is(slot)


def how_it_is(slot: Json) -> str:
    """Return the state of a slot with its model."""
    model = slot["model"] or slot["wanted_model"] or "no model"
    return f"slot {slot['name']}: {slot['state']} ({model})"


def _of_files(job: Json) -> str:
    """Return what a pull brought, or a validation found: `1 file linked: …`."""
    counted = Counter((job["files"] or {}).values())
    if set(counted) <= {"there"}:
        return "nothing to fetch"
    return ", ".join(
        f"{count} file{'' if count == 1 else 's'} {HOW.get(how, how)}"
        for how, count in counted.items()
    )


def _still_in_error(slot: Json) -> str:
    """Return what else there is to say of a slot that only a load, or an unload, gets out of it."""
    if slot["state"] != "error":
        return ""
    code = (slot["error"] or {}).get("code")
    return f"\nslot {slot['name']}: still in error ({code}); `hal0 slot load {slot['name']}`"


def show_why(chain: Json) -> None:
    """Write to stderr why a chain did not succeed."""
    failed = next((job for job in chain["jobs"] if job["state"] == "failed"), None)
    if failed is not None:
        show_failure(failed)
        return
    ended = next(job for job in chain["jobs"] if job["state"] == "cancelled")
    named = f"job {ended['id']} ({ended['kind']}) of slot {ended['slot']}"
    click.echo(f"hal0: {named} was {ended['outcome']}", err=True)


def show_failure(job: Json) -> None:
    """Write to stderr why a job failed."""
    error = job["error"] or {}
    click.echo(f"hal0: job {job['id']} ({job['kind']}) of slot {job['slot']} failed", err=True)
    told = f"  {error.get('code')}: {with_names(str(error.get('detail')), job)}"
    click.echo(in_local_time(escaped(told)), err=True)
    for name, value in (error.get("evidence") or {}).items():
        click.echo(in_local_time(escaped(f"    {name}: {value}")), err=True)


def with_names(text: str, job: Json) -> str:
    """Return an advice with the slot and the id of its job where its commands say `SLOT`, `ID`."""
    return advice.with_names(text, str(job["slot"]), job["id"])
