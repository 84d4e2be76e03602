"""`hal0 demo`: the main job of hal0, end to end, on a real model, in a home of its own.

Engine, API and worker are real processes; everything is asked for by REST, as an operator would,
and the model through hal0, as its users would.
Each claim is checked as it is shown: the first that does not hold ends the demo with exit code 1.
"""

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

import click

from hal0.cli.client import Api, Json, path_of
from hal0.cli.demo_house import house, program
from hal0.cli.exits import Exit, Failure
from hal0.cli.lines import share_of
from hal0.cli.outcome import with_names
from hal0.cli.processes import Children, Program
from hal0.cli.show import size_of, table
from hal0.cli.times import hour_of

QUESTION: Final = "Give me one sentence about rivers."
LIMIT_S: Final = 60.0
LOOK_EVERY_S: Final = 0.05
UNFINISHED: Final = ("queued", "running")


@click.command()
@click.option("--model", "model_path", type=click.Path(path_type=Path), help="A GGUF chat model.")
@click.option("--keep", is_flag=True, help="Leave the demo's home behind, to look into it.")
def demo(model_path: Path | None, keep: bool) -> int:
    """Load a real model, refuse a corrupt one, survive a killed worker; show the audit."""
    from hal0.firstrun.starters import packaged_model

    model = model_path or packaged_model()
    if not model.is_file():
        raise Failure(f"{model} is no file", Exit.NOT_FOUND)
    home = Path(tempfile.mkdtemp(prefix="hal0-demo-"))
    began = time.monotonic()
    try:
        with house(home) as (children, api):
            Demo(home, children, api).run(model)
    finally:
        if keep:
            click.echo(f"\nits home is {home}")
        else:
            shutil.rmtree(home, ignore_errors=True)
    click.echo(f"\ndone in {time.monotonic() - began:.1f} s; no process is left behind")
    return Exit.OK


