"""Whether a model fits: by what was measured, estimated, or is not known at all."""

import pytest

from hal0.firstrun.fit import FIXED_BYTES, Need, estimated_memory, fit

GIB = 2**30


def need(needed: float | None, available: float | None) -> Need:
    needed_bytes = None if needed is None else int(needed * GIB)
    return {
        "needed_bytes": needed_bytes,
        "available_bytes": None if available is None else int(available * GIB),
    }


@pytest.mark.parametrize(
    ("disk", "memory", "fits", "why"),
    [
        (need(1, 2), need(2, 2), True, "it fits"),
        (need(0, 0), need(1, 2), True, "it fits"),
        (need(3, 2), need(1, 2), False, "3.00 GiB of disk needed, 2.00 GiB left"),
        (need(1, 2), need(2.5, 2), False, "2.50 GiB of memory needed, 2.00 GiB left"),
        (
            need(3, 2),
            need(3, 2),
            False,
            "3.00 GiB of disk needed, 2.00 GiB left; 3.00 GiB of memory needed, 2.00 GiB left",
        ),
        (need(1, 2), need(1, None), True, "it fits; not known of memory"),
        (need(None, 2), need(None, 2), True, "it fits; not known of disk and memory"),
    ],
)
def test_a_model_fits_where_nothing_is_short(
    disk: Need, memory: Need, fits: bool, why: str
) -> None:
    judged = fit(disk, memory, measured=True)
    assert (judged["fits"], judged["why"]) == (fits, why)
    assert (judged["disk"], judged["memory"], judged["measured"]) == (disk, memory, True)


def test_the_estimate_grows_with_the_file_and_is_rather_too_much() -> None:
    assert estimated_memory(4 * GIB) == 5 * GIB + FIXED_BYTES
    assert estimated_memory(None) is None
    measured = {98_362_432: 292_892_672}
    for size, memory in measured.items():
        estimated = estimated_memory(size)
        assert estimated is not None
        assert memory < estimated
