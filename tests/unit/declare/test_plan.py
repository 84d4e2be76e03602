"""What leads from what is there to what is declared, and what is refused before any of it."""

from typing import Any

import pytest

from hal0.declare.document import Document, read
from hal0.declare.plan import plan
from hal0.declare.steps import Noun, Plan, There
from hal0.declare.words import lines_of, title_of
from tests.declared import model_shown, slot_shown, there

TINY = '[models.tiny]\nsource = "/data/tiny.gguf"\n'
BIG = '[models.big]\nsource = "/data/big.gguf"\n'
CHAT = '[slots.chat]\nmodel = "tiny"\n'


def planned(text: str, home: There, *, prune: bool = False) -> Plan:
    return plan(read(text), home, prune=prune)


def told(found: Plan) -> list[str]:
    """Return the steps in words, one a line."""
    assert found.refusals == ()
    return ["; ".join([title_of(step), *lines_of(step)]) for step in found.steps]


def refusals(text: str, home: There, *, prune: bool = False) -> list[str]:
    found = planned(text, home, prune=prune)
    assert found.steps == ()
    return list(found.refusals)


def test_models_come_before_the_slots_that_want_them() -> None:
    found = planned(CHAT + "pinned = true\n" + TINY + "size_bytes = 7", there())
    assert told(found) == [
        "+ model tiny; source: /data/tiny.gguf; size_bytes: 7",
        "+ slot chat; model: tiny; pinned: true",
    ]
    assert [step.body for step in found.steps] == [
        {"name": "tiny", "source": "/data/tiny.gguf", "size_bytes": 7},
        {"name": "chat", "model": "tiny", "pinned": True},
    ]


def test_what_is_there_as_declared_needs_nothing() -> None:
    assert told(planned(TINY + CHAT, there(read(TINY + CHAT)))) == []


def test_what_a_slot_s_table_leaves_out_is_the_default_again() -> None:
    before = read(
        TINY + CHAT + "pinned = true\nidle_after_s = 60\nmax_waiting = 2\nwake = 'never'\n"
        "options = { ctx_size = 512, llamacpp_args = '--threads 2' }"
    )
    found = planned(TINY + CHAT + "idle_after_s = 90\noptions = { ctx_size = 1024 }", there(before))
    (line,) = told(found)
    assert line.split("; ") == [
        "~ slot chat",
        "pinned: true -> false",
        "idle_after_s: 60 -> 90",
        "wake: never -> auto",
        "max_waiting: 2 -> default",
        "options.ctx_size: 512 -> 1024",
        'options.llamacpp_args: --threads 2 -> ""',
    ]
    assert found.steps[0].body == {
        "pinned": False,
        "idle_after_s": 90.0,
        "wake": "auto",
        "max_waiting": None,
        "options": {"ctx_size": 1024, "llamacpp_backend": None, "llamacpp_args": ""},
    }


def test_a_slot_without_a_model_in_the_file_gives_its_model_up() -> None:
    found = planned(TINY + "[slots.chat]", there(read(TINY + CHAT)))
    assert told(found) == ["~ slot chat; model: tiny -> none"]


def test_a_slot_that_goes_to_an_engine_without_options_sends_none() -> None:
    home = there(read("[slots.chat]\noptions = { ctx_size = 512 }"))
    found = planned("[slots.chat]\nengine = 'router'", home)
    assert found.steps[0].body == {"engine": "router"}
    assert "options.ctx_size: 512 -> default" in told(found)[0]


def test_what_the_file_does_not_name_is_left_alone_and_counted() -> None:
    found = planned(TINY, there(read(TINY + BIG + CHAT)))
    assert told(found) == []
    assert found.left_alone == {Noun.SLOT: ("chat",), Noun.MODEL: ("big",)}


def test_with_prune_slots_go_first_and_models_last() -> None:
    home = there(read(TINY + BIG + CHAT + "[slots.old]\nmodel = 'big'"), slot_shown("free"))
    found = planned("[models.new]\nsource = '/n'\n[slots.chat]\nmodel = 'new'", home, prune=True)
    assert told(found) == [
        "+ model new; source: /n",
        "- slot free",
        "- slot old",
        "~ slot chat; model: tiny -> new",
        "- model big",
        "- model tiny",
    ]


def test_a_model_that_a_deleted_slot_had_goes_to_a_new_one() -> None:
    home = there(read(TINY + CHAT))
    found = planned(TINY + "[slots.talk]\nmodel = 'tiny'", home, prune=True)
    assert told(found) == ["- slot chat", "+ slot talk; model: tiny"]


