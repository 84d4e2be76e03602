"""Whether README and ADRs say what the code says: compared word for word, in both directions."""

import importlib
import inspect
import re
import tomllib
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import click
import pytest

from hal0 import points
from hal0.access.roles import GRANTED
from hal0.api import failed_logins, idempotency
from hal0.api.auth import TABLE
from hal0.api.metrics import registry_of
from hal0.cli import COMMANDS
from hal0.cli.exits import Exit
from hal0.db import Database
from hal0.errors import Hal0Error, tree
from hal0.file_modes import UMASK
from hal0.settings import Settings
from hal0.states import EDGES, Cause, JobKind, JobState, SlotState
from hal0.where import PREFIX

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
ADRS = sorted((ROOT / "docs" / "adr").glob("*.md"))

GLOSSARY = """
slot; state, transition, cause; evidence; actor; home; model, file; chain; job; superseded; attempt
worker; claim, fence; owner; beat, silent; rescue; bell; source, part; lane; mark; engine; adopted
preload validation; generation; lease; drain; pinned; demote, idle unload; wake; reconcile
incident; campaign; probe; starter
"""
NOT_SET = "\N{EN DASH}"


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def errors() -> list[type[Hal0Error]]:
    """Return the tree without what other tests may have put into it."""
    return [error for error in tree() if error.__module__ == Hal0Error.__module__]


def section(title: str) -> str:
    """Return the text under a heading of the second level."""
    found = re.search(
        rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", README, re.MULTILINE | re.DOTALL
    )
    assert found, f"README has no part {title!r}"
    return found[1]


def rows(title: str) -> list[str]:
    """Return the rows of the tables in a part, without their heads."""
    lines = [line for line in section(title).splitlines() if line.startswith("|")]
    heads = {i + n for i, line in enumerate(lines) if line.startswith("|--") for n in (-1, 0)}
    return [line for i, line in enumerate(lines) if i not in heads]


def cells(row: str) -> list[str]:
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]]


def default_of(name: str) -> str:
    field = Settings.model_fields[name]
    if name == "home":
        return "`~/.local/share/hal0`"
    value = field.default
    if value is None:
        return NOT_SET
    if isinstance(value, float):
        return f"{value:g}"
    return f"`{value}`" if isinstance(value, str) else str(value)


def test_every_setting_is_in_the_readme_with_its_default_and_meaning() -> None:
    expected = [
        f"| `{PREFIX}{name.upper()}` | {default_of(name)} | "
        + (field.description or "").replace("|", "\\|")
        + " |"
        for name, field in Settings.model_fields.items()
    ]
    assert rows("Settings") == expected, "should be:\n" + "\n".join(expected)


def test_every_setting_says_what_it_means() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


def test_every_error_code_is_in_the_readme_with_its_status_and_sentence() -> None:
    expected = [
        f"| `{error.code}` | {error.status} | {(inspect.getdoc(error) or '').splitlines()[0]} |"
        for error in errors()
    ]
    assert rows("Errors") == expected, "should be:\n" + "\n".join(expected)


def test_a_code_that_is_written_of_is_one() -> None:
    codes = {error.code for error in errors()}
    prefixes = {code.partition(".")[0] for code in codes} - {"hal0"}
    text = README + "".join(path.read_text(encoding="utf-8") for path in ADRS)
    any_prefix = "|".join(sorted(prefixes))
    written = set(re.findall(rf"`((?:{any_prefix})\.(?!(?:py|service)`)[a-z_]+)`", text))
    assert written - codes - points.POINTS == set()


def test_the_table_of_edges_is_the_codes() -> None:
    written = set()
    for row in rows("States of a slot"):
        sources, to, causes = cells(row)
        for source in sources.split(", "):
            for cause in causes.split(", "):
                written.add((None if source == "(none)" else source, to, cause.strip("`")))
    assert written == {tuple(edge) for edge in EDGES}


def test_the_diagram_has_the_arrows_of_the_code() -> None:
    drawn = set(re.findall(r"^    (\S+) --> (\w+)$", section("States of a slot"), re.MULTILINE))
    assert drawn == {(edge.source or "[*]", edge.to) for edge in EDGES}


def causes_written_by_code() -> set[str]:
    sources = [
        path.read_text(encoding="utf-8")
        for folder in ("hal0", "workers")
        for path in (ROOT / folder).rglob("*.py")
        if path != ROOT / "hal0" / "states.py"
    ]
    named = set(re.findall(r"\bCause\.([A-Z_]+)\b", "\n".join(sources)))
    return {Cause[name].value for name in named}


