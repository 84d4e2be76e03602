"""What Tab offers behind a command: names and ids that the API knows now; nothing when it is away.

Whoever presses Tab waits for the answer, so the API is given little time, and says nothing about
why there is none: a line of an error would stand in the middle of the command that is typed.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Final

import click
from click.shell_completion import CompletionItem

from hal0.cli.client import Api, Json, path_of
from hal0.cli.exits import Failure
from hal0.errors import Hal0Error
from hal0.states import Cause

PATIENCE_S: Final = 1.0
MOST: Final = 100

Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def _offer(listed: str, key: str, about: Callable[[Json], str], **which: object) -> Complete:
    def complete(
        ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        try:
            api = replace(Api.from_settings(), patience_s=PATIENCE_S)
            found = list(api.items(path_of(listed), MOST, **which))
        except (Failure, Hal0Error):
            return []
        texts = [(str(one[key]), about(one)) for one in found]
        return [
            CompletionItem(text, help=said) for text, said in texts if text.startswith(incomplete)
        ]

    return complete


def _job(job: Json) -> str:
    return f"{job['kind']} of {job['slot']}: {job['state']}"


slots: Final = _offer("slots", "name", lambda slot: str(slot["state"]))
models: Final = _offer("models", "name", lambda model: f"{len(model['files'])} files")
engines: Final = _offer("engines", "name", lambda engine: str(engine["url"]))
tokens: Final = _offer("tokens", "name", lambda token: f"{token['role']}, {token['state']}")
jobs: Final = _offer("jobs", "id", _job)
failed_jobs: Final = _offer("jobs", "id", _job, state="failed")
incidents: Final = _offer("incidents", "id", lambda one: f"{one['kind']} at {one['engine']}")


def causes(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer the causes that the audit has; no API is asked."""
    return [CompletionItem(cause) for cause in Cause if cause.startswith(incomplete)]


def open_jobs(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer the jobs that can be cancelled."""
    return [
        *_offer("jobs", "id", _job, state="running")(ctx, param, incomplete),
        *_offer("jobs", "id", _job, state="queued")(ctx, param, incomplete),
    ]