def test_a_model_that_a_deleted_slot_had_goes_to_one_that_is_there() -> None:
    home = there(read(TINY + BIG + CHAT + "[slots.old]\nmodel = 'big'"))
    found = planned(TINY + BIG + "[slots.chat]\nmodel = 'big'", home, prune=True)
    assert told(found) == ["- slot old", "~ slot chat; model: tiny -> big"]


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"state": "ready", "model": "tiny"}, "slot chat is ready, and gets another model"),
        ({"state": "error"}, "slot chat is error, and gets another model"),
        ({"job_id": 5}, "slot chat has unfinished jobs, the first is 5, and gets another model"),
    ],
)
@pytest.mark.parametrize("change", ["model = 'big'", "model = 'tiny'\nengine = 'gpu'"])
def test_a_slot_that_is_not_at_rest_gets_no_other_model_or_engine(
    more: dict[str, Any], why: str, change: str
) -> None:
    before = read(TINY + BIG + CHAT)
    home = there(before, slot_shown("chat", before.slots["chat"], **more))
    (refusal,) = refusals(TINY + BIG + "[slots.chat]\n" + change, home)
    assert refusal.startswith(why)
    assert ("hal0 job cancel 5" if "job_id" in more else "hal0 slot unload chat --wait") in refusal


def test_a_slot_that_is_not_at_rest_can_change_in_all_else() -> None:
    before = read(TINY + CHAT)
    shown = slot_shown("chat", before.slots["chat"], state="serving", model="tiny")
    found = planned(TINY + CHAT + "priority = 3", there(before, shown))
    assert told(found) == ["~ slot chat; priority: 0 -> 3"]


def test_all_that_would_be_refused_is_told_at_once() -> None:
    home = there(read(TINY + CHAT))
    text = (
        "[models.tiny]\nsource = '/other.gguf'\n[slots.a]\nengine = 'tpu'\n"
        "[slots.b]\nmodel = 'nope'\n[slots.c]\nengine = 'router'\noptions = { ctx_size = 512 }\n"
        "[slots.d]\nmodel = 'tiny'"
    )
    heads = [refusal[:34] for refusal in refusals(text, home)]
    assert heads == [
        "model tiny is registered otherwise",
        "slot a: there is no engine tpu, on",
        "slot c: options: an engine of kind",
        "slot b: model nope is neither decl",
        "slots chat and d would both have m",
    ]


def test_with_prune_a_model_that_is_still_needed_must_be_declared() -> None:
    home = there(read(TINY + CHAT))
    (refusal,) = refusals(CHAT, home, prune=True)
    assert refusal == "slot chat: model tiny is not declared, so --prune would delete it"
    assert told(planned(CHAT, home)) == []


def test_with_prune_a_model_that_a_slot_holds_still_is_kept() -> None:
    before = read(TINY + BIG + CHAT)
    home = there(before, slot_shown("chat", before.slots["chat"], state="ready", model="big"))
    (refusal,) = refusals(TINY + CHAT, home, prune=True)
    assert refusal.startswith("slot chat holds model big, which --prune would delete: ")


@pytest.mark.parametrize(
    "more", [{"state": "idle", "model": "tiny"}, {"state": "pulling"}, {"job_id": 9}]
)
def test_with_prune_a_slot_that_is_not_at_rest_stays(more: dict[str, Any]) -> None:
    (refusal,) = refusals("", there(None, slot_shown("old", **more)), prune=True)
    assert "slot old" in refusal
    assert told(planned("", there(None, slot_shown("old", **more)))) == []
    gone = planned("", there(None, slot_shown("old", state="error")), prune=True)
    assert told(gone) == ["- slot old"]


def test_one_model_is_not_of_two_slots_of_an_engine_but_of_two_engines() -> None:
    home = there(read(TINY))
    (refusal,) = refusals(TINY + CHAT + "[slots.b]\nmodel = 'tiny'", home)
    assert refusal.startswith("slots b and chat would both have model tiny at engine default")
    assert len(planned(TINY + CHAT + "[slots.b]\nmodel='tiny'\nengine='gpu'", home).steps) == 2
    before = read(TINY + BIG + "[slots.old]\nmodel = 'tiny'")
    held = slot_shown("old", before.slots["old"], state="ready", model="big")
    (refusal,) = refusals("[slots.b]\nmodel = 'big'", there(before, held))
    assert refusal.startswith("slots b and old would both have model big")