def test_causes_that_nothing_writes_yet_are_said_to_be_so() -> None:
    said = re.search(r"writes the causes (.*?):", section("States of a slot"), re.DOTALL)
    unwritten = set(re.findall(r"`(\w+)`", said[1])) if said else set()
    assert set(Cause) - causes_written_by_code() <= unwritten
    assert not unwritten & causes_written_by_code()


@pytest.mark.parametrize("word", [*SlotState, *JobKind, *JobState])
def test_states_and_kinds_are_named(word: str) -> None:
    assert f"`{word}`" in README or f"| {word} |" in README


def test_the_glossary_has_every_word_with_a_meaning() -> None:
    written = {cells(row)[0]: cells(row)[1] for row in rows("Words")}
    assert list(written) == [word.strip() for word in re.split(r"[;\n]", GLOSSARY.strip())]
    assert all(written.values())


def test_every_route_is_in_the_readme_with_its_role() -> None:
    expected = [
        (f"`{method} {path.replace(':int', '')}`", role.name.lower())
        for (method, path), role in TABLE.items()
    ]
    found = [cells(row) for row in rows("REST")]
    assert [(route, role) for route, role, _ in found] == expected
    assert all(what for *_, what in found)


def test_every_metric_is_in_the_readme_with_its_labels(db: Database) -> None:
    there = {
        metric.name: metric
        for metric in registry_of(db, lambda: 0, patience_s=60).collect()
        if metric.name.startswith("hal0_")
    }
    written = {
        name.removesuffix("_total"): labels
        for names, labels, _ in map(cells, rows("Metrics"))
        for name in re.findall(r"`([^`]+)`", names)
    }
    assert set(written) == set(there)
    for name, metric in there.items():
        told = {label for sample in metric.samples for label in sample.labels} - {"le"}
        assert not told or told == set(written[name].split(", ")) - {""}, name


def test_every_event_is_in_the_readme_and_no_other() -> None:
    sources = [ROOT / "hal0" / "api" / name for name in ("news.py", "events.py")]
    code = "\n".join(source.read_text(encoding="utf-8") for source in sources)
    named = set(re.findall(r'\bevent\("(\w+)"', code))
    assert {cells(row)[0].strip("`") for row in rows("Events")} == named


def test_the_readme_tells_what_an_idempotency_key_may_be_and_how_long_it_is_kept() -> None:
    told = " ".join(section("REST").split())
    assert f"`{idempotency.HEADER}`: 1 to {idempotency.MAX_LENGTH} printable ASCII" in told
    assert f"`{idempotency.REPLAYED}: true`" in told
    assert f"For {idempotency.KEPT // timedelta(hours=1)} hours" in told


def test_the_readme_tells_the_roles_and_how_many_bad_tokens_are_listened_to() -> None:
    assert [cells(row)[0] for row in rows("Who may do what")] == list(GRANTED)
    told = " ".join(section("Who may do what").split())
    limit = f"{failed_logins.AT_ONCE} at once, then one in {failed_logins.EACH_MS // 1000} seconds"
    assert limit in told
    modes = f"folders are {0o777 & ~UMASK:04o}, its files {0o666 & ~UMASK:04o}"
    assert modes in told


def commands() -> Iterator[str]:
    """Yield each command as it is typed; a group by its subcommands."""
    for name, (place, _) in COMMANDS.items():
        module, _, attribute = place.partition(":")
        command = getattr(importlib.import_module(module), attribute)
        if not isinstance(command, click.Group) or command.invoke_without_command:
            yield f"hal0 {name}"
        if isinstance(command, click.Group):
            yield from (f"hal0 {name} {verb}" for verb in command.commands)


def test_every_command_is_in_the_readme_and_no_other() -> None:
    written = [word for row in rows("Commands") for word in re.findall(r"`([^`]+)`", cells(row)[0])]
    full = [word if word.startswith("hal0 ") else f"hal0 {word}" for word in written]
    assert sorted(full) == sorted(commands())


def test_every_finding_of_the_doctor_is_in_the_readme_and_no_other() -> None:
    cli = ROOT / "hal0" / "cli"
    pages = [cli / "doctor.py", *(cli / "checks").glob("*.py")]
    code = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    named = set(re.findall(r"Finding\(\s*\"([\w ]+)\"", code))
    named |= {"job ID", "slot NAME", "engine NAME"}
    of_engines = re.findall(r"\"(?:{asked.name}|engine {row.name}): (\w+)\"", code)
    first = [cells(row)[0] for row in rows("What the doctor looks at")]
    written = [name for cell in first for name in re.findall(r"`([^`]+)`", cell)]
    assert sorted(written) == sorted(named | {f"engine NAME: {what}" for what in of_engines})


