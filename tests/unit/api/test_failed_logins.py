"""How many bad tokens of an address are listened to, and how little is kept to count them."""

import pytest
from freezegun import freeze_time

from hal0.api.failed_logins import AT_ONCE, EACH_MS, MAX_KEPT, FailedLogins, counted_as


def test_ten_are_listened_to_at_once_then_one_each_six_seconds() -> None:
    failed = FailedLogins()
    with freeze_time("2026-11-01") as clock:
        assert [failed.count("192.0.2.1") for _ in range(AT_ONCE)] == [0.0] * AT_ONCE
        assert failed.count("192.0.2.1") == EACH_MS / 1000
        assert failed.count("192.0.2.1") == EACH_MS / 1000  # a refusal costs no more time
        clock.tick(4)
        assert failed.count("192.0.2.1") == 2.0
        clock.tick(2)
        assert failed.count("192.0.2.1") == 0
        assert failed.count("192.0.2.1") == 6.0
        clock.tick(60)
        assert [failed.count("192.0.2.1") for _ in range(AT_ONCE)] == [0.0] * AT_ONCE
        assert failed.count("192.0.2.1") > 0


@pytest.mark.parametrize(
    ("one", "other", "are_one"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8::1", "2001:db8::ffff:ffff:ffff:ffff", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("fe80::1%eth0", "fe80::2%eth1", True),
        ("", "no address", True),
        ("", "127.0.0.1", False),
    ],
)
def test_what_one_host_can_have_for_itself_counts_as_one(
    one: str, other: str, are_one: bool
) -> None:
    assert (counted_as(one) == counted_as(other)) is are_one
    failed = FailedLogins()
    for _ in range(AT_ONCE):
        failed.count(one)
    assert (failed.count(other) > 0) is are_one


def test_however_many_addresses_fail_next_to_nothing_is_kept() -> None:
    failed = FailedLogins()
    for number in range(MAX_KEPT * 2):
        assert failed.count(f"2001:db8:{number >> 16:x}:{number & 0xFFFF:x}::1") == 0
    assert len(failed) == MAX_KEPT
    for number in range(20_000):
        failed.count(f"2001:db8::{number:x}")
    assert len(failed) == MAX_KEPT


def test_who_goes_on_failing_is_not_forgotten_for_others() -> None:
    failed = FailedLogins()
    for _ in range(AT_ONCE):
        failed.count("192.0.2.1")
    for number in range(MAX_KEPT - 1):
        failed.count(f"198.51.{number >> 8}.{number & 0xFF}")
    assert failed.count("192.0.2.1") > 0