class Demo:
    """The acts, in order; each shows something and checks it."""

    def __init__(self, home: Path, children: Children, api: Api) -> None:
        self.home = home
        self.children = children
        self.api = api
        self.seen = 0
        self.shown: set[tuple[int, int, str]] = set()

    def run(self, model: Path) -> None:
        """Show everything."""
        self.start_worker()
        self.register("smollm2", model)
        for slot in ("chat", "spare"):
            self.api.post(path_of("slots"), {"name": slot})
        self.load_and_ask()
        self.refuse_and_repair(model)
        self.kill_and_settle()
        self.unload_all()
        self.show_audit()

    # -- the acts -----------------------------------------------------------------------------

    def start_worker(self, point: str | None = None) -> None:
        """Start a worker, armed to die at a point if one is named."""
        base = program(self.home, "worker", "workers")
        env = {} if point is None else {"HAL0_POINT": point}
        pid = self.children.start(Program("worker", base.argv, env=env, log_file=base.log_file))
        armed = f", armed to die at {point.partition(':')[0]}" if point else ""
        click.echo(f"worker  pid {pid}{armed}")

    def register(self, name: str, path: Path, sha256: str | None = None) -> str:
        """Register a file by its path, size and digest."""
        from hal0.registry.checksum import sha256 as digest_of

        size = path.stat().st_size
        if sha256 is None:
            heading(f"Register {path.name} as model {name}")
            with path.open("rb") as file:
                sha256 = digest_of(file.fileno(), on_progress=lambda done: hashing(done, size))
        body = {
            "name": name,
            "source": str(path.resolve()),
            "size_bytes": size,
            "sha256": sha256,
            "allow_copy": True,
        }
        self.api.post(path_of("models"), body)
        click.echo(f"model {name}: {size_of(size)}, sha256 {sha256}")
        return sha256

    def load_and_ask(self) -> None:
        """Load a model and let it answer."""
        heading("Load smollm2 into slot chat: every step as it happens")
        self.follow(self.api.post(path_of("slots", "chat", "load"), {"model": "smollm2"}))
        self.expect("chat", "ready")
        click.echo(f"Q: {QUESTION}\nA: {self.ask('chat')}")
        self.see_serving_end("chat")

    def refuse_and_repair(self, model: Path) -> None:
        """Ask for a corrupt file, see it refused, mend it, retry."""
        heading("A corrupt copy for slot spare: its last byte is flipped")
        copy = self.home / "copy.gguf"
        shutil.copyfile(model, copy)
        good = self.api.get(path_of("models", "smollm2"))["files"][0]["sha256"]
        flip_last_byte(copy)
        self.register("copy", copy, good)
        accepted = self.api.post(path_of("slots", "spare", "load"), {"model": "copy"})
        failed = self.follow(accepted)
        must(failed is not None, "the corrupt file was not refused")
        assert failed is not None
        error = failed["error"]
        must(error["code"] == "preload.checksum_mismatch", f"refused as {error['code']}")
        where = with_names(error["detail"], failed).replace(f"{self.home}/", "")
        click.echo(f"refused: {error['code']}\n  {where}")
        must(self.loads_of("copy") == 0, "the engine was asked to load the corrupt file")
        click.echo("POST /v1/load for it in the engine's own log: 0")
        self.expect("chat", "ready")
        click.echo(f"slot chat still answers: {self.ask('chat')}")
        self.see_serving_end("chat")
        heading("The file is repaired, the operator retries the failed job")
        flip_last_byte(copy)
        self.follow(self.api.post(path_of("jobs", failed["id"], "retry")))
        self.expect("spare", "ready")

    def kill_and_settle(self) -> None:
        """Kill the worker with its load at the engine; let another one see it through."""
        heading("The worker dies while the engine loads; another settles it")
        self.follow(self.api.post(path_of("slots", "spare", "unload")))
        before = self.loads_of("copy")
        self.children.stop("worker")
        self.start_worker("load.sent:kill")
        accepted = self.api.post(path_of("slots", "spare", "load"))
        self.wait_for("the worker's death", lambda: not self.children.is_running("worker"))
        self.show_transitions()
        click.echo(f"worker  dead: {self.children.kill('worker')} (9 = SIGKILL)")
        self.start_worker()
        self.follow(accepted)
        self.expect("spare", "ready")
        job = self.api.get(path_of("jobs", accepted["jobs"][-1]))
        for attempt in job["attempts"]:
            click.echo(
                f"job {job['id']} {job['kind']} attempt {attempt['attempt']}: {attempt['outcome']}"
            )
        outcomes = [attempt["outcome"] for attempt in job["attempts"]]
        must(outcomes == ["interrupted", "done"], f"attempts ended {outcomes}")
        sent = self.loads_of("copy") - before
        must(sent == 1, f"the engine got {sent} loads")
        click.echo(f"POST /v1/load for it in the engine's own log: {sent}")

    def unload_all(self) -> None:
        """Empty both slots."""
        heading("Unload both slots")
        for slot in ("chat", "spare"):
            self.follow(self.api.post(path_of("slots", slot, "unload")))
            self.expect(slot, "offline")

    def show_audit(self) -> None:
        """Print every transition."""
        heading("The audit: every change, its cause, who, which job")
        rows = list(self.api.items(path_of("transitions")))
        table(
            ["id", "at", "slot", "from", "to", "cause", "actor", "job"],
            [
                [row["id"], hour_of(row["at"])]
                + [row[key] for key in ("slot", "from", "to", "cause", "actor", "job_id")]
                for row in rows
            ],
        )

    # -- looking ------------------------------------------------------------------------------

    def follow(self, accepted: Json) -> Json | None:
        """Show a chain's steps until it has ended; return the job that failed, if one did."""
        chain: Json = {}

        def is_over() -> bool:
            nonlocal chain
            rows = self.new_transitions()
            chain = self.api.get(path_of("chains", accepted["chain_id"]))
            for row in rows:
                done_by = (row["job_id"] or 0) + (row["to"] == "error")
                self.show_progress(job for job in chain["jobs"] if job["id"] < done_by)
                show_transition(row)
            self.show_progress(chain["jobs"])
            return all(job["state"] not in UNFINISHED for job in chain["jobs"])

        self.wait_for(f"chain {accepted['chain_id']}", is_over)
        self.show_transitions()
        return next((job for job in chain["jobs"] if job["state"] == "failed"), None)

    def new_transitions(self) -> list[Json]:
        """Return the changes since the last look, oldest first."""
        rows: list[Json] = self.api.get(path_of("transitions"), since=self.seen)["items"]
        self.seen = rows[-1]["id"] if rows else self.seen
        return rows

    def show_transitions(self) -> None:
        """Print the changes since the last look."""
        for row in self.new_transitions():
            show_transition(row)

    def show_progress(self, jobs: Iterable[Json]) -> None:
        """Print how far jobs are, where they are further than when last shown."""
        for job in jobs:
            progress = job["progress"]
            if progress is None or not progress["total_bytes"]:
                continue
            done, total = progress["done_bytes"], progress["total_bytes"]
            line = f"{progress['phase']} {share_of(done, total)}"
            if (job["id"], job["attempt"], line) not in self.shown:
                self.shown.add((job["id"], job["attempt"], line))
                click.echo(f"  job {job['id']} {job['kind']}: {line}")

    def expect(self, slot: str, state: str) -> None:
        """Show where a slot is; it must be there."""
        found = self.api.get(path_of("slots", slot))
        why = found["error"] or {"code": "without an error", "detail": found["cause"]}
        must(
            found["state"] == state,
            f"slot {slot} is in state {found['state']}: {why['code']}: {why['detail']}",
        )
        click.echo(f"slot {slot} is {state}")

    def wait_for(self, what: str, is_so: Callable[[], bool]) -> None:
        """Poll until a condition holds; the demo fails when it does not come about."""
        until = time.monotonic() + LIMIT_S
        while not is_so():
            must(time.monotonic() < until, f"{what} took longer than {LIMIT_S:g} s")
            time.sleep(LOOK_EVERY_S)

    def loads_of(self, model: str) -> int:
        """Count the loads of a model that the engine says it was sent."""
        log = (self.home / "engine-calls.ndjson").read_text(encoding="utf-8").splitlines()
        calls = [json.loads(line) for line in log]
        return sum(
            call["phase"] == "begin"
            and call["path"] == "/v1/load"
            and call["body"]["model_name"] == model
            for call in calls
        )

    def ask(self, slot: str) -> str:
        """Ask a slot a question, as a client of OpenAI's API does."""
        message = {"role": "user", "content": QUESTION}
        body = {"model": slot, "messages": [message], "max_tokens": 40, "temperature": 0}
        answer = self.api.post("/v1/chat/completions", body)
        return " ".join(str(answer["choices"][0]["message"]["content"]).split())

    def see_serving_end(self, slot: str) -> None:
        """Show that a slot served and is ready again, a moment after its last request."""
        one = path_of("slots", slot)
        self.wait_for(f"slot {slot} at rest", lambda: self.api.get(one)["state"] == "ready")
        self.show_transitions()


def heading(text: str) -> None:
    """Begin an act."""
    click.echo(f"\n== {text}")


def hashing(done: int, total: int) -> None:
    """Show how far a hash is."""
    click.echo(f"  hashing: {share_of(done, total)}")


def show_transition(row: Json) -> None:
    """Print one change of a slot."""
    was = row["from"] or "(new)"
    click.echo(f"  {row['slot']}: {was} → {row['to']}  {row['cause']}  {job_of(row)}")


def job_of(row: Json) -> str:
    """Return who made a change, as the audit says it."""
    return f"{row['actor']}, job {row['job_id']}" if row["job_id"] else str(row["actor"])


def must(holds: bool, otherwise: str) -> None:
    """End the demo when what it shows is not so."""
    if not holds:
        raise Failure(f"the demo failed: {otherwise}")


def flip_last_byte(path: Path) -> None:
    """Change the last byte of a file, or change it back."""
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)[0]
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last ^ 0xFF]))
