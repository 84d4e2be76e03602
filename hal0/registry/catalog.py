"""Which models are registered, of which files, and what is known of those files."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Self

from sqlalchemy import Connection, exc, insert, select, update

from hal0.clock import utc_now
from hal0.db import Database
from hal0.errors import ModelExists, ModelInUse, ModelNotFound
from hal0.registry.preload import FileIdentity, ModelFile, Verdict
from hal0.registry.sources import shown_source
from hal0.tables import file_verdicts, model_files, models, slots


@dataclass(frozen=True, slots=True)
class RegisteredFile:
    """One file of a model: where it lies when it is loaded, and where it came from."""

    role: str
    path: Path
    source: str | None
    size_bytes: int | None
    sha256: str | None
    noted: frozenset[str] = frozenset()
    """Which of the two a pull found, and nobody had said: "size", "sha256"."""

    @property
    def shown_source(self) -> str | None:
        """The source as people may see it; `source` itself may hold a signature."""
        return None if self.source is None else shown_source(self.source)

    @property
    def told(self) -> Self:
        """The file with what people, or a hub, said of it alone: what a new download must be."""
        return replace(
            self,
            size_bytes=None if "size" in self.noted else self.size_bytes,
            sha256=None if "sha256" in self.noted else self.sha256,
            noted=frozenset(),
        )

    def found(self, size_bytes: int, sha256: str) -> Self:
        """Return the file with what a pull found, where nobody had said it."""
        told = self.told
        facts = {"size": told.size_bytes, "sha256": told.sha256}
        return replace(
            told,
            size_bytes=size_bytes if told.size_bytes is None else told.size_bytes,
            sha256=told.sha256 or sha256,
            noted=frozenset(name for name, fact in facts.items() if fact is None),
        )

    @property
    def to_check(self) -> ModelFile:
        """Return what preload validation needs of it."""
        return ModelFile(self.role, self.path, self.size_bytes, self.sha256, self.source)


@dataclass(frozen=True, slots=True)
class Model:
    """A registered model with its files in order: the main file (or first shard) first."""

    id: int
    name: str
    format: str
    allow_copy: bool
    created_at: datetime
    files: tuple[RegisteredFile, ...]

    @property
    def main(self) -> RegisteredFile:
        """The file that an engine is told to open."""
        return self.files[0]


@dataclass(frozen=True, slots=True)
class MainFile:
    """What an engine may call a model: by its name, and by the file that it opens."""

    model: str
    path: str


def register(
    tx: Connection,
    name: str,
    file_format: str,
    files: Sequence[RegisteredFile],
    *,
    allow_copy: bool,
) -> Model:
    """Insert a model; `files` not empty, main file first. Raises ModelExists.

    Needs a write transaction. No file is looked at: that is the jobs' work.
    """
    try:
        model_id = tx.execute(
            insert(models)
            .values(name=name, format=file_format, allow_copy=allow_copy, created_at=utc_now())
            .returning(models.c.id)
        ).scalar_one()
    except exc.IntegrityError as error:
        raise ModelExists(
            f"there is a model {name!r} already; delete it first or choose another name",
            evidence={"model": name},
        ) from error
    tx.execute(
        insert(model_files),
        [
            {
                "model_id": model_id,
                "position": position,
                "role": file.role,
                "path": str(file.path),
                "source": file.source,
                "size_bytes": file.size_bytes,
                "sha256": file.sha256,
            }
            for position, file in enumerate(files)
        ],
    )
    return model_by_id(tx, model_id)


def _files(tx: Connection, model_id: int) -> tuple[RegisteredFile, ...]:
    rows = tx.execute(
        select(model_files).where(model_files.c.model_id == model_id).order_by("position")
    )
    return tuple(
        RegisteredFile(
            row.role,
            Path(row.path),
            row.source,
            row.size_bytes,
            row.sha256,
            frozenset((row.noted or "").split(",")) - {""},
        )
        for row in rows
    )


def _model(tx: Connection, row: Any) -> Model:
    return Model(
        row.id, row.name, row.format, bool(row.allow_copy), row.created_at, _files(tx, row.id)
    )


def model_by_id(tx: Connection, model_id: int) -> Model:
    """Return the model with this id, a deleted one too."""
    return _model(tx, tx.execute(select(models).where(models.c.id == model_id)).one())


def model_named(tx: Connection, name: str) -> Model:
    """Return the living model of this name; raises ModelNotFound."""
    row = tx.execute(
        select(models).where(models.c.name == name, models.c.deleted_at.is_(None))
    ).one_or_none()
    if row is None:
        raise ModelNotFound(
            f"there is no model {name!r}; `hal0 model list` shows them", evidence={"model": name}
        )
    return _model(tx, row)


def main_files(tx: Connection, model_ids: Collection[int]) -> dict[int, MainFile]:
    """Return the main files of these models by model id, deleted ones too."""
    rows = tx.execute(
        select(models.c.id, models.c.name, model_files.c.path)
        .join(model_files, model_files.c.model_id == models.c.id)
        .where(model_files.c.position == 0, models.c.id.in_(model_ids))
    )
    return {row.id: MainFile(row.name, row.path) for row in rows}


def names_of_file(tx: Connection, model_id: int) -> dict[int, str]:
    """Return this model and every other of the same main file, by id; deleted ones too."""
    mine = select(model_files.c.path).where(
        model_files.c.model_id == model_id, model_files.c.position == 0
    )
    rows = tx.execute(
        select(models.c.id, models.c.name)
        .join(model_files, model_files.c.model_id == models.c.id)
        .where(model_files.c.position == 0, model_files.c.path == mine.scalar_subquery())
        .order_by(models.c.id != model_id, models.c.id)
    )
    return {row.id: row.name for row in rows}


def living_models(tx: Connection, *, after: str = "", limit: int = 100) -> list[Model]:
    """Return a page of models by name, those behind `after`."""
    rows = tx.execute(
        select(models)
        .where(models.c.deleted_at.is_(None), models.c.name > after)
        .order_by(models.c.name)
        .limit(limit)
    ).all()
    return [_model(tx, row) for row in rows]


def registered_among(tx: Connection, names: Collection[str]) -> set[str]:
    """Return which of these names a living model has."""
    named = select(models.c.name).where(models.c.deleted_at.is_(None), models.c.name.in_(names))
    return set(tx.execute(named).scalars())


def model_names(tx: Connection, limit: int) -> list[str]:
    """Return the names of the first models by name."""
    living = select(models.c.name).where(models.c.deleted_at.is_(None))
    return list(tx.execute(living.order_by(models.c.name).limit(limit)).scalars())


def note_file(tx: Connection, model_id: int, before: RegisteredFile, now: RegisteredFile) -> None:
    """Write what a pull learned of a file: the commit of its source, its size and digest.

    Changes nothing when the source is another one by now. What is noted is known again: what the
    disk loses later is found by the next validation.
    """
    tx.execute(
        update(model_files)
        .where(
            model_files.c.model_id == model_id,
            model_files.c.path == str(before.path),
            model_files.c.source == before.source,
        )
        .values(
            source=now.source,
            size_bytes=now.size_bytes,
            sha256=now.sha256,
            noted=",".join(sorted(now.noted)) or None,
        )
    )


def source_of_another(tx: Connection, model_id: int, file: RegisteredFile) -> str | None:
    """Return the source of another model's file that had, or has, this place; None = no other's."""
    other = model_files.c.source.is_distinct_from(file.source)
    rows = tx.execute(
        select(model_files.c.source)
        .where(model_files.c.path == str(file.path), model_files.c.model_id != model_id, other)
        .order_by(model_files.c.model_id.desc())
        .limit(1)
    )
    row = rows.one_or_none()
    if row is None:
        return None
    return "none" if row.source is None else shown_source(row.source)


def delete_model(tx: Connection, model: Model) -> None:
    """Tombstone a model that no slot holds or wants; its files stay. Raises ModelInUse."""
    user = tx.execute(
        select(slots.c.name).where(
            slots.c.deleted_at.is_(None),
            (slots.c.model_id == model.id) | (slots.c.wanted_model_id == model.id),
        )
    ).first()
    if user is not None:
        raise ModelInUse(
            f"slot {user.name} holds or wants model {model.name}; give it another one first",
            evidence={"slot": user.name, "model": model.name},
        )
    tx.execute(update(models).where(models.c.id == model.id).values(deleted_at=utc_now()))


class StoredVerdicts:
    """What earlier validations found, by file identity and expected digest (design 7.4)."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def recall(
        self, identity: FileIdentity, expected_sha256: str | None, file_format: str
    ) -> Verdict | None:
        """Return what was found of exactly this file, or None."""
        with self._db.read() as tx:
            row = tx.execute(
                select(file_verdicts).where(
                    *(file_verdicts.c[key] == value for key, value in _key(identity).items()),
                    file_verdicts.c.format == file_format,
                    file_verdicts.c.expected_sha256 == (expected_sha256 or ""),
                )
            ).one_or_none()
        if row is None:
            return None
        return Verdict(
            identity, expected_sha256, row.sha256, row.code, row.detail, row.evidence or {}
        )

    def remember(self, verdict: Verdict, file_format: str) -> None:
        """Keep what was found; a power cut may forget it, then the file is read once more."""
        with self._db.soft() as tx:
            tx.execute(
                insert(file_verdicts).prefix_with("OR REPLACE"),
                {
                    **_key(verdict.identity),
                    "format": file_format,
                    "expected_sha256": verdict.expected_sha256 or "",
                    "sha256": verdict.sha256,
                    "code": verdict.code,
                    "detail": verdict.detail,
                    "evidence": dict(verdict.evidence),
                    "verified_at": utc_now(),
                },
            )


def _key(identity: FileIdentity) -> Mapping[str, int]:
    return {
        "device": _signed(identity.device),
        "inode": _signed(identity.inode),
        "size_bytes": identity.size_bytes,
        "mtime_ns": identity.mtime_ns,
        "ctime_ns": identity.ctime_ns,
    }


def _signed(number: int) -> int:
    """Fold an unsigned 64-bit number into SQLite's signed ones."""
    return number - 2**64 if number >= 2**63 else number
