"""What `docs/` offers Prometheus and Grafana: all that is asked for is there, with these labels."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import httpx
import pytest
import yaml
from sqlalchemy import insert, update

from hal0.cli import hal0
from hal0.clock import boot_id, monotonic_ms, utc_now
from hal0.db import Database
from hal0.tables import engines, owners, speeds
from tests.ledger import make_slots
from tests.mishaps import load_all
from tests.rows import slot_now
from tests.scrapes import numbers_in, text_of

pytestmark = pytest.mark.anyio
DOCS = Path(__file__).parents[3] / "docs"
PAGES = ("alerts.yml", "grafana.json")
OF_PROMETHEUS = {"instance", "job"}
"""Labels that every series gets when it is scraped."""

TEXT = re.compile(r'"[^"]*"')
METRIC = re.compile(r"\bhal0_[a-z0-9_]+\b")
MATCHER = re.compile(r'\b([a-z_]+)\s*(?:=~|!~|!=|=)\s*"([^"]*)"')
LISTED = re.compile(r"\b(by|on|ignoring)\s*\(([^()]*)\)")
CALL = re.compile(r"\b([a-z_]+)\s*\(")
RATE = re.compile(r"\b(?:rate|increase)\s*\(\s*([a-z0-9_]+)(?:\{[^}]*\})?\[([^]]+)\]\s*\)")
COUNTED = re.compile(r"\bhal0_[a-z0-9_]+_(?:total|bucket|sum|count)\b")
WORDS = {"by", "on", "ignoring", "group_left", "or", "and", "unless"}
CALLS = {"sum", "max", "count", "rate", "increase", "histogram_quantile", "time", "vector"}
LEGEND = re.compile(r"\{\{\s*([a-z_]+)\s*\}\}")
IN_RULE = re.compile(r"\$labels\.([a-z_]+)")
TOLD = {
    "hal0_build_info": "schema version",
    "hal0_slot_state": "slot state",
    "hal0_slot_state_changes_total": "cause slot to",
    "hal0_slot_in_flight": "slot",
    "hal0_slot_idle_seconds": "slot",
    "hal0_slot_last_use_timestamp_seconds": "slot",
    "hal0_jobs": "kind state",
    "hal0_job_attempts_total": "kind outcome",
    "hal0_job_duration_seconds_bucket": "kind le",
    "hal0_job_wait_seconds_bucket": "kind le",
    "hal0_load_phase_seconds_bucket": "le phase",
    "hal0_validation_failures_total": "code",
    "hal0_job_rescues_total": "action kind",
    "hal0_fenced_writes_total": "",
    "hal0_worker_heartbeat_timestamp_seconds": "worker",
    "hal0_backend_up": "engine",
    "hal0_backend_drift_total": "kind",
    "hal0_pull_bytes_total": "",
    "hal0_db_busy_total": "",
    "hal0_idle_scan_duration_seconds": "engine",
    "hal0_oldest_queued_job_age_seconds": "",
}
"""What dashboards may rely on, with all of its labels."""
Labels = Mapping[str, Mapping[str, set[str]]]


@pytest.fixture
async def labels(api: httpx.AsyncClient, db: Database) -> Labels:
    """By metric its labels, and by label the values that it has where everything is in use."""
    make_slots(db, "chat")
    load_all(db, "chat")
    row = {"requests": 4, "first_byte_ms": 250.0, "tokens_per_s": 30.5, "at": utc_now()}
    worker = {"kind": "worker", "boot_id": boot_id(), "pid": 1, "pid_start": 1}
    times = {"started_at": utc_now(), "seen_at": utc_now()}
    scanned = {"scanned_boot": boot_id(), "scanned_ms": monotonic_ms(), "scan_took_ms": 7}
    with db.write() as tx:
        tx.execute(insert(speeds).values(slot_id=slot_now(db).id, **row))
        tx.execute(insert(owners).values(id="worker-1", **worker, **times))
        tx.execute(update(engines).values(**scanned))
    found: dict[str, dict[str, set[str]]] = {}
    for name, pairs in numbers_in(await text_of(api)):
        of_metric = found.setdefault(name, {})
        for label, value in pairs:
            of_metric.setdefault(label, set()).add(value)
    return found


def page_of(name: str) -> Any:
    """Return what is in a file of `docs/`."""
    text = (DOCS / name).read_text(encoding="utf-8")
    return yaml.safe_load(text) if name.endswith(".yml") else json.loads(text)


def queries(tree: Any) -> Iterator[tuple[str, set[str]]]:
    """Yield every query in a tree of rules or panels, with the labels that its words name."""
    if isinstance(tree, dict):
        if "expr" in tree:
            said = LEGEND.findall(tree.get("legendFormat", ""))
            yield tree["expr"], {*said, *IN_RULE.findall(str(tree.get("annotations", "")))}
        tree = list(tree.values())
    for value in tree if isinstance(tree, list) else ():
        yield from queries(value)


def rules() -> list[Any]:
    """Return the rules of the alerts."""
    return [rule for group in page_of("alerts.yml")["groups"] for rule in group["rules"]]


async def test_what_dashboards_rely_on_is_told_with_all_of_its_labels(labels: Labels) -> None:
    assert {name: " ".join(sorted(labels.get(name, {"none": ()}))) for name in TOLD} == TOLD


@pytest.mark.parametrize("page", PAGES)
async def test_what_a_query_names_is_in_a_scrape(labels: Labels, page: str) -> None:
    found = list(queries(page_of(page)))
    assert len(found) > 10
    for query, _ in found:
        metrics = METRIC.findall(TEXT.sub("", query))
        assert metrics, query
        assert set(metrics) <= labels.keys(), query
        known = set().union(*(labels[name] for name in metrics)) | OF_PROMETHEUS
        for label, value in MATCHER.findall(query):
            values = set().union(*(labels[name].get(label, ()) for name in metrics))
            assert value in values, f"{label}={value} never is: {query}"
        for _word, listed in LISTED.findall(query):
            assert {one.strip() for one in listed.split(",")} - {""} <= known, query


@pytest.mark.parametrize("page", PAGES)
async def test_what_the_words_beside_a_query_name_is_a_label_of_its_result(
    labels: Labels, page: str
) -> None:
    for query, said in queries(page_of(page)):
        metrics = METRIC.findall(TEXT.sub("", query))
        by = [listed for word, listed in LISTED.findall(query) if word == "by"]
        left = by[0].split(",") if by else set().union(*(labels[name] for name in metrics))
        assert said <= {one.strip() for one in left} | OF_PROMETHEUS, query


@pytest.mark.parametrize("page", PAGES)
async def test_counters_are_asked_for_their_rate_and_nothing_else_is(page: str) -> None:
    for query, _ in queries(page_of(page)):
        bare = TEXT.sub("", query)
        assert bare.count("(") == bare.count(")"), query
        assert set(CALL.findall(bare)) <= CALLS | WORDS, query
        rated = [name for name, _span in RATE.findall(query)]
        assert sorted(rated) == sorted(COUNTED.findall(query)), query
        assert "histogram_quantile" not in query or "by (le" in query, query


def test_every_rule_says_what_is_so_since_when_and_what_to_do() -> None:
    assert len({rule["alert"] for rule in rules()}) == len(rules())
    for rule in rules():
        assert re.fullmatch(r"[0-9]+[smh]", rule["for"])
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert rule["annotations"].keys() == {"summary", "description"}
        assert "`hal0 " in rule["annotations"]["description"]


@pytest.mark.parametrize(
    ("query", "lasts"),
    [
        ("hal0_oldest_queued_job_age_seconds > 60", "1m"),
        ('hal0_slot_state{state="error"} == 1', "5m"),
        ("time() - hal0_worker_heartbeat_timestamp_seconds > 30", "1m"),
        ("hal0_backend_up == 0", "1m"),
        ("rate(hal0_job_rescues_total[15m]) > 0", "1m"),
    ],
)
def test_an_operator_is_told_of(query: str, lasts: str) -> None:
    assert (query, lasts) in [(rule["expr"], rule["for"]) for rule in rules()]


def test_what_a_rule_tells_an_operator_to_type_is_there() -> None:
    for rule in rules():
        for line in re.findall(r"`hal0 ([^`]+)`", rule["annotations"]["description"]):
            command: click.Command = hal0
            for word in re.sub(r"\{\{[^}]*\}\}", "NAME", line).split():
                if word.startswith("--"):
                    assert any(word in one.opts for one in command.params), line
                elif isinstance(command, click.Group):
                    found = command.get_command(click.Context(command), word)
                    assert found is not None, line
                    command = found


async def test_every_metric_is_on_the_dashboard_or_in_a_rule(api: httpx.AsyncClient) -> None:
    there = set(re.findall(r"^# TYPE (hal0_\w+) ", await text_of(api), re.MULTILINE))
    shown = {
        re.sub(r"_(bucket|sum|count)$", "", name)
        for page in PAGES
        for query, _ in queries(page_of(page))
        for name in METRIC.findall(query)
    }
    assert there - shown == set()


def test_panels_lie_beside_each_other_and_each_has_a_number_of_its_own() -> None:
    panels = page_of("grafana.json")["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24, panel["title"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not taken & cells, panel["title"]
        taken |= cells
