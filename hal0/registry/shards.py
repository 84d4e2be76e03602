"""Whether a split model has all of its shards: as many as `split.count` says, each once."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

from hal0.errors import Truncated
from hal0.registry.files import ModelFile, about

MISSING_SHOWN = 8

Facts = Mapping[str, Any]
"""Of one header: `tensor_count`, `split_no` (from 0), `split_count`, `split_tensor_count`."""


def ensure_complete(files: Sequence[tuple[ModelFile, Facts]]) -> None:
    """Check every set of shards among the files of a model; a lone file is no set.

    Raises Truncated that names the shards that are missing, counted from 1 as their file names do.
    """
    sets: dict[int, list[tuple[ModelFile, Facts]]] = {}
    for file, facts in files:
        count = facts.get("split_count") or 1
        if count > 1:
            sets.setdefault(count, []).append((file, facts))
    for count, shards in sets.items():
        _ensure_numbers(count, shards)
        _ensure_tensors(shards)


def _ensure_numbers(count: int, shards: Sequence[tuple[ModelFile, Facts]]) -> None:
    numbers = sorted(facts["split_no"] + 1 for _, facts in shards)
    if len(set(numbers)) == len(numbers) == count:
        return
    missing = list(islice((n for n in range(1, count + 1) if n not in numbers), MISSING_SHOWN))
    what = f"{', '.join(map(str, missing))} missing" if missing else "one is given twice"
    raise about(
        Truncated,
        _out_of_place(shards) if len(shards) == count else shards[0][0],
        f"it is a shard of {count}, and the model has the shards {numbers}: {what}",
        {"expected": count, "found": numbers, "missing": missing},
    )


def _out_of_place(shards: Sequence[tuple[ModelFile, Facts]]) -> ModelFile:
    """Return the file that is another shard than its place in the model says."""
    return next(file for place, (file, facts) in enumerate(shards) if facts["split_no"] != place)


def _ensure_tensors(shards: Sequence[tuple[ModelFile, Facts]]) -> None:
    """Shards of two different sets have the right numbers and the wrong sum of tensors.

    The one to blame is the one that disagrees with most others.
    """
    found = sum(facts["tensor_count"] for _, facts in shards)
    claims = Counter(facts["split_tensor_count"] for _, facts in shards)
    for file, facts in sorted(shards, key=lambda shard: claims[shard[1]["split_tensor_count"]]):
        expected = facts["split_tensor_count"]
        if expected not in {None, found}:
            raise about(
                Truncated,
                file,
                f"it is of a model with {expected} tensors, and all shards together have {found}",
                {"expected": expected, "found": found},
            )
