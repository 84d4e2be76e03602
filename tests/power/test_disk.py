"""The rules of `disk.py`: what a power cut can take, what it cannot, and what it may leave torn."""

from collections.abc import Iterator
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.power.disk import SECTOR, Disk, Files, cut_of, power_cuts
from tests.power.recorder import Kind, Record

ROOT, FILE, OTHER = "/disk", "/disk/a", "/disk/b"
HOME, DEEP = "/disk/home", "/disk/home/a"
INODES = {ROOT: 1, FILE: 10, HOME: 20, DEEP: 30, OTHER: 40}
OLD, NEW = b"o" * 3 * SECTOR, b"n" * 3 * SECTOR
SEEDS = range(300)


class Log:
    """A log that is written by hand; inodes go by the first name of a file."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self._syncs = 0
        self.add(Kind.FOLDER, ROOT)

    def add(
        self, kind: Kind, name: str, number: int = 0, *, data: bytes = b"", other: str = ""
    ) -> "Log":
        inode = INODES[name]
        self.records.append(Record(kind, len(self.records), inode, number, name, other, data))
        return self

    def create(self, name: str = FILE) -> "Log":
        return self.add(Kind.CREATE, name)

    def write(self, data: bytes, at: int = 0, name: str = FILE) -> "Log":
        return self.add(Kind.WRITE, name, at, data=data)

    def begin_sync(self, name: str) -> "Log":
        self._syncs += 1
        return self.add(Kind.SYNC, name, self._syncs)

    def sync(self, *names: str) -> "Log":
        for name in names:
            self.begin_sync(name).add(Kind.SYNCED, name, self._syncs)
        return self

    def disk(self) -> Disk:
        disk = Disk()
        for record in self.records:
            disk.take(record)
        return disk

    def cuts(self) -> Iterator[Files]:
        disk = self.disk()
        return (disk.after_a_cut(Random(seed)) for seed in SEEDS)

    def contents(self, name: str = FILE) -> set[bytes | None]:
        """What the file holds after each cut; None = it is not there."""
        return {files.get(name) for files in self.cuts()}


def kept() -> Log:
    """A file that is on the disk for certain, name and bytes."""
    return Log().create().write(OLD).sync(FILE, ROOT)


def test_what_was_synced_with_its_name_is_there_after_every_cut() -> None:
    assert kept().contents() == {OLD}


def test_what_was_not_synced_is_there_torn_or_missing() -> None:
    found = kept().write(NEW).contents()
    sectors = {content[at : at + SECTOR] for content in found if content for at in (0, 512, 1024)}
    assert {OLD, NEW} < found
    assert sectors == {b"o" * SECTOR, b"n" * SECTOR}


def test_a_write_is_torn_where_sectors_end_and_not_where_it_began() -> None:
    found = kept().write(b"n" * SECTOR, at=100).contents()
    first, second = b"n" * (SECTOR - 100), b"n" * 100
    assert {content[100:SECTOR] for content in found if content} == {b"o" * (SECTOR - 100), first}
    assert {content[SECTOR : SECTOR + 100] for content in found if content} == {b"o" * 100, second}
    assert {content[:100] + content[SECTOR + 100 :] for content in found if content} == {
        OLD[:-SECTOR]
    }


def test_a_file_may_have_its_new_size_and_zeros_where_it_was_not_written() -> None:
    found = kept().write(NEW, at=len(OLD)).contents()
    assert OLD + bytes(len(NEW)) in found
    assert all(content is not None and content[: len(OLD)] == OLD for content in found)


def test_a_later_write_may_be_there_without_the_one_before_it() -> None:
    found = kept().write(b"1" * SECTOR, at=0).write(b"2" * SECTOR, at=SECTOR).contents()
    heads = {content[: 2 * SECTOR : SECTOR] for content in found if content}
    assert heads == {b"oo", b"1o", b"o2", b"12"}


def test_a_new_size_that_was_not_synced_may_have_come_or_not() -> None:
    found = kept().add(Kind.RESIZE, FILE, SECTOR).contents()
    assert found == {OLD, OLD[:SECTOR]}


def test_a_sync_covers_nothing_that_was_written_after_it_began() -> None:
    log = kept().begin_sync(FILE).write(NEW).add(Kind.SYNCED, FILE, 3)
    assert OLD in log.contents()


def test_a_sync_that_has_not_ended_covers_nothing() -> None:
    assert OLD in kept().write(NEW).begin_sync(FILE).contents()


def test_the_sync_of_a_file_does_not_keep_its_name() -> None:
    assert Log().create().write(OLD).sync(FILE).contents() == {None, OLD}


def test_the_sync_of_a_folder_does_not_keep_the_bytes_of_its_files() -> None:
    assert {b"", OLD} < Log().create().write(OLD).sync(ROOT).contents()


def test_a_name_that_was_taken_away_may_come_back_until_its_folder_is_synced() -> None:
    gone = kept().add(Kind.UNLINK, FILE)
    assert gone.contents() == {OLD, None}
    assert gone.sync(ROOT).contents() == {None}


def test_a_rename_is_whole_or_not() -> None:
    renamed = kept().add(Kind.RENAME, FILE, other=OTHER)
    assert [sorted(files) for files in renamed.cuts() if len(files) != 1] == []
    assert renamed.contents() == renamed.contents(OTHER) == {OLD, None}


def test_a_file_renamed_into_place_without_its_own_sync_may_be_half_there() -> None:
    log = Log().create().write(NEW).add(Kind.RENAME, FILE, other=OTHER).sync(ROOT)
    found = log.contents(OTHER)
    assert None not in found
    assert {b"", NEW} < found


def test_what_was_renamed_over_is_there_until_the_folder_is_synced() -> None:
    log = kept().create(OTHER).write(NEW, name=OTHER).sync(OTHER)
    log.add(Kind.RENAME, OTHER, other=FILE)
    assert log.contents() == {OLD, NEW}
    assert log.sync(ROOT).contents() == {NEW}


def test_two_names_of_one_file_show_the_same_bytes() -> None:
    log = kept().add(Kind.LINK, FILE, other=OTHER).write(NEW)
    both = [files for files in log.cuts() if OTHER in files]
    assert both
    assert all(files[FILE] == files[OTHER] for files in both)


def test_an_inode_that_is_used_again_is_another_file() -> None:
    log = kept().add(Kind.UNLINK, FILE).sync(ROOT).create().sync(FILE, ROOT)
    assert log.contents() == {b""}


def test_a_folder_that_was_not_synced_takes_all_that_is_in_it_with_it() -> None:
    log = Log().add(Kind.FOLDER, HOME).create(DEEP).write(OLD, name=DEEP).sync(DEEP, HOME)
    assert log.contents(DEEP) == {OLD, None}
    assert log.sync(ROOT).contents(DEEP) == {OLD}


def test_processes_see_all_that_was_written_synced_or_not() -> None:
    log = kept().write(b"n", at=5).add(Kind.RESIZE, FILE, 7).add(Kind.RENAME, FILE, other=OTHER)
    assert log.disk().now() == {OTHER: b"ooooono"}


def test_a_history_that_cannot_be_rebuilt_is_refused() -> None:
    with pytest.raises(ValueError, match="mmap of /disk/a"):
        kept().add(Kind.STRANGE, FILE, other="mmap").disk()
    with pytest.raises(ValueError, match="nobody recorded how /disk/b came to be"):
        kept().write(NEW, name=OTHER).disk()


def test_a_seed_cuts_at_the_same_place_and_leaves_the_same_alone_or_among_others() -> None:
    log = kept()
    for at in range(20):
        log.write(bytes([at]) * SECTOR * 2, at=at * SECTOR).add(Kind.NOTE, FILE, data=b"{}")
    together = {seed: (cut, files) for seed, cut, files in power_cuts(log.records, SEEDS)}
    assert sorted(together) == list(SEEDS)
    for seed in (0, 7, 299):
        assert list(power_cuts(log.records, [seed])) == [(seed, *together[seed])]
    assert len({cut_of(log.records, Random(seed)) for seed in SEEDS}) > 20


steps = st.one_of(
    st.tuples(st.just(Kind.WRITE), st.sampled_from([FILE, OTHER]), st.integers(0, 2000)),
    st.tuples(st.just(Kind.RESIZE), st.sampled_from([FILE, OTHER]), st.integers(0, 2000)),
    st.tuples(st.sampled_from([Kind.UNLINK, Kind.CREATE]), st.just(FILE), st.just(0)),
)


@given(st.lists(steps, max_size=12), st.binary(min_size=1, max_size=1500), st.integers())
def test_after_everything_was_synced_a_cut_takes_nothing(
    done: list[tuple[Kind, str, int]], data: bytes, seed: int
) -> None:
    log = Log().create().create(OTHER)
    for kind, name, number in done:
        log.add(kind, name, number, data=data if kind is Kind.WRITE else b"")
    disk = log.sync(FILE, OTHER, ROOT).disk()
    assert disk.after_a_cut(Random(seed)) == disk.now()