def test_every_exit_code_is_in_the_readme() -> None:
    line = re.search(r"^Exit codes: (.*?)\n\n", section("Commands"), re.MULTILINE | re.DOTALL)
    assert line
    assert set(map(int, re.findall(r"(?:^|, )(\d+) ", line[1].replace("\n", " ")))) == set(Exit)


def test_every_crash_point_is_in_the_readme_and_no_other() -> None:
    written = [name for row in rows("Tests") for name in re.findall(r"`([^`]+)`", cells(row)[1])]
    assert sorted(written) == sorted(points.POINTS)


def test_every_fault_of_the_operations_chapter_names_tests_that_are_there() -> None:
    there = {path.stem for path in (ROOT / "tests").rglob("test_*.py")}
    for fault, _, _, tests in map(cells, rows("Operations: what you see, what to do")):
        named = set(re.findall(r"`(\w+)`", tests))
        assert named, f"no test injects: {fault}"
        assert named <= there, named - there


def anchors(text: str) -> set[str]:
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "CHANGELOG.md", *ADRS], ids=name_of)
def test_every_link_leads_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        linked = page.parent / path if path else page
        assert linked.is_file(), target
        if anchor:
            assert anchor in anchors(linked.read_text(encoding="utf-8")), target


def test_every_room_is_in_the_readme() -> None:
    rooms = {f"hal0/{page.parent.name}/" for page in (ROOT / "hal0").glob("*/__init__.py")}
    listed = [name for row in rows("How it is built") for name in re.findall(r"`([^`]+)`", row)]
    assert rooms <= set(listed)


def test_the_floors_are_those_that_the_import_rules_keep() -> None:
    told = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = told["tool"]["importlinter"]["contracts"]
    floors = next(one["layers"] for one in contracts if one["id"] == "floors")
    shown = re.search(r"```\n(workers.*?)\n```", section("How it is built"), re.DOTALL)
    assert shown
    lines = [line.partition("      (")[0] for line in shown[1].splitlines()]
    assert lines == floors


def test_every_decision_is_in_the_index_and_in_the_readme() -> None:
    index = (ROOT / "docs" / "adr" / "README.md").read_text(encoding="utf-8")
    listed = " ".join(section("How it is built").split())
    for path in ADRS:
        if path.name != "README.md":
            title = path.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")
            number = title.partition(":")[0]
            assert number == f"ADR-{path.name[:4]}"
            assert f"[{number}]({path.name})" in index
            assert f"- [{number}](docs/adr/{path.name}):{title.partition(':')[2]}" in listed


@pytest.mark.parametrize("page", [path for path in ADRS if path.name != "README.md"], ids=name_of)
def test_a_decision_has_its_four_parts(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert re.search(r"^Status: (accepted|superseded by ADR-\d{4})$", text, re.MULTILINE)
    titles = re.findall(r"^## (.*)$", text, re.MULTILINE)
    kept = [title for title in titles if title in ("Context", "Decision", "Consequences")]
    assert kept == ["Context", "Decision", "Consequences"]


@pytest.mark.parametrize("page", ADRS, ids=name_of)
def test_what_a_decision_names_in_the_tree_is_there(page: Path) -> None:
    for name in re.findall(r"`((?:hal0|workers)/[\w./]+)`", page.read_text(encoding="utf-8")):
        assert (ROOT / name).exists(), name


@pytest.mark.parametrize(
    "module",
    [
        "hal0/registry/preload.py",
        "hal0/jobs/validate.py",
        "hal0/jobs/load.py",
        "hal0/jobs/settle.py",
        "hal0/jobs/engine_wait.py",
        "hal0/jobs/ledger/intake.py",
        "hal0/engines/lemonade.py",
    ],
)
def test_call_sites_of_its_rules_name_adr_0007(module: str) -> None:
    assert "ADR-0007" in (ROOT / module).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "page",
    [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "systemd" / "README.md", *ADRS],
    ids=name_of,
)
def test_no_page_names_a_path_of_one_machine(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert re.findall(r"(?<![\w.])/(?:home|mnt|opt|root|srv|tmp|Users|work)\b\S*", text) == []


def test_the_place_of_the_demo_s_output_is_marked() -> None:
    assert re.search(r"<!-- demo output -->\n```\n.+?```\n<!-- /demo output -->", README, re.DOTALL)
