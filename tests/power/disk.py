"""What a disk could hold after a power cut, by the rules that POSIX promises and no more. Pure.

    a file's bytes   what was written before its last sync began, if that sync ended; of the rest
                     any part: a write may be there, or torn into sectors, or be missing, and a new
                     size may be there with zeros for what was not written
    a name           is there, gone or changed for certain when the sync of its folder, begun
                     after, has ended; else it may have been made or not. A rename is whole or not
    the rest         a file that no name leads to any more is gone

A sync of a file does not make its name last. No order is promised between two writes, two names, or
a name and what it names: some file systems keep one, hal0 must not need it.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import PurePosixPath
from random import Random
from typing import Final

from tests.power.recorder import Kind, Record

SECTOR: Final = 512
"""What a disk writes whole or not at all, at offsets that it divides."""
LUCK: Final = (0.0, 0.25, 0.5, 0.75, 1.0)
"""How much of what was not synced a file, or a folder, keeps; one is drawn for each."""

Files = dict[str, bytes]


@dataclass(slots=True, eq=False)
class Node:
    """One file or folder, whatever its names; eq by identity, for an inode's number is used again.

    `durable` are the bytes that no cut can take; `pending` what came after, in order.
    """

    is_folder: bool = False
    durable: bytearray = field(default_factory=bytearray)
    pending: list[tuple[int, Record]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Naming:
    """One change of names, whole or not at all: each name leads to a node, or to none."""

    at: int
    changes: tuple[tuple[str, Node | None], ...]


class Disk:
    """A disk that was empty but for one folder, and takes the records of a log one by one."""

    def __init__(self) -> None:
        self._count = 0
        self._first = ""
        self._nodes: dict[int, Node] = {}
        self._names: dict[str, Node | None] = {}
        """What is on the disk for certain; `_pending` came after."""
        self._pending: list[Naming] = []
        self._now: dict[str, Node | None] = {}
        self._begun: dict[int, int] = {}
        """Of each sync that has not ended, where in the log it began."""

    def take(self, record: Record) -> None:
        """Take the next record. Raises ValueError for what cannot be rebuilt."""
        kind, node = record.kind, self._nodes.get(record.inode)
        if kind in {Kind.CREATE, Kind.FOLDER}:
            node = self._nodes[record.inode] = Node(is_folder=kind is Kind.FOLDER)
            self._name((record.name, node))
            if self._count == 0:
                self._first = record.name
                self._names.update(self._now)
        elif kind is Kind.STRANGE:
            raise ValueError(f"{record.other} of {record.name} cannot be rebuilt")
        elif kind in {Kind.WRITE, Kind.RESIZE}:
            self._known(node, record).pending.append((self._count, record))
        elif kind is Kind.UNLINK:
            self._name((record.name, None))
        elif kind is Kind.LINK:
            self._name((record.other, self._known(node, record)))
        elif kind is Kind.RENAME:
            self._name((record.name, None), (record.other, self._known(node, record)))
        elif kind is Kind.SYNC:
            self._begun[record.number] = self._count
        elif kind is Kind.SYNCED:
            self._settle(self._known(node, record), self._begun.pop(record.number), record.name)
        self._count += 1

    def _known(self, node: Node | None, record: Record) -> Node:
        if node is None:
            raise ValueError(f"nobody recorded how {record.name} came to be")
        return node

    def _name(self, *changes: tuple[str, Node | None]) -> None:
        self._pending.append(Naming(self._count, changes))
        self._now.update(changes)

    def _settle(self, node: Node, begun: int, name: str) -> None:
        """Make durable what happened to a node before its sync began."""
        if node.is_folder:
            self._settle_names(begun, PurePosixPath(name))
            return
        for _, record in (one for one in node.pending if one[0] < begun):
            _write(node.durable, record)
        node.pending = [one for one in node.pending if one[0] >= begun]

    def _settle_names(self, begun: int, folder: PurePosixPath) -> None:
        rest = []
        for naming in self._pending:
            is_in = any(PurePosixPath(name).parent == folder for name, _ in naming.changes)
            if is_in and naming.at < begun:
                self._names.update(naming.changes)
            else:
                rest.append(naming)
        self._pending = rest

    # -- what is there --------------------------------------------------------------------------

    def now(self) -> Files:
        """Return every file with all that was written, as processes see it."""
        return {name: _whole(node) for name, node in self._files(self._now)}

    def after_a_cut(self, rng: Random) -> Files:
        """Return the files that a power cut now could leave; the same `rng` gives the same ones."""
        names, luck = dict(self._names), rng.choice(LUCK)
        for naming in self._pending:
            if rng.random() < luck:
                names.update(naming.changes)
        contents: dict[Node, bytes] = {}
        files = {}
        for name, node in self._files(names):
            if node not in contents:
                contents[node] = _torn(node, rng)
            files[name] = contents[node]
        return files

    def _files(self, names: dict[str, Node | None]) -> Iterator[tuple[str, Node]]:
        """Yield what a walk from the first folder would find, in the order of the names."""
        for name, node in sorted(names.items(), key=lambda one: one[0]):
            if node is None or node.is_folder:
                continue
            above = [str(folder) for folder in PurePosixPath(name).parents]
            above = above[: above.index(self._first) + 1]
            if all(names.get(folder) is not None for folder in above):
                yield name, node


def _whole(node: Node) -> bytes:
    content = bytearray(node.durable)
    for _, record in node.pending:
        _write(content, record)
    return bytes(content)


def _torn(node: Node, rng: Random) -> bytes:
    """Return a file with some of what was not synced."""
    content, luck = bytearray(node.durable), rng.choice(LUCK)
    for _, record in node.pending:
        if rng.random() < luck:
            _write(content, record)
        elif record.kind is Kind.WRITE and rng.random() < 0.5:
            _tear(content, record, rng)
    return bytes(content)


def _tear(content: bytearray, record: Record, rng: Random) -> None:
    """Write some sectors of a write; the size may have grown though the bytes are not there."""
    start, end = record.number, record.number + len(record.data)
    if rng.random() < 0.5:
        _grow(content, end)
    edges = [start, *range((start // SECTOR + 1) * SECTOR, end, SECTOR), end]
    for left, right in pairwise(edges):
        if rng.random() < 0.5:
            _grow(content, right)
            content[left:right] = record.data[left - start : right - start]


def _write(content: bytearray, record: Record) -> None:
    if record.kind is Kind.RESIZE:
        _grow(content, record.number)
        del content[record.number :]
        return
    end = record.number + len(record.data)
    _grow(content, end)
    content[record.number : end] = record.data


def _grow(content: bytearray, size: int) -> None:
    content.extend(bytes(max(0, size - len(content))))


# -- where to cut -------------------------------------------------------------------------------


def cut_of(records: Sequence[Record], rng: Random) -> int:
    """Return how many records happened before the power went.

    A third anywhere, a third right after a client was told something, a third around a sync.
    """
    kinds = {Kind.NOTE: (1, 3), Kind.SYNC: (-4, 3)}
    wanted = rng.choice([None, *kinds])
    if wanted is None:
        return rng.randint(1, len(records))
    places = [at for at, record in enumerate(records) if record.kind is wanted]
    return min(len(records), max(1, rng.choice(places) + rng.randint(*kinds[wanted])))


def power_cuts(records: Sequence[Record], seeds: Iterable[int]) -> Iterator[tuple[int, int, Files]]:
    """Yield of each seed where its cut is, and what that left, in the order of the cuts."""
    drawn = []
    for seed in seeds:
        rng = Random(seed)
        drawn.append((cut_of(records, rng), seed, rng))
    disk, done = Disk(), 0
    for cut, seed, rng in sorted(drawn, key=lambda one: one[:2]):
        for record in records[done:cut]:
            disk.take(record)
        done = cut
        yield seed, cut, disk.after_a_cut(rng)
