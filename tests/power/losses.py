"""What a power cut took that it must not: one rebuilt home, held against what clients were told.

Most of it is the checker of the whole campaign (`tests/chaos/checker.py`): every job, attempt,
change, slot and model that an answer showed is there unchanged, the histories have no holes, and
the engine got no load that no row announces. Here is what a power cut alone can break: the database
opens and is sound, what was made is there and what was deleted is gone, waits and keys keep their
answers, and a model file at its final path is whole. Claims, beats and progress may be gone.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from sqlalchemy import text

from hal0.db import Database, open_database
from hal0.errors import Hal0Error
from hal0.settings import Settings
from tests.chaos.checker import check
from tests.chaos.evidence import Evidence
from tests.power.traffic import LOCAL, REMOTE

Json = Mapping[str, Any]


def losses(evidence: Evidence, was: Path, *, is_quiet: bool = False) -> list[str]:
    """Open a home as hal0 does and return everything that was lost, or is half there.

    `was` is where the home was when it was recorded; `is_quiet` = all work had time to end.
    """
    home = evidence.database.parent
    try:
        db = open_database(_settings(home))
    except Hal0Error as error:
        return [f"hal0 does not open it: {error.code}: {error.detail}"]
    try:
        told = Told(evidence, db)
        return [
            *unsound(db),
            *(str(violation) for violation in check(evidence, is_quiet=is_quiet)),
            *told.lost_ends(),
            *told.lost_names(),
            *told.lost_keys(),
            *torn_files(home / "models", REMOTE if is_quiet else {**REMOTE, **LOCAL}),
            *lost_files(db, home / "models", was / "models"),
        ]
    finally:
        db.close()


@cache
def _settings(home: Path) -> Settings:
    """Read settings once for all cuts; that takes as long as opening a database."""
    return Settings(home=home)


def rows(db: Database, query: str) -> list[Json]:
    """Read some rows."""
    with db.read() as tx:
        return [dict(row) for row in tx.execute(text(query)).mappings()]


def unsound(db: Database) -> Iterator[str]:
    """Yield what SQLite finds wrong with the file, and rows that lead nowhere."""
    found = [row["integrity_check"] for row in rows(db, "PRAGMA integrity_check")]
    yield from (f"integrity: {one}" for one in found if one != "ok")
    yield from (f"leads nowhere: {row}" for row in rows(db, "PRAGMA foreign_key_check"))


def torn_files(models: Path, whole: Mapping[str, bytes]) -> Iterator[str]:
    """Yield files that have their final names and are not whole.

    Local ones can be asked for only before hal0 has gone on: what the user's own file lost in the
    cut, before hal0 had touched it, is linked as it is then, and refused by its validation.
    """
    for name, content in whole.items():
        path = models / f"{name}.gguf"
        if path.exists() and path.read_bytes() != content:
            yield f"file {path.name} has its final name and is not whole"


def lost_files(db: Database, models: Path, were: Path) -> Iterator[str]:
    """Yield files that are gone, though the rows say that they were brought."""
    for row in rows(db, _BROUGHT):
        name = Path(row["path"]).relative_to(were)
        if not (models / name).exists():
            yield f"file {name} is gone, and its pull has succeeded"


_BROUGHT: Final = (
    "SELECT DISTINCT path FROM jobs JOIN model_files USING (model_id) "
    "WHERE kind = 'pull' AND state = 'succeeded'"
)


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request, and its answer if one came; lines of the client's log."""

    asked: Json
    answered: Json | None

    @property
    def is_success(self) -> bool:
        """Whether the client was told that it is done."""
        return self.answered is not None and self.answered["status"] < 300

    @property
    def told(self) -> Json:
        """The answer's object."""
        return {} if self.answered is None else self.answered["body"] or {}


def _request(line: Json) -> tuple[str, int]:
    return line["client"], line["n"]


class Told:
    """What answers said that the campaign's checker does not ask for."""

    def __init__(self, evidence: Evidence, db: Database) -> None:
        lines = [json.loads(line) for line in evidence.answers.read_text().splitlines()]
        answers = {_request(line): line for line in lines if line["phase"] == "answered"}
        self._exchanges = [
            Exchange(line, answers.get(_request(line)))
            for line in lines
            if line["phase"] == "asked"
        ]
        self._good = [one for one in self._exchanges if one.is_success]
        self._db = db

    def lost_ends(self) -> Iterator[str]:
        """Look for chains, and for the ends that somebody waited for."""
        jobs = {row["id"]: row for row in rows(self._db, "SELECT * FROM jobs")}
        chains = {row["id"] for row in rows(self._db, "SELECT id FROM chains")}
        retried = set(self._retried_chains(jobs))
        for told in (one.told for one in self._good):
            if told.get("chain_id") is not None and told["chain_id"] not in chains:
                yield f"chain {told['chain_id']} is lost"
            for result in told.get("results", ()):
                job, said = jobs.get(result["id"]), (result["state"], result["outcome"])
                if job is None:
                    yield f"job {result['id']} is lost; somebody waited for its end"
                elif (job["state"], job["outcome"]) != said and job["chain_id"] not in retried:
                    yield f"job {result['id']} was told as {said} and is {job['state']}"

    def _retried_chains(self, jobs: Mapping[int, Json]) -> Iterator[int]:
        """Yield chains that may have been queued again, whether anybody heard of it or not."""
        for path in (one.asked["path"] for one in self._exchanges):
            if path == "/api/v1/jobs/retry":
                yield from (row["chain_id"] for row in jobs.values())
            elif path.endswith("/retry") and int(path.split("/")[-2]) in jobs:
                yield jobs[int(path.split("/")[-2])]["chain_id"]

    def lost_names(self) -> Iterator[str]:
        """Look for what was made, and for what was deleted."""
        for table in ("slots", "models"):
            living = {
                row["name"]
                for row in rows(self._db, f"SELECT name FROM {table} WHERE deleted_at IS NULL")
            }
            path = f"/api/v1/{table}"
            made = {
                one.asked["body"]["name"]
                for one in self._good
                if (one.asked["method"], one.asked["path"]) == ("POST", path)
            }
            to_go = {
                one.asked["path"].removeprefix(f"{path}/")
                for one in self._exchanges
                if one.asked["method"] == "DELETE"
            }
            gone = {
                one.asked["path"].removeprefix(f"{path}/")
                for one in self._good
                if one.asked["method"] == "DELETE"
            }
            yield from (f"{table}: {name} is lost" for name in made - living - to_go)
            yield from (f"{table}: {name} was deleted and is there" for name in gone & living)

    def lost_keys(self) -> Iterator[str]:
        """Look for requests with a key that would be done again if they came again."""
        kept = {row["key"]: row for row in rows(self._db, "SELECT * FROM idempotency_keys")}
        for one in self._good:
            key = one.asked.get("key")
            if key is None:
                continue
            if key not in kept or json.loads(kept[key]["body"]) != one.told:
                yield f"the answer to the key {key} is lost"
