"""`hal0 job …`: see what is done, is under way or went wrong; retry and cancel."""

from typing import Any

import click

from hal0.cli import follow
from hal0.cli.client import Api, Json, path_of
from hal0.cli.exits import Exit
from hal0.cli.outcome import with_names
from hal0.cli.show import clock_of, emit, facts, json_option, table
from hal0.cli.waiting import WaitingCommand, wait_option

STATES = ("queued", "running", "succeeded", "failed", "cancelled")
KINDS = ("pull", "validate", "unload", "load")


@click.group()
def job() -> None:
    """Work on slots: see, retry, cancel."""


@job.command("list")
@click.option("--slot", metavar="NAME", help="Of this slot.")
@click.option("--state", type=click.Choice(STATES), help="In this state.")
@click.option("--kind", type=click.Choice(KINDS), help="Of this kind.")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="How many.")
@json_option
def list_jobs(limit: int, as_json: bool, **query: Any) -> None:
    """Show jobs, newest first."""
    jobs = list(Api.from_settings().items(path_of("jobs"), limit, **query))
    emit({"items": jobs}, as_json, lambda: table(*_columns(jobs)))


def _columns(jobs: list[Json]) -> tuple[list[str], list[list[object]]]:
    headers = ["id", "slot", "kind", "state", "outcome", "model", "created", "about"]
    rows = [
        [
            one["id"],
            one["slot"],
            one["kind"],
            one["state"],
            one["outcome"],
            one["model"],
            clock_of(one["created_at"]),
            _about(one),
        ]
        for one in jobs
    ]
    return headers, rows


def _about(job: Json) -> str | None:
    """Return what a queued job waits for, how far a running one is, why one failed."""
    if job["error"]:
        return str(job["error"]["code"])
    at = job["progress"]
    if job["state"] != "running" or at is None:
        return job["waiting_for"] and str(job["waiting_for"])
    done = f" {100 * at['done_bytes'] // at['total_bytes']} %" if at["total_bytes"] else ""
    return f"{at['phase']}{done}"


@job.command()
@click.argument("job_id", type=int)
@json_option
def show(job_id: int, as_json: bool) -> None:
    """Show one job with its attempts."""
    shown = Api.from_settings().get(path_of("jobs", job_id))
    if shown["error"] and not as_json:
        shown["error"]["detail"] = with_names(shown["error"]["detail"], shown)
    emit(shown, as_json, lambda: facts(shown))


@job.command(cls=WaitingCommand)
@click.argument("job_id", type=int, required=False)
@click.option("--all", "every", is_flag=True, help="Every slot whose newest chain failed.")
@click.option("--slot", metavar="NAME", help="With --all: of this slot.")
@click.option("--kind", type=click.Choice(KINDS), help="With --all: of this kind.")
@click.option("--code", metavar="CODE", help="With --all: failed with this code.")
@click.option("--dry-run", is_flag=True, help="With --all: only say what would be done.")
@wait_option
@json_option
def retry(
    job_id: int | None,
    every: bool,
    dry_run: bool,
    wait_s: float | None,
    as_json: bool,
    **narrowed: str | None,
) -> int:
    """Run a failed job again, and all of its chain that must follow."""
    api = Api.from_settings()
    if every == (job_id is not None):
        raise click.UsageError("name one job, or give --all")
    if job_id is None:
        if wait_s is not None:
            raise click.UsageError("--wait follows one job, not --all")
        chosen = {name: value for name, value in narrowed.items() if value is not None}
        return _retry_all(api, {"filter": chosen, "dry_run": dry_run}, as_json)
    if dry_run or any(narrowed.values()):
        raise click.UsageError("--slot, --kind, --code and --dry-run belong to --all")
    slot = api.get(path_of("jobs", job_id))["slot"]
    watch = follow.start(api, slot, wait_s, as_json)
    return follow.finish(watch, api.post(path_of("jobs", job_id, "retry")))


def _retry_all(api: Api, body: Json, as_json: bool) -> int:
    done = api.post(path_of("jobs", "retry"), body)
    refused = [item for item in done["items"] if item["refused"]]

    def show_table() -> None:
        if not done["items"]:
            click.echo("nothing to retry")
            return
        answer = "would be" if body["dry_run"] else "queued again"
        rows = [
            [
                item["slot"],
                item["job_id"],
                item["kind"],
                item["failed_with"],
                item["refused"]["detail"] if item["refused"] else answer,
            ]
            for item in done["items"]
        ]
        table(["slot", "job", "kind", "failed with", "retried"], rows)

    emit(done, as_json, show_table)
    return Exit.CONFLICT if refused else Exit.OK


@job.command()
@click.argument("job_id", type=int)
@json_option
def cancel(job_id: int, as_json: bool) -> None:
    """Cancel a job and the rest of its chain."""
    done = Api.from_settings().post(path_of("jobs", job_id, "cancel"))
    emit(done, as_json, lambda: click.echo(f"cancelled: {follow.named(done['jobs'])}"))
