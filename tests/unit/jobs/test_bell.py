"""The bell: wakes at once, is never waited for, and its loss costs no job."""

import socket
import threading
from pathlib import Path

from hal0.clock import monotonic_ms
from hal0.jobs.bell import Bell, ring


def test_a_ring_wakes_whoever_waits(tmp_path: Path) -> None:
    bell = Bell(tmp_path, "owner-1")
    woken: list[bool] = []
    waiting = threading.Thread(target=lambda: woken.append(bell.wait(20)))
    waiting.start()
    assert ring(tmp_path) == 1
    waiting.join(20)
    assert woken == [True]
    bell.close()


def test_without_a_ring_the_wait_ends_in_time(tmp_path: Path) -> None:
    bell = Bell(tmp_path, "owner-1")
    begun_ms = monotonic_ms()
    assert not bell.wait(0.1)
    assert monotonic_ms() - begun_ms < 5000
    bell.close()


def test_a_ring_is_kept_for_who_comes_later_and_wakes_one(tmp_path: Path) -> None:
    bell = Bell(tmp_path, "owner-1")
    ring(tmp_path)
    assert bell.wait(0)
    assert not bell.wait(0.01)
    bell.ring_self()
    assert bell.wait(0)
    bell.close()


def test_every_worker_is_rung(tmp_path: Path) -> None:
    bells = [Bell(tmp_path, f"owner-{n}") for n in range(3)]
    assert ring(tmp_path) == 3
    for bell in bells:
        assert bell.wait(1)
        bell.close()
    assert ring(tmp_path) == 0


def test_ringing_where_nobody_is_hurts_nobody(tmp_path: Path) -> None:
    assert ring(tmp_path / "no folder") == 0
    (tmp_path / "bells").mkdir()
    (tmp_path / "bells" / "no socket").write_text("a file")
    assert ring(tmp_path) == 0


def test_a_dead_workers_bell_does_not_keep_the_others_from_hearing(tmp_path: Path) -> None:
    (tmp_path / "bells").mkdir()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as dead:
        dead.bind(str(tmp_path / "bells" / "a-dead-one"))
    bell = Bell(tmp_path, "owner-1")
    assert ring(tmp_path) == 1
    assert bell.wait(1)
    bell.close()


def test_who_rings_is_never_blocked_by_who_does_not_listen(tmp_path: Path) -> None:
    bell = Bell(tmp_path, "owner-1")
    for _ in range(2000):
        ring(tmp_path)
        bell.ring_self()
    assert bell.wait(0)
    bell.close()


def test_a_home_too_deep_for_a_socket_address_works(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*["a-folder-with-a-long-name"] * 6)
    bell = Bell(deep, "owner-1")
    assert len(str(bell.path)) > 108
    assert ring(deep) == 1
    assert bell.wait(1)
    bell.close()


def test_an_emptied_run_folder_is_put_right(tmp_path: Path) -> None:
    bell = Bell(tmp_path, "owner-1")
    bell.path.unlink()
    assert not bell.is_hung()
    assert ring(tmp_path) == 0
    bell.rehang()
    assert bell.is_hung()
    assert ring(tmp_path) == 1
    assert bell.wait(1)
    bell.close()
    assert not bell.path.exists()