HUB = "hf://org/repo/dir/tiny.gguf"
COMMIT = "c" * 40
SHA = "ab" * 32


@pytest.mark.parametrize(
    ("registered", "declared", "told"),
    [
        ("source = '/a'", "source = '/b'", "source: /a -> /b"),
        ("source = '/a'", "source = '/a'\nformat = 'other'", "format: gguf -> other"),
        ("source = '/a'", "source = '/a'\nallow_copy = true", "allow_copy: false -> true"),
        ("source = '/a'", "source = '/a'\nsize_bytes = 7", "size_bytes: none -> 7"),
        ("source = '/a'\nsize_bytes = 7", "source = '/a'", None),
        ("source = '/a'\nsize_bytes = 7", "source = '/a'\nsize_bytes = 8", "size_bytes: 7 -> 8"),
        ("source = '/a.gguf'", "files = [{source = '/a.gguf', name = 'b.bin'}]", "name: tiny.ggu"),
        ("source = '/a.gguf'", "files = [{source = '/a.gguf', name = 'b.gguf'}]", None),
        ("source = '/a'", "files = [{}]", "source: /a -> none"),
        ("source = 'https://x/a?s=1'", "source = 'https://x/a?s=2'", None),
        ("source = 'https://x/a?s=1'", "source = 'https://x/b?s=1'", "source: https://x/a -> http"),
        (f"source = '{HUB}@{COMMIT}'", f"source = '{HUB}'", None),
        (f"source = '{HUB}@{COMMIT}'", f"source = '{HUB}@main'", None),
        (f"source = '{HUB}@{COMMIT}'", f"source = '{HUB}@{'d' * 40}'", f"source: {HUB}@ccc"),
        (f"source = '{HUB}'", f"source = '{HUB}@main'", f"source: {HUB} -> {HUB}@main"),
        (f"source = '{HUB}@{COMMIT}'", "source = 'hf://org/other/dir/tiny.gguf'", "source: hf"),
        (
            "source = '/a'",
            "files = [{source = '/a'}, {role = 'mmproj', source = '/b'}]",
            "files: 1 -> 2",
        ),
        (
            "files = [{source = '/a'}, {role = 'mmproj', source = '/b'}]",
            "files = [{source = '/a'}, {role = 'mmproj', source = '/b', name = 'c'}]",
            "files.1.name: b -> c",
        ),
    ],
)
def test_a_model_that_is_registered_otherwise_is_told_by_field(
    registered: str, declared: str, told: str | None
) -> None:
    home = there(read(f"[models.tiny]\n{registered}"))
    found = planned(f"[models.tiny]\n{declared}", home)
    if told is None:
        assert (found.steps, found.refusals) == ((), ())
    else:
        assert found.refusals[0].startswith(f"model tiny is registered otherwise ({told}")
        assert "`hal0 model delete tiny`" in found.refusals[0]


def test_what_a_pull_has_noted_is_no_difference_unless_the_file_says_otherwise() -> None:
    setup = read(TINY).models["tiny"]
    home = there()
    home = There(home.slots, {"tiny": model_shown("tiny", setup, is_pulled=True)}, home.engines)
    assert told(planned(TINY, home)) == []
    assert told(planned(TINY + f"sha256 = '{SHA}'", home)) == []
    assert refusals(TINY + f"sha256 = '{'cd' * 32}'", home)


def test_no_diff_shows_a_query() -> None:
    found = planned("[models.m]\nsource = 'https://x/a.gguf?sig=f00d'", there())
    assert told(found) == ["+ model m; source: https://x/a.gguf"]
    assert found.steps[0].body == {"name": "m", "source": "https://x/a.gguf?sig=f00d"}


def test_two_slots_swap_their_models_by_way_of_none() -> None:
    before = read(TINY + BIG + CHAT + "[slots.talk]\nmodel = 'big'")
    after = TINY + BIG + "[slots.chat]\nmodel = 'big'\npinned = true\n[slots.talk]\nmodel = 'tiny'"
    assert told(planned(after, there(before))) == [
        "~ slot chat; model: tiny -> none",
        "~ slot talk; model: big -> tiny",
        "~ slot chat; model: none -> big; pinned: false -> true",
    ]


def test_an_empty_document_of_an_empty_home_is_nothing_to_do() -> None:
    assert told(plan(Document(), there(), prune=True)) == []
