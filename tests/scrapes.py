"""What a scrape of `/metrics` says, as numbers by name and labels."""

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from hal0.api.metrics import PATIENCE_S
from tests.ledger import LIMIT_S

Numbers = dict[tuple[str, frozenset[tuple[str, str]]], float]


def numbers_in(text: str) -> Numbers:
    """Return every sample of a text."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def text_of(api: httpx.AsyncClient) -> str:
    """Return what a scrape gets once the past is counted."""
    for _ in range(int(LIMIT_S / PATIENCE_S)):
        answer = await api.get("/metrics")
        assert answer.status_code == 200
        if "hal0_load_seconds" in answer.text:
            return answer.text
    pytest.fail("the past is not counted")


async def scrape(api: httpx.AsyncClient) -> Numbers:
    """Return every sample of a scrape."""
    return numbers_in(await text_of(api))


def of(numbers: Numbers, name: str, **labels: str) -> float | None:
    """Return one number; None = it is not told."""
    return numbers.get((name, frozenset(labels.items())))


def labels_of(numbers: Numbers, name: str, label: str) -> set[str]:
    """Return the values that a label of a metric has."""
    return {dict(labels)[label] for told, labels in numbers if told == name}
