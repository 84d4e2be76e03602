"""What a scan costs when nothing is new: the same however many slots there are."""

from pathlib import Path

from tests.bench.scan import Scanner


def test_health_is_read_once_and_no_slot_is_written_nor_asked_for_by_itself(tmp_path: Path) -> None:
    with Scanner(tmp_path / "few", 2) as few, Scanner(tmp_path / "many", 40) as many:
        costs = [few.cost(), many.cost()]
    assert [cost.health_reads for cost in costs] == [1, 1]
    assert [cost.written for cost in costs] == [["engines", "engines"]] * 2
    assert len(costs[0].statements) == len(costs[1].statements)
