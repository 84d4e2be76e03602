"""`hal0 job …`: see what is done, is under way or went wrong; retry and cancel, one or many."""

from typing import Any, Final

import click

from hal0.cli import follow, known
from hal0.cli.client import Api, Json, path_of
from hal0.cli.exits import Exit
from hal0.cli.job_story import story
from hal0.cli.show import emit, emit_list, facts, json_option, list_options, table
from hal0.cli.times import clock_of, in_local_time
from hal0.cli.waiting import WaitingCommand, wait_option
from hal0.masks import escaped

STATES = ("queued", "running", "succeeded", "failed", "cancelled")
KINDS = ("pull", "validate", "unload", "load")
IN_STORY: Final = frozenset(
    {"id", "slot", "model", "kind", "state", "outcome", "actor", "caused_by", "created_at"}
    | {"error", "attempts", "chain_id", "incident_id"}
)
"""Fields that the lines above the others tell."""


@click.group()
def job() -> None:
    """Work on slots: see, retry, cancel."""


@job.command("list")
@click.option("--filter", metavar="TERMS", help="As on the page: 'slot:chat since:2h'.")
@click.option("--slot", metavar="NAME", shell_complete=known.slots, help="Of this slot.")
@click.option("--state", type=click.Choice(STATES), help="In this state.")
@click.option("--kind", type=click.Choice(KINDS), help="Of this kind.")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="How many.")
@list_options
def list_jobs(limit: int, as_json: bool, is_quiet: bool, **query: Any) -> None:
    """Show jobs, newest first.

    \b
    hal0 job list --filter 'state:failed since:12h'
    """
    jobs = list(Api.from_settings().items(path_of("jobs"), limit, **query))
    emit_list(jobs, "id", lambda: table(*_columns(jobs)), as_json=as_json, is_quiet=is_quiet)


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


@job.command(short_help="Show one job: its attempts, its errors, how long it took.")
@click.argument("job_id", type=int, shell_complete=known.jobs)
@json_option
def show(job_id: int, as_json: bool) -> None:
    """Show one job: its attempts with their errors, and how long each step of its chain took."""
    api = Api.from_settings()
    shown = api.get(path_of("jobs", job_id))

    def tell() -> None:
        for line in story(shown, api.get(path_of("chains", shown["chain_id"]))):
            click.echo(in_local_time(escaped(line)))
        click.echo()
        facts({name: value for name, value in shown.items() if name not in IN_STORY})

    emit(shown, as_json, tell)


@job.command(cls=WaitingCommand, short_help="Run a failed job again, or all that failed.")
@click.argument("job_id", type=int, required=False, shell_complete=known.failed_jobs)
@click.option("--all", "every", is_flag=True, help="Every slot whose newest chain failed.")
@click.option("--filter", "text", metavar="TERMS", help="With --all: 'slot:chat since:2h'.")
@click.option("--slot", metavar="NAME", shell_complete=known.slots, help="With --all: of it.")
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
    """Run a failed job again, and all of its chain that must follow.

    --wait follows one job; what --all queued again is to be seen in `hal0 top`.

    \b
    hal0 job retry 12 --wait
    hal0 job retry --all --filter since:12h --dry-run      what failed tonight
    """
    api = Api.from_settings()
    chosen = _chosen(job_id, every, dry_run, narrowed)
    if job_id is None:
        if wait_s is not None:
            raise click.UsageError("--wait follows one job; `hal0 top` shows those of --all")
        return _retry_all(api, {"filter": chosen, "dry_run": dry_run}, as_json)
    slot = api.get(path_of("jobs", job_id))["slot"]
    watch = follow.start(api, slot, wait_s, as_json)
    return follow.finish(watch, api.post(path_of("jobs", job_id, "retry")))


def _chosen(
    job_id: int | None, every: bool, dry_run: bool, narrowed: dict[str, str | None]
) -> dict[str, str]:
    """Return the filter of many; raises UsageError for one and many at once."""
    if every == (job_id is not None):
        raise click.UsageError("name one job, or give --all")
    chosen = {name: value for name, value in narrowed.items() if value is not None}
    if not every and (dry_run or chosen):
        raise click.UsageError("--dry-run, and what narrows --all, go with --all alone")
    return chosen


def _retry_all(api: Api, body: Json, as_json: bool) -> int:
    done = api.post(path_of("jobs", "retry"), body)
    answer = "would be" if body["dry_run"] else "queued again"
    headers = ["slot", "job", "kind", "failed with", "retried"]
    rows = [
        [item["slot"], item["job_id"], item["kind"], item["failed_with"], _ending(item, answer)]
        for item in done["items"]
    ]
    return _told(done, headers, rows, "no slot's newest work failed: nothing to retry", as_json)


@job.command(short_help="Cancel a job and the rest of its chain, or many.")
@click.argument("job_id", type=int, required=False, shell_complete=known.open_jobs)
@click.option("--all", "every", is_flag=True, help="Every job that is queued or runs.")
@click.option("--filter", "text", metavar="TERMS", help="With --all: 'slot:chat kind:pull'.")
@click.option("--slot", metavar="NAME", shell_complete=known.slots, help="With --all: of it.")
@click.option("--kind", type=click.Choice(KINDS), help="With --all: of this kind.")
@click.option("--dry-run", is_flag=True, help="With --all: only say what would be done.")
@json_option
def cancel(
    job_id: int | None, every: bool, dry_run: bool, as_json: bool, **narrowed: str | None
) -> int:
    """Cancel a job and the rest of its chain; what an engine was sent goes on.

    \b
    hal0 job cancel --all --filter slot:chat --dry-run
    """
    api = Api.from_settings()
    chosen = _chosen(job_id, every, dry_run, narrowed)
    if job_id is None:
        return _cancel_all(api, {"filter": chosen, "dry_run": dry_run}, as_json)
    slot = api.get(path_of("jobs", job_id))["slot"]
    done = api.post(path_of("jobs", job_id, "cancel"))
    said = f"slot {slot}: cancelled {follow.named(done['jobs'])}"
    emit(done, as_json, lambda: click.echo(said))
    return Exit.OK


def _cancel_all(api: Api, body: Json, as_json: bool) -> int:
    done = api.post(path_of("jobs", "cancel"), body)
    answer = "would be" if body["dry_run"] else "cancelled"
    headers = ["slot", "job", "kind", "was", "cancelled"]
    rows = [
        [item["slot"], item["job_id"], item["kind"], item["was"], _ending(item, answer)]
        for item in done["items"]
    ]
    return _told(done, headers, rows, "no job is queued or runs: nothing to cancel", as_json)


def _ending(item: Json, answer: str) -> object:
    return item["refused"]["detail"] if item["refused"] else answer


def _told(
    done: Json, headers: list[str], rows: list[list[object]], nothing: str, as_json: bool
) -> int:
    """Say what was done to many; return CONFLICT when some were refused."""
    emit(done, as_json, lambda: table(headers, rows) if rows else click.echo(nothing))
    return Exit.CONFLICT if any(item["refused"] for item in done["items"]) else Exit.OK
